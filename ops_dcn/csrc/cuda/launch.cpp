// Host side of the CUDA kernels: from a Problem to plans, buffers and launches.
#include "../launch.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <limits>

#include "launcher.h"

namespace ops_dcn {
namespace {

using torch::headeronly::ScalarType;

int narrow(const char* name, int64_t value) {
  STD_TORCH_CHECK(
      value >= std::numeric_limits<int>::min() && value <= std::numeric_limits<int>::max(), name,
      " is out of range for the CUDA kernels: got ", value);
  return static_cast<int>(value);
}

void set_convolution(const Problem& problem, cuda::Shape* shape) {
  const Convolution& conv = problem.convolution;
  shape->height = narrow("height", problem.height);
  shape->width = narrow("width", problem.width);
  shape->kernel_h = narrow("kernel_h", conv.kernel_h);
  shape->kernel_w = narrow("kernel_w", conv.kernel_w);
  shape->dilation_h = narrow("dilation_h", conv.dilation_h);
  shape->dilation_w = narrow("dilation_w", conv.dilation_w);
  shape->half_h = narrow("kernel_h * dilation_h", conv.half_h());
  shape->half_w = narrow("kernel_w * dilation_w", conv.half_w());
  shape->centre = conv.remove_center
      ? narrow("kernel", conv.kernel_w / 2 * conv.kernel_h + conv.kernel_h / 2)
      : shape->points;
  shape->origin_x = narrow("padding_w", conv.half_w() - conv.pad_w);
  shape->origin_y = narrow("padding_h", conv.half_h() - conv.pad_h);
  shape->step_x = narrow("stride_w", conv.stride_w);
  shape->step_y = narrow("stride_h", conv.stride_h);
  shape->offset_scale = problem.offset_scale;
}

cuda::Shape shape_of(const Problem& problem) {
  const Geometry& g = problem.geometry;
  cuda::Shape shape{};
  shape.batch = g.batch;
  shape.queries = narrow("queries", g.queries);
  shape.query_columns = narrow("query_columns", g.query_columns);
  shape.groups = narrow("groups", g.groups);
  shape.channels = narrow("channels per group", g.channels);
  shape.points = narrow("points", g.points);
  shape.pixels = narrow("pixels", g.pixels);
  shape.levels = narrow("levels", problem.levels.count);
  shape.softmax = g.softmax;
  shape.value_stride = narrow("value.stride(2)", g.value_stride);
  shape.coord_query_stride = g.coord_query_stride;
  shape.weight_query_stride = g.weight_query_stride;
  shape.coord_group_stride = narrow("points", g.coord_group_stride);
  shape.weight_group_stride = narrow("points", g.weight_group_stride);
  shape.grad_coord_query_stride = g.coord_query_stride;
  shape.grad_weight_query_stride = g.weight_query_stride;
  if (problem.points.packed && problem.levels.count == 0) {
    // The input may be a slice of something wider; its gradient is not.
    shape.grad_coord_query_stride = problem.points.coords.size(3);
    shape.grad_weight_query_stride = shape.grad_coord_query_stride;
  }
  shape.padding = narrow(
      "padding", shape.grad_coord_query_stride - g.groups * g.coord_group_stride);
  if (problem.levels.count == 0) set_convolution(problem, &shape);
  const char* reason = cuda::unsupported(shape);
  STD_TORCH_CHECK(reason == nullptr, "the CUDA kernels cannot index this: ", reason);
  return shape;
}

cuda::Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Half: return cuda::Dtype::kFloat16;
    case ScalarType::BFloat16: return cuda::Dtype::kBFloat16;
    case ScalarType::Float: return cuda::Dtype::kFloat32;
    case ScalarType::Double: return cuda::Dtype::kFloat64;
    default: STD_TORCH_CHECK(false, "value must be a floating tensor of at most 64 bits");
  }
}

const char* bytes_of(const Tensor& t) { return static_cast<const char*>(t.const_data_ptr()); }
char* mutable_bytes_of(const Tensor& t) { return static_cast<char*>(t.mutable_data_ptr()); }

int64_t size_of(const Tensor& t) {
  return t.numel() * static_cast<int64_t>(t.element_size());
}

// The largest power of two, up to 16, that divides both addresses.
template <typename... Pointers>
int alignment_of(Pointers... pointers) {
  const uintptr_t bits = (uintptr_t{16} | ... | reinterpret_cast<uintptr_t>(pointers));
  return static_cast<int>(bits & (~bits + 1));
}

cuda::Arguments arguments_of(const Problem& problem, const cuda::Shape& shape, const Tensor& value) {
  const int64_t element = static_cast<int64_t>(value.element_size());
  cuda::Arguments arguments{};
  arguments.value = bytes_of(value);
  arguments.coords = bytes_of(problem.points.coords);
  arguments.weights = bytes_of(problem.points.weights) + problem.points.weight_start * element;
  arguments.level_shapes = reinterpret_cast<const cuda::Int64*>(problem.levels.shapes);
  arguments.level_starts = reinterpret_cast<const cuda::Int64*>(problem.levels.starts);
  arguments.shape = shape;
  return arguments;
}

// Contiguous whatever `tensor` is.
Tensor new_like(const Tensor& tensor) {
  return torch::stable::new_empty(tensor, tensor.sizes());
}

// Zeroes the results of a problem without any work.
void clear(const Tensor& tensor) {
  if (tensor.numel() != 0) torch::stable::zero_(const_cast<Tensor&>(tensor));
}

// Where the gradient of value is added up: grad_value itself, or a buffer beside it.
Tensor make_accumulator(
    const cuda::BackwardPlan& plan, const cuda::Launcher& launcher, const Tensor& grad_value,
    cuda::Arguments* arguments) {
  arguments->grad_value = mutable_bytes_of(grad_value);
  if (plan.accumulator == cuda::Accumulator::kDirect) {
    launcher.fill_zero(arguments->grad_value, size_of(grad_value));
    arguments->accumulator = arguments->grad_value;
    return grad_value;
  }
  Tensor buffer = torch::stable::new_empty(grad_value, {plan.accumulator_bytes}, ScalarType::Byte);
  char* bytes = mutable_bytes_of(buffer);
  launcher.fill_zero(bytes, plan.accumulator_bytes);
  arguments->accumulator = bytes;
  if (plan.accumulator == cuda::Accumulator::kInt64) {
    arguments->range = reinterpret_cast<cuda::Word*>(bytes + plan.range_offset);
  }
  return buffer;
}

}  // namespace

// A slice of a wider tensor needs no copy: its rows lie evenly.
Tensor readable_rows(const Tensor& tensor, bool /*backward*/) {
  return has_even_rows(tensor) ? tensor : dense_copy(tensor);
}

Tensor run_forward(Problem& problem, const Tensor& value) {
  const cuda::Shape shape = shape_of(problem);
  const cuda::Launcher launcher(value.get_device_index());
  Tensor output = torch::stable::new_empty(value, problem.output_sizes);
  if (cuda::empty_problem(shape)) {
    clear(output);
    return output;
  }
  cuda::Arguments arguments = arguments_of(problem, shape, value);
  arguments.output = mutable_bytes_of(output);
  const int alignment = alignment_of(arguments.value, arguments.output);
  const cuda::ForwardPlan plan =
      cuda::plan_forward(shape, dtype_of(value), alignment, launcher.device());
  arguments.tiling = plan.tiling;
  launcher.run(plan.run, arguments);
  return output;
}

Gradients run_backward(
    Problem& problem, const Tensor& value, const Tensor& grad_output, bool deterministic) {
  const cuda::Shape shape = shape_of(problem);
  check_grad_output(grad_output, value, problem);
  const cuda::Launcher launcher(value.get_device_index());
  const Points& points = problem.points;
  Gradients grads{new_like(value), new_like(points.coords), {}};
  grads.weights = points.packed ? grads.coords : new_like(points.weights);
  if (cuda::empty_problem(shape)) {
    clear(grads.value);
    clear(grads.coords);
    clear(grads.weights);
    return grads;
  }
  cuda::Arguments arguments = arguments_of(problem, shape, value);
  arguments.grad_output = bytes_of(grad_output);
  arguments.grad_coords = mutable_bytes_of(grads.coords);
  arguments.grad_weights = mutable_bytes_of(grads.weights) +
      points.weight_start * static_cast<int64_t>(value.element_size());
  const int alignment =
      alignment_of(arguments.value, arguments.grad_output, mutable_bytes_of(grads.value));
  const cuda::BackwardPlan plan = cuda::plan_backward(
      shape, dtype_of(value), alignment, launcher.device(), deterministic);
  arguments.tiling = plan.tiling;
  const Tensor accumulator = make_accumulator(plan, launcher, grads.value, &arguments);
  launcher.run(plan.prepare, arguments);
  launcher.run(plan.run, arguments);
  launcher.run(plan.finish, arguments);
  return grads;
}

}  // namespace ops_dcn
