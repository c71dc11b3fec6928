// Runs kernels on the devices of this process through the driver.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include <cstdint>

#include "driver.h"
#include "plan.h"

namespace ops_dcn {
namespace cuda {

// The kernels compiled for one architecture (90: compute capability 9.0); see cubins.py.
struct Cubin {
  int sm;
  const unsigned char* image;
};

extern const Cubin kCubins[];   // ends with {0, nullptr}
extern const char kCompiler[];  // what compiled them

struct LoadedDevice;

// The current stream of one device, for the lifetime of this object also the current device.
class Launcher {
 public:
  explicit Launcher(int32_t device_index);
  ~Launcher();
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  Device device() const;
  void run(const Launch& launch, const Arguments& arguments) const;
  void fill_zero(void* data, int64_t bytes) const;

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  LoadedDevice& loaded_;
  CUstream stream_;
  CUcontext previous_;
};

}  // namespace cuda
}  // namespace ops_dcn
