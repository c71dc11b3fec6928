"""What the libraries of the wheel may ask for."""
from __future__ import annotations

import re
from dataclasses import dataclass

from tools.dev.wheel_check.elf import Symbol

# Functions of PyTorch's stable ABI that torch 2.10 has. A new one belongs here only after a look
# at the version that its header, torch/csrc/stable/c/shim.h, gives.
_TORCH = re.compile('|'.join((
    r'aoti_torch_(abi_version|new_tensor_handle|new_uninitialized_tensor|delete_tensor_object)',
    r'aoti_torch_(device_type|dtype|layout|memory_format)_\w+',
    r'aoti_torch_get_(device_index|device_type|dim|dtype|numel|size|sizes|stride|strides)',
    r'aoti_torch_(is_contiguous|get_storage_offset|library_def|library_init_(def|impl|fragment))',
    r'aoti_torch_delete_library_object',
    r'torch_(call_dispatcher|library_impl|parallel_for|get_num_threads)',
    r'torch_get_(const|mutable)_data_ptr',
    r'torch_(delete_list|list_get_item|list_push_back|list_set_item|list_size'
    r'|new_list_reserve_size)')))
_TORCH_CUDA = re.compile(
    r'aoti_torch_((create|delete)_device_guard|device_guard_set_index|get_current_cuda_stream)')
# Functions of NVIDIA's driver since CUDA 10.
_DRIVER = re.compile(
    r'cu(Init|GetErrorName|GetErrorString|DeviceGet|DeviceGetName|DeviceGetAttribute'
    r'|DevicePrimaryCtxRetain|CtxGetCurrent|CtxSetCurrent|ThreadExchangeStreamCaptureMode'
    r'|ModuleLoadData|ModuleGetFunction|FuncGetAttribute|FuncSetAttribute|MemsetD8Async'
    r'|LaunchKernel)')
# glibc, libstdc++ and libgcc give every symbol a version; floors are checked by it.
_SYSTEM = re.compile(r'(GLIBC|GLIBCXX|CXXABI|GCC)_[\d.]+')


@dataclass(frozen=True)
class Rules:
    """The rules of one library.

    Attributes:
        needed: Libraries it may ask for.
        symbols: Patterns of the symbols without version that it may use.
    """

    needed: frozenset[str]
    symbols: tuple[re.Pattern[str], ...]

    def refuses(self, symbol: Symbol) -> str:
        """Why the library may not use a symbol; empty where it may."""
        if symbol.version:
            fine = _SYSTEM.fullmatch(symbol.version)
            return '' if fine else f'has the version {symbol.version}, of no library of the system'
        if symbol.weak or any(pattern.fullmatch(symbol.name) for pattern in self.symbols):
            return ''
        return ("is neither of the stable ABI of torch 2.10 nor of the driver; if it is, add it to "
                'tools/dev/wheel_check/rules.py')


_SYSTEM_LIBRARIES = frozenset({'libtorch_cpu.so', 'libstdc++.so.6', 'libgcc_s.so.1', 'libc.so.6',
                               'libm.so.6', 'ld-linux-x86-64.so.2'})
LIBRARIES = {
    'ops_dcn/_cpu.so': Rules(_SYSTEM_LIBRARIES, (_TORCH,)),
    'ops_dcn/_cuda.so': Rules(_SYSTEM_LIBRARIES | {'libtorch_cuda.so', 'libcuda.so.1'},
                              (_TORCH, _TORCH_CUDA, _DRIVER)),
}
