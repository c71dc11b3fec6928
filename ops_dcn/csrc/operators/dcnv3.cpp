#include <torch/csrc/stable/library.h>

#include "../launch.h"

namespace ops_dcn {
namespace {

Problem describe_dcnv3(
    const Tensor& value, const Tensor& offset, const Tensor& mask,
    const std::vector<int64_t>& convolution, double offset_scale) {
  const Convolution conv = read_convolution(convolution);
  Problem problem = describe_convolution(value, conv, offset_scale, false);
  check_grid("offset", offset, value, problem);
  check_grid("mask", mask, value, problem);
  check_size("offset", offset, 3, 2 * conv.groups * conv.points());
  check_size("mask", mask, 3, conv.groups * conv.points());
  set_separate(problem, offset, mask);
  return problem;
}

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
