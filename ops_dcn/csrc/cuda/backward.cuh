// The backward kernel: gradients of coordinates and weights by sums over the threads of a unit,
// the gradient of the value by additions to memory, of which there are four kinds.
#pragma once

#include "stage.cuh"

namespace ops_dcn {
namespace cuda {
namespace {

enum class Mode {
  kAtomic,  // every sample to global memory, in the dtype of computation
  kTile,    // nearby samples in shared memory, which is added to global memory at the end
  kNative,  // as kTile, and global memory holds the dtype of the value
  kFixed,   // every sample to global memory, as an integer: the sum has no order
};

template <typename T, Mode mode>
struct Sum {
  using Type = Real<T>;
};
template <typename T>
struct Sum<T, Mode::kNative> {
  using Type = T;
};
template <typename T>
struct Sum<T, Mode::kFixed> {
  using Type = Word;
};

template <Mode mode>
constexpr bool kHasTile = mode == Mode::kTile || mode == Mode::kNative;

enum { kLargestGradient, kLargestWeight, kNotFinite };  // words of Arguments::range

// The exponent of the fixed-point unit: if all samples of an image and group met in one pixel,
// their sum would not overflow 62 bits. (Under softmax the weights of a query add up to 1.)
OPS_DCN_INLINE int fixed_exponent(const Arguments& a) {
  const Shape& s = a.shape;
  const auto exponent = [](Word bits) { return static_cast<int>(bits >> 52) - 1022; };
  const Int64 samples = static_cast<Int64>(s.queries) * (s.softmax ? 1 : s.points);
  int terms = 0;
  while ((Int64{1} << terms) < samples) ++terms;
  const int largest = exponent(a.range[kLargestGradient]) +
                      (s.softmax ? 1 : exponent(a.range[kLargestWeight]));
  const int shift = 60 - terms - largest;
  return shift > 1000 ? 1000 : shift < -1000 ? -1000 : shift;
}

OPS_DCN_INLINE double power_of_two(int exponent) {
  return __longlong_as_double(static_cast<Int64>(exponent + 1023) << 52);
}

OPS_DCN_INLINE void add_fixed(const Arguments& a, Word* to, double term, double scale) {
  const double scaled = term * scale;
  if (scaled > -4.6e18 && scaled < 4.6e18) {
    atomicAdd(to, static_cast<Word>(__double2ll_rn(scaled)));
  } else {  // NaN or infinite
    a.range[kNotFinite] = 1;
  }
}

// One point, as the threads of a unit see it.
template <typename T, int V>
struct Sample {
  Slot<Real<T>> slot;
  unsigned span;
  int near;
};

// Adds weight * grad to the gradient of the pixels around a sample.
template <typename T, int V, Mode mode, typename R>
OPS_DCN_INLINE void scatter(
    const Arguments& a, const Block<R>& block, const Sample<T, V>& sample, int slice, const R* grad,
    typename Sum<T, mode>::Type* sums, double scale) {
  using S = typename Sum<T, mode>::Type;
  const Tiling& t = a.tiling;
  const int pixel_bytes = a.shape.groups * a.shape.channels * static_cast<int>(sizeof(S));
  const Corners<S> corners =
      corners_of(sums, get_cell(sample.slot.cell), sample.span, pixel_bytes);
  R weights[kCorners];
  corner_weights<R>(sample.slot.x, sample.slot.y, sample.slot.weight, weights);
#pragma unroll
  for (int i = 0; i < kCorners; ++i) {
    if (!(sample.span >> i & 1)) continue;
    R terms[V];
#pragma unroll
    for (int j = 0; j < V; ++j) terms[j] = weights[i] * grad[j];
    if constexpr (kHasTile<mode>) {
      if (sample.near != kFar) {
        // Planes of one channel of every vector: neighbouring threads use neighbouring words.
        const int pixel = sample.near + (i & 1) + (i & 2 ? t.region_columns : 0);
        const int plane = t.region_rows * t.region_columns * t.slices;
        R* to = block.tile + pixel * t.slices + slice;
#pragma unroll
        for (int j = 0; j < V; ++j) atomicAdd(to + j * plane, terms[j]);
        continue;
      }
    }
    if constexpr (mode == Mode::kFixed) {
#pragma unroll
      for (int j = 0; j < V; ++j) add_fixed(a, corners.at[i] + j, terms[j], scale);
    } else {
      add<V>(corners.at[i], terms);
    }
  }
}

// Dot products of grad with the pixels around a sample, added to `dots`.
template <typename T, int V, typename R>
OPS_DCN_INLINE void dot(
    const Corners<const T>& corners, unsigned span, const R* grad, R* dots) {
  R v[kCorners][V];
  if ((span & kAllCorners) == kAllCorners) {
#pragma unroll
    for (int i = 0; i < kCorners; ++i) load<T, V>(corners.at[i], v[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kCorners; ++i) {
#pragma unroll
      for (int j = 0; j < V; ++j) v[i][j] = R(0);
      if (span >> i & 1) load<T, V>(corners.at[i], v[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kCorners; ++i) {
#pragma unroll
    for (int j = 0; j < V; ++j) dots[i] += grad[j] * v[i][j];
  }
}

// What a thread does for its unit in one image.
template <typename T, int V, Mode mode>
struct Worker {
  using R = Real<T>;
  Unit unit;
  int index, lane;
  const T* value;        // first channel of the group
  const T* grad_output;  // of the unit
  typename Sum<T, mode>::Type* sums;
  double scale;  // kFixed
};

template <typename T, int V, Mode mode>
OPS_DCN_INLINE Worker<T, V, mode> make_worker(
    const Arguments& a, const Block<Real<T>>& block, double scale) {
  const Shape& s = a.shape;
  Worker<T, V, mode> w;
  w.index = own_unit(a.tiling);
  w.lane = own_lane(a.tiling);
  w.unit = unit_at(a, block, w.index);
  const Int64 pixel_stride = static_cast<Int64>(s.groups) * s.channels;
  const Int64 group = static_cast<Int64>(w.unit.group) * s.channels;
  const Int64 image = block.image * (s.pixels * pixel_stride) + group;
  w.value = static_cast<const T*>(a.value) + image;
  w.sums = static_cast<typename Sum<T, mode>::Type*>(a.accumulator) + image;
  w.grad_output =
      static_cast<const T*>(a.grad_output) +
      (static_cast<Int64>(block.image) * s.queries + w.unit.query) * pixel_stride + group;
  w.scale = scale;
  return w;
}

// Goes through the staged points of the block. Slots of points are overwritten by the gradients of
// (x, y), still without weight and scale, and of the weight. With `mean_only` nothing is written.
// Returns the sum of weight * gradient, in every thread of a unit.
template <typename T, int V, Mode mode, typename R>
OPS_DCN_INLINE R work_off(
    const Arguments& a, const Block<R>& block, const Worker<T, V, mode>& w, int count,
    bool mean_only) {
  const Shape& s = a.shape;
  const Tiling& t = a.tiling;
  const int pixel_bytes = s.value_stride * static_cast<int>(sizeof(T));
  const bool single = t.slices <= t.lanes;
  R grad[V];
  if (single && w.unit.valid && w.lane < t.slices) load<T, V>(w.grad_output + w.lane * V, grad);
  R mean = 0;
  // Every thread of the warp stays in this loop, as all take part in the sums.
  for (int k = 0; k < count; ++k) {
    const int at = w.index * t.chunk_stride + k;
    const Sample<T, V> sample = {
        block.slots[at], block.spans[at], kHasTile<mode> ? block.near[at] : kFar};
    R dots[kCorners] = {};
    if (sample.span != 0) {
      for (int slice = w.lane; slice < t.slices; slice += t.lanes) {
        const Int64 channel = static_cast<Int64>(slice) * V;
        if (!single) load<T, V>(w.grad_output + channel, grad);
        const Corners<const T> corners = corners_of(
            w.value + channel, get_cell(sample.slot.cell), sample.span, pixel_bytes);
        dot<T, V>(corners, sample.span, grad, dots);
        if (!mean_only) {
          scatter<T, V, mode>(a, block, sample, slice, grad, w.sums + channel, w.scale);
        }
      }
    }
    const R weight = sum_lanes(interpolate<R>(sample.slot.x, sample.slot.y, dots), t.lanes);
    mean += sample.span != 0 ? sample.slot.weight * weight : R(0);
    if (mean_only) continue;
    const R x = sum_lanes(slope_x<R>(sample.slot.y, dots), t.lanes);
    const R y = sum_lanes(slope_y<R>(sample.slot.x, dots), t.lanes);
    __syncwarp(kWholeWarp);  // all have read the slot
    if (w.lane == 0) block.slots[at] = Slot<R>{x, y, sample.slot.weight, weight};
  }
  return mean;
}

// Writes the gradients of coordinates and weights, one point per thread.
template <typename T, typename R>
OPS_DCN_INLINE void write_points(const Arguments& a, const Block<R>& block, int begin, int count) {
  const Shape& s = a.shape;
  const Tiling& t = a.tiling;
  for (int item = static_cast<int>(threadIdx.x); item < block.units * t.chunk;
       item += static_cast<int>(blockDim.x)) {
    const int index = divide(item, t.by_chunk), k = item - index * t.chunk;
    const Unit unit = unit_at(a, block, index);
    if (k >= count || !unit.valid) continue;
    const int at = index * t.chunk_stride + k;
    const bool active = block.spans[at] != 0;
    const Slot<R> slot = block.slots[at];
    const Tap<R> tap = tap_of<R>(a, level_of(a, block, begin + k), begin + k);
    const R x = active ? tap.scale_x * slot.weight * slot.x : R(0);
    const R y = active ? tap.scale_y * slot.weight * slot.y : R(0);
    R weight = active ? slot.cell : R(0);
    if (s.softmax) weight = slot.weight * (weight - block.sums[index * kStatistics + kMean]);
    const Int64 query = static_cast<Int64>(block.image) * s.queries + unit.query;
    T* coords = static_cast<T*>(a.grad_coords) + query * s.grad_coord_query_stride +
                static_cast<Int64>(unit.group) * s.coord_group_stride + 2 * (begin + k);
    T* weights = static_cast<T*>(a.grad_weights) + query * s.grad_weight_query_stride +
                 static_cast<Int64>(unit.group) * s.weight_group_stride + begin + k;
    narrow(x, coords);
    narrow(y, coords + 1);
    narrow(weight, weights);
  }
}

// The padding of a packed row has gradient 0; written by the blocks of the first groups.
template <typename T, typename R>
OPS_DCN_INLINE void clear_padding(const Arguments& a, const Block<R>& block) {
  const Shape& s = a.shape;
  if (s.padding == 0 || block.group != 0) return;
  for (int index = static_cast<int>(threadIdx.x); index < block.units;
       index += static_cast<int>(blockDim.x)) {
    const Unit unit = unit_at(a, block, index);
    if (!unit.valid || unit.group != 0) continue;
    const Int64 query = static_cast<Int64>(block.image) * s.queries + unit.query;
    T* row = static_cast<T*>(a.grad_coords) + (query + 1) * s.grad_coord_query_stride - s.padding;
    for (int i = 0; i < s.padding; ++i) narrow(Real<T>(0), row + i);
  }
}

// Numbers in the tile; 0 where the plan made none.
OPS_DCN_INLINE int tile_reals(const Arguments& a, int vector) {
  return a.tiling.region_rows * a.tiling.region_columns * a.tiling.slices * vector;
}

// Adds the tile to global memory; what nothing was added to is skipped.
template <typename T, int V, Mode mode, typename R>
OPS_DCN_INLINE void flush_tile(const Arguments& a, const Block<R>& block) {
  const Shape& s = a.shape;
  const Tiling& t = a.tiling;
  const int left = s.origin_x + s.step_x * block.column + t.region_x;
  const int top = s.origin_y + s.step_y * block.row + t.region_y;
  const int plane = t.region_rows * t.region_columns * t.slices;
  const int pixel_stride = s.groups * s.channels;
  for (int item = static_cast<int>(threadIdx.x); item < plane;
       item += static_cast<int>(blockDim.x)) {
    const int pixel = item / t.slices, slice = item - pixel * t.slices;
    const int region_row = pixel / t.region_columns;
    const int row = top + region_row, column = left + pixel - region_row * t.region_columns;
    if (row < 0 || row >= s.height || column < 0 || column >= s.width) continue;
    R terms[V];
    bool used = false;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      terms[j] = block.tile[item + j * plane];
      used |= terms[j] != R(0);  // true for NaN
    }
    if (!used) continue;
    const Int64 at =
        (static_cast<Int64>(block.image) * s.pixels + row * s.width + column) * pixel_stride +
        static_cast<Int64>(block.group) * s.channels + slice * V;
    add<V>(static_cast<typename Sum<T, mode>::Type*>(a.accumulator) + at, terms);
  }
}

template <typename T, int V, Mode mode>
OPS_DCN_INLINE void backward_image(
    const Arguments& a, const Block<Real<T>>& block, double scale) {
  using R = Real<T>;
  const Shape& s = a.shape;
  const Tiling& t = a.tiling;
  const Worker<T, V, mode> w = make_worker<T, V, mode>(a, block, scale);
  if constexpr (kHasTile<mode>) {
    const int reals = tile_reals(a, V);
    for (int i = static_cast<int>(threadIdx.x); i < reals; i += static_cast<int>(blockDim.x)) {
      block.tile[i] = R(0);
    }
  }
  if (s.softmax) {
    stage_softmax<T>(a, block);
    __syncthreads();
  }
  // Points that are staged in several chunks need their mean before the first can be written.
  const bool two_passes = s.softmax && t.chunk < s.points;
  R mean = 0;
  for (int pass = two_passes ? 0 : 1; pass < 2; ++pass) {
    for (int begin = 0; begin < s.points; begin += t.chunk) {
      const int count = s.points - begin < t.chunk ? s.points - begin : t.chunk;
      stage<T, kHasTile<mode>>(a, block, begin);
      __syncthreads();
      const R part = work_off<T, V, mode>(a, block, w, count, pass == 0);
      mean += pass == 0 || !two_passes ? part : R(0);
      if (pass == 1) {
        if (w.lane == 0) block.sums[w.index * kStatistics + kMean] = mean;
        __syncthreads();
        write_points<T>(a, block, begin, count);
      }
      __syncthreads();
    }
  }
  clear_padding<T>(a, block);
  if constexpr (kHasTile<mode>) flush_tile<T, V, mode>(a, block);
}

template <typename T, int V, Mode mode>
OPS_DCN_INLINE void backward(const Arguments& a) {
  using R = Real<T>;
  OPS_DCN_SHARED(memory);
  Block<R> block = make_block<R>(a, memory, tile_reals(a, V));
  load_levels(a, block);
  set_places(a, block);
  const double scale = mode == Mode::kFixed ? power_of_two(fixed_exponent(a)) : 1.0;
  const Int64 images = a.shape.batch;
  for (Int64 image = blockIdx.y; image < images; image += gridDim.y) {
    __syncthreads();
    block.image = static_cast<int>(image);
    backward_image<T, V, mode>(a, block, scale);
  }
}

}  // namespace
}  // namespace cuda
}  // namespace ops_dcn
