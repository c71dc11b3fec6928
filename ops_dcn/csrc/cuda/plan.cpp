#include "plan.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace ops_dcn {
namespace cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kVectorBytes = 16;
// What a block may have without asking the driver for more, and what it should use so that several
// share a multiprocessor.
constexpr int kSharedBytes = 48 * 1024;
constexpr int kGoodSharedBytes = 32 * 1024;
constexpr int kGridRows = 65535;
// Blocks do not shrink below this to have all points staged at once.
constexpr int kLeastThreads = 64;
// Fewer points than this at a time are mostly barriers.
constexpr int kLeastChunk = 8;
// Threads of a unit that have channels to work on, at least.
constexpr double kGoodLanes = 0.75;
// Sides of a block of queries of a convolution.
constexpr int kTileSide = 8;

constexpr Int64 kIntLimit = Int64{1} << 31;

int bytes_of(Dtype dtype) {
  return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2;
}

bool is_half(Dtype dtype) { return bytes_of(dtype) == 2; }

int real_bytes(Dtype dtype) { return std::max(4, bytes_of(dtype)); }

const char* name_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat16: return "f16";
    case Dtype::kBFloat16: return "bf16";
    case Dtype::kFloat32: return "f32";
    default: return "f64";
  }
}

template <typename T>
T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

// A part of `n`, at most `limit`, such that the parts are about equal.
int balanced(int n, int limit) { return ceil_div(n, ceil_div(n, std::max(1, limit))); }

Divisor divisor(int by) {
  const unsigned d = static_cast<unsigned>(std::max(1, by));
  return {d, static_cast<unsigned>((Word{1} << 32) / d + 1)};
}

int vector_width(const Shape& shape, Dtype dtype, int alignment) {
  int width = std::max(1, std::min(kVectorBytes, alignment) / bytes_of(dtype));
  while (shape.channels % width != 0 || shape.value_stride % width != 0) width /= 2;
  return width;
}

void set_lanes(int slices, Tiling* t) {
  t->slices = slices;
  t->lane_bits = 5;
  while (t->lane_bits > 0 && slices < kGoodLanes * ceil_div(slices, 1 << t->lane_bits) *
                                          (1 << t->lane_bits)) {
    --t->lane_bits;
  }
  t->lanes = 1 << t->lane_bits;
}

int query_rows(const Shape& shape) { return ceil_div(shape.queries, shape.query_columns); }

int units_of(const Tiling& t) { return t.tile_rows * t.tile_columns * t.block_groups; }

int block_threads(const Tiling& t) {
  return ceil_div(units_of(t) * t.lanes, kWarp) * kWarp;
}

// Units with a slot in shared memory: those that fill up the last warp have one, too.
int staged_units(const Tiling& t) { return block_threads(t) / t.lanes; }

// Fills in what follows from the size of a block.
void complete(const Shape& shape, Tiling* t) {
  t->tiles_across = ceil_div(shape.query_columns, t->tile_columns);
  t->group_tiles = ceil_div(shape.groups, t->block_groups);
  t->by_groups = divisor(t->block_groups);
  t->by_columns = divisor(t->tile_columns);
  t->by_kernel_h = divisor(shape.kernel_h);
  t->by_level_points = divisor(shape.points / std::max(1, shape.levels));
}

void set_chunk(int chunk, Tiling* t) {
  t->chunk = chunk;
  t->chunk_stride = chunk | 1;  // odd: neighbouring units use different banks
  t->by_chunk = divisor(chunk);
}

int shared_bytes(const Shape& shape, const Tiling& t, int real, int vector) {
  const int tile = t.region_rows * t.region_columns * t.slices * vector;
  return shared_layout(t, shape.levels, real, staged_units(t), tile).bytes;
}

// Blocks of about `threads` threads that take as many groups of a query as they can: these lie side
// by side in memory.
Tiling cut(const Shape& shape, int slices, int threads) {
  Tiling t{};
  set_lanes(slices, &t);
  const int units = std::max(1, threads / t.lanes);
  t.block_groups = balanced(shape.groups, units);
  const int queries = std::max(1, units / t.block_groups);
  const int side = shape.levels > 0 ? queries : std::min(queries, kTileSide);
  t.tile_columns = balanced(shape.query_columns, side);
  t.tile_rows = balanced(query_rows(shape), queries / t.tile_columns);
  complete(shape, &t);
  set_chunk(shape.points, &t);
  return t;
}

// Stages as many points at a time as fit into `limit` bytes, all chunks alike.
void fit_chunk(const Shape& shape, int real, int vector, int limit, Tiling* t) {
  set_chunk(1, t);
  const int least = shared_bytes(shape, *t, real, vector);
  set_chunk(3, t);
  const int more = shared_bytes(shape, *t, real, vector) - least;  // for two points
  const int capacity = 1 + 2 * std::max(0, (limit - least) / more);
  set_chunk(balanced(shape.points, capacity), t);
}

// The tiling of a kernel without a tile of pixels. Points that take much shared memory are staged
// in several chunks, or, where all are needed at once, by smaller blocks.
Tiling plain_tiling(
    const Shape& shape, int real, int vector, bool at_once, const Policy& policy) {
  const int slices = shape.channels / vector;
  for (int threads = policy.threads; at_once && threads >= kLeastThreads; threads /= 2) {
    const Tiling t = cut(shape, slices, threads);
    if (shared_bytes(shape, t, real, vector) <= kGoodSharedBytes) return t;
  }
  Tiling t = cut(shape, slices, policy.threads);
  fit_chunk(shape, real, vector, kGoodSharedBytes, &t);
  return t;
}

// Sets the region of pixels that lie within the reach of the taps and the halo.
void set_region(const Shape& shape, const Policy& policy, Tiling* t) {
  const auto axis = [&](int kernel, int dilation, int half, int step, int queries, int* begin,
                        int* size) {
    const double first = shape.offset_scale * -half;
    const double last = shape.offset_scale * ((kernel - 1) * dilation - half);
    const int low = static_cast<int>(std::floor(std::min(first, last))) - policy.halo;
    const int high = static_cast<int>(std::ceil(std::max(first, last))) + policy.halo;
    *begin = low;
    *size = step * (queries - 1) + high - low + 2;
  };
  axis(shape.kernel_w, shape.dilation_w, shape.half_w, shape.step_x, t->tile_columns, &t->region_x,
       &t->region_columns);
  axis(shape.kernel_h, shape.dilation_h, shape.half_h, shape.step_y, t->tile_rows, &t->region_y,
       &t->region_rows);
}

// Whether a tile can pay: the numbers below are far from any overflow, too.
bool tile_conceivable(const Shape& shape) {
  const double reach =
      std::fabs(shape.offset_scale) *
      (static_cast<double>(shape.kernel_w) * shape.dilation_w +
       static_cast<double>(shape.kernel_h) * shape.dilation_h);
  return shape.levels == 0 && reach < 256 && shape.step_x <= 16 && shape.step_y <= 16;
}

// The tiling with a tile of pixels of one group, where it fits and each of its elements can expect
// four additions at least.
bool tile_tiling(
    const Shape& shape, int vector, bool at_once, const Policy& policy, Tiling* tiling) {
  constexpr int kSides[][2] = {{8, 8}, {4, 8}, {4, 4}};
  if (!policy.tile || !tile_conceivable(shape)) return false;
  for (const auto& side : kSides) {
    Tiling t{};
    set_lanes(shape.channels / vector, &t);
    t.block_groups = 1;
    t.tile_rows = balanced(query_rows(shape), side[0]);
    t.tile_columns = balanced(shape.query_columns, side[1]);
    complete(shape, &t);
    set_region(shape, policy, &t);
    const Int64 pixels = static_cast<Int64>(t.region_rows) * t.region_columns;
    if (block_threads(t) > policy.threads || pixels > shape.points * units_of(t)) continue;
    if (pixels * shape.channels * 4 > kSharedBytes) continue;
    fit_chunk(shape, 4, vector, kSharedBytes, &t);
    if (shared_bytes(shape, t, 4, vector) > kSharedBytes) continue;
    if (t.chunk < (at_once ? shape.points : std::min(shape.points, kLeastChunk))) continue;
    *tiling = t;
    return true;
  }
  return false;
}

void fill_launch(const Shape& shape, const Tiling& t, int shared, Launch* launch) {
  const Int64 tiles =
      static_cast<Int64>(ceil_div(query_rows(shape), t.tile_rows)) * t.tiles_across *
      t.group_tiles;
  launch->grid_x = static_cast<unsigned>(tiles);
  launch->grid_y = static_cast<unsigned>(std::min<Int64>(shape.batch, kGridRows));
  launch->block = static_cast<unsigned>(block_threads(t));
  launch->shared_bytes = static_cast<unsigned>(shared);
}

// A kernel that goes over `elements` elements.
Launch sweep(const char* kind, Dtype dtype, Int64 elements, const Policy& policy) {
  constexpr Int64 kItemsPerThread = 4, kBlocks = 4096;
  Launch launch{};
  std::snprintf(launch.kernel, sizeof launch.kernel, "dcn_%s_%s", kind, name_of(dtype));
  launch.block = static_cast<unsigned>(policy.threads);
  const Int64 blocks = ceil_div(elements, kItemsPerThread * policy.threads);
  launch.grid_x = static_cast<unsigned>(std::clamp<Int64>(blocks, 1, kBlocks));
  launch.grid_y = 1;
  return launch;
}

}  // namespace

bool empty_problem(const Shape& shape) {
  return shape.batch == 0 || shape.queries == 0 || shape.groups == 0 || shape.channels == 0 ||
         shape.points == 0 || shape.pixels == 0;
}

const char* unsupported(const Shape& s) {
  const auto wide = [](int value) { return static_cast<Int64>(value); };
  if (s.batch >= kIntLimit) return "the batch must be below 2^31";
  if (wide(s.queries) * std::max(1, s.groups) >= kIntLimit) {
    return "queries times groups must be below 2^31";
  }
  // In bytes of float64, the distance of two pixels must be an int.
  if (std::max(wide(s.groups) * s.channels, wide(s.value_stride)) >= kIntLimit / 8) {
    return "channels must be below 2^28";
  }
  if (s.pixels >= 1 << 30) return "pixels of an image must be below 2^30";
  if (s.points >= 1 << 15) return "points must be below 2^15";
  if (s.levels > 1 << 10) return "levels must be at most 1024";
  if (s.levels > 0) return nullptr;
  if (s.width >= 1 << 28) return "the width must be below 2^28";
  // One tile beyond the last query, and the taps, must not leave the range of int.
  constexpr Int64 kReach = Int64{1} << 29;
  const Int64 rows = s.query_columns > 0 ? query_rows(s) : 0;
  if (std::abs(wide(s.origin_x)) + s.step_x * (wide(s.query_columns) + kTileSide) >= kReach ||
      std::abs(wide(s.origin_y)) + s.step_y * (rows + kTileSide) >= kReach ||
      wide(s.kernel_w) * s.dilation_w >= kReach || wide(s.kernel_h) * s.dilation_h >= kReach) {
    return "the padded image must be below 2^29 pixels on each side";
  }
  return nullptr;
}

ForwardPlan plan_forward(
    const Shape& shape, Dtype dtype, int alignment, const Device&, const Policy& policy) {
  ForwardPlan plan{};
  const int vector = vector_width(shape, dtype, alignment), real = real_bytes(dtype);
  plan.tiling = plain_tiling(shape, real, vector, false, policy);
  std::snprintf(
      plan.run.kernel, sizeof plan.run.kernel, "dcn_forward_%s_v%d", name_of(dtype), vector);
  fill_launch(shape, plan.tiling, shared_bytes(shape, plan.tiling, real, vector), &plan.run);
  return plan;
}

BackwardPlan plan_backward(
    const Shape& shape, Dtype dtype, int alignment, const Device& device, bool deterministic,
    const Policy& policy) {
  BackwardPlan plan{};
  int vector = vector_width(shape, dtype, alignment);
  const int real = real_bytes(dtype);
  const Int64 elements = shape.batch * shape.pixels * shape.groups * shape.channels;
  // Softmax takes a second pass over points that are staged in chunks.
  const bool at_once = shape.softmax;
  const int narrow = std::min(vector, policy.tile_vector);
  const bool tile = !deterministic && dtype != Dtype::kFloat64 &&
                    tile_tiling(shape, narrow, at_once, policy, &plan.tiling);
  if (tile) {
    vector = narrow;
  } else {
    plan.tiling = plain_tiling(shape, real, vector, at_once, policy);
  }
  const char* kind = tile ? "tile" : "atomic";
  if (deterministic) {
    kind = "fixed";
    plan.accumulator = Accumulator::kInt64;
    plan.range_offset = elements * 8;
    plan.accumulator_bytes = plan.range_offset + 3 * 8;
    plan.prepare = sweep("range", dtype, elements, policy);
    plan.finish = sweep("finish_fixed", dtype, elements, policy);
  } else if (tile && is_half(dtype) && device.sm >= 90 && vector >= 2 && policy.native_half) {
    kind = "native";
    plan.accumulator = Accumulator::kDirect;
  } else if (is_half(dtype)) {
    plan.accumulator = Accumulator::kFloat32;
    plan.accumulator_bytes = elements * 4;
    plan.finish = sweep("finish", dtype, elements, policy);
  } else {
    plan.accumulator = Accumulator::kDirect;
  }
  std::snprintf(
      plan.run.kernel, sizeof plan.run.kernel, "dcn_backward_%s_%s_v%d", kind, name_of(dtype),
      vector);
  fill_launch(shape, plan.tiling, shared_bytes(shape, plan.tiling, real, vector), &plan.run);
  return plan;
}

}  // namespace cuda
}  // namespace ops_dcn
