// SIMD vectors for the translation units that are compiled once per instruction set.
//
// GNU vector extensions carry the arithmetic; intrinsics appear only where the extensions have no
// word (masked access) or a poor one. No standard C++ header and no external linkage in here: an
// inline function compiled with AVX-512 could otherwise be the copy that the linker keeps for the
// whole library, and crash older CPUs.
#pragma once

#include <stdint.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "../sampling.h"

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr bool kManyRegisters = true;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr bool kManyRegisters = false;
#else
constexpr int kVectorBytes = 16;
constexpr bool kManyRegisters = false;
#endif

template <typename Real>
struct IntOf;
template <>
struct IntOf<float> {
  using type = int32_t;
};
template <>
struct IntOf<double> {
  using type = int64_t;
};
template <typename Real>
using Int = typename IntOf<Real>::type;

template <typename T, int lanes>
struct VectorOf {
  typedef T type __attribute__((vector_size(lanes * sizeof(T))));
};
template <typename T, int lanes>
using Vector = typename VectorOf<T, lanes>::type;

template <typename Real>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Real));
template <typename Real>
using Native = Vector<Real, kLanes<Real>>;
template <typename Real>
using NativeInt = Vector<Int<Real>, kLanes<Real>>;

template <typename V, typename T>
OPS_DCN_INLINE V load(const T* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(V));
  return v;
}

template <typename V, typename T>
OPS_DCN_INLINE void store(T* to, V v) {
  __builtin_memcpy(to, &v, sizeof(V));
}

template <typename V, typename T>
OPS_DCN_INLINE V splat(T x) {
  return x - V{};
}

// The first `count` lanes (any number, also <= 0 or > lanes); the others read as 0 without a
// memory access.
template <typename Real>
OPS_DCN_INLINE Native<Real> load_first(const Real* from, int64_t count) {
  constexpr int lanes = kLanes<Real>;
  if (count >= lanes) return load<Native<Real>>(from);
  Native<Real> v{};
  if (count <= 0) return v;
#if defined(__AVX512F__)
  if constexpr (sizeof(Real) == 4) {
    const __m512 x = _mm512_maskz_loadu_ps((1u << count) - 1, from);
    __builtin_memcpy(&v, &x, sizeof v);
  } else {
    const __m512d x = _mm512_maskz_loadu_pd((1u << count) - 1, from);
    __builtin_memcpy(&v, &x, sizeof v);
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(Real) == 4) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
    const __m256 x = _mm256_maskload_ps(from, mask);
    __builtin_memcpy(&v, &x, sizeof v);
  } else {
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    const __m256d x = _mm256_maskload_pd(from, _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), lane));
    __builtin_memcpy(&v, &x, sizeof v);
  }
#else
  for (int i = 0; i < count; ++i) v[i] = from[i];
#endif
  return v;
}

template <typename Real>
OPS_DCN_INLINE void store_first(Real* to, Native<Real> v, int64_t count) {
  constexpr int lanes = kLanes<Real>;
  if (count >= lanes) return store(to, v);
  if (count <= 0) return;
#if defined(__AVX512F__)
  if constexpr (sizeof(Real) == 4) {
    __m512 x;
    __builtin_memcpy(&x, &v, sizeof v);
    _mm512_mask_storeu_ps(to, (1u << count) - 1, x);
  } else {
    __m512d x;
    __builtin_memcpy(&x, &v, sizeof v);
    _mm512_mask_storeu_pd(to, (1u << count) - 1, x);
  }
#else
  for (int i = 0; i < count; ++i) to[i] = v[i];
#endif
}

// Rounds down; the lanes must be within the range of Int.
template <typename Real>
OPS_DCN_INLINE Native<Real> floor_lanes(Native<Real> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(Real) == 4) return (Native<Real>)_mm512_floor_ps((__m512)x);
  if constexpr (sizeof(Real) == 8) return (Native<Real>)_mm512_floor_pd((__m512d)x);
#elif defined(__AVX2__)
  if constexpr (sizeof(Real) == 4) return (Native<Real>)_mm256_floor_ps((__m256)x);
  if constexpr (sizeof(Real) == 8) return (Native<Real>)_mm256_floor_pd((__m256d)x);
#else
  using V = Native<Real>;
  using I = NativeInt<Real>;
  I whole = __builtin_convertvector(x, I);
  whole += __builtin_convertvector(whole, V) > x;  // truncation to floor; true is -1
  return __builtin_convertvector(whole, V);
#endif
}

#if defined(__clang__)
#define OPS_DCN_SHUFFLE(T, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define OPS_DCN_SHUFFLE(T, a, b, ...) __builtin_shuffle(a, b, T{__VA_ARGS__})
#endif

// (a, b) hold pairs x0 y0 x1 y1 ...; split them into all x and all y.
template <typename Real>
OPS_DCN_INLINE void split_pairs(Native<Real> a, Native<Real> b, Native<Real>* x, Native<Real>* y) {
  using Index = NativeInt<Real>;
  if constexpr (kLanes<Real> == 16) {
    *x = OPS_DCN_SHUFFLE(Index, a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    *y = OPS_DCN_SHUFFLE(Index, a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  } else if constexpr (kLanes<Real> == 8) {
    *x = OPS_DCN_SHUFFLE(Index, a, b, 0, 2, 4, 6, 8, 10, 12, 14);
    *y = OPS_DCN_SHUFFLE(Index, a, b, 1, 3, 5, 7, 9, 11, 13, 15);
  } else if constexpr (kLanes<Real> == 4) {
    *x = OPS_DCN_SHUFFLE(Index, a, b, 0, 2, 4, 6);
    *y = OPS_DCN_SHUFFLE(Index, a, b, 1, 3, 5, 7);
  } else {
    *x = OPS_DCN_SHUFFLE(Index, a, b, 0, 2);
    *y = OPS_DCN_SHUFFLE(Index, a, b, 1, 3);
  }
}

// The inverse of split_pairs.
template <typename Real>
OPS_DCN_INLINE void join_pairs(Native<Real> x, Native<Real> y, Native<Real>* a, Native<Real>* b) {
  using Index = NativeInt<Real>;
  if constexpr (kLanes<Real> == 16) {
    *a = OPS_DCN_SHUFFLE(Index, x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    *b = OPS_DCN_SHUFFLE(
        Index, x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  } else if constexpr (kLanes<Real> == 8) {
    *a = OPS_DCN_SHUFFLE(Index, x, y, 0, 8, 1, 9, 2, 10, 3, 11);
    *b = OPS_DCN_SHUFFLE(Index, x, y, 4, 12, 5, 13, 6, 14, 7, 15);
  } else if constexpr (kLanes<Real> == 4) {
    *a = OPS_DCN_SHUFFLE(Index, x, y, 0, 4, 1, 5);
    *b = OPS_DCN_SHUFFLE(Index, x, y, 2, 6, 3, 7);
  } else {
    *a = OPS_DCN_SHUFFLE(Index, x, y, 0, 2);
    *b = OPS_DCN_SHUFFLE(Index, x, y, 1, 3);
  }
}

template <int lanes>
OPS_DCN_INLINE Vector<float, lanes / 2> fold(Vector<float, lanes> v) {
  Vector<float, lanes / 2> half[2];
  __builtin_memcpy(half, &v, sizeof v);
  return half[0] + half[1];
}

// One transposed step: lane pairs of a and b are added up and interleaved.
template <int lanes>
OPS_DCN_INLINE Vector<float, lanes> add_interleaved(
    Vector<float, lanes> a, Vector<float, lanes> b) {
  using Index = Vector<int32_t, lanes>;
  if constexpr (lanes == 16) {
    return OPS_DCN_SHUFFLE(
               Index, a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
           OPS_DCN_SHUFFLE(
               Index, a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  } else if constexpr (lanes == 8) {
    return OPS_DCN_SHUFFLE(Index, a, b, 0, 8, 1, 9, 4, 12, 5, 13) +
           OPS_DCN_SHUFFLE(Index, a, b, 2, 10, 3, 11, 6, 14, 7, 15);
  } else {
    return OPS_DCN_SHUFFLE(Index, a, b, 0, 4, 1, 5) + OPS_DCN_SHUFFLE(Index, a, b, 2, 6, 3, 7);
  }
}

template <int lanes>
OPS_DCN_INLINE Vector<float, lanes> add_halves(Vector<float, lanes> a, Vector<float, lanes> b) {
  using Index = Vector<int32_t, lanes>;
  if constexpr (lanes == 16) {
    return OPS_DCN_SHUFFLE(
               Index, a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
           OPS_DCN_SHUFFLE(
               Index, a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  } else if constexpr (lanes == 8) {
    return OPS_DCN_SHUFFLE(Index, a, b, 0, 1, 8, 9, 4, 5, 12, 13) +
           OPS_DCN_SHUFFLE(Index, a, b, 2, 3, 10, 11, 6, 7, 14, 15);
  } else {
    return OPS_DCN_SHUFFLE(Index, a, b, 0, 1, 4, 5) + OPS_DCN_SHUFFLE(Index, a, b, 2, 3, 6, 7);
  }
}

// Adds the sum over the lanes of v[i] to sums[i], i = 0..3. The transposed form needs about a
// quarter of the shuffles of four separate reductions.
template <typename Real, int lanes>
OPS_DCN_INLINE void add_sums(const Vector<Real, lanes>* v, Real* sums) {
  if constexpr (sizeof(Real) == 4 && lanes >= 4) {
    const auto low = add_interleaved<lanes>(v[0], v[1]);
    const auto high = add_interleaved<lanes>(v[2], v[3]);
    const auto wide = add_halves<lanes>(low, high);
    Vector<float, 4> total;
    if constexpr (lanes == 16) {
      total = fold<8>(fold<16>(wide));
    } else if constexpr (lanes == 8) {
      total = fold<8>(wide);
    } else {
      total = wide;
    }
    store(sums, load<Vector<float, 4>>(sums) + total);
  } else {
    for (int i = 0; i < 4; ++i) {
      Real sum = 0;
      for (int lane = 0; lane < lanes; ++lane) sum += v[i][lane];
      sums[i] += sum;
    }
  }
}

template <typename Real>
OPS_DCN_INLINE Real sum_lanes(Native<Real> v) {
  Real sum = 0;
  for (int lane = 0; lane < kLanes<Real>; ++lane) sum += v[lane];
  return sum;
}

// The constants of exp_negative. exp(limit) is just above the smallest normal number; ln 2 is in
// two parts, the first with trailing zero bits, so that its multiples are exact; degree: of the
// Taylor polynomial that is exact to rounding for |r| <= ln(2)/2.
template <typename Real>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  static constexpr float limit = -87.0f, ln2_high = 0.693145752f, ln2_low = 1.42860677e-6f;
  static constexpr int degree = 7, bias = 127, mantissa = 23;
};
template <>
struct ExpConstants<double> {
  static constexpr double limit = -708.0, ln2_high = 0.693147180369123816490,
                          ln2_low = 1.90821492927058770002e-10;
  static constexpr int degree = 13, bias = 1023, mantissa = 52;
};

// exp of numbers <= 0, as softmax needs it; 0 below the limit.
template <typename Real>
OPS_DCN_INLINE Native<Real> exp_negative(Native<Real> x) {
  using V = Native<Real>;
  using I = NativeInt<Real>;
  using Constants = ExpConstants<Real>;
  const I tiny = x < Constants::limit;
  const V safe = tiny ? V{} : x;
  const I n = __builtin_convertvector(safe * Real(1.4426950408889634) - Real(0.5), I);
  const V whole = __builtin_convertvector(n, V);
  const V r = safe - whole * Constants::ln2_high - whole * Constants::ln2_low;
  V p = splat<V>(Real(1));
  for (int i = Constants::degree; i > 0; --i) p = p * r * (Real(1) / Real(i)) + Real(1);
  const I bits = (n + Constants::bias) << Constants::mantissa;
  V power;
  __builtin_memcpy(&power, &bits, sizeof power);
  return tiny ? V{} : p * power;
}

}  // namespace
