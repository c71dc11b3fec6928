// The kernels of all operators, compiled once per instruction set (OPS_DCN_KERNELS names the set).
//
// A unit is one query of one group. It is staged first: positions, cells and corner weights of its
// points, computed with one lane per point and written to a small ring. Some units later, when the
// memory that was called in is there, it is gathered (or scattered) with one lane per channel.
#include "kernel_set.h"
#include "vector.h"

namespace {

using namespace ops_dcn;

// Staged data of kLanes points of a unit, one array element per point.
template <typename Real>
struct alignas(64) Chunk {
  Int<Real> pixel[kLanes<Real>];    // top left corner of the cell, as an index into the image
  Int<Real> corners[kLanes<Real>];  // bit set of the corners inside the image; 0: no contribution
  Real corner_weight[kCorners][kLanes<Real>];
  // Backward only.
  Real fx[kLanes<Real>], fy[kLanes<Real>], weight[kLanes<Real>];
  Real dots[kLanes<Real>][kCorners];  // grad_output . value, per corner
};

// What the taps of a chunk have in common over all units.
template <typename Real>
struct alignas(64) TapChunk {
  Native<Real> x, y, scale_x, scale_y, width, height;
  NativeInt<Real> last_column, last_row, columns, start;
  int64_t row_stride[kLanes<Real>];  // of the image, in elements
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <typename Real>
struct Context {
  const Geometry* geometry;
  const Work* work;
  int64_t unit_chunks;  // chunks per unit
  int64_t slots;        // units in the ring
  int64_t channels_total;
  double reach;         // of a query's samples below its centre, as far as it can be guessed
  TapChunk<Real>* taps;
  Chunk<Real>* ring;
};

// Units wait in a ring of this many chunks (more if one unit needs more).
constexpr int64_t kRingChunks = 16;

// How far ahead memory is called in: points by elements of their stream, image rows beyond the
// regular reach of the taps. (Learned offsets of a few pixels are common.)
constexpr int64_t kPointsAhead = 512;
constexpr double kRowsAhead = 3;
constexpr int64_t kLineBytes = 64;

int64_t ring_chunks(int64_t unit_chunks) {
  return unit_chunks > kRingChunks ? unit_chunks : kRingChunks;
}

template <typename Real>
int64_t scratch_size(int64_t points) {
  const int64_t chunks = ceil_div(points, kLanes<Real>);
  return chunks * static_cast<int64_t>(sizeof(TapChunk<Real>)) +
         ring_chunks(chunks) * static_cast<int64_t>(sizeof(Chunk<Real>));
}

int64_t scratch_bytes(int64_t points) {
  const int64_t a = scratch_size<float>(points), b = scratch_size<double>(points);
  return a > b ? a : b;
}

template <typename Real>
Context<Real> prepare(const Geometry& geometry, const Work& work) {
  Context<Real> context;
  context.geometry = &geometry;
  context.work = &work;
  context.unit_chunks = ceil_div(geometry.points, kLanes<Real>);
  context.slots = ring_chunks(context.unit_chunks) / context.unit_chunks;
  context.channels_total = geometry.groups * geometry.channels;
  context.taps = static_cast<TapChunk<Real>*>(work.scratch);
  context.ring = reinterpret_cast<Chunk<Real>*>(context.taps + context.unit_chunks);
  const Tap& last = geometry.taps[geometry.points - 1];
  context.reach = last.y * last.scale_y + kRowsAhead;
  for (int64_t i = 0; i < context.unit_chunks * kLanes<Real>; ++i) {
    // A level of negative size has no inside: padding lanes never contribute.
    const Tap none = {0, 0, 0, 0, -1, -1, 0};
    const Tap& tap = i < geometry.points ? geometry.taps[i] : none;
    TapChunk<Real>& to = context.taps[i / kLanes<Real>];
    const int lane = static_cast<int>(i % kLanes<Real>);
    to.x[lane] = static_cast<Real>(tap.x);
    to.y[lane] = static_cast<Real>(tap.y);
    to.scale_x[lane] = static_cast<Real>(tap.scale_x);
    to.scale_y[lane] = static_cast<Real>(tap.scale_y);
    to.width[lane] = static_cast<Real>(tap.width);
    to.height[lane] = static_cast<Real>(tap.height);
    to.columns[lane] = static_cast<Int<Real>>(tap.width);
    to.last_column[lane] = static_cast<Int<Real>>(tap.width - 1);
    to.last_row[lane] = static_cast<Int<Real>>(tap.height - 1);
    to.start[lane] = static_cast<Int<Real>>(tap.start);
    to.row_stride[lane] = tap.width * context.channels_total;
  }
  return context;
}

template <typename Real, bool backward>
OPS_DCN_INLINE void stage_chunk(
    const TapChunk<Real>& tap, const Real* coords, Native<Real> weight, int64_t count,
    Real centre_x, Real centre_y, Chunk<Real>* chunk) {
  using V = Native<Real>;
  using I = NativeInt<Real>;
  constexpr int lanes = kLanes<Real>;
  V learned_x, learned_y;
  split_pairs<Real>(
      load_first(coords, 2 * count), load_first(coords + lanes, 2 * count - lanes), &learned_x,
      &learned_y);
  V x = sample_position<V>(splat<V>(centre_x), tap.scale_x, tap.x, learned_x);
  V y = sample_position<V>(splat<V>(centre_y), tap.scale_y, tap.y, learned_y);
  // Before any conversion to an integer: false for NaN, Inf and everything outside.
  const I active = (x > Real(-1)) & (x < tap.width) & (y > Real(-1)) & (y < tap.height);
  x = active ? x : V{};
  y = active ? y : V{};
  const V cell_x = floor_lanes<Real>(x), cell_y = floor_lanes<Real>(y);
  const V fx = x - cell_x, fy = y - cell_y;
  const I column = __builtin_convertvector(cell_x, I), row = __builtin_convertvector(cell_y, I);
  const I left = active & (column >= 0), right = active & (column < tap.last_column);
  const I top = row >= 0, bottom = row < tap.last_row;
  const I corners =
      (left & top & 1) | (right & top & 2) | (left & bottom & 4) | (right & bottom & 8);
  V corner_weight[kCorners];
  corner_weights<V>(fx, fy, weight, corner_weight);
  store(chunk->pixel, I(tap.start + row * tap.columns + column));
  store(chunk->corners, corners);
  for (int i = 0; i < kCorners; ++i) store(chunk->corner_weight[i], corner_weight[i]);
  if constexpr (backward) {
    store(chunk->fx, fx);
    store(chunk->fy, fy);
    store(chunk->weight, weight);
    for (int i = 0; i < kCorners; ++i) store(&chunk->dots[0][0] + i * lanes, V{});
  }
}

// Softmax over the weights of a unit, left in Chunk::weight.
template <typename Real>
OPS_DCN_INLINE void stage_softmax(const Real* logits, int64_t points, Chunk<Real>* chunks) {
  using V = Native<Real>;
  constexpr int lanes = kLanes<Real>;
  Real max = -__builtin_inf();
  for (int64_t i = 0; i < points; ++i) max = logits[i] > max ? logits[i] : max;
  V sums{};
  for (int64_t begin = 0; begin < points; begin += lanes) {
    const V e = exp_negative<Real>(load_first(logits + begin, points - begin) - max);
    store(chunks[begin / lanes].weight, e);
    for (int i = 0; i < lanes; ++i) sums[i] += begin + i < points ? e[i] : Real(0);
  }
  const Real scale = Real(1) / sum_lanes<Real>(sums);
  for (int64_t begin = 0; begin < points; begin += lanes) {
    Real* weight = chunks[begin / lanes].weight;
    store(weight, load<V>(weight) * scale);
  }
}

// Walks through the units of a share of work, groups within queries.
struct Cursor {
  int64_t query, row, column;  // the same place twice
  int64_t group, slot;

  Cursor(const Geometry& g, const Work& work)
      : query(work.query_begin), row(query / g.query_columns), column(query % g.query_columns),
        group(work.group_begin), slot(0) {}

  void advance(const Geometry& g, const Work& work, int64_t slots) {
    if (++slot == slots) slot = 0;
    if (++group < work.group_end) return;
    group = work.group_begin;
    ++query;
    if (++column < g.query_columns) return;
    column = 0;
    ++row;
  }
};

template <bool write, typename Real>
OPS_DCN_INLINE void prefetch_run(const Real* from, int64_t count) {
  for (int64_t i = 0; i < count; i += kLineBytes / static_cast<int>(sizeof(Real))) {
    __builtin_prefetch(from + i, write ? 1 : 0);
  }
}

// The learned coordinates and weights of a unit, or their gradients.
template <typename Real>
struct PointData {
  Real* coords;
  Real* weights;

  PointData(const Geometry& g, const void* all_coords, const void* all_weights, const Cursor& at)
      : coords(static_cast<Real*>(const_cast<void*>(all_coords)) +
               at.query * g.coord_query_stride + at.group * g.coord_group_stride),
        weights(static_cast<Real*>(const_cast<void*>(all_weights)) +
                at.query * g.weight_query_stride + at.group * g.weight_group_stride) {}
};

// Calls in what this unit and later ones need: points well ahead in their stream, results to be
// written, and for a convolution the row of the image that comes into reach next. The hardware
// does not see these streams, because they alternate. (No address of a prefetch can fault.)
template <typename Real, bool backward>
OPS_DCN_INLINE void prefetch_unit(
    const Context<Real>& context, const Cursor& cursor, const PointData<Real>& points,
    int64_t pixel_ahead) {
  const Geometry& g = *context.geometry;
  const Work& work = *context.work;
  const int64_t channel = cursor.group * g.channels;
  prefetch_run<false>(points.coords + kPointsAhead, 2 * g.points);
  prefetch_run<false>(points.weights + kPointsAhead, g.points);
  if constexpr (backward) {
    const PointData<Real> grads(g, work.grad_coords, work.grad_weights, cursor);
    prefetch_run<true>(grads.coords, 2 * g.points);
    prefetch_run<true>(grads.weights, g.points);
    prefetch_run<false>(
        static_cast<const Real*>(work.grad_output) + cursor.query * context.channels_total +
            channel, g.channels);
  }
  if (pixel_ahead < 0) return;
  const int64_t at = pixel_ahead * context.channels_total + channel;
  prefetch_run<false>(static_cast<const Real*>(work.value) + at, g.channels);
  if constexpr (backward) prefetch_run<true>(static_cast<Real*>(work.grad_value) + at, g.channels);
}

template <typename Real, bool backward>
OPS_DCN_INLINE void stage_unit(const Context<Real>& context, const Cursor& cursor) {
  const Geometry& g = *context.geometry;
  constexpr int lanes = kLanes<Real>;
  Chunk<Real>* chunks = context.ring + cursor.slot * context.unit_chunks;
  const PointData<Real> points(g, context.work->coords, context.work->weights, cursor);
  const double centre_x = g.origin_x + g.step_x * static_cast<double>(cursor.column);
  const double centre_y = g.origin_y + g.step_y * static_cast<double>(cursor.row);
  const bool convolution = g.step_y > 0;
  const int64_t pixel_ahead =
      convolution ? static_cast<int64_t>(centre_y + context.reach) * g.taps[0].width +
                        static_cast<int64_t>(centre_x)
                  : -1;
  prefetch_unit<Real, backward>(context, cursor, points, pixel_ahead);
  if (g.softmax) stage_softmax(points.weights, g.points, chunks);
  for (int64_t i = 0; i < context.unit_chunks; ++i) {
    const int64_t begin = i * lanes, count = g.points - begin;
    const Native<Real> weight = g.softmax ? load<Native<Real>>(chunks[i].weight)
                                          : load_first(points.weights + begin, count);
    stage_chunk<Real, backward>(
        context.taps[i], points.coords + 2 * begin, weight, count, static_cast<Real>(centre_x),
        static_cast<Real>(centre_y), chunks + i);
  }
}

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
  const int64_t pixel_stride = context.channels_total;
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

// Dot products of grad_output with the corners, and grad_value, for one block of channels.
template <typename Real, typename B>
OPS_DCN_INLINE void scatter_block(
    B, const Context<Real>& context, Chunk<Real>* chunk, const Real* value, Real* grad_value,
    const Real* grad_output) {
  using V = Vector<Real, B::lanes>;
  const int64_t pixel_stride = context.channels_total;
  const TapChunk<Real>* tap = context.taps;
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
        if (corners & 1) add(grad_value + at, weight[0]);
        if (corners & 2) add(grad_value + at + pixel_stride, weight[1]);
        if (corners & 4) add(grad_value + below, weight[2]);
        if (corners & 8) add(grad_value + below + pixel_stride, weight[3]);
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
  const Real* value = static_cast<const Real*>(work.value);
  const Real* grad_output = static_cast<const Real*>(work.grad_output);
  Real* grad_value = static_cast<Real*>(work.grad_value);
  for_units<Real, true>(context, [&](const Cursor& at, Chunk<Real>* chunks) {
    const int64_t channel = at.group * geometry.channels;
    const Real* from = grad_output + at.query * context.channels_total + channel;
    for_blocks<Real>(geometry.channels, [&](auto block, int64_t first) {
      scatter_block<Real>(
          block, context, chunks, value + channel + first, grad_value + channel + first,
          from + first);
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
