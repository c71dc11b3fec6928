"""The CUDA kernels, run by the emulation: no GPU is needed, and none is spoken for.

What stays unproven without one: the vector reductions of sm_90 (assembly), and all about time.
"""
from __future__ import annotations

import dataclasses
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from ops_dcn import reference
from tests.ops_dcn import small_cases
from tests.ops_dcn import test_golden as golden
from tests.ops_dcn.cases import (
    ATTENTIONS,
    CONVOLUTIONS,
    DTYPES,
    OPERATORS,
    TOLERANCE,
    Case,
    assert_same,
    attention_case,
    convolution_case,
    make_case,
    outcome,
)
from tests.ops_dcn.emulation import CSRC, Arguments, Buffer, Emulator, Launch, Options, Shape
from tests.ops_dcn.test_kernels import GEOMETRIES, PYRAMIDS

SHORT = {'f16': torch.float16, 'bf16': torch.bfloat16, 'f32': torch.float32, 'f64': torch.float64}
WIDTHS = {'f16': (8, 4, 2, 1), 'bf16': (8, 4, 2, 1), 'f32': (4, 2, 1), 'f64': (2, 1)}
HALVES = ('f16', 'bf16')
RUNS = [(kind, dtype, width) for kind in ('forward', 'atomic', 'fixed', 'tile', 'native')
        for dtype, widths in WIDTHS.items() for width in widths
        if not (kind == 'tile' and dtype == 'f64')
        and not (kind == 'native' and (dtype not in HALVES or width == 1))]
SHAPES = {
    **GEOMETRIES,
    'stride_two': {'n': 3, 'height': 13, 'width': 18, 'groups': 3, 'depth': 12, 'stride': 2},
    'five_by_five': {'n': 3, 'height': 9, 'width': 11, 'groups': 5, 'depth': 16,
                     'kernel_size': 5, 'padding': 2},
    'many_tiles': {'n': 2, 'height': 19, 'width': 17, 'groups': 1, 'depth': 8, 'spread': 4.0},
    'many_groups': {'n': 1, 'height': 3, 'width': 4, 'groups': 70, 'depth': 16},
}
# One for each way in which the plan can cut up a problem; the plan is asked whether it did.
CUTS: dict[str, tuple[dict[str, Any], Any]] = {
    'rounds': ({'height': 4, 'depth': 33, 'softmax': True},
               lambda call, t: t.slices > t.lanes > 1),
    'rounds_of_a_warp': ({'height': 3, 'width': 2, 'depth': 300},
                         lambda call, t: t.slices > t.lanes > 1),
    'idle_lanes': ({'depth': 6}, lambda call, t: t.lanes > t.slices),
    'chunks': ({'height': 21, 'width': 20, 'kernel_size': 19, 'padding': 9, 'depth': 2},
               lambda call, t: t.chunk < call.shape.points),
    'chunks_and_rounds': (
        {'n': 1, 'height': 21, 'width': 20, 'groups': 1, 'depth': 5, 'kernel_size': 19,
         'padding': 9, 'softmax': True},
        lambda call, t: t.chunk < call.shape.points and t.slices > t.lanes),
    'group_tiles': ({'n': 1, 'height': 3, 'width': 3, 'groups': 300, 'depth': 2},
                    lambda call, t: t.group_tiles > 1),
    'unequal_group_tiles': ({'n': 1, 'height': 2, 'width': 2, 'groups': 257, 'depth': 2},
                            lambda call, t: t.group_tiles * t.block_groups > call.shape.groups),
    'ragged_tiles': ({'height': 11, 'width': 19, 'groups': 1},
                     lambda call, t: t.tiles_across > 1 and t.tiles_across * t.tile_columns > 19),
    'more_images_than_a_grid': (
        {'n': 65537, 'height': 1, 'width': 1, 'groups': 1, 'depth': 1, 'kernel_size': 1,
         'padding': 0, 'padded': False}, lambda call, t: call.plan.run.grid_y == 65535),
}
in_every_dtype = pytest.mark.parametrize('dtype', DTYPES, ids=str)
for_every_operator = pytest.mark.parametrize('op', OPERATORS)
either_way = pytest.mark.parametrize('deterministic', [False, True], ids=['free', 'fixed'])


@pytest.fixture(scope='session')
def emulator() -> Emulator:
    if not (shutil.which('g++') or shutil.which('c++')):
        pytest.skip('no C++ compiler')
    return Emulator()


def expected(case: Case) -> dict[str, torch.Tensor]:
    """By the reference; in the dtype of the case, as rounding moves a sample across a grid line."""
    return outcome(case, module=reference)


def check(emulator: Emulator, case: Case, options: Options | None = None) -> None:
    dtype = case.floats[0].dtype
    fixed = options is not None and options.deterministic
    # Fixed point is coarser than float64 (docs/ops_cuda.md).
    tolerance = (1e-8, 1e-9) if fixed and dtype == torch.float64 else TOLERANCE[dtype]
    assert_same(emulator.outcome(case, options=options), expected(case), tolerance)


@golden.in_both
@pytest.mark.parametrize('name', golden.CONVOLUTIONS)
def test_golden_convolution(name: str, emulator: Emulator, dtype: torch.dtype) -> None:
    golden.test_convolution(name, emulator, dtype)


@golden.in_both
@pytest.mark.parametrize('name', golden.ATTENTIONS)
def test_golden_attention(name: str, emulator: Emulator, dtype: torch.dtype) -> None:
    golden.test_attention(name, emulator, dtype)
    golden.test_packed_attention(name, emulator, dtype)


@golden.in_both
@pytest.mark.parametrize('name', golden.MODULES)
def test_golden_module(name: str, emulator: Emulator, dtype: torch.dtype,
                       monkeypatch: pytest.MonkeyPatch) -> None:
    golden.test_module(name, emulator, dtype, monkeypatch)


@golden.in_both
@pytest.mark.parametrize(('op', 'name'), small_cases.CASES)
def test_operator_equals_the_oracle(op: str, name: str, emulator: Emulator,
                                    dtype: torch.dtype) -> None:
    small_cases.check(op, name, dtype, emulator)


@in_every_dtype
@either_way
@pytest.mark.parametrize('name', SHAPES)
def test_convolution(name: str, deterministic: bool, dtype: torch.dtype,
                     emulator: Emulator) -> None:
    torch.manual_seed(0)
    options = Options(deterministic=deterministic, order=len(name))
    check(emulator, convolution_case('dcnv3', dtype=dtype, **SHAPES[name]), options)
    case = convolution_case('dcnv4', dtype=dtype, softmax=True, **SHAPES[name])
    check(emulator, case, dataclasses.replace(options, sm=75, row_padding=40))


@in_every_dtype
@either_way
@pytest.mark.parametrize('op', ATTENTIONS)
@pytest.mark.parametrize('name', PYRAMIDS)
def test_attention(name: str, op: str, deterministic: bool, dtype: torch.dtype,
                   emulator: Emulator) -> None:
    torch.manual_seed(0)
    check(emulator, attention_case(op, dtype=dtype, **PYRAMIDS[name]),
          Options(deterministic=deterministic, order=len(name), row_padding=3))


@pytest.mark.parametrize('seed', range(24))
def test_random_problems(seed: int, emulator: Emulator) -> None:
    pick = random.Random(seed)
    torch.manual_seed(seed)
    kernel, stride, dilation = ((pick.randint(1, top), pick.randint(1, top)) for top in (5, 3, 2))
    case = convolution_case(
        pick.choice(['dcnv3', 'dcnv4']), n=pick.randint(1, 3), height=pick.randint(9, 24),
        width=pick.randint(9, 24), groups=pick.randint(1, 5), depth=pick.randint(1, 50),
        kernel_size=kernel, stride=stride, dilation=dilation, dtype=pick.choice(DTYPES),
        padding=(pick.randint(0, 3), pick.randint(0, 3)), spread=pick.choice([0.3, 1.5, 6.0]),
        offset_scale=pick.choice([1.0, 0.5, -1.3]))
    check(emulator, case, Options(
        sm=pick.choice([75, 80, 90]), order=seed, shift=pick.choice([0, 0, 8, 16, 4 * 2]),
        row_padding=pick.choice([0, 5]), policy={
            'tile': pick.random() < 0.7, 'halo': pick.randint(0, 3),
            'tile_vector': pick.choice([1, 4, 8])}))


@pytest.mark.parametrize('kind,dtype,width', RUNS, ids=lambda value: str(value))
def test_every_kernel(kind: str, dtype: str, width: int, emulator: Emulator) -> None:
    """By a depth, and once more by an alignment, that calls for this vector width."""
    torch.manual_seed(0)
    element = torch.empty(0, dtype=SHORT[dtype]).element_size()
    for depth, shift in ((3 * width, 0), (4 * width, width * element)):
        case = convolution_case('dcnv4', height=9, width=10, depth=depth, dtype=SHORT[dtype])
        options = Options(shift=shift % 16, deterministic=kind == 'fixed',
                          policy={'tile': kind != 'atomic', 'native_half': kind == 'native',
                                  'tile_vector': width})
        call = emulator.call(case, options)
        output = call.forward()
        name = call.plan.run.kernel.decode()
        assert name == f'dcn_forward_{dtype}_v{width}'
        if kind == 'forward':
            assert_same({'output': output}, {'output': expected(case)['output']},
                        TOLERANCE[SHORT[dtype]])
            continue
        check(emulator, case, options)
        plan = emulator.plan_backward(call.shape, SHORT[dtype], options, call.alignment)
        assert plan.run.kernel.decode() == f'dcn_backward_{kind}_{dtype}_v{width}'


def test_there_is_no_other_kernel(emulator: Emulator) -> None:
    """A kernel that nothing can choose is dead; one that is missing fails on a GPU only."""
    runs = {f'dcn_{kind}_{dtype}_v{width}' if kind == 'forward' else
            f'dcn_backward_{kind}_{dtype}_v{width}' for kind, dtype, width in RUNS}
    sweeps = {f'dcn_{kind}_{dtype}' for dtype in SHORT for kind in ('range', 'finish_fixed')}
    assert emulator.kernels() == runs | sweeps | {f'dcn_finish_{dtype}' for dtype in HALVES}


@pytest.mark.parametrize('name,dtype', [
    (name, dtype) for name in CUTS for dtype in (torch.float64, torch.bfloat16)
    if (name, dtype) != ('more_images_than_a_grid', torch.float64)], ids=str)
def test_every_cut(name: str, dtype: torch.dtype, emulator: Emulator) -> None:
    options, happened = CUTS[name]
    torch.manual_seed(0)
    case = convolution_case('dcnv4', dtype=dtype, **options)
    for deterministic in (False, True):
        options = Options(deterministic=deterministic, order=1,
                          policy={'tile': False})
        call = emulator.call(case, options)
        call.forward()
        assert happened(call, call.plan.tiling)
        check(emulator, case, options)
        call.backward(torch.ones(call.output_sizes, dtype=dtype))
        assert happened(call, call.plan.tiling)


@pytest.mark.parametrize('name,options,happened', [
    ('chunks_in_a_tile', {'kernel_size': 7, 'padding': 3, 'depth': 16},
     lambda plan, t: t.region_rows > 0 and t.chunk < 49),
    ('smaller_blocks', {'kernel_size': 5, 'padding': 2, 'depth': 32, 'groups': 8, 'softmax': True},
     lambda plan, t: t.region_rows == 0 and t.chunk == 25 and plan.run.block < 256),
    ('narrow_tile', {'height': 8, 'width': 16, 'depth': 64},
     lambda plan, t: t.region_rows > 0 and t.tile_rows * t.tile_columns <= 16),
], ids=lambda value: value if isinstance(value, str) else '')
def test_cuts_of_the_backward(name: str, options: dict[str, Any], happened: Any,
                              emulator: Emulator) -> None:
    torch.manual_seed(0)
    case = convolution_case('dcnv4', dtype=torch.bfloat16,
                            **{'n': 1, 'height': 9, 'width': 17, **options})
    run = Options(order=2, policy={'tile': name != 'smaller_blocks'})
    plan = emulator.plan_backward(emulator.call(case).shape, torch.bfloat16, run)
    assert happened(plan, plan.tiling)
    check(emulator, case, run)


def random_shape(pick: random.Random) -> Any:
    kernel = pick.randint(1, 7), pick.randint(1, 7)
    levels = pick.choice([0, 0, 1, 4])
    columns, rows = pick.randint(1, 3000), pick.randint(1, 3000)
    groups, channels = pick.choice([1, 2, 3, 4, 5, 16, 70]), pick.choice([1, 3, 8, 12, 16, 32, 520])
    points = kernel[0] * kernel[1] * max(1, levels)
    return Shape(
        batch=pick.choice([1, 2, 64, 70000]), queries=columns * (1 if levels else rows),
        query_columns=columns, groups=groups, channels=channels, points=points,
        pixels=columns * rows, levels=levels, softmax=pick.random() < 0.5,
        value_stride=groups * channels + pick.choice([0, 8, 1]), height=rows, width=columns,
        kernel_h=kernel[0], kernel_w=kernel[1], dilation_h=pick.choice([1, 2, 30]), dilation_w=1,
        step_x=pick.randint(1, 3), step_y=1, offset_scale=pick.choice([1.0, 0.5, -2.0, 1e300]))


@pytest.mark.parametrize('seed', range(4))
def test_plans_keep_the_limits(seed: int, emulator: Emulator) -> None:
    """Of the hardware, for shapes too large to run; every kernel that is named exists."""
    pick, names = random.Random(seed), emulator.kernels()
    for _ in range(500):
        shape, dtype = random_shape(pick), pick.choice(DTYPES)
        options = Options(deterministic=pick.random() < 0.2, sm=pick.choice([75, 86, 90, 120]))
        alignment = pick.choice([2, 4, 8, 16])
        plans = [emulator.plan_forward(shape, dtype, options, alignment),
                 emulator.plan_backward(shape, dtype, options, alignment)]
        for plan in plans:
            t, launch = plan.tiling, plan.run
            assert launch.kernel.decode() in names
            assert launch.block % 32 == 0 and 32 <= launch.block <= 256
            assert launch.shared_bytes <= 48 * 1024 and 1 <= launch.grid_y <= 65535
            assert t.tile_rows * t.tile_columns * t.block_groups * t.lanes <= launch.block
            rows = -(-shape.queries // shape.query_columns)
            assert t.tiles_across * t.tile_columns >= shape.query_columns
            assert t.group_tiles * t.block_groups >= shape.groups
            tiles = launch.grid_x // (t.tiles_across * t.group_tiles)
            assert tiles * t.tile_rows >= rows
        assert 'native' not in plans[1].run.kernel.decode() or options.sm >= 90


@pytest.mark.parametrize('reason,changes', [
    ('batch', {'batch': 2**31}), ('queries', {'queries': 2**30, 'groups': 4}),
    ('channels', {'groups': 2**16, 'channels': 2**15, 'queries': 1}), ('pixels', {'pixels': 2**30}),
    ('points', {'points': 2**15}), ('levels', {'levels': 1025}), ('width', {'width': 2**28}),
    ('padded image', {'origin_x': -2**30}), ('padded image', {'step_y': 2**29}),
    ('padded image', {'kernel_w': 2**15, 'dilation_w': 2**15})])
def test_what_cannot_be_indexed_is_refused(reason: str, changes: dict[str, int],
                                           emulator: Emulator) -> None:
    fine = {'batch': 1, 'queries': 20, 'query_columns': 5, 'groups': 2, 'channels': 8, 'points': 9,
            'pixels': 20, 'width': 5, 'height': 4, 'step_x': 1, 'step_y': 1}
    assert emulator.unsupported(Shape(**fine)) is None
    assert reason in emulator.unsupported(Shape(**{**fine, **changes}))


@either_way
@for_every_operator
def test_any_order_of_threads(op: str, deterministic: bool, emulator: Emulator) -> None:
    """All that no atomic addition feeds is the same bits; in fixed point, the rest is, too."""
    torch.manual_seed(0)
    more = {'spread': 4.0, 'height': 11, 'width': 12} if op in CONVOLUTIONS else {}
    case = make_case(op, dtype=torch.float32, depth=12, **more)
    first = emulator.outcome(case, options=Options(deterministic=deterministic))
    for order in (1, 2, 3):
        other = emulator.outcome(case, options=Options(deterministic=deterministic, order=order))
        if not deterministic:
            torch.testing.assert_close(other.pop('grad_value'), first['grad_value'])
        for name, tensor in other.items():
            assert torch.equal(tensor, first[name]), name


@for_every_operator
def test_batch_equals_images(op: str, emulator: Emulator) -> None:
    torch.manual_seed(0)
    case = make_case(op, n=3, depth=16, dtype=torch.float32)
    together = emulator.outcome(case, torch.ones(1).expand(emulator.call(case).output_sizes))
    for i in range(3):
        one = case.map(lambda tensor, i=i: tensor[i:i + 1])
        alone = emulator.outcome(one, torch.ones(1).expand(emulator.call(one).output_sizes))
        for name, tensor in alone.items():
            assert torch.equal(tensor, together[name][i:i + 1]), name


@either_way
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf'), 1e30])
@for_every_operator
def test_bad_positions_contribute_nothing(op: str, bad: float, deterministic: bool,
                                          emulator: Emulator) -> None:
    torch.manual_seed(0)
    case = make_case(op, dtype=torch.float32, depth=8)
    learned = case.floats[1]
    limit = 2 if case.packed else learned.shape[-1]
    learned[0, 0, 0, ..., :limit] = bad
    check(emulator, case, Options(deterministic=deterministic))


@for_every_operator
def test_pixels_that_are_not_sampled_do_not_leak(op: str, emulator: Emulator) -> None:
    torch.manual_seed(0)
    more = ({'height': 13, 'kernel_size': 2, 'stride': 4, 'spread': 0.1, 'padding': 0}
            if op in CONVOLUTIONS else {'queries': 2, 'shapes': ((9, 8), (3, 5))})
    case = make_case(op, dtype=torch.float32, depth=8, **more)
    clean = emulator.outcome(case)
    unused = clean['grad_value'].unflatten(-1, (-1, 8)).eq(0).all(-1)
    unused = unused.all(-1) if op in CONVOLUTIONS else unused.squeeze(-1)
    assert bool(unused.any())
    case.floats[0][unused] = float('nan')
    for name, tensor in emulator.outcome(case).items():
        assert torch.equal(tensor, clean[name]), name


LEVELS = {
    'negative_start': ((5, 4), -1), 'start_beyond': ((5, 4), 1000), 'too_tall': ((1000, 4), 0),
    'negative': ((-5, 4), 0), 'both_negative': ((-5, -4), 0), 'overflow': ((2**40, 2**40), 0),
    'wide': ((1, 2**28), 0), 'largest': ((2**63 - 1, 2**63 - 1), 2**63 - 1),
    'smallest': ((-2**63, -2**63), -2**63), 'one_too_many': ((5, 4), 8), 'empty': ((0, 0), 0)}


@either_way
@pytest.mark.parametrize('op', ATTENTIONS)
@pytest.mark.parametrize('name', LEVELS)
def test_levels_that_do_not_fit_are_empty(name: str, op: str, deterministic: bool,
                                          emulator: Emulator) -> None:
    """The host never sees them; a level that lies is skipped, the others are right."""
    torch.manual_seed(0)
    case = attention_case(op, dtype=torch.float32, depth=8)
    (height, width), start = LEVELS[name]
    honest = expected(Case(case.op, {
        **case.tensors, 'spatial_shapes': torch.tensor([[0, 0], [3, 2], [1, 1]])}, case.options))
    case.tensors['spatial_shapes'] = torch.tensor([[height, width], [3, 2], [1, 1]])
    case.tensors['level_start_index'] = torch.tensor([start, 20, 26])
    got = emulator.outcome(case, options=Options(deterministic=deterministic))
    assert_same(got, honest, TOLERANCE[torch.float32])


@pytest.mark.parametrize('scale', [1e-30, 1.0, 1e30])
def test_fixed_point_is_more_exact_than_float32(scale: float, emulator: Emulator) -> None:
    torch.manual_seed(0)
    case = convolution_case('dcnv3', height=9, depth=8, dtype=torch.float64)
    grad = torch.randn(emulator.call(case).output_sizes, dtype=torch.float64) * scale
    got = emulator.outcome(case, grad, Options(deterministic=True))['grad_value']
    exact = outcome(case, grad, module=reference)['grad_value']
    assert float((got - exact).abs().max() / exact.abs().max()) < 2.0 ** -40


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=str)
def test_fixed_point_shows_what_is_not_finite(dtype: torch.dtype, emulator: Emulator) -> None:
    case = convolution_case('dcnv3', dtype=dtype)
    grad = torch.zeros(emulator.call(case).output_sizes)
    grad[0, 1, 1, 0] = float('inf')
    got = emulator.outcome(case, grad, Options(deterministic=True))
    assert bool(got['grad_value'].isnan().all())


@in_every_dtype
@for_every_operator
def test_rows_need_no_copy(op: str, dtype: torch.dtype, emulator: Emulator) -> None:
    """Value and packed points may be parts of wider rows, as one projection for both gives them."""
    torch.manual_seed(0)
    case = make_case(op, dtype=dtype, depth=16)
    for row_padding in (1, 2, 8):
        check(emulator, case, Options(row_padding=row_padding))


FAULTS = {'fault_barrier': 'deadlock', 'fault_shuffle': 'deadlock',
          'fault_overrun': 'beyond shared memory', 'fault_alignment': 'misaligned'}


def run_fault(emulator: Emulator, name: str, order: int = 0) -> torch.Tensor:
    buffers = Buffer(256), Buffer(256)
    arguments = Arguments(value=buffers[0].address, output=buffers[1].address)
    launch = Launch(kernel=name.encode(), grid_x=1, grid_y=1, block=64, shared_bytes=256)
    emulator.launch(launch, arguments, order)
    return buffers[1].tensor(torch.empty(64))


@pytest.mark.parametrize('name', FAULTS)
def test_emulation_notices_mistakes(name: str, emulator: Emulator) -> None:
    with pytest.raises(RuntimeError, match=FAULTS[name]):
        run_fault(emulator, name)


def test_emulation_shows_races(emulator: Emulator) -> None:
    forward, backward = (run_fault(emulator, 'fault_race', order) for order in (0, 1))
    assert not torch.equal(forward, backward)
    assert bool(forward.isnan().any())


def nvcc() -> str:
    home = os.environ.get('CUDA_HOME', '/usr/local/cuda')
    found = shutil.which('nvcc') or shutil.which('nvcc', path=f'{home}/bin')
    return found or pytest.skip('nvcc is not installed: set CUDA_HOME to a CUDA toolkit')


@pytest.mark.slow
@pytest.mark.parametrize('sm', [75, 90])
def test_kernels_compile_with_nvcc(sm: int, tmp_path: Path) -> None:
    target = tmp_path / 'kernels.cubin'
    subprocess.run([nvcc(), '-std=c++17', f'-arch=sm_{sm}', '-Werror', 'all-warnings', '-cubin',
                    str(CSRC / 'cuda' / 'kernels.cu'), '-o', str(target)], check=True)
    assert (b'dcn_backward_native_bf16_v8' in target.read_bytes()) == (sm >= 90)
