// Which kernel runs, with how many threads and how much shared memory: pure functions of the
// problem, the dtype and the device, so that a test can ask for every answer.
#pragma once

#include "arguments.h"

namespace ops_dcn {
namespace cuda {

enum class Dtype { kFloat16, kBFloat16, kFloat32, kFloat64 };

struct Device {
  int sm;  // 10 * major + minor, e.g. 90
};

// One kernel launch; nothing is to be launched where it is empty(). The kernel takes one
// Arguments by value. The block has one dimension, the grid two.
struct Launch {
  char kernel[40];
  unsigned grid_x, grid_y, block, shared_bytes;  // shared_bytes <= 48 KiB: no attribute to set
  bool empty() const { return kernel[0] == '\0'; }
};

// Where the gradient of `value` is added up before it has its final dtype.
enum class Accumulator {
  kDirect,   // in grad_value itself, which must be zero before
  kFloat32,  // in a float32 buffer, zero before; `finish` converts it
  kInt64,    // in fixed point (deterministic), zero before; `prepare` finds its range, `finish`
             // converts it
};

struct ForwardPlan {
  Launch run;
  Tiling tiling;
};

struct BackwardPlan {
  Launch prepare, run, finish;  // in this order, some empty
  Tiling tiling;
  Accumulator accumulator;
  Int64 accumulator_bytes;  // of the buffer to allocate; 0: none
  Int64 range_offset;       // kInt64: byte at which Arguments::range begins in the buffer
};

// Choices that only a measurement can settle (docs/ops_cuda.md says which are missing).
struct Policy {
  bool tile = true;         // gradient of nearby pixels in shared memory, where it fits
  bool native_half = true;  // sm_90: half-precision reductions behind a tile, no float32 copy
  int halo = 2;             // pixels around the regular reach of the taps, tile variant
  int tile_vector = 4;      // channels per thread behind a tile, at most: few registers, many
                            // warps to wait for shared memory
  int threads = 256;        // of a block, at most
};

// `alignment`: the largest power of two, up to 16, that divides the addresses of value, output,
// grad_output and grad_value. All plans are for a problem that is not empty (empty_problem): where
// it is, no kernel runs and the caller zeroes what there is of the results.
bool empty_problem(const Shape& shape);

// What a kernel could not index ("... must be below ..."), or null.
const char* unsupported(const Shape& shape);

ForwardPlan plan_forward(
    const Shape& shape, Dtype dtype, int alignment, const Device& device,
    const Policy& policy = Policy());

BackwardPlan plan_backward(
    const Shape& shape, Dtype dtype, int alignment, const Device& device, bool deterministic,
    const Policy& policy = Policy());

}  // namespace cuda
}  // namespace ops_dcn
