// The interface between the host code and the kernels, of which there is one set per instruction
// set. No standard C++ header here (see vector.h).
#pragma once

#include <stdint.h>

#include "../geometry.h"

namespace ops_dcn {

// A backward pass that owns a part of an image only writes what falls elsewhere to a copy of the
// image, in blocks of this many pixels, which it zeroes when it first needs them.
constexpr int64_t kBlockPixels = 64;

// A share of one image: queries [query_begin, query_end) of groups [group_begin, group_end). All
// pointers are to the first element of that image.
struct Work {
  const void* value;
  const void* coords;
  const void* weights;
  void* output;             // forward
  const void* grad_output;  // backward, from here on
  void* grad_value;         // added to, in pixels [own_begin, own_end)
  int64_t own_begin, own_end;
  void* copy;        // added to elsewhere; null if the whole image is owned
  uint8_t* touched;  // blocks of the copy that are in use
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
