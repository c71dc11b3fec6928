// The interface between the host code and the kernels, of which there is one set per instruction
// set. No standard C++ header here (see vector.h).
#pragma once

#include <stdint.h>

#include "../geometry.h"

namespace ops_dcn {

// A share of one image: queries [query_begin, query_end) of groups [group_begin, group_end). All
// pointers are to the first element of that image.
struct Work {
  const void* value;
  const void* coords;
  const void* weights;
  void* output;             // forward
  const void* grad_output;  // backward, from here on
  void* grad_value;         // added to
  void* grad_coords;
  void* grad_weights;
  void* scratch;  // scratch_bytes(), aligned to 64
  int64_t query_begin, query_end, group_begin, group_end;
};

using Kernel = void (*)(const Geometry&, const Work&);

struct KernelSet {
  const char* name;
  int64_t (*scratch_bytes)(int64_t points);
  Kernel forward_float, backward_float;
  Kernel forward_double, backward_double;
};

extern const KernelSet kernels_baseline;
extern const KernelSet kernels_avx2;
extern const KernelSet kernels_avx512;

}  // namespace ops_dcn
