// Host side: from tensors and integers to a Problem, with the cheap checks that keep a kernel from
// reading outside its buffers. (Readable errors come from Python, before the call.) Here is what
// operators have in common; each describes its own problem in operators/NAME.cpp.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
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
  std::vector<Tap> taps;  // see bound()
  Convolution convolution;
  int64_t height, width;  // of a convolution
  double offset_scale;    // of a convolution
  Levels levels;
  std::vector<int64_t> output_sizes;
  Points points;

  // Nothing is sampled; a kernel size may then be anything that its tensors, empty, can have.
  bool empty() const {
    const Geometry& g = geometry;
    return g.batch == 0 || g.queries == 0 || g.groups == 0 || g.points == 0 || g.channels == 0;
  }

  // `geometry` with its taps, of an empty problem none; valid as long as this object stays where it
  // is. The levels of a pyramid, which must lie on the host, are checked.
  const Geometry& bound();
};

// The product of sizes that are not negative, checked to stay within 63 bits.
int64_t product(const char* name, std::initializer_list<int64_t> factors);

// The tensor itself where it is contiguous, else a copy.
Tensor dense_copy(const Tensor& tensor);

// Whether the rows along the last axis are contiguous and follow one another at one distance. An
// axis of length 1 may have any stride, and so may every axis of an empty tensor.
bool has_even_rows(const Tensor& tensor);

// That distance, from the first axis that is longer than 1.
int64_t row_stride(const Tensor& tensor);

// Rank, dtype and device, and that the tensor is contiguous; rows: only that its rows are even.
void check_like(
    const char* name, const Tensor& tensor, const Tensor& value, int64_t dim, bool rows = false);

// The same of a tensor (N, Ho, Wo, any) beside a convolution's value, and its first three axes.
void check_grid(
    const char* name, const Tensor& tensor, const Tensor& value, const Problem& problem,
    bool rows = false);

void check_size(const char* name, const Tensor& tensor, int64_t axis, int64_t expected);

// A contiguous tensor like the output.
void check_grad_output(const Tensor& grad_output, const Tensor& value, const Problem& problem);

// The ten integers of schemas.cpp.
Convolution read_convolution(const std::vector<int64_t>& list);

// Everything but where the points lie. strided: value need only have even rows.
Problem describe_convolution(
    const Tensor& value, const Convolution& conv, double offset_scale, bool strided);

// Everything but where the points lie. The level tensors must be on the device of `value`.
Problem describe_pyramid(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    int64_t queries, int64_t num_points);

// Where the points lie: coordinates and weights of all groups in a tensor each, or per group the
// coordinates and then the weights in one, query_stride apart.
void set_separate(Problem& problem, const Tensor& coords, const Tensor& weights);
void set_packed(Problem& problem, const Tensor& packed, int64_t query_stride);

}  // namespace ops_dcn
