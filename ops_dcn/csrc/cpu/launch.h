// Host side of the CPU kernels: choice of the instruction set, parallelism, dtypes.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include "../describe.h"

namespace ops_dcn {

struct Gradients {
  Tensor value;
  Tensor coords;
  Tensor weights;  // the same tensor as coords where the points are packed
};

// Half precision inputs are widened to float32 first and the results rounded once at the end.
Tensor run_forward(Problem& problem, const Tensor& value);

Gradients run_backward(Problem& problem, const Tensor& value, const Tensor& grad_output);

}  // namespace ops_dcn
