#include <torch/csrc/stable/library.h>

#include "../launch.h"

namespace ops_dcn {
namespace {

Tensor dcnv3_forward(
    const Tensor& value, const Tensor& offset, const Tensor& mask, std::vector<int64_t> geometry,
    double offset_scale) {
  Problem problem = describe_dcnv3(value, offset, mask, geometry, offset_scale);
  return run_forward(problem, value);
}

std::tuple<Tensor, Tensor, Tensor> dcnv3_backward(
    const Tensor& grad_output, const Tensor& value, const Tensor& offset, const Tensor& mask,
    std::vector<int64_t> geometry, double offset_scale, bool deterministic) {
  Problem problem = describe_dcnv3(value, offset, mask, geometry, offset_scale);
  const Gradients grads = run_backward(problem, value, grad_output, deterministic);
  return {grads.value, grads.coords, grads.weights};
}

}  // namespace
}  // namespace ops_dcn

STABLE_TORCH_LIBRARY_IMPL(ops_dcn, OPS_DCN_BACKEND, m) {
  m.impl("dcnv3_forward", TORCH_BOX(&ops_dcn::dcnv3_forward));
  m.impl("dcnv3_backward", TORCH_BOX(&ops_dcn::dcnv3_backward));
}
