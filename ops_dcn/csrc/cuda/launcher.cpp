#include "launcher.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/util/Exception.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace ops_dcn {
namespace cuda {

struct LoadedDevice {
  Device facts;
  CUcontext context;  // the primary one, which PyTorch uses
  std::vector<CUmodule> modules;
  std::map<std::string, CUfunction> functions;  // found so far
  std::mutex mutex;                             // of `functions`
};

namespace {

void check(CUresult result, const std::string& action) {
  if (result == 0) return;
  const char *name = nullptr, *text = nullptr;
  cuGetErrorName(result, &name);
  cuGetErrorString(result, &text);
  STD_TORCH_CHECK(
      false, "ops_dcn cannot ", action, ": ", name != nullptr ? name : "unknown CUDA error", " (",
      result, ")", text != nullptr ? ", " : "", text != nullptr ? text : "");
}

std::string architectures() {
  std::string names;
  int last = 0;
  for (const Cubin* cubin = kCubins; cubin->image != nullptr; ++cubin) {
    if (cubin->sm == last) continue;
    last = cubin->sm;
    names += (names.empty() ? "sm_" : " sm_") + std::to_string(last);
  }
  return names;
}

// A cubin runs on devices of its major version from its minor version on.
int best_architecture(int sm) {
  int best = 0;
  for (const Cubin* cubin = kCubins; cubin->image != nullptr; ++cubin) {
    if (cubin->sm / 10 == sm / 10 && cubin->sm <= sm && cubin->sm > best) best = cubin->sm;
  }
  return best;
}

// While a stream is being captured into a graph, loading is allowed in the relaxed mode only.
class RelaxedCapture {
 public:
  RelaxedCapture() : mode_(kCaptureModeRelaxed) {
    check(cuThreadExchangeStreamCaptureMode(&mode_), "relax the capture mode of the thread");
  }
  ~RelaxedCapture() { cuThreadExchangeStreamCaptureMode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  int mode_;
};

// Makes a context current where it is not; returns what was.
CUcontext enter(CUcontext context) {
  CUcontext current = nullptr;
  check(cuCtxGetCurrent(&current), "read the current context");
  if (current != context) check(cuCtxSetCurrent(context), "make a device's context current");
  return current;
}

std::unique_ptr<LoadedDevice> load(int32_t index) {
  const RelaxedCapture relaxed;
  auto loaded = std::make_unique<LoadedDevice>();
  CUdevice device = 0;
  int major = 0, minor = 0;
  char name[128] = "";
  const std::string which = "device " + std::to_string(index);
  check(cuDeviceGet(&device, index), "find " + which);
  check(cuDeviceGetName(name, sizeof(name) - 1, device), "read the name of " + which);
  check(cuDeviceGetAttribute(&major, kAttributeMajor, device), "read attributes of " + which);
  check(cuDeviceGetAttribute(&minor, kAttributeMinor, device), "read attributes of " + which);
  loaded->facts.sm = 10 * major + minor;
  const int best = best_architecture(loaded->facts.sm);
  STD_TORCH_CHECK(
      best != 0, "ops_dcn has no kernels for ", name, ": got a device of sm_", loaded->facts.sm,
      ", expected one for ", architectures(), "; build ops_dcn from source with OPS_DCN_CUDA_ARCHS=",
      loaded->facts.sm);
  check(cuDevicePrimaryCtxRetain(&loaded->context, device), "use " + which);
  const CUcontext previous = enter(loaded->context);
  for (const Cubin* cubin = kCubins; cubin->image != nullptr; ++cubin) {
    if (cubin->sm != best) continue;
    CUmodule module = nullptr;
    check(cuModuleLoadData(&module, cubin->image), "load the kernels of sm_" +
          std::to_string(best) + " on " + name);
    loaded->modules.push_back(module);
  }
  if (previous != nullptr && previous != loaded->context) cuCtxSetCurrent(previous);
  return loaded;
}

// Loaded at the first call for that device and kept: at exit the driver may be gone before us.
LoadedDevice& loaded_device(int32_t index) {
  static std::mutex& mutex = *new std::mutex;
  static auto& devices = *new std::map<int32_t, std::unique_ptr<LoadedDevice>>;
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<LoadedDevice>& device = devices[index];
  if (device == nullptr) device = load(index);
  return *device;
}

CUfunction find_function(LoadedDevice& device, const char* name) {
  const std::lock_guard<std::mutex> lock(device.mutex);
  const auto known = device.functions.find(name);
  if (known != device.functions.end()) return known->second;
  const RelaxedCapture relaxed;
  for (CUmodule module : device.modules) {
    CUfunction function = nullptr;
    const CUresult result = cuModuleGetFunction(&function, module, name);
    if (result == kNotFound) continue;
    check(result, std::string("find the kernel ") + name);
    // The driver loads a kernel's code at its first use; this is one.
    int threads = 0;
    check(cuFuncGetAttribute(&threads, kAttributeThreads, function),
          std::string("load the kernel ") + name);
    return device.functions[name] = function;
  }
  STD_TORCH_CHECK(false, "ops_dcn has no kernel ", name, "; build the library again");
}

CUstream current_stream(int32_t index) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index, &stream));
  return static_cast<CUstream>(stream);
}

}  // namespace

// A thread of its own (autograd has some) may have no current context, or another device's.
Launcher::Launcher(int32_t device_index)
    : guard_(device_index), loaded_(loaded_device(device_index)),
      stream_(current_stream(device_index)), previous_(enter(loaded_.context)) {}

Launcher::~Launcher() {
  if (previous_ != nullptr && previous_ != loaded_.context) cuCtxSetCurrent(previous_);
}

Device Launcher::device() const { return loaded_.facts; }

void Launcher::run(const Launch& launch, const Arguments& arguments) const {
  if (launch.empty()) return;
  const CUfunction function = find_function(loaded_, launch.kernel);
  void* parameters[] = {const_cast<Arguments*>(&arguments)};
  const CUresult result = cuLaunchKernel(
      function, launch.grid_x, launch.grid_y, 1, launch.block, 1, 1, launch.shared_bytes, stream_,
      parameters, nullptr);
  if (result == 0) return;
  check(result, std::string("launch ") + launch.kernel + " on a grid of " +
        std::to_string(launch.grid_x) + "x" + std::to_string(launch.grid_y) + " blocks of " +
        std::to_string(launch.block) + " threads with " + std::to_string(launch.shared_bytes) +
        " bytes of shared memory");
}

void Launcher::fill_zero(void* data, int64_t bytes) const {
  if (bytes == 0) return;
  check(cuMemsetD8Async(reinterpret_cast<CUdeviceptr>(data), 0, static_cast<size_t>(bytes), stream_),
        "clear memory");
}

}  // namespace cuda
}  // namespace ops_dcn

// Read by ops_dcn._library through ctypes.
extern "C" __attribute__((visibility("default"))) const char* ops_dcn_cuda_build() {
  static const std::string& text = *new std::string(
      ops_dcn::cuda::architectures() + ", " + ops_dcn::cuda::kCompiler);
  return text.c_str();
}
