#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/Exception.h>

#include "../launch.h"

namespace ops_dcn {
namespace {

// Both tensors with even rows.
Problem describe_dcnv4(
    const Tensor& value, const Tensor& offset_mask, const std::vector<int64_t>& convolution,
    double offset_scale, bool softmax) {
  const Convolution conv = read_convolution(convolution);
  Problem problem = describe_convolution(value, conv, offset_scale, true);
  check_grid("offset_mask", offset_mask, value, problem, true);
  STD_TORCH_CHECK(
      offset_mask.size(3) >= 3 * conv.groups * conv.points(), "offset_mask.shape[3] must be >= ",
      3 * conv.groups * conv.points(), ", got ", offset_mask.size(3));
  set_packed(problem, offset_mask, row_stride(offset_mask));
  problem.geometry.softmax = softmax;
  return problem;
}

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
