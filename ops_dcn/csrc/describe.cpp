#include "describe.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <limits>

namespace ops_dcn {
namespace {

using torch::headeronly::ScalarType;

int64_t output_size(int64_t size, int64_t pad, int64_t dilation, int64_t kernel, int64_t stride) {
  const int64_t room = size + 2 * pad - (dilation * (kernel - 1) + 1);
  return room < 0 ? 0 : room / stride + 1;
}

// With sizes and steps below this, no position of a convolution leaves 63 bits.
constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();

// Kernels keep the index of a pixel within its image in 32 bits where they compute in float32.
int64_t check_pixels(int64_t height, int64_t width) {
  const int64_t pixels = product("pixels of value", {height, width});
  STD_TORCH_CHECK(
      std::max({height, width, pixels}) < kLargest / 2, "value holds too many pixels per image");
  return pixels;
}

void set_taps(Problem& problem) {
  const Convolution& conv = problem.convolution;
  const double s = problem.offset_scale;
  for (int64_t column = 0; column < conv.kernel_w; ++column) {
    for (int64_t row = 0; row < conv.kernel_h; ++row) {
      const bool center = column == conv.kernel_w / 2 && row == conv.kernel_h / 2;
      if (conv.remove_center && center) continue;
      const double x = static_cast<double>(column * conv.dilation_w - conv.half_w());
      const double y = static_cast<double>(row * conv.dilation_h - conv.half_h());
      problem.taps.push_back({x, y, s, s, problem.width, problem.height, 0});
    }
  }
}

const int64_t* level_data(
    const char* name, const Tensor& tensor, const Tensor& value, int64_t count) {
  STD_TORCH_CHECK(
      tensor.scalar_type() == ScalarType::Long && tensor.is_contiguous() &&
          tensor.device() == value.device() && tensor.numel() == count,
      name, " must be contiguous int64 on the device of value, one row per level");
  return tensor.const_data_ptr<int64_t>();
}

void set_level_taps(Problem& problem) {
  const Levels& levels = problem.levels;
  const int64_t pixels = problem.geometry.pixels;
  const int64_t num_points = problem.geometry.points / levels.count;
  for (int64_t level = 0; level < levels.count; ++level) {
    const int64_t height = levels.shapes[2 * level], width = levels.shapes[2 * level + 1];
    const int64_t start = levels.starts[level];
    STD_TORCH_CHECK(
        height >= 0 && width >= 0 && start >= 0 && start <= pixels &&
            (width == 0 || height <= (pixels - start) / width),
        "level ", level, " does not fit into value");
    const Tap tap{
        0, 0, static_cast<double>(width), static_cast<double>(height), width, height, start};
    problem.taps.insert(problem.taps.end(), num_points, tap);
  }
}

void set_strides(Problem& problem, int64_t coord_query, int64_t coord_group, int64_t weight_query,
                 int64_t weight_group) {
  Geometry& g = problem.geometry;
  g.coord_query_stride = coord_query;
  g.coord_group_stride = coord_group;
  g.weight_query_stride = weight_query;
  g.weight_group_stride = weight_group;
}

}  // namespace

const Geometry& Problem::bound() {
  taps.clear();
  if (!empty()) {
    taps.reserve(geometry.points);
    levels.count == 0 ? set_taps(*this) : set_level_taps(*this);
  }
  geometry.taps = taps.data();
  return geometry;
}

int64_t product(const char* name, std::initializer_list<int64_t> factors) {
  int64_t result = 1;
  bool fits = true;
  for (const int64_t factor : factors) {
    if (factor == 0) return 0;
    fits = fits && !__builtin_mul_overflow(result, factor, &result);
  }
  STD_TORCH_CHECK(fits, name, ": too many for 64-bit arithmetic");
  return result;
}

Tensor dense_copy(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

bool has_even_rows(const Tensor& tensor) {
  if (tensor.numel() == 0) return true;
  int64_t expected = row_stride(tensor);
  for (int64_t axis = tensor.dim() - 2; axis >= 0; --axis) {
    if (tensor.size(axis) != 1 && tensor.stride(axis) != expected) return false;
    expected *= tensor.size(axis);
  }
  const int64_t last = tensor.dim() - 1, length = tensor.size(last);
  return (length == 1 || tensor.stride(last) == 1) && row_stride(tensor) >= length;
}

int64_t row_stride(const Tensor& tensor) {
  if (tensor.numel() == 0) return tensor.size(tensor.dim() - 1);
  for (int64_t axis = tensor.dim() - 2; axis >= 0; --axis) {
    if (tensor.size(axis) != 1) return tensor.stride(axis);
  }
  return tensor.size(tensor.dim() - 1);
}

void check_like(
    const char* name, const Tensor& tensor, const Tensor& value, int64_t dim, bool rows) {
  STD_TORCH_CHECK(tensor.dim() == dim, name, " must have ", dim, " dimensions");
  STD_TORCH_CHECK(
      rows ? has_even_rows(tensor) : tensor.is_contiguous(), name, " must be contiguous");
  STD_TORCH_CHECK(
      tensor.scalar_type() == value.scalar_type(), name, " must have the dtype of value");
  STD_TORCH_CHECK(tensor.device() == value.device(), name, " must be on the device of value");
}

void check_grid(
    const char* name, const Tensor& tensor, const Tensor& value, const Problem& problem,
    bool rows) {
  check_like(name, tensor, value, 4, rows);
  for (int axis = 0; axis < 3; ++axis) {
    STD_TORCH_CHECK(
        tensor.size(axis) == problem.output_sizes[axis], name, ".shape[", axis, "] must be ",
        problem.output_sizes[axis], ", got ", tensor.size(axis));
  }
}

void check_size(const char* name, const Tensor& tensor, int64_t axis, int64_t expected) {
  STD_TORCH_CHECK(
      tensor.size(axis) == expected, name, ".shape[", axis, "] must be ", expected, ", got ",
      tensor.size(axis));
}

void check_grad_output(const Tensor& grad_output, const Tensor& value, const Problem& problem) {
  const int64_t dim = static_cast<int64_t>(problem.output_sizes.size());
  check_like("grad_output", grad_output, value, dim);
  for (int64_t axis = 0; axis < dim; ++axis) {
    check_size("grad_output", grad_output, axis, problem.output_sizes[axis]);
  }
}

Convolution read_convolution(const std::vector<int64_t>& list) {
  STD_TORCH_CHECK(list.size() == 10, "geometry must hold 10 integers, got ", list.size());
  const Convolution conv{list[0], list[1], list[2], list[3], list[4],
                         list[5], list[6], list[7], list[8], list[9] != 0};
  const bool in_range = std::all_of(list.begin(), list.end(), [](int64_t number) {
    return number >= 0 && number < kLargest;
  });
  STD_TORCH_CHECK(
      in_range && conv.kernel_h > 0 && conv.kernel_w > 0 && conv.stride_h > 0 &&
          conv.stride_w > 0 && conv.dilation_h > 0 && conv.dilation_w > 0 && conv.groups > 0 &&
          conv.points() > 0 && conv.points() < kLargest,
      "geometry holds a value out of range");
  return conv;
}

Problem describe_convolution(
    const Tensor& value, const Convolution& conv, double offset_scale, bool strided) {
  check_like("value", value, value, 4, strided);
  const int64_t height = value.size(1), width = value.size(2), channels = value.size(3);
  STD_TORCH_CHECK(channels % conv.groups == 0, "channels must be divisible by groups");
  const int64_t pixels = check_pixels(height, width);
  STD_TORCH_CHECK(channels < kLargest, "value has too many channels");
  product("points", {3, conv.groups, conv.points()});  // with which the operators compute below
  const int64_t rows =
      output_size(height, conv.pad_h, conv.dilation_h, conv.kernel_h, conv.stride_h);
  const int64_t columns =
      output_size(width, conv.pad_w, conv.dilation_w, conv.kernel_w, conv.stride_w);

  Problem problem{};
  problem.convolution = conv;
  problem.height = height;
  problem.width = width;
  problem.offset_scale = offset_scale;
  problem.output_sizes = {value.size(0), rows, columns, channels};
  Geometry& g = problem.geometry;
  g.batch = value.size(0);
  g.queries = product("pixels of the output", {rows, columns});
  g.query_columns = columns;
  g.groups = conv.groups;
  g.channels = channels / conv.groups;
  g.points = conv.points();
  g.pixels = pixels;
  g.value_stride = row_stride(value);
  g.origin_x = static_cast<double>(conv.half_w() - conv.pad_w);
  g.origin_y = static_cast<double>(conv.half_h() - conv.pad_h);
  g.step_x = static_cast<double>(conv.stride_w);
  g.step_y = static_cast<double>(conv.stride_h);
  return problem;
}

Problem describe_pyramid(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    int64_t queries, int64_t num_points) {
  check_like("value", value, value, 4);
  STD_TORCH_CHECK(num_points > 0, "num_points must be positive");
  const int64_t levels = level_start_index.numel(), pixels = check_pixels(value.size(1), 1);
  STD_TORCH_CHECK(levels > 0, "there must be at least one level");

  Problem problem{};
  problem.levels = {
      levels, level_data("spatial_shapes", spatial_shapes, value, 2 * levels),
      level_data("level_start_index", level_start_index, value, levels)};
  Geometry& g = problem.geometry;
  g.batch = value.size(0);
  g.queries = queries;
  g.query_columns = queries;
  g.groups = value.size(2);
  g.channels = value.size(3);
  g.points = product("points", {levels, num_points});
  product("points", {3, g.groups, g.points});  // with which the operators compute below
  g.pixels = pixels;
  g.value_stride = product("channels", {g.groups, g.channels});
  g.origin_x = g.origin_y = -0.5;
  problem.output_sizes = {g.batch, queries, g.value_stride};
  return problem;
}

void set_separate(Problem& problem, const Tensor& coords, const Tensor& weights) {
  const int64_t groups = problem.geometry.groups, points = problem.geometry.points;
  set_strides(problem, 2 * groups * points, 2 * points, groups * points, points);
  problem.points = {coords, weights, 0, false};
}

void set_packed(Problem& problem, const Tensor& packed, int64_t query_stride) {
  const int64_t points = problem.geometry.points;
  set_strides(problem, query_stride, 3 * points, query_stride, 3 * points);
  problem.points = {packed, packed, 2 * points, true};
}

}  // namespace ops_dcn
