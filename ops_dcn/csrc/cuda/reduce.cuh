// What runs before and after the backward kernel: the range of the fixed-point sums, and the
// conversion of sums to the dtype of the value.
#pragma once

#include "backward.cuh"

namespace ops_dcn {
namespace cuda {
namespace {

// Bits of |x| as a double, which order as integers do; 0 where x is not finite.
template <typename R>
OPS_DCN_INLINE Word magnitude(R x) {
  const Word bits =
      static_cast<Word>(__double_as_longlong(static_cast<double>(x))) & 0x7fffffffffffffffull;
  return bits < 0x7ff0000000000000ull ? bits : 0;
}

OPS_DCN_INLINE Int64 first_item() {
  return static_cast<Int64>(blockIdx.x) * blockDim.x + threadIdx.x;
}
OPS_DCN_INLINE Int64 items_at_once() { return static_cast<Int64>(gridDim.x) * blockDim.x; }

// Largest magnitudes of grad_output and of the weights: exact, hence the same in any order.
template <typename T>
OPS_DCN_INLINE void find_range(const Arguments& a) {
  const Shape& s = a.shape;
  const Int64 queries = s.batch * s.queries;
  const Int64 outputs = queries * s.groups * s.channels;
  const T* grad_output = static_cast<const T*>(a.grad_output);
  const T* weights = static_cast<const T*>(a.weights);
  Word largest[2] = {0, 0};
  const auto take = [](Word bits, Word* most) { *most = bits > *most ? bits : *most; };
  for (Int64 i = first_item(); i < outputs; i += items_at_once()) {
    take(magnitude(load_one(grad_output + i)), &largest[kLargestGradient]);
  }
  const Int64 units = s.softmax ? 0 : queries * s.groups;
  for (Int64 i = first_item(); i < units; i += items_at_once()) {
    const Int64 query = i / s.groups;
    const T* from =
        weights + query * s.weight_query_stride + (i - query * s.groups) * s.weight_group_stride;
    for (int k = 0; k < s.points; ++k) {
      take(magnitude(load_one(from + k)), &largest[kLargestWeight]);
    }
  }
  for (int i = 0; i < 2; ++i) {
    const Word most = max_lanes(largest[i], 32);
    if (threadIdx.x % 32 == 0 && most > 0) atomicMax(a.range + i, most);
  }
}

OPS_DCN_INLINE Int64 value_elements(const Shape& s) {
  return s.batch * s.pixels * s.groups * s.channels;
}

template <typename T>
OPS_DCN_INLINE void finish_float(const Arguments& a) {
  const float* from = static_cast<const float*>(a.accumulator);
  T* to = static_cast<T*>(a.grad_value);
  const Int64 count = value_elements(a.shape);
  for (Int64 i = first_item(); i < count; i += items_at_once()) narrow(from[i], to + i);
}

// A term that was not finite makes all of the gradient NaN: integers have no place for it.
template <typename T>
OPS_DCN_INLINE void finish_fixed(const Arguments& a) {
  const Int64* from = static_cast<const Int64*>(a.accumulator);
  T* to = static_cast<T*>(a.grad_value);
  const double unit = a.range[kNotFinite] != 0 ? __longlong_as_double(0x7ff8000000000000ll)
                                               : power_of_two(-fixed_exponent(a));
  const Int64 count = value_elements(a.shape);
  for (Int64 i = first_item(); i < count; i += items_at_once()) {
    narrow(static_cast<Real<T>>(static_cast<double>(from[i]) * unit), to + i);
  }
}

}  // namespace
}  // namespace cuda
}  // namespace ops_dcn
