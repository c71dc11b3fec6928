"""Runs the CUDA kernels on the CPU: builds the emulation, plans as the library does, launches.

Every buffer lies between zones of NaN that are checked afterwards; results are NaN before.
"""
from __future__ import annotations

import ctypes
import fcntl
import hashlib
import inspect
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ops_dcn import reference
from ops_dcn.operators import Convolution
from tests.helpers import ROOT
from tests.ops_dcn.cases import CONVOLUTIONS, OPERATORS, Case

HERE = Path(__file__).parent
CSRC = ROOT / 'ops_dcn' / 'csrc'
FLAGS = ['-std=c++17', '-O1', '-fPIC', '-shared', '-U_FORTIFY_SOURCE', '-fvisibility=hidden',
         '-Wall', '-Wextra', '-Werror', '-Wno-unknown-pragmas', '-x', 'c++']
DTYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
GUARD = 512
POISON = 0xff  # NaN in every floating dtype


def _structure(name: str, **fields: str) -> type[ctypes.Structure]:
    """A ctypes mirror of a C structure: type -> names, in order (types may come again)."""
    types = {'int': ctypes.c_int, 'long': ctypes.c_longlong, 'bool': ctypes.c_bool,
             'double': ctypes.c_double, 'pointer': ctypes.c_void_p, 'unsigned': ctypes.c_uint}
    pairs = [(member, types[kind.split('_')[0]])
             for kind, members in fields.items() for member in members.split()]
    return type(name, (ctypes.Structure,), {'_fields_': pairs})


Shape = _structure(
    'Shape', long='batch', int='queries query_columns groups channels points pixels levels',
    bool='softmax', long_2='coord_query_stride weight_query_stride grad_coord_query_stride '
    'grad_weight_query_stride', int_2='coord_group_stride weight_group_stride value_stride padding '
    'height width kernel_h kernel_w dilation_h dilation_w half_h half_w centre origin_x origin_y '
    'step_x step_y', double='offset_scale')
Tiling = _structure(
    'Tiling', int='tile_rows tile_columns tiles_across block_groups group_tiles lanes lane_bits '
    'slices chunk chunk_stride', unsigned=' '.join(
        f'{part}_{what}' for part in ('by_chunk', 'by_groups', 'by_columns', 'by_kernel_h',
                                      'by_level_points') for what in ('divisor', 'factor')),
    int_2='region_rows region_columns region_x region_y')
Policy = _structure('Policy', bool='tile native_half', int='halo tile_vector threads')


class Arguments(ctypes.Structure):
    """Mirrors the structure that the kernels take."""

    _fields_ = [(name, ctypes.c_void_p) for name in (
        'value', 'coords', 'weights', 'output', 'grad_output', 'grad_coords', 'grad_weights',
        'grad_value', 'accumulator', 'range', 'level_shapes', 'level_starts')] + [
        ('shape', Shape), ('tiling', Tiling)]


class Launch(ctypes.Structure):
    """One kernel launch."""

    _fields_ = [('kernel', ctypes.c_char * 40)] + [
        (name, ctypes.c_uint) for name in ('grid_x', 'grid_y', 'block', 'shared_bytes')]


class ForwardPlan(ctypes.Structure):
    """What the plan says of a forward pass."""

    _fields_ = [('run', Launch), ('tiling', Tiling)]


class BackwardPlan(ctypes.Structure):
    """What the plan says of a backward pass."""

    _fields_ = [('prepare', Launch), ('run', Launch), ('finish', Launch), ('tiling', Tiling),
                ('accumulator', ctypes.c_int), ('accumulator_bytes', ctypes.c_longlong),
                ('range_offset', ctypes.c_longlong)]


def sources() -> list[Path]:
    """Everything that the emulation is built from."""
    own = [HERE / name for name in ('cuda_emulation.h', 'emulation.cpp', 'faults.cu')]
    kernels = [path for pattern in ('*.cu', '*.cuh', 'arguments.h', 'plan.*')
               for path in sorted((CSRC / 'cuda').glob(pattern))]
    return [*own, *kernels, CSRC / 'sampling.h']


def build() -> Path:
    """Compile the emulation, unless a build of the same sources is there."""
    return cached_build('emulation', sources(), ' '.join(FLAGS), [
        *FLAGS, f'-I{HERE}', f'-I{CSRC / "cuda"}', str(HERE / 'emulation.cpp'),
        str(CSRC / 'cuda' / 'plan.cpp')])


def cached_build(name: str, depends: list[Path], salt: str, arguments: list[str]) -> Path:
    """A library in ``build/NAME``, compiled unless one of the same text is there.

    Args:
        name: Folder below ``build``; holds the newest library only.
        depends: Files whose content decides.
        salt: What else decides, such as flags and versions.
        arguments: Of the compiler, without its output.
    """
    digest = hashlib.sha256(salt.encode())
    for path in depends:
        digest.update(path.read_bytes())
    folder = ROOT / 'build' / name
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f'{digest.hexdigest()[:16]}.so'
    with open(folder / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            for old in folder.glob('*.so'):
                old.unlink()
            compiler = shutil.which('g++') or shutil.which('c++')
            command = [compiler, *arguments, '-o', str(target.with_suffix('.tmp'))]
            subprocess.run(command, check=True)
            target.with_suffix('.tmp').rename(target)
    return target


class Buffer:
    """Memory between two zones of NaN, ``shift`` bytes off a multiple of 16."""

    def __init__(self, size: int, shift: int = 0) -> None:
        self.memory = torch.full((size + 2 * GUARD + 16 + shift,), POISON, dtype=torch.uint8)
        self.start = GUARD + -(self.memory.data_ptr() + GUARD) % 16 + shift
        self.bytes = self.memory[self.start:self.start + size]
        self.address = self.bytes.data_ptr() if size else self.memory.data_ptr() + self.start

    def check(self, name: str) -> None:
        """Fail if something was written beside the buffer."""
        outside = torch.cat([self.memory[:self.start],
                             self.memory[self.start + len(self.bytes):]])
        assert bool((outside == POISON).all()), f'a kernel wrote beside {name}'

    def tensor(self, like: Tensor) -> Tensor:
        """A copy of the contents, in the dtype and shape of ``like``."""
        out = torch.empty_like(like, memory_format=torch.contiguous_format)
        out.view(-1).view(torch.uint8).copy_(self.bytes) if out.numel() else None
        return out


@dataclass
class Options:
    """How a case is run: what the plan may choose and what the hardware may do."""

    sm: int = 90
    deterministic: bool = False
    order: int = 0  # of threads: ascending, descending, else random
    shift: int = 0  # of addresses, in bytes
    row_padding: int = 0  # elements between rows of value and of packed points
    policy: dict[str, Any] = field(default_factory=dict)


class Emulator:
    """The compiled emulation. Operators of a module are attributes: differentiable functions."""

    def __init__(self) -> None:
        self.path = build()
        self.library = ctypes.CDLL(str(self.path))
        self.library.emulation_launch.restype = ctypes.c_char_p
        self.library.emulation_unsupported.restype = ctypes.c_char_p
        sizes = (ctypes.c_int * 6).in_dll(self.library, 'emulation_sizes')
        mirrors = (Shape, Tiling, Arguments, Policy, ForwardPlan, BackwardPlan)
        assert list(sizes) == [ctypes.sizeof(mirror) for mirror in mirrors]

    def __getattr__(self, op: str) -> Callable[..., Tensor]:
        """An operator, as :mod:`ops_dcn` has it."""
        if op not in OPERATORS:
            raise AttributeError(op)
        names = inspect.signature(getattr(reference, op)).parameters

        def call(*tensors: Tensor, **options: Any) -> Tensor:
            case = Case(op, dict(zip(names, tensors, strict=False)), options)
            return _Emulated.apply(self, case, *case.floats)
        return call

    def unsupported(self, shape: Any) -> str | None:
        """Why the kernels cannot do a problem."""
        reason = self.library.emulation_unsupported(ctypes.byref(shape))
        return reason and reason.decode()

    def plan_forward(self, shape: Any, dtype: torch.dtype, options: Options,
                     alignment: int = 16) -> ForwardPlan:
        """Ask the library for its plan."""
        plan = ForwardPlan()
        self.library.emulation_plan_forward(
            ctypes.byref(shape), DTYPES[dtype], alignment, ctypes.byref(policy(options)),
            ctypes.byref(plan))
        return plan

    def plan_backward(self, shape: Any, dtype: torch.dtype, options: Options,
                      alignment: int = 16) -> BackwardPlan:
        """Ask the library for its plan."""
        plan = BackwardPlan()
        self.library.emulation_plan_backward(
            ctypes.byref(shape), DTYPES[dtype], alignment, options.sm,
            ctypes.c_bool(options.deterministic), ctypes.byref(policy(options)),
            ctypes.byref(plan))
        return plan

    def launch(self, launch: Launch, arguments: Arguments, order: int) -> None:
        """Run one kernel; raises ``RuntimeError`` where it breaks a rule of CUDA."""
        name = launch.kernel.decode()
        kernel = ctypes.cast(self.library[name], ctypes.c_void_p)
        error = self.library.emulation_launch(
            kernel, ctypes.byref(arguments), ctypes.byref(launch), ctypes.c_uint(order))
        if error is not None:
            raise RuntimeError(f'{name}: {error.decode()}')

    def kernels(self) -> set[str]:
        """Names of all kernels of the library."""
        symbols = subprocess.run(['nm', '-D', '--defined-only', str(self.path)], check=True,
                                 capture_output=True, text=True).stdout.split()
        return {name for name in symbols if name.startswith('dcn_')}

    def call(self, case: Case, options: Options | None = None) -> Call:
        """The call of a case, not yet made."""
        return Call(self, case, options or Options())

    def outcome(self, case: Case, grad_output: Tensor | None = None,
                options: Options | None = None) -> dict[str, Tensor]:
        """Output and gradients, by the names of :func:`tests.ops_dcn.cases.outcome`."""
        call = self.call(case, options)
        output = call.forward()
        if grad_output is None:
            generator = torch.Generator().manual_seed(7)
            grad_output = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        return {'output': output, **call.backward(grad_output.to(output.dtype))}


class _Emulated(torch.autograd.Function):
    """An emulated operator in a graph."""

    @staticmethod
    def forward(ctx: Any, emulator: Emulator, case: Case, *floats: Tensor) -> Tensor:
        ctx.call = emulator.call(case.map(torch.Tensor.detach))
        return ctx.call.forward()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.call.backward(grad_output).values()


def policy(options: Options) -> Any:
    """The library's default policy with changes."""
    return Policy(**{'tile': True, 'native_half': True, 'halo': 2, 'tile_vector': 4,
                     'threads': 256, **options.policy})


def describe(case: Case) -> tuple[Any, tuple[int, ...], int]:
    """(Shape, sizes of the output, first weight within the packed tensor) of a case."""
    return (_describe_convolution if case.op in CONVOLUTIONS else _describe_pyramid)(case)


def _describe_convolution(case: Case) -> tuple[Any, tuple[int, ...], int]:
    value, points_tensor = case.inputs[:2]
    kernel, stride, padding, dilation = Convolution(
        0, 0, 0, 0, 0, options=case.options).geometry
    n, height, width, channels = value.shape
    groups, remove_center = case.options['groups'], case.options.get('remove_center', False)
    size = points_tensor.shape[1:3]
    points = kernel[0] * kernel[1] - int(remove_center)
    half = [dilate * (length - 1) // 2 for dilate, length in zip(dilation, kernel, strict=True)]
    shape = Shape(
        batch=n, queries=size[0] * size[1], query_columns=size[1], groups=groups,
        channels=channels // groups, points=points, pixels=height * width,
        softmax=case.options.get('softmax', False), height=height, width=width,
        kernel_h=kernel[0], kernel_w=kernel[1], dilation_h=dilation[0], dilation_w=dilation[1],
        half_h=half[0], half_w=half[1], step_y=stride[0], step_x=stride[1],
        origin_y=half[0] - padding[0], origin_x=half[1] - padding[1],
        centre=kernel[1] // 2 * kernel[0] + kernel[0] // 2 if remove_center else points,
        offset_scale=case.options.get('offset_scale', 1.0))
    start = _set_strides(shape, case)
    return shape, (n, *size, channels), start


def _describe_pyramid(case: Case) -> tuple[Any, tuple[int, ...], int]:
    value, _, starts, points_tensor = case.inputs[:4]
    n, pixels, groups, channels = value.shape
    queries, levels = points_tensor.shape[1], len(starts)
    points = points_tensor.shape[3] // 3 if case.packed else points_tensor.shape[4] * levels
    shape = Shape(batch=n, queries=queries, query_columns=queries, groups=groups,
                  channels=channels, points=points, pixels=pixels, levels=levels,
                  softmax=case.packed)
    return shape, (n, queries, groups * channels), _set_strides(shape, case)


def _set_strides(shape: Any, case: Case) -> int:
    points = shape.points
    shape.value_stride = shape.groups * shape.channels
    if not case.packed:
        shape.coord_group_stride, shape.weight_group_stride = 2 * points, points
        shape.coord_query_stride = 2 * points * shape.groups
        shape.weight_query_stride = points * shape.groups
        start = 0
    else:
        shape.coord_group_stride = shape.weight_group_stride = 3 * points
        row = case.inputs[-1].shape[-1] * (shape.groups if shape.levels else 1)
        shape.coord_query_stride = shape.weight_query_stride = row
        shape.padding = row - 3 * points * shape.groups
        start = 2 * points
    shape.grad_coord_query_stride = shape.coord_query_stride
    shape.grad_weight_query_stride = shape.weight_query_stride
    return start


class Call:
    """One call of an operator: buffers, then kernels, then checks."""

    def __init__(self, emulator: Emulator, case: Case, options: Options) -> None:
        self.emulator, self.case, self.options = emulator, case, options
        self.shape, self.output_sizes, self.start = describe(case)
        self.dtype = case.floats[0].dtype
        self.element = case.floats[0].element_size()
        self.value, *self.points = case.floats
        self.alignment = min(16, options.shift & -options.shift or 16)
        self.buffers: dict[str, Buffer] = {}
        self.arguments = Arguments(shape=self.shape)

    @property
    def empty(self) -> bool:
        """Whether no kernel is to run."""
        sizes = ('batch', 'queries', 'groups', 'channels', 'points', 'pixels')
        return 0 in [getattr(self.shape, size) for size in sizes]

    def allocate(self, name: str, size: int) -> int:
        """A buffer of ``size`` bytes, full of NaN."""
        self.buffers[name] = Buffer(size, self.options.shift)
        return self.buffers[name].address

    def put(self, name: str, tensor: Tensor, row: int = 0) -> int:
        """A buffer with a copy of a tensor; rows of ``row`` elements get a gap of NaN behind."""
        tensor = tensor.contiguous()
        gap = self.options.row_padding if row else 0
        data = tensor.view(-1).view(torch.uint8) if tensor.numel() else torch.empty(
            0, dtype=torch.uint8)
        if gap and tensor.numel():
            rows = data.view(-1, row * self.element)
            wide = torch.full((len(rows), (row + gap) * self.element), POISON, dtype=torch.uint8)
            wide[:, :row * self.element] = rows
            data = wide.view(-1)
        address = self.allocate(name, len(data))
        self.buffers[name].bytes.copy_(data)
        return address

    def bind_inputs(self, strided_value: bool) -> None:
        """Buffers of what both passes read."""
        shape, a, case = self.shape, self.arguments, self.case
        gap = self.options.row_padding
        channels = shape.groups * shape.channels
        a.value = self.put('value', self.value, channels if strided_value else 0)
        shape.value_stride = channels + (gap if strided_value else 0)
        if len(self.points) == 2:
            a.coords, a.weights = (self.put(name, tensor) for name, tensor in zip(
                ('coords', 'weights'), self.points, strict=True))
        else:
            a.coords = self.put('coords', self.points[0], shape.grad_coord_query_stride)
            shape.coord_query_stride = shape.grad_coord_query_stride + gap
            shape.weight_query_stride = shape.grad_weight_query_stride + gap
            a.weights = a.coords + self.start * self.element
        if shape.levels:
            a.level_shapes = self.put('level_shapes', case.tensors['spatial_shapes'])
            a.level_starts = self.put('level_starts', case.tensors['level_start_index'])
        a.shape = shape

    def launch(self, *launches: Launch) -> None:
        """Run kernels one after another, then look for writes beside the buffers."""
        for launch in launches:
            if launch.kernel:
                self.emulator.launch(launch, self.arguments, self.options.order)
        for name, buffer in self.buffers.items():
            buffer.check(name)

    def forward(self) -> Tensor:
        """Output of the operator."""
        output = torch.zeros(self.output_sizes, dtype=self.dtype)
        if self.empty:
            return output
        self.bind_inputs(strided_value=True)
        self.arguments.output = self.allocate('output', output.numel() * self.element)
        self.plan = self.emulator.plan_forward(
            self.shape, self.dtype, self.options, self.alignment)
        self.arguments.tiling = self.plan.tiling
        self.launch(self.plan.run)
        return self.buffers['output'].tensor(output)

    def backward(self, grad_output: Tensor) -> dict[str, Tensor]:
        """Gradient of every floating input."""
        names = [f'grad_{name}' for name, tensor in self.case.tensors.items()
                 if tensor.is_floating_point()]
        likes = [self.value, *self.points]
        if self.empty:
            return {name: torch.zeros_like(like)
                    for name, like in zip(names, likes, strict=True)}
        self.bind_inputs(strided_value=False)
        a = self.arguments
        a.grad_output = self.put('grad_output', grad_output)
        addresses = [self.allocate(name, like.numel() * self.element)
                     for name, like in zip(names, likes, strict=True)]
        a.grad_value, a.grad_coords = addresses[:2]
        a.grad_weights = (addresses[2] if len(addresses) == 3
                          else a.grad_coords + self.start * self.element)
        self.plan = plan = self.emulator.plan_backward(
            self.shape, self.dtype, self.options, self.alignment)
        a.tiling = plan.tiling
        self.bind_accumulator(plan, names[0])
        self.launch(plan.prepare, plan.run, plan.finish)
        return {name: self.buffers[name].tensor(like)
                for name, like in zip(names, likes, strict=True)}

    def bind_accumulator(self, plan: BackwardPlan, grad_value: str) -> None:
        """Zero what the gradient of the value is added up in."""
        if plan.accumulator_bytes:
            self.buffers['accumulator'] = buffer = Buffer(plan.accumulator_bytes)
            self.arguments.accumulator = buffer.address
            self.arguments.range = buffer.address + plan.range_offset
        else:
            buffer = self.buffers[grad_value]
            self.arguments.accumulator = buffer.address
        buffer.bytes.zero_()
