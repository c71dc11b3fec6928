#include <torch/csrc/stable/library.h>

#include "../launch.h"

namespace ops_dcn {
namespace {

Problem describe_ms_deform_attn(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& sampling_locations, const Tensor& attention_weights) {
  check_like("sampling_locations", sampling_locations, value, 6);
  check_like("attention_weights", attention_weights, value, 5);
  Problem problem = describe_pyramid(
      value, spatial_shapes, level_start_index, sampling_locations.size(1),
      sampling_locations.size(4));
  check_size("sampling_locations", sampling_locations, 5, 2);
  const Geometry& g = problem.geometry;
  const int64_t sizes[] = {
      g.batch, g.queries, g.groups, level_start_index.numel(), sampling_locations.size(4)};
  for (int axis = 0; axis < 5; ++axis) {
    check_size("sampling_locations", sampling_locations, axis, sizes[axis]);
    check_size("attention_weights", attention_weights, axis, sizes[axis]);
  }
  set_separate(problem, sampling_locations, attention_weights);
  return problem;
}

Tensor ms_deform_attn_forward(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& sampling_locations, const Tensor& attention_weights) {
  Problem problem = describe_ms_deform_attn(
      value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
  return run_forward(problem, value);
}

std::tuple<Tensor, Tensor, Tensor> ms_deform_attn_backward(
    const Tensor& grad_output, const Tensor& value, const Tensor& spatial_shapes,
    const Tensor& level_start_index, const Tensor& sampling_locations,
    const Tensor& attention_weights, bool deterministic) {
  Problem problem = describe_ms_deform_attn(
      value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
  const Gradients grads = run_backward(problem, value, grad_output, deterministic);
  return {grads.value, grads.coords, grads.weights};
}

}  // namespace
}  // namespace ops_dcn

STABLE_TORCH_LIBRARY_IMPL(ops_dcn, OPS_DCN_BACKEND, m) {
  m.impl("ms_deform_attn_forward", TORCH_BOX(&ops_dcn::ms_deform_attn_forward));
  m.impl("ms_deform_attn_backward", TORCH_BOX(&ops_dcn::ms_deform_attn_backward));
}
