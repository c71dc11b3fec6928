#include "../launch.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernel_set.h"

namespace ops_dcn {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::get_num_threads;
using torch::stable::parallel_for;

// Work below this many multiply-adds is not worth another thread.
constexpr int64_t kGrainOperations = 200000;
// A backward pass sets aside at most this much memory for copies of grad_value ...
constexpr int64_t kCopyBytes = int64_t{512} << 20;
// ... and cuts one image into at most this many bands: adding up copies costs time, too.
constexpr int64_t kBandsPerImage = 8;

bool supported(const KernelSet& set) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (&set == &kernels_avx512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma");
  }
  if (&set == &kernels_avx2) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  }
#endif
  return &set == &kernels_baseline;
}

// Best first.
const KernelSet* const kSets[] = {
#if defined(__x86_64__)
    &kernels_avx512,
    &kernels_avx2,
#endif
    &kernels_baseline,
};

const KernelSet& choose() {
  const char* wish = std::getenv("OPS_DCN_CPU_ISA");
  std::string names;
  for (const KernelSet* set : kSets) {
    if (!supported(*set)) continue;
    if (wish == nullptr || *wish == '\0' || std::strcmp(wish, set->name) == 0) return *set;
    names += names.empty() ? set->name : std::string(", ") + set->name;
  }
  STD_TORCH_CHECK(
      false, "OPS_DCN_CPU_ISA is not valid: got ", wish, ", expected one of ", names,
      " (what this CPU offers)");
}

const KernelSet& kernels() {
  static const KernelSet& set = choose();
  return set;
}

struct Scratch {
  explicit Scratch(int64_t bytes) : memory(new char[bytes + 64]) {
    void* start = memory.get();
    std::size_t space = bytes + 64;
    data = std::align(64, bytes, start, space);
  }
  std::unique_ptr<char[]> memory;
  void* data;
};

bool is_half(const Tensor& t) {
  return t.scalar_type() == ScalarType::Half || t.scalar_type() == ScalarType::BFloat16;
}

Tensor widen(const Tensor& t) { return is_half(t) ? torch::stable::to(t, ScalarType::Float) : t; }

Tensor narrow_like(const Tensor& t, const Tensor& like) {
  return is_half(like) ? torch::stable::to(t, like.scalar_type()) : t;
}

// Byte addresses of the images of all buffers of one call.
struct Images {
  const Geometry* geometry;
  int64_t element;
  const char *value, *coords, *weights, *grad_output;
  char *output, *grad_value, *grad_coords, *grad_weights;

  int64_t value_bytes() const {
    return geometry->pixels * geometry->value_stride * element;
  }
  int64_t output_bytes() const {
    return geometry->queries * geometry->groups * geometry->channels * element;
  }
  int64_t coord_bytes() const { return geometry->queries * geometry->coord_query_stride * element; }
  int64_t weight_bytes() const {
    return geometry->queries * geometry->weight_query_stride * element;
  }

  Work image(int64_t n) const {
    Work work{};
    work.value = value + n * value_bytes();
    work.coords = coords + n * coord_bytes();
    work.weights = weights + n * weight_bytes();
    if (output != nullptr) {
      work.output = output + n * output_bytes();
    } else {
      work.grad_output = grad_output + n * output_bytes();
      work.grad_value = grad_value + n * value_bytes();
      work.grad_coords = grad_coords + n * coord_bytes();
      work.grad_weights = grad_weights + n * weight_bytes();
    }
    work.group_end = geometry->groups;
    return work;
  }
};

const char* bytes_of(const Tensor& t) { return static_cast<const char*>(t.const_data_ptr()); }
char* mutable_bytes_of(const Tensor& t) { return static_cast<char*>(t.mutable_data_ptr()); }

// Calls `body(work)` for every image that queries [begin, end), counted over the batch, touch.
template <typename Body>
void for_images(const Images& images, int64_t begin, int64_t end, const Body& body) {
  const int64_t queries = images.geometry->queries;
  while (begin < end) {
    const int64_t n = begin / queries;
    Work work = images.image(n);
    work.query_begin = begin - n * queries;
    work.query_end = std::min(end - n * queries, queries);
    body(n, work);
    begin = n * queries + work.query_end;
  }
}

// A double, as the product may leave 64 bits.
double operations_per_query(const Geometry& g) {
  const double points = static_cast<double>(g.groups) * static_cast<double>(g.points);
  return std::max(1.0, points * static_cast<double>(g.channels * 4 + 16));
}

// How a backward pass is cut up: `bands` ranges of queries (counted over the batch), each done by
// `slices` tasks that touch different groups. The cut depends on the problem and the number of
// threads alone, so the result does, too.
struct Cut {
  int64_t bands, slices, total;

  Cut(const Geometry& g, int64_t image_bytes) {
    total = g.batch * g.queries;
    const double useful = static_cast<double>(total) * operations_per_query(g) / kGrainOperations;
    const double cores = static_cast<double>(get_num_threads());
    const int64_t threads = std::max<int64_t>(1, static_cast<int64_t>(std::min(cores, useful)));
    bands = std::min({threads, std::max(g.batch, kBandsPerImage), total,
                      1 + kCopyBytes / std::max<int64_t>(1, 2 * image_bytes)});
    slices = std::min(g.groups, (threads + bands - 1) / bands);
  }
  int64_t begin(int64_t band) const { return total / bands * band + total % bands * band / bands; }
};

void fill_zero(char* data, int64_t bytes) {
  parallel_for(0, bytes, int64_t{1} << 18, [&](int64_t begin, int64_t end) {
    std::memset(data + begin, 0, end - begin);
  });
}

// What bands that meet within an image do there. A convolution samples near its queries: bands share
// out the pixels, each adds to its own directly, and to the others in a copy of the image, of which
// it uses little. Attention samples anywhere: the first band has the image, the others a copy each.
// A band shares at most two images with others, its first and its last.
class Copies {
 public:
  Copies(const Images& images, const Cut& cut, const Tensor& like)
      : images_(images), cut_(cut), local_(images.geometry->step_y > 0), parts_(2 * cut.bands),
        blocks_((images.geometry->pixels + kBlockPixels - 1) / kBlockPixels) {
    int64_t count = 0;
    for (int64_t band = 0; band < cut.bands; ++band) {
      for_images(images, cut.begin(band), cut.begin(band + 1), [&](int64_t image, Work& work) {
        if (work.query_end - work.query_begin == images.geometry->queries) return;
        if (!local_ && work.query_begin == 0) return;
        parts_[index(band, image)] = {image, count++};
      });
    }
    memory_ = torch::stable::new_empty(like, {count * images.value_bytes() / images.element});
    touched_.assign(count * cut.slices * blocks_, local_ ? 0 : 1);
    if (!local_) fill_zero(mutable_bytes_of(memory_), count * images.value_bytes());
  }

  // Tells `work`, a share of `image`, what it owns and where it writes the rest.
  void assign(int64_t band, int64_t slice, int64_t image, Work* work) {
    const Geometry& g = *images_.geometry;
    const Part& part = parts_[index(band, image)];
    work->own_begin = local_ ? owner_boundary(work->query_begin) : 0;
    work->own_end = local_ ? owner_boundary(work->query_end) : g.pixels;
    if (!local_ && work->query_begin != 0) work->grad_value = copy(part);
    if (work->own_end - work->own_begin == g.pixels) return;
    work->copy = copy(part);
    work->touched = touched(part, slice);
  }

  // Adds the copies to grad_value, in the order of the bands.
  template <typename Real>
  void add_up() {
    const Geometry& g = *images_.geometry;
    if (touched_.empty()) return;
    parallel_for(0, blocks_, 16, [&](int64_t begin, int64_t end) {
      for (const Part& part : parts_) {
        for (int64_t slice = 0; part.image >= 0 && slice < cut_.slices; ++slice) {
          for (int64_t block = begin; block < end; ++block) {
            if (touched(part, slice)[block]) add_block<Real>(g, part, slice, block);
          }
        }
      }
    });
  }

 private:
  struct Part {
    int64_t image = -1, number = 0;
  };

  int64_t index(int64_t band, int64_t image) const {
    return 2 * band + (image == cut_.begin(band) / images_.geometry->queries ? 0 : 1);
  }

  int64_t owner_boundary(int64_t query) const {
    return images_.geometry->pixels * query / images_.geometry->queries;
  }

  char* copy(const Part& part) {
    return mutable_bytes_of(memory_) + part.number * images_.value_bytes();
  }

  uint8_t* touched(const Part& part, int64_t slice) {
    return touched_.data() + (part.number * cut_.slices + slice) * blocks_;
  }

  template <typename Real>
  void add_block(const Geometry& g, const Part& part, int64_t slice, int64_t block) {
    const int64_t stride = g.groups * g.channels;
    const int64_t first = g.groups * slice / cut_.slices * g.channels;
    const int64_t last = g.groups * (slice + 1) / cut_.slices * g.channels;
    const Real* from = reinterpret_cast<const Real*>(copy(part));
    Real* to = reinterpret_cast<Real*>(images_.grad_value + part.image * images_.value_bytes());
    const int64_t end = std::min(g.pixels, (block + 1) * kBlockPixels);
    for (int64_t pixel = block * kBlockPixels; pixel < end; ++pixel) {
      for (int64_t i = first; i < last; ++i) to[pixel * stride + i] += from[pixel * stride + i];
    }
  }

  const Images& images_;
  const Cut& cut_;
  const bool local_;
  std::vector<Part> parts_;
  int64_t blocks_;  // of an image
  Tensor memory_;
  std::vector<uint8_t> touched_;
};

// Packed points may be followed by padding, whose gradient is 0.
void clear_padding(const Geometry& g, const Work& work, int64_t element) {
  const int64_t used = g.groups * g.coord_group_stride, padding = g.coord_query_stride - used;
  if (padding == 0) return;
  for (int64_t q = work.query_begin; q < work.query_end; ++q) {
    char* row = static_cast<char*>(work.grad_coords) + q * g.coord_query_stride * element;
    std::memset(row + used * element, 0, padding * element);
  }
}

void backward_bands(const Images& images, Kernel kernel, const Cut& cut, const Tensor& like) {
  const Geometry& g = *images.geometry;
  Copies copies(images, cut, like);
  const int64_t scratch_bytes = kernels().scratch_bytes(g.points);
  parallel_for(0, cut.bands * cut.slices, 1, [&](int64_t begin, int64_t end) {
    const Scratch scratch(scratch_bytes);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t band = task / cut.slices, slice = task % cut.slices;
      for_images(images, cut.begin(band), cut.begin(band + 1), [&](int64_t image, Work& work) {
        copies.assign(band, slice, image, &work);
        work.group_begin = g.groups * slice / cut.slices;
        work.group_end = g.groups * (slice + 1) / cut.slices;
        work.scratch = scratch.data;
        kernel(g, work);
        if (slice == 0) clear_padding(g, work, images.element);
      });
    }
  });
  if (images.element == 4) {
    copies.add_up<float>();
  } else {
    copies.add_up<double>();
  }
}

}  // namespace

// Half precisions are copied anyway, which changes strides; gradients are written like the inputs.
Tensor readable_rows(const Tensor& tensor, bool backward) {
  const bool readable = has_even_rows(tensor) && !backward && !is_half(tensor);
  return readable ? tensor : dense_copy(tensor);
}

Tensor run_forward(Problem& problem, const Tensor& value) {
  const Geometry& g = problem.bound();
  const Tensor wide_value = widen(value);
  const Tensor coords = widen(problem.points.coords);
  const Tensor weights = problem.points.packed ? coords : widen(problem.points.weights);
  Tensor output = torch::stable::new_empty(wide_value, problem.output_sizes);
  if (problem.empty()) {
    torch::stable::zero_(output);
    return narrow_like(output, value);
  }

  Images images{};
  images.geometry = &g;
  images.element = static_cast<int64_t>(wide_value.element_size());
  images.value = bytes_of(wide_value);
  images.coords = bytes_of(coords);
  images.weights = bytes_of(weights) + problem.points.weight_start * images.element;
  images.output = mutable_bytes_of(output);
  const KernelSet& set = kernels();
  const Kernel kernel = images.element == 4 ? set.forward_float : set.forward_double;
  const int64_t grain =
      std::max<int64_t>(1, static_cast<int64_t>(kGrainOperations / operations_per_query(g)));
  const int64_t scratch_bytes = set.scratch_bytes(g.points);
  parallel_for(0, g.batch * g.queries, grain, [&](int64_t begin, int64_t end) {
    const Scratch scratch(scratch_bytes);
    for_images(images, begin, end, [&](int64_t, Work& work) {
      work.scratch = scratch.data;
      kernel(g, work);
    });
  });
  return narrow_like(output, value);
}

Gradients run_backward(
    Problem& problem, const Tensor& value, const Tensor& grad_output, bool /*deterministic*/) {
  const Geometry& g = problem.bound();
  check_grad_output(grad_output, value, problem);
  const bool packed = problem.points.packed;
  const Tensor wide_value = widen(value), wide_grad_output = widen(grad_output);
  const Tensor coords = widen(problem.points.coords);
  const Tensor weights = packed ? coords : widen(problem.points.weights);
  Gradients grads{
      torch::stable::empty_like(wide_value), torch::stable::empty_like(coords),
      packed ? coords : torch::stable::empty_like(weights)};
  if (packed) grads.weights = grads.coords;

  Images images{};
  images.geometry = &g;
  images.element = static_cast<int64_t>(wide_value.element_size());
  images.value = bytes_of(wide_value);
  images.coords = bytes_of(coords);
  const int64_t weight_start = problem.points.weight_start * images.element;
  images.weights = bytes_of(weights) + weight_start;
  images.grad_output = bytes_of(wide_grad_output);
  images.grad_value = mutable_bytes_of(grads.value);
  images.grad_coords = mutable_bytes_of(grads.coords);
  images.grad_weights = mutable_bytes_of(grads.weights) + weight_start;
  fill_zero(images.grad_value, grads.value.numel() * images.element);
  if (problem.empty()) {
    torch::stable::zero_(grads.coords);
    torch::stable::zero_(grads.weights);
  } else {
    const KernelSet& set = kernels();
    const Kernel kernel = images.element == 4 ? set.backward_float : set.backward_double;
    backward_bands(images, kernel, Cut(g, images.value_bytes()), wide_value);
  }
  grads.value = narrow_like(grads.value, value);
  grads.coords = narrow_like(grads.coords, value);
  grads.weights = packed ? grads.coords : narrow_like(grads.weights, value);
  return grads;
}

}  // namespace ops_dcn

// Read by ops_dcn._library through ctypes. Null where OPS_DCN_CPU_ISA names no usable set.
extern "C" __attribute__((visibility("default"))) const char* ops_dcn_cpu_isa() {
  try {
    return ops_dcn::kernels().name;
  } catch (...) {
    return nullptr;
  }
}
