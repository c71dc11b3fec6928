// The kernels of all operators, compiled once per instruction set (OPS_DCN_KERNELS names the set).
//
// A unit is one query of one group. It is staged first: positions, cells and corner weights of its
// points, computed with one lane per point and written to a small ring. Some units later, when the
// memory that was called in is there, it is gathered (or scattered) with one lane per channel.
#include "staging.h"

namespace {

// Pointers to the corners of a cell that is not entirely inside: those outside point to zeros, so
// that no pixel is read that the sample does not touch.
template <typename Real>
OPS_DCN_INLINE void corner_pointers(
    const Real* cell, int64_t row_stride, int64_t pixel_stride, int corners, const Real* zeros,
    const Real** pointers) {
  pointers[0] = corners & 1 ? cell : zeros;
  pointers[1] = corners & 2 ? cell + pixel_stride : zeros;
  pointers[2] = corners & 4 ? cell + row_stride : zeros;
  pointers[3] = corners & 8 ? cell + row_stride + pixel_stride : zeros;
}

template <typename Real>
alignas(64) constexpr Real kZeros[4 * kLanes<Real>] = {};

// A run of channels: `count` vectors of `lanes` lanes, starting at `first`.
template <int lanes_, int count_>
struct Block {
  static constexpr int lanes = lanes_;
  static constexpr int count = count_;
  static constexpr int channels = lanes_ * count_;
};

template <int lanes, typename Body>
OPS_DCN_INLINE void for_tail(int64_t first, int64_t channels, const Body& body) {
  if (channels - first >= lanes) {
    body(Block<lanes, 1>{}, first);
    first += lanes;
  }
  if constexpr (lanes > 1) for_tail<lanes / 2>(first, channels, body);
}

// Cuts the channels of a group into blocks, wide ones first.
template <typename Real, typename Body>
OPS_DCN_INLINE void for_blocks(int64_t channels, const Body& body) {
  constexpr int lanes = kLanes<Real>;
  int64_t first = 0;
  for (; channels - first >= 4 * lanes; first += 4 * lanes) body(Block<lanes, 4>{}, first);
  if (channels - first >= 2 * lanes) {
    body(Block<lanes, 2>{}, first);
    first += 2 * lanes;
  }
  for_tail<lanes>(first, channels, body);
}

template <typename Real, typename B>
OPS_DCN_INLINE void gather_block(
    B, const Context<Real>& context, const Chunk<Real>* chunk, const Real* value, Real* output) {
  using V = Vector<Real, B::lanes>;
  // Several sums break the chain of dependent additions.
  constexpr int sums = B::count == 1 ? 4 : B::count == 2 || kManyRegisters ? 2 : 1;
  const int64_t pixel_stride = context.value_stride;
  const TapChunk<Real>* tap = context.taps;
  V sum[sums][B::count] = {};
  const auto add = [&](int corner, const Real* from, Real weight) __attribute__((always_inline)) {
    for (int i = 0; i < B::count; ++i) {
      sum[corner % sums][i] += weight * load<V>(from + i * B::lanes);
    }
  };
  for (int64_t left = context.geometry->points; left > 0; left -= kLanes<Real>, ++chunk, ++tap) {
    const int count = left < kLanes<Real> ? static_cast<int>(left) : kLanes<Real>;
    for (int k = 0; k < count; ++k) {
      const int corners = static_cast<int>(chunk->corners[k]);
      const Real* cell = value + chunk->pixel[k] * pixel_stride;
      if (__builtin_expect(corners == kAllCorners, 1)) {
        const Real* below = cell + tap->row_stride[k];
        add(0, cell, chunk->corner_weight[0][k]);
        add(1, cell + pixel_stride, chunk->corner_weight[1][k]);
        add(2, below, chunk->corner_weight[2][k]);
        add(3, below + pixel_stride, chunk->corner_weight[3][k]);
      } else if (corners != 0) {
        const Real* from[kCorners];
        corner_pointers(
            cell, tap->row_stride[k], pixel_stride, corners, kZeros<Real>, from);
        for (int i = 0; i < kCorners; ++i) add(i, from[i], chunk->corner_weight[i][k]);
      }
    }
  }
  for (int i = 0; i < B::count; ++i) {
    V total = sum[0][i];
    for (int j = 1; j < sums; ++j) total += sum[j][i];
    store(output + i * B::lanes, total);
  }
}

// Where the gradient of a pixel is added up: in grad_value or in the copy.
template <typename Real>
Real* gradient_of(const Context<Real>& context, int64_t pixel) {
  const Work& work = *context.work;
  const int64_t stride = context.channels_total;
  if (pixel >= work.own_begin && pixel < work.own_end) {
    return static_cast<Real*>(work.grad_value) + pixel * stride;
  }
  Real* copy = static_cast<Real*>(work.copy);
  const int64_t block = pixel / kBlockPixels, channels = context.geometry->channels;
  if (!work.touched[block]) {
    work.touched[block] = 1;
    const int64_t end = (block + 1) * kBlockPixels, pixels = context.geometry->pixels;
    for (int64_t i = block * kBlockPixels; i < (end < pixels ? end : pixels); ++i) {
      __builtin_memset(
          copy + i * stride + work.group_begin * channels, 0,
          (work.group_end - work.group_begin) * channels * sizeof(Real));
    }
  }
  return copy + pixel * stride;
}

// Dot products of grad_output with the corners, and grad_value, for one block of channels that
// starts at `channel` of the image.
template <typename Real, typename B>
OPS_DCN_INLINE void scatter_block(
    B, const Context<Real>& context, Chunk<Real>* chunk, int64_t channel,
    const Real* grad_output) {
  using V = Vector<Real, B::lanes>;
  const int64_t pixel_stride = context.channels_total;
  const TapChunk<Real>* tap = context.taps;
  const Real* value = static_cast<const Real*>(context.work->value) + channel;
  Real* grad_value = static_cast<Real*>(context.work->grad_value) + channel;
  V grad[B::count];
  for (int i = 0; i < B::count; ++i) grad[i] = load<V>(grad_output + i * B::lanes);
  const auto dot = [&](const Real* from) __attribute__((always_inline)) {
    V sum = grad[0] * load<V>(from);
    for (int i = 1; i < B::count; ++i) sum += grad[i] * load<V>(from + i * B::lanes);
    return sum;
  };
  const auto add = [&](Real* to, Real weight) __attribute__((always_inline)) {
    for (int i = 0; i < B::count; ++i) {
      Real* at = to + i * B::lanes;
      store(at, V(load<V>(at) + weight * grad[i]));
    }
  };
  for (int64_t left = context.geometry->points; left > 0; left -= kLanes<Real>, ++chunk, ++tap) {
    const int count = left < kLanes<Real> ? static_cast<int>(left) : kLanes<Real>;
    for (int k = 0; k < count; ++k) {
      const int corners = static_cast<int>(chunk->corners[k]);
      const int64_t at = chunk->pixel[k] * pixel_stride;
      const int64_t below = at + tap->row_stride[k];
      const Real weight[kCorners] = {
          chunk->corner_weight[0][k], chunk->corner_weight[1][k], chunk->corner_weight[2][k],
          chunk->corner_weight[3][k]};
      if (__builtin_expect(corners == kAllCorners, 1)) {
        const V dots[kCorners] = {
            dot(value + at), dot(value + at + pixel_stride), dot(value + below),
            dot(value + below + pixel_stride)};
        add(grad_value + at, weight[0]);
        add(grad_value + at + pixel_stride, weight[1]);
        add(grad_value + below, weight[2]);
        add(grad_value + below + pixel_stride, weight[3]);
        add_sums<Real, B::lanes>(dots, chunk->dots[k]);
      } else if (corners != 0) {
        const Real* from[kCorners];
        corner_pointers(
            value + at, tap->row_stride[k], pixel_stride, corners, kZeros<Real>, from);
        const V dots[kCorners] = {dot(from[0]), dot(from[1]), dot(from[2]), dot(from[3])};
        for (int i = 0; i < kCorners; ++i) {
          if (!(corners >> i & 1)) continue;
          const int64_t pixel = chunk->pixel[k] + (i & 1) + (i & 2 ? tap->columns[k] : 0);
          add(gradient_of(context, pixel) + channel, weight[i]);
        }
        add_sums<Real, B::lanes>(dots, chunk->dots[k]);
      }
    }
  }
}

// Gradients of coordinates and weights from the dot products of a unit.
template <typename Real>
OPS_DCN_INLINE void finish_unit(
    const Context<Real>& context, const Cursor& cursor, Chunk<Real>* chunks) {
  using V = Native<Real>;
  using I = NativeInt<Real>;
  constexpr int lanes = kLanes<Real>;
  const Geometry& g = *context.geometry;
  const PointData<Real> grads(
      g, context.work->grad_coords, context.work->grad_weights, cursor);
  V mean{};
  for (int64_t i = 0; i < context.unit_chunks; ++i) {
    Chunk<Real>& chunk = chunks[i];
    const TapChunk<Real>& tap = context.taps[i];
    const int64_t begin = i * lanes, count = g.points - begin;
    const Real* dots = &chunk.dots[0][0];
    V even[2], odd[2], v[kCorners];
    for (int half = 0; half < 2; ++half) {
      const Real* from = dots + 2 * half * lanes;
      split_pairs<Real>(load<V>(from), load<V>(from + lanes), &even[half], &odd[half]);
    }
    split_pairs<Real>(even[0], even[1], &v[0], &v[2]);
    split_pairs<Real>(odd[0], odd[1], &v[1], &v[3]);
    const V fx = load<V>(chunk.fx), fy = load<V>(chunk.fy), weight = load<V>(chunk.weight);
    const I active = load<I>(chunk.corners) != 0;
    const V grad_weight = interpolate<V>(fx, fy, v);  // 0 where inactive: all dots are
    const V grad_x = active ? tap.scale_x * weight * slope_x<V>(fy, v) : V{};
    const V grad_y = active ? tap.scale_y * weight * slope_y<V>(fx, v) : V{};
    V low, high;
    join_pairs<Real>(grad_x, grad_y, &low, &high);
    store_first(grads.coords + 2 * begin, low, 2 * count);
    store_first(grads.coords + 2 * begin + lanes, high, 2 * count - lanes);
    if (g.softmax) {
      store(chunk.fx, grad_weight);
      mean += active ? weight * grad_weight : V{};
    } else {
      store_first(grads.weights + begin, grad_weight, count);
    }
  }
  if (!g.softmax) return;
  const Real total = sum_lanes<Real>(mean);
  for (int64_t i = 0; i < context.unit_chunks; ++i) {
    const V grad = load<V>(chunks[i].weight) * (load<V>(chunks[i].fx) - total);
    store_first(grads.weights + i * lanes, grad, g.points - i * lanes);
  }
}

// Calls `body(cursor, chunks)` for every unit of the work. A unit is staged `slots` units
// before its turn, so that its cache lines arrive in time and the two kinds of work overlap.
template <typename Real, bool backward, typename Body>
OPS_DCN_INLINE void for_units(const Context<Real>& context, const Body& body) {
  const Geometry& geometry = *context.geometry;
  const Work& work = *context.work;
  const int64_t units =
      (work.query_end - work.query_begin) * (work.group_end - work.group_begin);
  const int64_t slots = units < context.slots ? units : context.slots;
  Cursor ahead(geometry, work), current(geometry, work);
  for (int64_t i = 0; i < slots; ++i) {
    stage_unit<Real, backward>(context, ahead);
    ahead.advance(geometry, work, slots);
  }
  for (int64_t i = 0; i < units; ++i) {
    body(current, context.ring + current.slot * context.unit_chunks);
    current.advance(geometry, work, slots);
    if (i + slots < units) {
      stage_unit<Real, backward>(context, ahead);
      ahead.advance(geometry, work, slots);
    }
  }
}

template <typename Real>
void forward(const Geometry& geometry, const Work& work) {
  const Context<Real> context = prepare<Real>(geometry, work);
  const Real* value = static_cast<const Real*>(work.value);
  Real* output = static_cast<Real*>(work.output);
  for_units<Real, false>(context, [&](const Cursor& at, Chunk<Real>* chunks) {
    const int64_t channel = at.group * geometry.channels;
    Real* to = output + at.query * context.channels_total + channel;
    for_blocks<Real>(geometry.channels, [&](auto block, int64_t first) {
      gather_block<Real>(block, context, chunks, value + channel + first, to + first);
    });
  });
}

template <typename Real>
void backward(const Geometry& geometry, const Work& work) {
  const Context<Real> context = prepare<Real>(geometry, work);
  const Real* grad_output = static_cast<const Real*>(work.grad_output);
  for_units<Real, true>(context, [&](const Cursor& at, Chunk<Real>* chunks) {
    const int64_t channel = at.group * geometry.channels;
    const Real* from = grad_output + at.query * context.channels_total + channel;
    for_blocks<Real>(geometry.channels, [&](auto block, int64_t first) {
      scatter_block<Real>(block, context, chunks, channel + first, from + first);
    });
    finish_unit<Real>(context, at, chunks);
  });
}

}  // namespace

#define OPS_DCN_TEXT_OF(name) #name
#define OPS_DCN_TEXT(name) OPS_DCN_TEXT_OF(name)
#define OPS_DCN_JOIN_OF(a, b) a##b
#define OPS_DCN_JOIN(a, b) OPS_DCN_JOIN_OF(a, b)

namespace ops_dcn {

const KernelSet OPS_DCN_JOIN(kernels_, OPS_DCN_KERNELS) = {
    OPS_DCN_TEXT(OPS_DCN_KERNELS), scratch_bytes,    forward<float>, backward<float>,
    forward<double>,               backward<double>,
};

}  // namespace ops_dcn
