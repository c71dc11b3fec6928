// Kernels with mistakes that the emulation must notice.
#include "device.cuh"

// No barrier between writing shared memory and reading what another thread wrote.
extern "C" __global__ void fault_race(ops_dcn::cuda::Arguments a) {
  OPS_DCN_SHARED(memory);
  float* shared = static_cast<float*>(memory);
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  const unsigned next = (threadIdx.x + 1) % blockDim.x;
  static_cast<float*>(a.output)[threadIdx.x] = shared[next];
}

// A barrier that half of the threads never reach.
extern "C" __global__ void fault_barrier(ops_dcn::cuda::Arguments) {
  if (threadIdx.x < blockDim.x / 2) __syncthreads();
}

// A shuffle that some threads of the warp take no part in.
extern "C" __global__ void fault_shuffle(ops_dcn::cuda::Arguments a) {
  if (threadIdx.x % 2 == 0) {
    static_cast<int*>(a.output)[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 2);
  }
}

// One word beyond the end.
extern "C" __global__ void fault_overrun(ops_dcn::cuda::Arguments) {
  OPS_DCN_SHARED(memory);
  static_cast<float*>(memory)[threadIdx.x + 1] = 0;
}

// A 16-byte load from an address that is a multiple of 4.
extern "C" __global__ void fault_alignment(ops_dcn::cuda::Arguments a) {
  const char* from = static_cast<const char*>(a.value) + 4;
  static_cast<uint4*>(a.output)[0] = __ldg(reinterpret_cast<const uint4*>(from));
}
