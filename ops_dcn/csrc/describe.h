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

struct Problem {
  Geometry geometry;
  std::vector<Tap> taps;
  std::vector<int64_t> output_sizes;
  Points points;

  // `geometry` with its pointer set; valid as long as this object stays where it is.
  const Geometry& bound() {
    geometry.taps = taps.data();
    return geometry;
  }
};

Problem describe_dcnv3(
    const Tensor& value, const Tensor& offset, const Tensor& mask,
    const std::vector<int64_t>& convolution, double offset_scale);

Problem describe_dcnv4(
    const Tensor& value, const Tensor& offset_mask, const std::vector<int64_t>& convolution,
    double offset_scale, bool softmax);

// The level tensors must be readable by the host.
Problem describe_ms_deform_attn(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& sampling_locations, const Tensor& attention_weights);

Problem describe_flash_deform_attn(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& sampling_loc_attn, int64_t num_points);

}  // namespace ops_dcn
