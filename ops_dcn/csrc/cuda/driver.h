// The few functions of CUDA's driver (libcuda.so.1, part of NVIDIA's driver) that are used,
// declared here so that a build needs no CUDA toolkit. The binary interface is stable.
#pragma once

#include <cstddef>

extern "C" {

typedef int CUresult;  // 0: success
typedef int CUdevice;
typedef struct CUctx_st* CUcontext;
typedef struct CUmod_st* CUmodule;
typedef struct CUfunc_st* CUfunction;
typedef struct CUstream_st* CUstream;
typedef unsigned long long CUdeviceptr;

CUresult cuGetErrorName(CUresult error, const char** name);
CUresult cuGetErrorString(CUresult error, const char** text);
CUresult cuDeviceGet(CUdevice* device, int ordinal);
CUresult cuDeviceGetName(char* name, int size, CUdevice device);
CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device);
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device);
CUresult cuCtxGetCurrent(CUcontext* context);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuThreadExchangeStreamCaptureMode(int* mode);
CUresult cuModuleLoadData(CUmodule* module, const void* image);
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name);
CUresult cuFuncGetAttribute(int* value, int attribute, CUfunction function);
CUresult cuMemsetD8Async(
    CUdeviceptr data, unsigned char value, size_t bytes, CUstream stream);
CUresult cuLaunchKernel(
    CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
    unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void** arguments,
    void** extra);

}  // extern "C"

namespace ops_dcn {
namespace cuda {

constexpr CUresult kNotFound = 500;
constexpr int kAttributeMajor = 75, kAttributeMinor = 76;  // compute capability of a device
constexpr int kAttributeThreads = 0;                       // of a block, at most, for a function
constexpr int kCaptureModeRelaxed = 2;

}  // namespace cuda
}  // namespace ops_dcn
