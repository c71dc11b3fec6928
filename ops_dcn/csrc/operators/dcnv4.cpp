#include <torch/csrc/stable/library.h>

#include "../launch.h"

namespace ops_dcn {
namespace {

Tensor dcnv4_forward(
    const Tensor& value, const Tensor& offset_mask, std::vector<int64_t> geometry,
    double offset_scale, bool softmax) {
  const Tensor readable = readable_rows(value, false);
  Problem problem = describe_dcnv4(
      readable, readable_rows(offset_mask, false), geometry, offset_scale, softmax);
  return run_forward(problem, readable);
}

std::tuple<Tensor, Tensor> dcnv4_backward(
    const Tensor& grad_output, const Tensor& value, const Tensor& offset_mask,
    std::vector<int64_t> geometry, double offset_scale, bool softmax, bool deterministic) {
  const Tensor dense = dense_copy(value);
  Problem problem = describe_dcnv4(
      dense, readable_rows(offset_mask, true), geometry, offset_scale, softmax);
  const Gradients grads = run_backward(problem, dense, grad_output, deterministic);
  return {grads.value, grads.coords};
}

}  // namespace
}  // namespace ops_dcn

STABLE_TORCH_LIBRARY_IMPL(ops_dcn, OPS_DCN_BACKEND, m) {
  m.impl("dcnv4_forward", TORCH_BOX(&ops_dcn::dcnv4_forward));
  m.impl("dcnv4_backward", TORCH_BOX(&ops_dcn::dcnv4_backward));
}
