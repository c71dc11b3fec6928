// The first half of the kernels: units are staged, that is, the positions, cells and corner weights
// of their points are computed, one lane per point, and the memory they need is called in.
//
// For sample_kernel.cpp alone; the unnamed namespace keeps the copies of the instruction sets apart.
#pragma once

#include "kernel_set.h"
#include "vector.h"

namespace {

using namespace ops_dcn;

// Staged data of kLanes points of a unit, one array element per point.
template <typename Real>
struct alignas(64) Chunk {
  Int<Real> pixel[kLanes<Real>];    // top left corner of the cell, as an index into the image
  // Bit set of the corners inside the image, and kForeign; 0: no contribution.
  Int<Real> corners[kLanes<Real>];
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
  NativeInt<Real> own_begin, own_end;  // backward: of top left corners of cells in owned pixels
  int64_t row_stride[kLanes<Real>];    // of the image, in elements
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <typename Real>
struct Context {
  const Geometry* geometry;
  const Work* work;
  int64_t unit_chunks;  // chunks per unit
  int64_t slots;        // units in the ring
  int64_t channels_total;
  int64_t value_stride;
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

// Backward: not all corners of the cell lie in the pixels that this share of the work owns.
constexpr int kForeign = 16;

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
  context.value_stride = geometry.value_stride;
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
    to.own_begin[lane] = static_cast<Int<Real>>(work.own_begin);
    to.own_end[lane] = static_cast<Int<Real>>(work.own_end - tap.width - 1);
    to.row_stride[lane] = tap.width * context.value_stride;
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
  const I pixel = tap.start + row * tap.columns + column;
  I corners = (left & top & 1) | (right & top & 2) | (left & bottom & 4) | (right & bottom & 8);
  if constexpr (backward) {
    corners |= active & ((pixel < tap.own_begin) | (pixel >= tap.own_end)) & kForeign;
  }
  V corner_weight[kCorners];
  corner_weights<V>(fx, fy, weight, corner_weight);
  store(chunk->pixel, pixel);
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
  if (pixel_ahead < 0 || pixel_ahead >= 2 * g.pixels) return;
  const int64_t at = pixel_ahead * context.value_stride + channel;
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
  // Compared as a double: a large scale takes it out of the range of integers. The rows below an
  // image are those of the next.
  const double row_ahead = centre_y + context.reach;
  const bool inside =
      convolution && row_ahead >= 0 && row_ahead < 2.0 * static_cast<double>(g.taps[0].height);
  const int64_t pixel_ahead = inside ? static_cast<int64_t>(row_ahead) * g.taps[0].width +
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

}  // namespace
