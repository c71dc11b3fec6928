// What each backend implements: running a problem. CPU: cpu/launch.cpp; CUDA: cuda/launch.cpp.
// operators/*.cpp are compiled once for each, with OPS_DCN_BACKEND naming its dispatch key.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include "describe.h"

namespace ops_dcn {

struct Gradients {
  Tensor value;
  Tensor coords;
  Tensor weights;  // the same tensor as coords where the points are packed
};

// A tensor (N, H, W, C) as run_forward (or run_backward) can read it: itself, or a dense copy.
Tensor readable_rows(const Tensor& tensor, bool backward);

// Half precisions are computed in float32 and the results rounded once at the end.
Tensor run_forward(Problem& problem, const Tensor& value);

// deterministic: the same bits in every run. (On the CPU they are for a given number of threads.)
Gradients run_backward(
    Problem& problem, const Tensor& value, const Tensor& grad_output, bool deterministic);

}  // namespace ops_dcn
