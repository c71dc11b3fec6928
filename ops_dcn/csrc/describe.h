// Host side: from tensors and integers to a Geometry, with the cheap checks that keep a kernel
// from reading outside its buffers. (Readable errors come from Python, before the call.)
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

#include "geometry.h"

namespace ops_dcn {

using torch::stable::Tensor;

// Where the learned coordinates and weights lie: two tensors, or one packed tensor twice.
struct Points {
  Tensor coords;
  Tensor weights;
  int64_t weight_start;  // of the first weight in `weights`, in elements
  bool packed;
};

struct Convolution {
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups;
  bool remove_center;

  int64_t points() const { return kernel_h * kernel_w - (remove_center ? 1 : 0); }
  int64_t half_w() const { return dilation_w * (kernel_w - 1) / 2; }
  int64_t half_h() const { return dilation_h * (kernel_h - 1) / 2; }
};

// Where the levels of a pyramid are written down, in the memory of the device.
struct Levels {
  int64_t count;  // 0: the problem is a convolution
  const int64_t* shapes;
  const int64_t* starts;
};

struct Problem {
  Geometry geometry;
  std::vector<Tap> taps;  // empty for a pyramid whose levels the host cannot read
  Convolution convolution;
  double offset_scale;  // of a convolution
  Levels levels;
  std::vector<int64_t> output_sizes;
  Points points;

  // `geometry` with its pointer set; valid as long as this object stays where it is.
  const Geometry& bound() {
    geometry.taps = taps.data();
    return geometry;
  }
};

// The tensor itself where it is contiguous, else a copy.
Tensor dense_copy(const Tensor& tensor);

// Whether the rows along the last axis are contiguous and follow one another at one distance.
bool has_even_rows(const Tensor& tensor);

Problem describe_dcnv3(
    const Tensor& value, const Tensor& offset, const Tensor& mask,
    const std::vector<int64_t>& convolution, double offset_scale);

// Both with even rows.
Problem describe_dcnv4(
    const Tensor& value, const Tensor& offset_mask, const std::vector<int64_t>& convolution,
    double offset_scale, bool softmax);

// The level tensors must be on the device of `value`. On the host their values are checked, too.
Problem describe_ms_deform_attn(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& sampling_locations, const Tensor& attention_weights);

Problem describe_flash_deform_attn(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& sampling_loc_attn, int64_t num_points);

}  // namespace ops_dcn
