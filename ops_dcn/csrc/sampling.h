// Formulas of bilinear sampling, written once for every backend.
//
// `Real` is a scalar or a SIMD vector of scalars. Corners are numbered 0 (top left), 1 (top right),
// 2 (bottom left), 3 (bottom right). Everything is static: translation units compiled for different
// instruction sets must not share a function body.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define OPS_DCN_INLINE static __device__ __forceinline__
#else
#define OPS_DCN_INLINE static inline __attribute__((always_inline))
#endif

namespace ops_dcn {

constexpr int kCorners = 4;
constexpr int kAllCorners = 15;  // bit i set: corner i lies inside the image

template <typename Real>
OPS_DCN_INLINE Real sample_position(Real centre, Real scale, Real tap, Real learned) {
  return centre + scale * (tap + learned);
}

// fx, fy: fractions within the cell, in [0, 1).
template <typename Real>
OPS_DCN_INLINE void corner_weights(Real fx, Real fy, Real weight, Real* corners) {
  const Real bottom = weight * fy;
  const Real top = weight - bottom;
  corners[1] = top * fx;
  corners[0] = top - corners[1];
  corners[3] = bottom * fx;
  corners[2] = bottom - corners[3];
}

// The sample itself; corners outside the image hold 0.
template <typename Real>
OPS_DCN_INLINE Real interpolate(Real fx, Real fy, const Real* v) {
  const Real top = v[0] + fx * (v[1] - v[0]);
  const Real bottom = v[2] + fx * (v[3] - v[2]);
  return top + fy * (bottom - top);
}

// Derivatives of the sample by x and y. On a grid line the fraction is 0, which makes them the
// right-hand (lower) derivative.
template <typename Real>
OPS_DCN_INLINE Real slope_x(Real fy, const Real* v) {
  const Real top = v[1] - v[0];
  return top + fy * (v[3] - v[2] - top);
}

template <typename Real>
OPS_DCN_INLINE Real slope_y(Real fx, const Real* v) {
  const Real left = v[2] - v[0];
  return left + fx * (v[3] - v[1] - left);
}

}  // namespace ops_dcn
