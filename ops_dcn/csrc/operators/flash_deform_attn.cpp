#include <torch/csrc/stable/library.h>

#include "../launch.h"

namespace ops_dcn {
namespace {

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
