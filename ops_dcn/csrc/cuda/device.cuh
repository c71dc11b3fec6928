// Elements, vectors of them, and additions to memory: what the kernels need of the hardware.
//
// No header of the toolkit is included: NVRTC need not find one. Outside of CUDA the same names
// come from cuda_emulation.h (tests/ops_dcn/emulation).
#pragma once

#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
#include "cuda_emulation.h"
#else
#define OPS_DCN_SHARED(name) extern __shared__ uint4 name[]
#endif

#include "../sampling.h"
#include "arguments.h"

namespace ops_dcn {
namespace cuda {
namespace {

constexpr unsigned kWholeWarp = 0xffffffffu;

struct Float16 {
  unsigned short bits;
};
struct BFloat16 {
  unsigned short bits;
};

// What an element is computed in.
template <typename T>
struct Compute {
  using Type = float;
};
template <>
struct Compute<double> {
  using Type = double;
};
template <typename T>
using Real = typename Compute<T>::Type;

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

OPS_DCN_INLINE float widen(Float16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

OPS_DCN_INLINE void narrow(float x, Float16* y) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y->bits) : "f"(x));
}

// In assembly, as the compiler widens a factor that is the same in all turns of a loop.
OPS_DCN_INLINE Int64 multiply_wide(int a, int b) {
  Int64 product;
  asm("mul.wide.s32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(b));
  return product;
}

OPS_DCN_INLINE float exponential(float x) { return expf(x); }
OPS_DCN_INLINE double exponential(double x) { return exp(x); }
OPS_DCN_INLINE float round_down(float x) { return floorf(x); }
OPS_DCN_INLINE double round_down(double x) { return floor(x); }

#else

OPS_DCN_INLINE float widen(Float16 x) {
  _Float16 half;
  __builtin_memcpy(&half, &x, 2);
  return static_cast<float>(half);
}

OPS_DCN_INLINE void narrow(float x, Float16* y) {
  const _Float16 half = static_cast<_Float16>(x);
  __builtin_memcpy(y, &half, 2);
}

OPS_DCN_INLINE Int64 multiply_wide(int a, int b) { return static_cast<Int64>(a) * b; }
OPS_DCN_INLINE float exponential(float x) { return __builtin_expf(x); }
OPS_DCN_INLINE double exponential(double x) { return __builtin_exp(x); }
OPS_DCN_INLINE float round_down(float x) { return __builtin_floorf(x); }
OPS_DCN_INLINE double round_down(double x) { return __builtin_floor(x); }

#endif

OPS_DCN_INLINE float widen(BFloat16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
OPS_DCN_INLINE float widen(float x) { return x; }
OPS_DCN_INLINE double widen(double x) { return x; }

// By integers, as sm_75 has no such conversion; results are few beside what is read.
OPS_DCN_INLINE void narrow(float x, BFloat16* y) {
  const unsigned bits = __float_as_uint(x);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  y->bits = static_cast<unsigned short>(
      nan ? 0x7fffu : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
OPS_DCN_INLINE void narrow(float x, float* y) { *y = x; }
OPS_DCN_INLINE void narrow(double x, double* y) { *y = x; }

// The two elements of a 32-bit word.
OPS_DCN_INLINE void split(unsigned word, Float16, float* to) {
  to[0] = widen(Float16{static_cast<unsigned short>(word & 0xffffu)});
  to[1] = widen(Float16{static_cast<unsigned short>(word >> 16)});
}
OPS_DCN_INLINE void split(unsigned word, BFloat16, float* to) {
  to[0] = __uint_as_float(word << 16);
  to[1] = __uint_as_float(word & 0xffff0000u);
}

template <typename T>
OPS_DCN_INLINE unsigned join(float low, float high) {
  T a, b;
  narrow(low, &a);
  narrow(high, &b);
  return static_cast<unsigned>(a.bits) | static_cast<unsigned>(b.bits) << 16;
}

template <typename T, int V>
OPS_DCN_INLINE void unpack(const unsigned* words, Real<T>* to) {
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < V / 2; ++i) split(words[i], T{}, to + 2 * i);
  } else if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < V; ++i) to[i] = __uint_as_float(words[i]);
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      to[i] = __hiloint2double(
          static_cast<int>(words[2 * i + 1]), static_cast<int>(words[2 * i]));
    }
  }
}

template <typename T, int V>
OPS_DCN_INLINE void pack(const Real<T>* from, unsigned* words) {
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < V / 2; ++i) words[i] = join<T>(from[2 * i], from[2 * i + 1]);
  } else if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < V; ++i) words[i] = __float_as_uint(from[i]);
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      words[2 * i] = static_cast<unsigned>(__double2loint(from[i]));
      words[2 * i + 1] = static_cast<unsigned>(__double2hiint(from[i]));
    }
  }
}

OPS_DCN_INLINE unsigned short load_bits(const unsigned short* from) { return __ldg(from); }

template <typename T>
OPS_DCN_INLINE Real<T> load_one(const T* from) {
  if constexpr (sizeof(T) == 2) {
    return widen(T{load_bits(reinterpret_cast<const unsigned short*>(from))});
  } else {
    return __ldg(from);
  }
}

// V elements that nothing writes while the kernel runs, aligned to their common size.
template <typename T, int V>
OPS_DCN_INLINE void load(const T* from, Real<T>* to) {
  constexpr int bytes = V * static_cast<int>(sizeof(T));
  static_assert(bytes <= 16, "a thread loads at most 16 bytes at a time");
  if constexpr (V == 1) {
    to[0] = load_one(from);
  } else if constexpr (bytes == 16) {
    const uint4 raw = __ldg(reinterpret_cast<const uint4*>(from));
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
    unpack<T, V>(words, to);
  } else if constexpr (bytes == 8) {
    const uint2 raw = __ldg(reinterpret_cast<const uint2*>(from));
    const unsigned words[2] = {raw.x, raw.y};
    unpack<T, V>(words, to);
  } else {
    const unsigned raw = __ldg(reinterpret_cast<const unsigned*>(from));
    unpack<T, V>(&raw, to);
  }
}

// In assembly, as the compiler takes a store of a uint4 apart again.
#if defined(__CUDA_ARCH__)
OPS_DCN_INLINE void store_words(uint4* to, const unsigned* w) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(w[0]), "r"(w[1]),
               "r"(w[2]), "r"(w[3])
               : "memory");
}
OPS_DCN_INLINE void store_words(uint2* to, const unsigned* w) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(w[0]), "r"(w[1]) : "memory");
}
#else
OPS_DCN_INLINE void store_words(uint4* to, const unsigned* w) {
  *to = make_uint4(w[0], w[1], w[2], w[3]);
}
OPS_DCN_INLINE void store_words(uint2* to, const unsigned* w) { *to = make_uint2(w[0], w[1]); }
#endif

template <typename T, int V>
OPS_DCN_INLINE void store(T* to, const Real<T>* from) {
  constexpr int bytes = V * static_cast<int>(sizeof(T));
  if constexpr (V == 1) {
    narrow(from[0], to);
  } else {
    unsigned words[4];
    pack<T, V>(from, words);
    if constexpr (bytes == 16) {
      store_words(reinterpret_cast<uint4*>(to), words);
    } else if constexpr (bytes == 8) {
      store_words(reinterpret_cast<uint2*>(to), words);
    } else {
      *reinterpret_cast<unsigned*>(to) = words[0];
    }
  }
}

// Additions whose result nobody reads, the widest that the hardware has (sm_90: 16 bytes).
template <int V>
OPS_DCN_INLINE void add(float* to, const float* terms) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (V % 4 == 0) {
#pragma unroll
    for (int i = 0; i < V; i += 4) {
      asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to + i), "f"(terms[i]),
                   "f"(terms[i + 1]), "f"(terms[i + 2]), "f"(terms[i + 3])
                   : "memory");
    }
  } else if constexpr (V == 2) {
    asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(terms[0]), "f"(terms[1])
                 : "memory");
  } else {
    atomicAdd(to, terms[0]);
  }
#else
#pragma unroll
  for (int i = 0; i < V; ++i) atomicAdd(to + i, terms[i]);
#endif
}

template <int V>
OPS_DCN_INLINE void add(double* to, const double* terms) {
#pragma unroll
  for (int i = 0; i < V; ++i) atomicAdd(to + i, terms[i]);
}

#if defined(__CUDA_ARCH__)

#if __CUDA_ARCH__ >= 900
#define OPS_DCN_ADD_HALF(type, name)                                                            \
  template <int V>                                                                              \
  OPS_DCN_INLINE void add(type* to, const float* terms) {                                       \
    unsigned w[4];                                                                              \
    pack<type, V>(terms, w);                                                                    \
    if constexpr (V == 8) {                                                                     \
      asm volatile("red.global.add.noftz.v4." name " [%0], {%1, %2, %3, %4};" ::"l"(to),        \
                   "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3])                                   \
                   : "memory");                                                                 \
    } else if constexpr (V == 4) {                                                              \
      asm volatile("red.global.add.noftz.v2." name " [%0], {%1, %2};" ::"l"(to), "r"(w[0]),     \
                   "r"(w[1])                                                                    \
                   : "memory");                                                                 \
    } else {                                                                                    \
      asm volatile("red.global.add.noftz." name " [%0], %1;" ::"l"(to), "r"(w[0]) : "memory");  \
    }                                                                                           \
  }
OPS_DCN_ADD_HALF(Float16, "f16x2")
OPS_DCN_ADD_HALF(BFloat16, "bf16x2")
#undef OPS_DCN_ADD_HALF
#endif

#else

template <int V, typename T>
OPS_DCN_INLINE void add(T* to, const float* terms) {
  for (int i = 0; i < V; ++i) {
    T rounded;
    narrow(terms[i], &rounded);
    narrow(widen(to[i]) + widen(rounded), to + i);
  }
}

#endif

// The sum of x over `lanes` neighbouring threads of a warp, in each of them.
template <typename R>
OPS_DCN_INLINE R sum_lanes(R x, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kWholeWarp, x, step);
  return x;
}

template <typename R>
OPS_DCN_INLINE R max_lanes(R x, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) {
    const R other = __shfl_xor_sync(kWholeWarp, x, step);
    x = other > x ? other : x;
  }
  return x;
}

OPS_DCN_INLINE int divide(int n, const Divisor& by) {
  if (by.divisor == 1) return n;
  return static_cast<int>(__umulhi(static_cast<unsigned>(n), by.factor));
}

}  // namespace
}  // namespace cuda
}  // namespace ops_dcn
