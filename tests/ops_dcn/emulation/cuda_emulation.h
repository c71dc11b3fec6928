// The part of CUDA's execution model that the kernels use, on a CPU.
//
// Threads of a block are fibres that run until a barrier or a warp operation, in an order that the
// caller picks: what depends on the order is a race. Shared memory is NaN before every block.
#pragma once

#include <cstdint>
#include <cstring>

#define __device__
#define __global__ __attribute__((visibility("default")))
#define __launch_bounds__(threads)
#define __grid_constant__
#define OPS_DCN_SHARED(name) void* name = emulation::shared_memory()

struct EmulatedIndex {
  unsigned x, y;
};
extern EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }

namespace emulation {

void* shared_memory();
void block_barrier();
// Waits for the other threads of the warp, all of which must call it with the same `operation`;
// returns what the thread `step` lanes away (by exclusive or) brought along.
uint64_t exchange(unsigned mask, int operation, int step, uint64_t bits);
[[noreturn]] void fail(const char* reason);

enum { kSyncWarp, kShuffle };

template <typename To, typename From>
inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace emulation

inline void __syncthreads() { emulation::block_barrier(); }
inline void __syncwarp(unsigned mask) { emulation::exchange(mask, emulation::kSyncWarp, 0, 0); }

template <typename T>
inline T __shfl_xor_sync(unsigned mask, T x, int step) {
  uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof x);
  bits = emulation::exchange(mask, emulation::kShuffle, step, bits);
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <typename T>
inline T __ldg(const T* from) {
  if (reinterpret_cast<uintptr_t>(from) % sizeof(T) != 0) emulation::fail("misaligned load");
  return *from;
}

template <typename T>
inline T atomicAdd(T* to, T term) {
  const T before = *to;
  *to = before + term;
  return before;
}

inline unsigned long long atomicMax(unsigned long long* to, unsigned long long x) {
  const unsigned long long before = *to;
  *to = x > before ? x : before;
  return before;
}

inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
inline float __uint_as_float(unsigned x) { return emulation::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return emulation::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return emulation::bit_cast<float>(x); }
inline int __float_as_int(float x) { return emulation::bit_cast<int>(x); }
inline double __longlong_as_double(long long x) { return emulation::bit_cast<double>(x); }
inline long long __double_as_longlong(double x) { return emulation::bit_cast<long long>(x); }
inline double __hiloint2double(int high, int low) {
  const uint64_t bits = static_cast<uint64_t>(static_cast<uint32_t>(high)) << 32 |
                        static_cast<uint32_t>(low);
  return emulation::bit_cast<double>(bits);
}
inline int __double2loint(double x) {
  return static_cast<int>(emulation::bit_cast<uint64_t>(x) & 0xffffffffu);
}
inline int __double2hiint(double x) {
  return static_cast<int>(emulation::bit_cast<uint64_t>(x) >> 32);
}
inline long long __double2ll_rn(double x) { return __builtin_llrint(x); }
