// Every kernel of the CUDA library, by the names that the plan gives (plan.cpp).
#include "backward.cuh"
#include "forward.cuh"
#include "reduce.cuh"

#define OPS_DCN_KERNEL(name, body)                                              \
  extern "C" __global__ void __launch_bounds__(256)                             \
      name(const __grid_constant__ ops_dcn::cuda::Arguments arguments) {        \
    using namespace ops_dcn::cuda;                                              \
    body(arguments);                                                            \
  }

// One kernel per dtype and number of channels that a thread handles at once.
#define OPS_DCN_FORWARD(dtype, type, v) \
  OPS_DCN_KERNEL(dcn_forward_##dtype##_v##v, (forward<type, v>))
#define OPS_DCN_BACKWARD(kind, mode, dtype, type, v) \
  OPS_DCN_KERNEL(dcn_backward_##kind##_##dtype##_v##v, (backward<type, v, Mode::mode>))

#define OPS_DCN_PLAIN(dtype, type, v)                   \
  OPS_DCN_FORWARD(dtype, type, v)                       \
  OPS_DCN_BACKWARD(atomic, kAtomic, dtype, type, v)     \
  OPS_DCN_BACKWARD(fixed, kFixed, dtype, type, v)
#define OPS_DCN_TILED(dtype, type, v) \
  OPS_DCN_PLAIN(dtype, type, v)       \
  OPS_DCN_BACKWARD(tile, kTile, dtype, type, v)

#define OPS_DCN_HALF(dtype, type)                             \
  OPS_DCN_TILED(dtype, type, 8)                               \
  OPS_DCN_TILED(dtype, type, 4)                               \
  OPS_DCN_TILED(dtype, type, 2)                               \
  OPS_DCN_TILED(dtype, type, 1)                               \
  OPS_DCN_KERNEL(dcn_finish_##dtype, finish_float<type>)

OPS_DCN_HALF(f16, Float16)
OPS_DCN_HALF(bf16, BFloat16)
OPS_DCN_TILED(f32, float, 4)
OPS_DCN_TILED(f32, float, 2)
OPS_DCN_TILED(f32, float, 1)
OPS_DCN_PLAIN(f64, double, 2)
OPS_DCN_PLAIN(f64, double, 1)

// Additions of half precision to memory, several at a time, are new in sm_90.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define OPS_DCN_NATIVE(dtype, type)                      \
  OPS_DCN_BACKWARD(native, kNative, dtype, type, 8)      \
  OPS_DCN_BACKWARD(native, kNative, dtype, type, 4)      \
  OPS_DCN_BACKWARD(native, kNative, dtype, type, 2)
OPS_DCN_NATIVE(f16, Float16)
OPS_DCN_NATIVE(bf16, BFloat16)
#endif

#define OPS_DCN_FIXED(dtype, type)                         \
  OPS_DCN_KERNEL(dcn_range_##dtype, find_range<type>)      \
  OPS_DCN_KERNEL(dcn_finish_fixed_##dtype, finish_fixed<type>)
OPS_DCN_FIXED(f16, Float16)
OPS_DCN_FIXED(bf16, BFloat16)
OPS_DCN_FIXED(f32, float)
OPS_DCN_FIXED(f64, double)
