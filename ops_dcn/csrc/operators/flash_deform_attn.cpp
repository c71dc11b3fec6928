#include <torch/csrc/stable/library.h>

#include "../launch.h"

namespace ops_dcn {
namespace {

Problem describe_flash_deform_attn(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& sampling_loc_attn, int64_t num_points) {
  check_like("sampling_loc_attn", sampling_loc_attn, value, 4);
  Problem problem = describe_pyramid(
      value, spatial_shapes, level_start_index, sampling_loc_attn.size(1), num_points);
  const Geometry& g = problem.geometry;
  check_size("sampling_loc_attn", sampling_loc_attn, 0, g.batch);
  check_size("sampling_loc_attn", sampling_loc_attn, 2, g.groups);
  check_size("sampling_loc_attn", sampling_loc_attn, 3, 3 * g.points);
  set_packed(problem, sampling_loc_attn, 3 * g.groups * g.points);
  problem.geometry.softmax = true;
  return problem;
}

Tensor flash_deform_attn_forward(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& sampling_loc_attn, int64_t num_points) {
  Problem problem = describe_flash_deform_attn(
      value, spatial_shapes, level_start_index, sampling_loc_attn, num_points);
  return run_forward(problem, value);
}

std::tuple<Tensor, Tensor> flash_deform_attn_backward(
    const Tensor& grad_output, const Tensor& value, const Tensor& spatial_shapes,
    const Tensor& level_start_index, const Tensor& sampling_loc_attn, int64_t num_points,
    bool deterministic) {
  Problem problem = describe_flash_deform_attn(
      value, spatial_shapes, level_start_index, sampling_loc_attn, num_points);
  const Gradients grads = run_backward(problem, value, grad_output, deterministic);
  return {grads.value, grads.coords};
}

}  // namespace
}  // namespace ops_dcn

STABLE_TORCH_LIBRARY_IMPL(ops_dcn, OPS_DCN_BACKEND, m) {
  m.impl("flash_deform_attn_forward", TORCH_BOX(&ops_dcn::flash_deform_attn_forward));
  m.impl("flash_deform_attn_backward", TORCH_BOX(&ops_dcn::flash_deform_attn_backward));
}
