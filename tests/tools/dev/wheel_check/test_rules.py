"""Which symbols and libraries the wheel's own libraries may ask for."""
from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

from tools.dev.wheel_check.elf import Symbol
from tools.dev.wheel_check.rules import LIBRARIES

CPU, CUDA = LIBRARIES['ops_dcn/_cpu.so'], LIBRARIES['ops_dcn/_cuda.so']


@pytest.mark.parametrize('name', [
    'aoti_torch_get_dim', 'aoti_torch_get_sizes', 'aoti_torch_dtype_bfloat16',
    'aoti_torch_library_init_fragment', 'torch_call_dispatcher', 'torch_parallel_for',
    'torch_get_const_data_ptr', 'torch_new_list_reserve_size'])
def test_the_stable_abi_is_allowed_everywhere(name: str) -> None:
    for rules in (CPU, CUDA):
        assert rules.refuses(Symbol(name, '', False)) == ''


@pytest.mark.parametrize('name', ['cuLaunchKernel', 'cuModuleLoadData', 'cuGetErrorName',
                                  'aoti_torch_get_current_cuda_stream',
                                  'aoti_torch_create_device_guard'])
def test_the_driver_is_for_cuda_alone(name: str) -> None:
    assert CUDA.refuses(Symbol(name, '', False)) == ''
    assert 'is neither of the stable ABI of torch' in CPU.refuses(Symbol(name, '', False))


@pytest.mark.parametrize('name', [
    '_ZN2at5emptyEN3c108ArrayRefIlEE', '_ZNK3c1010TensorImpl5sizesEv',  # C++ of torch: unstable
    'cudaMalloc', 'cuLaunchKernelEx', 'cublasCreate_v2', 'aoti_torch_get_dimension',
    'my_aoti_torch_get_dim', 'torch_parallel_for2', 'aoti_torch_empty_strided', 'cuInit_v2'])
def test_all_others_are_refused_with_the_file_to_change(name: str) -> None:
    for rules in (CPU, CUDA):
        reason = rules.refuses(Symbol(name, '', False))
        assert 'add it to tools/dev/wheel_check/rules.py' in reason


@pytest.mark.parametrize('version', ['GLIBC_2.17', 'GLIBC_2.2.5', 'GLIBCXX_3.4.21', 'GLIBCXX_3.4',
                                     'CXXABI_1.3.9', 'GCC_3.0'])
def test_versions_of_the_system_are_allowed_whatever_the_name(version: str) -> None:
    assert CPU.refuses(Symbol('anything', version, False)) == ''


@pytest.mark.parametrize('version', ['GLIBC_PRIVATE', 'libcudart.so.13', 'OPENSSL_3.0.0', 'GLIBC',
                                     'MYGLIBC_2.2', 'GLIBC_2.17 '])
@pytest.mark.parametrize('weak', [False, True])
def test_versions_of_other_libraries_are_named(version: str, weak: bool) -> None:
    """Also for a name that would be allowed without one."""
    reason = CUDA.refuses(Symbol('aoti_torch_get_dim', version, weak))
    assert reason == f'has the version {version}, of no library of the system'


def test_weak_symbols_may_stay_undefined() -> None:
    assert CPU.refuses(Symbol('_ITM_registerTMCloneTable', '', True)) == ''
    assert CPU.refuses(Symbol('_ITM_registerTMCloneTable', '', False))


def test_no_library_of_python_or_of_the_cuda_toolkit_is_asked_for() -> None:
    assert CPU.needed < CUDA.needed
    assert CUDA.needed - CPU.needed == {'libtorch_cuda.so', 'libcuda.so.1'}
    for library in CUDA.needed:
        assert not re.match(r'lib(python|torch_python|c10|cudart|cublas|nvrtc|gomp|omp)\b', library)


@pytest.mark.parametrize('name', [
    'torch_call_dispatcher', 'torch_parallel_for', 'torch_list_push_back', 'torch_delete_list',
    'torch_get_mutable_data_ptr', 'aoti_torch_get_numel', 'aoti_torch_abi_version',
    'aoti_torch_delete_tensor_object', 'aoti_torch_library_init_impl'])
def test_allowed_functions_are_declared_by_torch(name: str) -> None:
    folder = Path(include_paths()[0]) / 'torch' / 'csrc'
    text = ''.join((folder / header).read_text() for header in (
        'stable/c/shim.h', 'inductor/aoti_torch/c/shim.h'))
    assert re.search(rf'\b{name}\b', text) and CPU.refuses(Symbol(name, '', False)) == ''
