// The one description of a sampling problem, shared by every operator and every backend.
//
// All four operators do the same thing: each query (an output pixel, or an attention query) of
// each group takes `points` samples at
//
//     x = origin_x + step_x * column + scale_x * (tap_x + learned_x)        (y alike)
//
// and adds them up with their weights. A convolution has scale = offset_scale and a regular grid
// of taps; a pyramid has scale = level size, tap = 0, origin = -0.5 (half-pixel centres), step = 0.
#pragma once

#include <stdint.h>

namespace ops_dcn {

// A kernel point before it is deformed, and the map that it samples. The points of a pyramid belong
// to no kernel: their taps lie at 0.
struct Tap {
  double x, y;              // regular part of the position, before scaling
  double scale_x, scale_y;  // input pixels per unit of the learned coordinate
  int64_t width, height;    // of the level that is sampled, in pixels
  int64_t start;            // first pixel of that level in an image of `value`
};

struct Geometry {
  int64_t batch;
  int64_t queries;        // per image
  int64_t query_columns;  // queries per output row; column = query % query_columns
  int64_t groups;
  int64_t channels;  // per group
  int64_t points;    // per query and group
  int64_t pixels;    // per image of `value`
  int64_t value_stride;  // from pixel to pixel of `value`; groups * channels in a backward pass
  double origin_x, origin_y;
  double step_x, step_y;
  int64_t coord_query_stride, coord_group_stride;    // (x, y) pairs of a group are contiguous
  int64_t weight_query_stride, weight_group_stride;  // weights of a group are contiguous
  bool softmax;                                      // weights are logits
  const Tap* taps;                                   // [points]
};

}  // namespace ops_dcn
