// What a CUDA kernel is told, by value: plain numbers and device addresses.
//
// Compiled by the host compiler, nvcc and NVRTC, hence without any header.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define OPS_DCN_BOTH __host__ __device__
#else
#define OPS_DCN_BOTH
#endif

namespace ops_dcn {
namespace cuda {

using Int64 = long long;
using Word = unsigned long long;

// The sampling problem. It says what Geometry (geometry.h) says, in a form without a table of taps,
// which would have to be copied to the device: a point of a convolution knows its place in the
// kernel, a point of a pyramid its level.
struct Shape {
  Int64 batch;
  int queries;        // per image
  int query_columns;  // queries per output row; = queries for a pyramid
  int groups;
  int channels;  // per group
  int points;    // per query and group
  int pixels;    // per image of `value`
  int levels;    // of a pyramid; 0: a convolution
  bool softmax;  // weights are logits
  // In elements: from pixel to pixel of `value` (the backward pass takes groups * channels only),
  // from query to query (of any image) and from group to group of what is learned. The gradients
  // have strides between queries of their own.
  Int64 coord_query_stride, weight_query_stride;
  Int64 grad_coord_query_stride, grad_weight_query_stride;
  int coord_group_stride, weight_group_stride;
  int value_stride;
  int padding;  // entries of a query's row of grad_coords that follow the last group's
  // Convolution only. Point k, counted without a dropped centre, is column k / kernel_h and row
  // k % kernel_h of the kernel; its tap is that times the dilation, minus `half`.
  int height, width;
  int kernel_h, kernel_w, dilation_h, dilation_w, half_h, half_w;
  int centre;  // number of the point that is dropped; = points if none is
  int origin_x, origin_y, step_x, step_y;
  double offset_scale;
};

// How the work is cut up; made by the plan (plan.h), read by the kernels.
struct Divisor {
  unsigned divisor, factor;  // n / divisor = high word of n * factor, where n * divisor < 2^32
};

struct Tiling {
  // A block takes tile_rows x tile_columns queries (of one image) times block_groups groups;
  // blockIdx.x counts (tile row, tile column, tile of groups), blockIdx.y images.
  int tile_rows, tile_columns;
  int tiles_across;  // per row of tiles
  int block_groups, group_tiles;
  // `lanes` = 2^lane_bits threads (within a warp) share a unit, one query of one group, whose
  // channels are `slices` vectors.
  int lanes, lane_bits, slices;
  // Points are staged in shared memory, `chunk` at a time; `chunk_stride` is what lies between
  // units.
  int chunk, chunk_stride;
  Divisor by_chunk, by_groups, by_columns, by_kernel_h, by_level_points;
  // Backward, tile variant: pixels whose gradient is added up in shared memory. The region begins
  // at region_x, region_y from the pixel where the centre of the block's first query lies.
  int region_rows, region_columns, region_x, region_y;
};

struct Arguments {
  const void *value, *coords, *weights;
  void* output;                     // forward
  const void* grad_output;          // backward, and all below
  void *grad_coords, *grad_weights;
  void* grad_value;                 // in the dtype of `value`
  void* accumulator;                // where grad_value is added up; may be grad_value itself
  Word* range;                      // kInt64 alone: three words behind the accumulator
  const Int64* level_shapes;        // [levels][2], (height, width); pyramid only
  const Int64* level_starts;        // [levels]
  Shape shape;
  Tiling tiling;
};

// Where things lie in the shared memory of a block, in bytes.
struct Layout {
  int places, slots, sums, spans, near, tile, bytes;
};

constexpr int kLevelBytes = 16;
constexpr int kPlaceBytes = 32;

// `real`: size of what is computed in; `near`: per point, whether its pixels are in the tile.
OPS_DCN_BOTH inline Layout shared_layout(
    const Tiling& tiling, int levels, int real, int units, int tile_reals) {
  Layout layout{};
  const int points = units * tiling.chunk_stride;
  layout.places = kLevelBytes * (levels > 0 ? levels : 1);
  layout.slots = layout.places + kPlaceBytes * units;
  layout.tile = layout.slots + 4 * real * points;
  layout.sums = layout.tile + real * tile_reals;
  layout.spans = layout.sums + 3 * real * units;
  layout.near = layout.spans + 4 * points;
  layout.bytes = layout.near + (tile_reals > 0 ? 4 * points : 0);
  return layout;
}

}  // namespace cuda
}  // namespace ops_dcn
