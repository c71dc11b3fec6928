// Schemas of all raw operators: the only place where they are written down.
// geometry = [kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
//             groups, remove_center]
// deterministic: torch.use_deterministic_algorithms. The stable ABI cannot read it.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(ops_dcn, m) {
  m.def(
      "dcnv3_forward(Tensor value, Tensor offset, Tensor mask, int[] geometry, "
      "float offset_scale) -> Tensor");
  m.def(
      "dcnv3_backward(Tensor grad_output, Tensor value, Tensor offset, Tensor mask, "
      "int[] geometry, float offset_scale, bool deterministic=False) -> (Tensor, Tensor, Tensor)");
  m.def(
      "dcnv4_forward(Tensor value, Tensor offset_mask, int[] geometry, float offset_scale, "
      "bool softmax) -> Tensor");
  m.def(
      "dcnv4_backward(Tensor grad_output, Tensor value, Tensor offset_mask, int[] geometry, "
      "float offset_scale, bool softmax, bool deterministic=False) -> (Tensor, Tensor)");
  m.def(
      "ms_deform_attn_forward(Tensor value, Tensor spatial_shapes, Tensor level_start_index, "
      "Tensor sampling_locations, Tensor attention_weights) -> Tensor");
  m.def(
      "ms_deform_attn_backward(Tensor grad_output, Tensor value, Tensor spatial_shapes, "
      "Tensor level_start_index, Tensor sampling_locations, Tensor attention_weights, "
      "bool deterministic=False) -> (Tensor, Tensor, Tensor)");
  m.def(
      "flash_deform_attn_forward(Tensor value, Tensor spatial_shapes, Tensor level_start_index, "
      "Tensor sampling_loc_attn, int num_points) -> Tensor");
  m.def(
      "flash_deform_attn_backward(Tensor grad_output, Tensor value, Tensor spatial_shapes, "
      "Tensor level_start_index, Tensor sampling_loc_attn, int num_points, "
      "bool deterministic=False) -> (Tensor, Tensor)");
}
