// The host code of the CUDA library on the emulation: its operators as torch.ops.ops_dcn_emulated.*
// for CPU tensors. Everything from the schemas to the launcher is the library's own code; below
// stands what NVIDIA's driver and libtorch_cuda offer it. Loaded by host.py.
//
// Compiled with -Dops_dcn=ops_dcn_emulated, which renames operators and namespaces, and with every
// file of operators/ before this one (-include).
#include "describe.cpp"
#include "schemas.cpp"
#include "cuda/launch.cpp"
#include "cuda/launcher.cpp"

#include <dlfcn.h>

#include <cstring>

#define OPS_DCN_EXPORT extern "C" __attribute__((visibility("default")))

namespace ops_dcn {
namespace cuda {

static const unsigned char kImages[2][4] = {{'a', '7', '5'}, {'a', '9', '0'}};
const Cubin kCubins[] = {{75, kImages[0]}, {90, kImages[1]}, {0, nullptr}};
const char kCompiler[] = "emulation";

}  // namespace cuda
}  // namespace ops_dcn

namespace {

using ops_dcn::cuda::Arguments;
using ops_dcn::cuda::Launch;
using Run = const char* (*)(void (*)(Arguments), const Arguments*, const Launch*, unsigned);

// What a test sets and reads.
struct Driver {
  char failing[64];  // the function that fails, with an error of this code
  int error;
  int major, minor;
  int modules, functions, launches, memsets;
  int device;                       // index of every tensor's device
  int guards, guard_index;          // device guards alive, and the index of the last one
  int relaxed, loads_not_relaxed;   // capture mode of the thread
  void* stream;                     // the current one
  void* launch_stream;              // of the last launch
  char image;                       // the first letter of the image that was loaded
  void* context;                    // current
} driver;

void* library = nullptr;
Run run = nullptr;
char primary;  // its address is the handle of the primary context

CUresult result(const char* function) {
  return std::strcmp(driver.failing, function) == 0 ? driver.error : 0;
}

}  // namespace

OPS_DCN_EXPORT Driver* emulated_driver(const char* emulation) {
  if (library == nullptr && emulation != nullptr) {
    library = dlopen(emulation, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return nullptr;
    run = reinterpret_cast<Run>(dlsym(library, "emulation_launch"));
  }
  return &driver;
}

extern "C" {

CUresult cuGetErrorName(CUresult, const char** name) { return *name = "CUDA_ERROR_MADE_UP", 0; }
CUresult cuGetErrorString(CUresult, const char** text) { return *text = "made up", 0; }
CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  *device = ordinal;
  return result("cuDeviceGet");
}
CUresult cuDeviceGetName(char* name, int size, CUdevice) {
  return std::strncpy(name, "Emulated GPU", size), 0;
}
CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice) {
  *value = attribute == ops_dcn::cuda::kAttributeMajor ? driver.major : driver.minor;
  return 0;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  *context = reinterpret_cast<CUcontext>(&primary);
  return result("cuDevicePrimaryCtxRetain");
}
CUresult cuCtxGetCurrent(CUcontext* context) {
  return *context = static_cast<CUcontext>(driver.context), 0;
}
CUresult cuCtxSetCurrent(CUcontext context) { return driver.context = context, 0; }
CUresult cuThreadExchangeStreamCaptureMode(int* mode) {
  std::swap(*mode, driver.relaxed);
  return 0;
}
CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  if (driver.context != &primary) return 201;
  driver.loads_not_relaxed += driver.relaxed != ops_dcn::cuda::kCaptureModeRelaxed;
  driver.image = static_cast<const char*>(image)[1];
  *module = reinterpret_cast<CUmodule>(library);
  return ++driver.modules, result("cuModuleLoadData");
}
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  *function = static_cast<CUfunction>(dlsym(module, name));
  return ++driver.functions, *function == nullptr ? ops_dcn::cuda::kNotFound : 0;
}
CUresult cuFuncGetAttribute(int* value, int, CUfunction) { return *value = 256, 0; }
CUresult cuMemsetD8Async(CUdeviceptr data, unsigned char value, size_t bytes, CUstream stream) {
  if (stream != driver.stream) return 400;
  std::memset(reinterpret_cast<void*>(data), value, bytes);
  return ++driver.memsets, result("cuMemsetD8Async");
}
CUresult cuLaunchKernel(
    CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
    unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void** arguments,
    void** extra) {
  if (driver.context != &primary) return 201;
  if (grid_z != 1 || block_y != 1 || block_z != 1 || extra != nullptr) return 1;
  driver.launch_stream = stream;
  ++driver.launches;
  const Launch launch{"", grid_x, grid_y, block_x, shared_bytes};
  const char* failure = run(reinterpret_cast<void (*)(Arguments)>(function),
                            static_cast<const Arguments*>(arguments[0]), &launch, 7);
  return failure != nullptr ? 700 : result("cuLaunchKernel");
}

AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  return *stream = driver.stream, 0;
}
// Tensors pass for CUDA's, so that nothing on the host relies on reading them.
AOTITorchError aoti_torch_get_device_type(AtenTensorHandle, int32_t* type) {
  return *type = aoti_torch_device_type_cuda(), 0;
}
AOTITorchError aoti_torch_get_device_index(AtenTensorHandle, int32_t* index) {
  return *index = driver.device, 0;
}
AOTITorchError aoti_torch_create_device_guard(int32_t index, DeviceGuardHandle* guard) {
  driver.guard_index = index;
  ++driver.guards;
  return *guard = reinterpret_cast<DeviceGuardHandle>(&driver), 0;
}
AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) { return --driver.guards, 0; }

}  // extern "C"
