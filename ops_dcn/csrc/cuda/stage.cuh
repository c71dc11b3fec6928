// The first half of every kernel: a block stages the points of its units in shared memory, one
// thread per point, so that positions are computed once and not by every thread of a unit.
#pragma once

#include "device.cuh"

namespace ops_dcn {
namespace cuda {
namespace {

struct Level {
  int width, height, start, unused;
};
static_assert(sizeof(Level) == kLevelBytes, "the plan reserves kLevelBytes per level");

// Where a unit's learned points begin, in elements from those of its image (negative: there is no
// such unit), and the centre of its kernel. Worked out once per block, used once per point.
template <typename R>
struct alignas(16) Place {
  Int64 coords, weights;
  R centre_x, centre_y;
};
static_assert(
    sizeof(Place<float>) <= kPlaceBytes && sizeof(Place<double>) <= kPlaceBytes,
    "the plan reserves kPlaceBytes per unit");

// A staged point. `cell` is the pixel of the top left corner, which may lie outside the image (its
// bits are kept in a real, or its value in a double). The backward pass overwrites x, y and cell
// by gradients.
template <typename R>
struct alignas(16) Slot {
  R x, y;  // fractions within the cell
  R weight;
  R cell;
};

OPS_DCN_INLINE void set_cell(int cell, float* to) { *to = __int_as_float(cell); }
OPS_DCN_INLINE void set_cell(int cell, double* to) { *to = static_cast<double>(cell); }
OPS_DCN_INLINE int get_cell(float from) { return __float_as_int(from); }
OPS_DCN_INLINE int get_cell(double from) { return static_cast<int>(from); }

// Width of the level and, in the low bits, which corners lie inside; 0 corners: no contribution.
// Wider levels than this are treated as empty (the host refuses them).
constexpr int kWidthShift = 4;
constexpr int kWidthLimit = 1 << 28;

constexpr int kFar = -1;  // in Block::near: not all of the cell lies in the tile

// Statistics of a unit.
enum { kMax, kScale, kMean, kStatistics };

template <typename R>
struct Block {
  Level* levels;
  Place<R>* places;
  Slot<R>* slots;
  R* sums;  // [units][kStatistics]
  unsigned* spans;
  int* near;
  R* tile;
  int units;
  int image;
  int row, column, group;  // of the first query
};

template <typename R>
OPS_DCN_INLINE Block<R> make_block(const Arguments& a, void* memory, int tile_reals) {
  const Tiling& t = a.tiling;
  char* bytes = static_cast<char*>(memory);
  Block<R> block;
  block.units = static_cast<int>(blockDim.x) >> t.lane_bits;
  const Layout layout =
      shared_layout(t, a.shape.levels, sizeof(R), block.units, tile_reals);
  block.levels = reinterpret_cast<Level*>(bytes);
  block.places = reinterpret_cast<Place<R>*>(bytes + layout.places);
  block.slots = reinterpret_cast<Slot<R>*>(bytes + layout.slots);
  block.sums = reinterpret_cast<R*>(bytes + layout.sums);
  block.spans = reinterpret_cast<unsigned*>(bytes + layout.spans);
  block.near = reinterpret_cast<int*>(bytes + layout.near);
  block.tile = reinterpret_cast<R*>(bytes + layout.tile);
  const int tile = static_cast<int>(blockIdx.x) / t.group_tiles;
  block.group = (static_cast<int>(blockIdx.x) - tile * t.group_tiles) * t.block_groups;
  const int tile_row = tile / t.tiles_across;
  block.row = tile_row * t.tile_rows;
  block.column = (tile - tile_row * t.tiles_across) * t.tile_columns;
  block.image = 0;
  return block;
}

// The levels, read from device memory that the host has not checked: one that does not fit into
// `value` is empty.
template <typename R>
OPS_DCN_INLINE void load_levels(const Arguments& a, const Block<R>& block) {
  const Shape& s = a.shape;
  if (s.levels == 0) {
    if (threadIdx.x == 0) block.levels[0] = Level{s.width, s.height, 0, 0};
    return;
  }
  // Few threads have a level, and none has many: copies of the division would only take up space.
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < s.levels; i += static_cast<int>(blockDim.x)) {
    const Int64 height = a.level_shapes[2 * i], width = a.level_shapes[2 * i + 1];
    const Int64 start = a.level_starts[i];
    const bool fits = height > 0 && width > 0 && width < kWidthLimit && start >= 0 &&
                      start <= s.pixels && height <= (s.pixels - start) / width;
    block.levels[i] = fits ? Level{static_cast<int>(width), static_cast<int>(height),
                                   static_cast<int>(start), 0}
                           : Level{0, 0, 0, 0};
  }
}

// A query of one group, as a block counts them.
struct Unit {
  int row, column, group;
  int query;
  bool valid;
};

template <typename R>
OPS_DCN_INLINE Unit unit_at(const Arguments& a, const Block<R>& block, int index) {
  const Tiling& t = a.tiling;
  const int query = divide(index, t.by_groups);
  const int tile_row = divide(query, t.by_columns);
  Unit unit;
  unit.group = block.group + index - query * t.block_groups;
  unit.row = block.row + tile_row;
  unit.column = block.column + query - tile_row * t.tile_columns;
  // In 64 bits: the last row of tiles may reach beyond any int.
  const Int64 at = static_cast<Int64>(unit.row) * a.shape.query_columns + unit.column;
  unit.valid = tile_row < t.tile_rows && unit.column < a.shape.query_columns &&
               at < a.shape.queries && unit.group < a.shape.groups;
  unit.query = unit.valid ? static_cast<int>(at) : 0;
  return unit;
}

// The unit that a thread works on, and which of its vectors of channels.
OPS_DCN_INLINE int own_unit(const Tiling& t) {
  return static_cast<int>(threadIdx.x) >> t.lane_bits;
}
OPS_DCN_INLINE int own_lane(const Tiling& t) {
  return static_cast<int>(threadIdx.x) & (t.lanes - 1);
}

// The places of all units; those of threads that fill up the last warp stay empty.
template <typename R>
OPS_DCN_INLINE void set_places(const Arguments& a, const Block<R>& block) {
  const Shape& s = a.shape;
  for (int index = static_cast<int>(threadIdx.x); index < block.units;
       index += static_cast<int>(blockDim.x)) {
    const Unit unit = unit_at(a, block, index);
    Place<R> place{-1, -1, R(-0.5), R(-0.5)};
    if (unit.valid) {
      place.coords = unit.query * s.coord_query_stride +
                     static_cast<Int64>(unit.group) * s.coord_group_stride;
      place.weights = unit.query * s.weight_query_stride +
                      static_cast<Int64>(unit.group) * s.weight_group_stride;
      if (s.levels == 0) {
        place.centre_x = static_cast<R>(s.origin_x + s.step_x * unit.column);
        place.centre_y = static_cast<R>(s.origin_y + s.step_y * unit.row);
      }
    }
    block.places[index] = place;
  }
}

// The learned coordinates and weights of an image.
template <typename T>
OPS_DCN_INLINE const T* coords_of(const Arguments& a, int image) {
  return static_cast<const T*>(a.coords) +
         static_cast<Int64>(image) * a.shape.queries * a.shape.coord_query_stride;
}
template <typename T>
OPS_DCN_INLINE const T* weights_of(const Arguments& a, int image) {
  return static_cast<const T*>(a.weights) +
         static_cast<Int64>(image) * a.shape.queries * a.shape.weight_query_stride;
}

// Largest logit of each unit and the factor that makes its exponentials add up to 1.
template <typename T, typename R>
OPS_DCN_INLINE void stage_softmax(const Arguments& a, const Block<R>& block) {
  const int lanes = a.tiling.lanes, index = own_unit(a.tiling), lane = own_lane(a.tiling);
  const Int64 first = block.places[index].weights;
  const T* logits = weights_of<T>(a, block.image) + first;
  const int points = first >= 0 ? a.shape.points : 0;
  R largest = -static_cast<R>(__int_as_float(0x7f800000));
  for (int k = lane; k < points; k += lanes) {
    const R logit = load_one(logits + k);
    largest = logit > largest ? logit : largest;
  }
  largest = max_lanes(largest, lanes);
  R sum = 0;
  for (int k = lane; k < points; k += lanes) sum += exponential(load_one(logits + k) - largest);
  sum = sum_lanes(sum, lanes);
  if (lane == 0) {
    block.sums[index * kStatistics + kMax] = largest;
    block.sums[index * kStatistics + kScale] = R(1) / sum;
  }
}

// A point's regular place within its kernel, and pixels per unit of the learned coordinate.
template <typename R>
struct Tap {
  R x, y, scale_x, scale_y;
};

template <typename R>
OPS_DCN_INLINE Tap<R> tap_of(const Arguments& a, const Level& level, int k) {
  const Shape& s = a.shape;
  if (s.levels > 0) {
    return {R(0), R(0), static_cast<R>(level.width), static_cast<R>(level.height)};
  }
  const int point = k + (k >= s.centre ? 1 : 0);
  const int column = divide(point, a.tiling.by_kernel_h);
  const R scale = static_cast<R>(s.offset_scale);
  return {static_cast<R>(column * s.dilation_w - s.half_w),
          static_cast<R>((point - column * s.kernel_h) * s.dilation_h - s.half_h), scale, scale};
}

template <typename R>
OPS_DCN_INLINE Level level_of(const Arguments& a, const Block<R>& block, int k) {
  return block.levels[a.shape.levels > 0 ? divide(k, a.tiling.by_level_points) : 0];
}

// Stages points `begin` and following of all units; with `tile`, also where they lie in the tile.
template <typename T, bool tile, typename R>
OPS_DCN_INLINE void stage(const Arguments& a, const Block<R>& block, int begin) {
  const Shape& s = a.shape;
  const Tiling& t = a.tiling;
  const int count = s.points - begin < t.chunk ? s.points - begin : t.chunk;
  const T* coords = coords_of<T>(a, block.image) + 2 * begin;
  const T* weights = weights_of<T>(a, block.image) + begin;
  for (int item = static_cast<int>(threadIdx.x); item < block.units * t.chunk;
       item += static_cast<int>(blockDim.x)) {
    const int index = divide(item, t.by_chunk), k = item - index * t.chunk;
    if (k >= count) continue;
    const Place<R> place = block.places[index];
    const int to = index * t.chunk_stride + k;
    Slot<R> slot{};
    unsigned span = 0;
    int near = kFar;
    if (place.coords >= 0) {
      const Level level = level_of(a, block, begin + k);
      const Tap<R> tap = tap_of<R>(a, level, begin + k);
      const T* learned = coords + place.coords + 2 * k;
      R x = sample_position<R>(place.centre_x, tap.scale_x, tap.x, load_one(learned));
      R y = sample_position<R>(place.centre_y, tap.scale_y, tap.y, load_one(learned + 1));
      slot.weight = load_one(weights + place.weights + k);
      if (s.softmax) {
        const R* sums = block.sums + index * kStatistics;
        slot.weight = exponential(slot.weight - sums[kMax]) * sums[kScale];
      }
      // Before any conversion to an integer: false for NaN, infinity and everything outside.
      if (x > R(-1) && x < static_cast<R>(level.width) && y > R(-1) &&
          y < static_cast<R>(level.height)) {
        const R cell_x = round_down(x), cell_y = round_down(y);
        const int column = static_cast<int>(cell_x), row = static_cast<int>(cell_y);
        slot.x = x - cell_x;
        slot.y = y - cell_y;
        set_cell(level.start + row * level.width + column, &slot.cell);
        // A position just below the last pixel may round up to it.
        const unsigned left = column >= 0 && column < level.width, right = column < level.width - 1;
        const unsigned top = row >= 0 && row < level.height, bottom = row < level.height - 1;
        span = (left & top) | (right & top) << 1 | (left & bottom) << 2 | (right & bottom) << 3;
        span |= span != 0 ? static_cast<unsigned>(level.width) << kWidthShift : 0u;
        if constexpr (tile) {
          const int from_x = column - (s.origin_x + s.step_x * block.column + t.region_x);
          const int from_y = row - (s.origin_y + s.step_y * block.row + t.region_y);
          const bool inside = from_x >= 0 && from_x < t.region_columns - 1 && from_y >= 0 &&
                              from_y < t.region_rows - 1;
          near = inside ? from_y * t.region_columns + from_x : kFar;
        }
      }
    }
    block.slots[to] = slot;
    block.spans[to] = span;
    if constexpr (tile) block.near[to] = near;
  }
}

// The pixels around a sample, at one channel. Those outside the image must not be touched.
template <typename P>
struct Corners {
  P* at[kCorners];
};

// `first`: the channel in the first pixel of the image. With the distance of pixels in bytes, a row
// takes one instruction, int times int plus 64 bits: images of any size, without kernels of their
// own.
template <typename P>
OPS_DCN_INLINE Corners<P> corners_of(P* first, int cell, unsigned span, int pixel_bytes) {
  const int width = static_cast<int>(span >> kWidthShift);
  const char* top = reinterpret_cast<const char*>(first) + multiply_wide(cell, pixel_bytes);
  const char* bottom = top + multiply_wide(width, pixel_bytes);
  const char* at[kCorners] = {top, top + pixel_bytes, bottom, bottom + pixel_bytes};
  Corners<P> corners;
#pragma unroll
  for (int i = 0; i < kCorners; ++i) {
    corners.at[i] = reinterpret_cast<P*>(const_cast<char*>(at[i]));
  }
  return corners;
}

}  // namespace
}  // namespace cuda
}  // namespace ops_dcn
