"""The host code of the CUDA library, from tensors to launches, on an emulated driver."""
from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import pytest
import torch

from ops_dcn import _autograd, reference
from tests.ops_dcn.cases import (
    CONVOLUTIONS,
    DTYPES,
    OPERATORS,
    TOLERANCE,
    Case,
    assert_same,
    make_case,
    outcome,
)
from tests.ops_dcn.emulation import host

for_every_operator = pytest.mark.parametrize('op', OPERATORS)


@pytest.fixture(scope='session')
def library() -> tuple[host.Driver, dict]:
    return host.load()


@pytest.fixture
def driver(library: tuple, monkeypatch: pytest.MonkeyPatch) -> Iterator[host.Driver]:
    """An H100 whose driver fails nowhere; ops_dcn's functions run on it."""
    state, functions = library
    ctypes.memset(ctypes.addressof(state), 0, ctypes.sizeof(state))
    state.major, state.minor, state.stream = 9, 0, 0x1234
    monkeypatch.setattr(_autograd, 'function', functions.__getitem__)
    yield state
    assert state.guards == 0


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@for_every_operator
def test_operator(driver: host.Driver, op: str, dtype: torch.dtype) -> None:
    case = make_case(op, n=3, depth=12, dtype=dtype)
    assert_same(outcome(case), outcome(case, module=reference), TOLERANCE[dtype])
    assert driver.launches >= 2
    assert driver.launch_stream == driver.stream
    assert driver.relaxed == 0


@pytest.mark.parametrize('options', [
    {'kernel_size': (3, 2), 'stride': (2, 1), 'padding': (1, 0), 'dilation': (1, 2)},
    {'kernel_size': (5, 3), 'padding': (2, 1), 'remove_center': True, 'offset_scale': 0.7},
    {'groups': 3, 'depth': 8, 'padded': False}], ids=['uneven', 'no center', 'not padded'])
@pytest.mark.parametrize('op', CONVOLUTIONS)
def test_geometry_reaches_the_kernel(driver: host.Driver, op: str, options: dict) -> None:
    case = make_case(op, height=7, width=9, **options)
    assert_same(outcome(case), outcome(case, module=reference), TOLERANCE[torch.float64])


@for_every_operator
def test_deterministic_backward(driver: host.Driver, op: str) -> None:
    case = make_case(op, dtype=torch.float32)
    free = outcome(case)
    launches = driver.launches
    torch.use_deterministic_algorithms(True)
    try:
        got = outcome(case)
    finally:
        torch.use_deterministic_algorithms(False)
    # Finding the range, and converting from fixed point.
    assert driver.launches - launches == launches + 2
    assert_same(got, free, TOLERANCE[torch.float32])


@for_every_operator
def test_empty_batch(driver: host.Driver, op: str) -> None:
    case = make_case(op, n=0)
    assert_same(outcome(case), outcome(case, module=reference), TOLERANCE[torch.float64])
    assert driver.launches == driver.memsets == 0


@pytest.mark.parametrize('softmax', [False, True])
def test_slices_are_read_in_place(driver: host.Driver, softmax: bool) -> None:
    case = make_case('dcnv4', depth=8, softmax=softmax)
    value, packed = case.floats
    both = torch.cat([value, packed], -1)
    sliced = Case('dcnv4', dict(zip(case.tensors, both.split(
        [value.shape[-1], packed.shape[-1]], -1), strict=True)), case.options)
    assert not any(tensor.is_contiguous() for tensor in sliced.floats)
    assert_same(outcome(sliced), outcome(case), (0, 0))


def test_uneven_rows_are_copied(driver: host.Driver) -> None:
    case = make_case('dcnv4', depth=8)
    turned = case.map(lambda t: t.transpose(1, 2).contiguous().transpose(1, 2))
    assert_same(outcome(turned), outcome(case), (0, 0))


def call(**options: int) -> None:
    make_case('dcnv4', depth=8, dtype=torch.float32, **options).call()


@pytest.mark.parametrize(('device', 'capability', 'image'), [
    (1, (7, 5), b'7'), (2, (9, 0), b'9'), (3, (9, 5), b'9')])
def test_kernels_of_the_device_are_loaded_once(driver: host.Driver, device: int,
                                               capability: tuple[int, int], image: bytes) -> None:
    driver.device, (driver.major, driver.minor) = device, capability
    for _ in range(3):
        call()
    assert (driver.modules, driver.functions, driver.launches) == (1, 1, 3)
    assert driver.image == image
    assert driver.guard_index == device
    # A stream that is being captured forbids loading in any mode but the relaxed one.
    assert driver.loads_not_relaxed == driver.relaxed == 0


def test_context_of_others_is_restored(driver: host.Driver) -> None:
    call()
    ours = driver.context  # a thread without a context keeps ours, as after any CUDA call
    assert ours
    driver.context = ours + 1
    call()
    assert driver.context == ours + 1


@pytest.mark.parametrize('capability', [(6, 1), (8, 6), (10, 3)])
def test_device_without_kernels_is_refused(driver: host.Driver,
                                           capability: tuple[int, int]) -> None:
    driver.device, (driver.major, driver.minor) = 4, capability
    name = f'sm_{10 * capability[0] + capability[1]}'
    with pytest.raises(RuntimeError, match=f'no kernels for Emulated GPU: got a device of {name}, '
                                           'expected one for sm_75 sm_90; build ops_dcn'):
        call()


@pytest.mark.parametrize(('function', 'words'), [
    ('cuLaunchKernel', r'cannot launch dcn_forward_f32_v4 on a grid of \d+x2 blocks of \d+ threads '
                       r'with \d+ bytes of shared memory: CUDA_ERROR_MADE_UP \(700\), made up'),
    ('cuModuleLoadData', 'cannot load the kernels of sm_90 on Emulated GPU: CUDA_ERROR_MADE_UP'),
    ('cuDevicePrimaryCtxRetain', 'cannot use device 5'), ('cuDeviceGet', 'cannot find device 5')])
def test_failures_say_what_failed(driver: host.Driver, function: str, words: str) -> None:
    driver.failing, driver.error = function.encode(), 700
    driver.device = 6 if function == 'cuLaunchKernel' else 5
    with pytest.raises(RuntimeError, match=words):
        call()
    driver.failing = b''
    driver.device = 6
    call()


def test_failure_to_clear_is_reported(driver: host.Driver) -> None:
    driver.failing, driver.error = b'cuMemsetD8Async', 719
    with pytest.raises(RuntimeError, match='cannot clear memory: CUDA_ERROR_MADE_UP'):
        outcome(make_case('dcnv4'))


@pytest.mark.parametrize(('change', 'words'), [
    (lambda output: output.flatten(), 'grad_output must have 4 dimensions'),
    (lambda output: output[:, :-1].contiguous(), r'grad_output\.shape\[1\] must be'),
    (lambda output: output.transpose(1, 2), 'grad_output must be contiguous'),
    (lambda output: output.float(), 'grad_output must have the dtype of value'),
])
def test_backward_checks_the_gradient(
        driver: host.Driver, change: Callable[[torch.Tensor], torch.Tensor], words: str) -> None:
    case = make_case('dcnv4')
    tensors, options = case.raw()
    backward = torch.ops.ops_dcn_emulated.dcnv4_backward
    with pytest.raises(RuntimeError, match=words):
        backward(change(torch.ones_like(case.call())), *tensors, *options)


@pytest.mark.parametrize('op', OPERATORS)
def test_schemas_are_those_of_the_library(driver: host.Driver, op: str) -> None:
    for direction in ('forward', 'backward'):
        ours, emulated = (str(getattr(getattr(torch.ops, space), f'{op}_{direction}').default
                              ._schema).partition('::')[2]
                          for space in ('ops_dcn', 'ops_dcn_emulated'))
        assert ours == emulated
