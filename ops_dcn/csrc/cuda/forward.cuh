// The forward kernel: samples of staged points, added up by one thread per vector of channels.
#pragma once

#include "stage.cuh"

namespace ops_dcn {
namespace cuda {
namespace {

// Adds up the staged points of one unit; `value` is the thread's first channel of the image.
template <typename T, int V, typename R>
OPS_DCN_INLINE void gather(
    const Block<R>& block, int first, int count, const T* value, int pixel_bytes, R* sum) {
  for (int k = first; k < first + count; ++k) {
    const unsigned span = block.spans[k];
    if (span == 0) continue;
    const Slot<R> slot = block.slots[k];
    R weights[kCorners];
    corner_weights<R>(slot.x, slot.y, slot.weight, weights);
    const Corners<const T> corners = corners_of(value, get_cell(slot.cell), span, pixel_bytes);
    R v[kCorners][V];
    if ((span & kAllCorners) == kAllCorners) {
#pragma unroll
      for (int i = 0; i < kCorners; ++i) load<T, V>(corners.at[i], v[i]);
#pragma unroll
      for (int i = 0; i < kCorners; ++i) {
#pragma unroll
        for (int j = 0; j < V; ++j) sum[j] += weights[i] * v[i][j];
      }
    } else {
      // Skipped, not multiplied by 0: what lies there may be NaN.
#pragma unroll
      for (int i = 0; i < kCorners; ++i) {
        if (!(span >> i & 1)) continue;
        load<T, V>(corners.at[i], v[i]);
#pragma unroll
        for (int j = 0; j < V; ++j) sum[j] += weights[i] * v[i][j];
      }
    }
  }
}

template <typename T, int V>
OPS_DCN_INLINE void forward_image(const Arguments& a, const Block<Real<T>>& block) {
  using R = Real<T>;
  const Shape& s = a.shape;
  const Tiling& t = a.tiling;
  const int index = own_unit(t), lane = own_lane(t);
  const Unit unit = unit_at(a, block, index);
  const int pixel_bytes = s.value_stride * static_cast<int>(sizeof(T));
  const Int64 group = static_cast<Int64>(unit.group) * s.channels;
  const T* value = static_cast<const T*>(a.value) +
                   block.image * (static_cast<Int64>(s.pixels) * s.value_stride);
  T* output = static_cast<T*>(a.output) +
              (static_cast<Int64>(block.image) * s.queries + unit.query) *
                  (s.groups * s.channels);
  if (s.softmax) {
    stage_softmax<T>(a, block);
    __syncthreads();
  }
  // All threads of a block go through the same rounds and chunks, as each may end in a barrier.
  for (int round = 0; round * t.lanes < t.slices; ++round) {
    const int slice = round * t.lanes + lane;
    const bool busy = unit.valid && slice < t.slices;
    const Int64 channel = group + static_cast<Int64>(slice) * V;
    R sum[V];
#pragma unroll
    for (int j = 0; j < V; ++j) sum[j] = R(0);
    for (int begin = 0; begin < s.points; begin += t.chunk) {
      if (round == 0 || t.chunk < s.points) {
        if (round > 0 || begin > 0) __syncthreads();
        stage<T, false>(a, block, begin);
        __syncthreads();
      }
      const int count = s.points - begin < t.chunk ? s.points - begin : t.chunk;
      if (busy) {
        gather<T, V>(
            block, index * t.chunk_stride, count, value + channel, pixel_bytes, sum);
      }
    }
    if (busy) store<T, V>(output + channel, sum);
  }
}

template <typename T, int V>
OPS_DCN_INLINE void forward(const Arguments& a) {
  OPS_DCN_SHARED(memory);
  Block<Real<T>> block = make_block<Real<T>>(a, memory, 0);
  load_levels(a, block);
  set_places(a, block);
  const Int64 images = a.shape.batch;
  for (Int64 image = blockIdx.y; image < images; image += gridDim.y) {
    __syncthreads();
    block.image = static_cast<int>(image);
    forward_image<T, V>(a, block);
  }
}

}  // namespace
}  // namespace cuda
}  // namespace ops_dcn
