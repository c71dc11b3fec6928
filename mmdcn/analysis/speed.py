"""How long a step takes, what memory it needs, and where its time goes.

A step is any call: a training step, a prediction, a single layer. Timing, memory and the profile
are taken in separate calls, as a profiler slows down what it watches. Shared machines are noisy:
what is to be compared is timed in turn (A B A B ...), and the ratio is that of neighbours.
"""
from __future__ import annotations

import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, record_function
from torch.utils._pytree import tree_leaves

DEFORMABLE = 'deformable operators'
PRODUCTS = 'matrix products and convolutions'
OTHERS = 'other operators'
OUTSIDE = 'outside of operators'
KINDS = (DEFORMABLE, PRODUCTS, OTHERS, OUTSIDE)
NO_MODULE = '(outside of modules)'
OPTIMIZER = '(optimizer)'

_PRODUCT = re.compile(
    r'(?:aten|mkldnn|mkl)::_*(?:\w*conv(?!ert)\w*|(?:mkl_)?linear\w*|matmul|einsum|tensordot|'
    r'(?:add|badd)?b?mm\w*|(?:add)?mv|scaled_dot_product\w*)')
_STEP, _MODULE = 'mmdcn step', 'mmdcn module: '
_BACKWARD_NODE = 'autograd::engine::evaluate_function'
_BACKWARD_SCOPE = 1  # of an event that runs a node of the graph
# What OpenMMLab calls beside ``forward``: losses and predictions belong to the module, too.
_METHODS = ('loss', 'predict', 'loss_and_predict', 'loss_and_target', 'loss_by_feat',
            'predict_by_feat')


@dataclass(frozen=True)
class Step:
    """What is measured.

    Args:
        run: The step; gets what ``prepare`` gave, or nothing without one.
        prepare: Called before each step and not measured, e.g. to copy a batch that ``run``
            changes.
    """

    run: Callable[..., Any]
    prepare: Callable[[], Any] | None = None

    def arguments(self) -> tuple[Any, ...]:
        """The arguments of the next call of ``run``."""
        return () if self.prepare is None else (self.prepare(), )


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Memory:
    """Memory of a step in bytes.

    Args:
        held: Of the tensors that exist before the step, as told to :func:`peak_memory`.
        peak: ``held``, and the most that the step allocates at one time.
        measure: What was measured, in words.
    """

    held: int
    peak: int
    measure: str


@dataclass(frozen=True)
class PartTime:
    """Self time of a module, or of all modules of one class.

    Args:
        name: Qualified name, ``''`` for the model itself; or :data:`NO_MODULE`, :data:`OPTIMIZER`.
        kind: Its class; empty for those two.
        seconds: Time of one step, forward and backward, in the module itself: without the modules
            within it.
        share: Its part of the whole step.
        count: Number of modules.
    """

    name: str
    kind: str
    seconds: float
    share: float
    count: int = 1


@dataclass(frozen=True)
class Profile:
    """Where the time of a step goes.

    Args:
        seconds: Time of the step under the profiler; on CUDA of its kernels.
        shares: Part of it by kind of work (:data:`KINDS`); the sum is 1.
        parts: Modules by self time, the slowest first.
        measure: What was measured, in words.
    """

    seconds: float
    shares: dict[str, float]
    parts: list[PartTime]
    measure: str

    def by_class(self) -> list[PartTime]:
        """Sums of ``parts`` by class, the slowest first; what is no module stays as it is."""
        seconds: Counter[tuple[str, str]] = Counter()
        counts: Counter[tuple[str, str]] = Counter()
        for part in self.parts:
            key = ('', part.kind) if part.kind else (part.name, '')
            seconds[key] += part.seconds
            counts[key] += 1
        return [PartTime(name, kind, value, _ratio(value, self.seconds), counts[name, kind])
                for (name, kind), value in seconds.most_common()]


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of values; of a single one all three are the same."""
    if len(values) < 2:
        return Spread(*(values[0], ) * 3)
    low, median, high = statistics.quantiles(values, n=4, method='inclusive')
    return Spread(median, low, high)


def pairwise_ratio(first: Sequence[float], second: Sequence[float]) -> Spread:
    """Ratio of measurements taken in turn: median and quartiles of ``first[i] / second[i]``."""
    return spread([one / other for one, other in zip(first, second, strict=True)])


def wait(device: str) -> None:
    """Wait for what a CUDA device still computes; on a CPU nothing is owed."""
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)


def seconds_of(step: Step, device: str) -> float:
    """Wall-clock seconds of one call, until the device has done its work."""
    arguments = step.arguments()
    wait(device)
    begin = time.perf_counter()
    step.run(*arguments)
    wait(device)
    return time.perf_counter() - begin


def time_in_turn(steps: Mapping[str, Step], device: str, repetitions: int,
                 ) -> dict[str, list[float]]:
    """Seconds of each call of each step, in the order A B A B ...

    Args:
        steps: The steps by name, warm: what compiles or tunes itself has done so.
        device: Where they run.
        repetitions: Number of calls of each.
    """
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repetitions):
        for name, step in steps.items():
            taken[name].append(seconds_of(step, device))
    return taken


def held_bytes(*holders: Any) -> int:
    """Bytes of the tensors of modules, optimizers and nested containers.

    Memory that several tensors share counts once; gradients count where they exist.
    """
    tensors: list[Tensor] = []
    for holder in holders:
        if isinstance(holder, nn.Module):
            tensors += [*holder.parameters(), *holder.buffers()]
            tensors += [p.grad for p in holder.parameters() if p.grad is not None]
        else:
            tree = dict(holder.state) if isinstance(holder, torch.optim.Optimizer) else holder
            tensors += [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    storages = {(tensor.device, storage.data_ptr()): storage.nbytes() for tensor in tensors
                if (storage := tensor.untyped_storage()).nbytes()}
    return sum(storages.values())


def peak_memory(step: Step, device: str, held: int = 0) -> Memory:
    """Most memory that tensors take during one call.

    On CUDA it is what torch's allocator counts (``torch.cuda.max_memory_allocated``), less what lay
    there before the call. On a CPU it is the highest sum of all allocations and releases that
    torch's profiler sees: unlike the resident size of the process it does not depend on what ran
    before. Libraries' own scratch memory is in neither.

    Args:
        step: The step.
        device: Where it runs.
        held: Bytes that belong to the step and exist before it (:func:`held_bytes`).
    """
    if torch.device(device).type == 'cuda':
        arguments = step.arguments()
        wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step.run(*arguments)
        wait(device)
        above = torch.cuda.max_memory_allocated(device) - before
        return Memory(held, held + above, 'of tensors, by torch.cuda.max_memory_allocated')
    with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        # The profiler knows the size of what is released only if it saw it allocated: once before.
        step.run(*step.arguments())
        arguments = step.arguments()
        with record_function(_STEP):
            step.run(*arguments)
    events = profiler.profiler.kineto_results.events()
    begin = next(event.start_ns() for event in events if event.name() == _STEP)
    changes = sorted((event.start_ns(), event.nbytes()) for event in events
                     if event.name() == '[memory]' and event.start_ns() >= begin
                     and event.device_type() == DeviceType.CPU)
    now = above = 0
    for _, change in changes:
        now += change
        above = max(above, now)
    return Memory(held, held + above, "of tensors, by torch's profiler; not the process's")


def profile(step: Step, device: str, steps: int = 3, model: nn.Module | None = None) -> Profile:
    """Where the time of a step goes, by torch's profiler: of several, the fastest step.

    On a CPU times are those of the thread that calls, Python between the operators included; on
    CUDA those of the kernels, by the operator that started them. Work within an operator belongs to
    the outermost one that has a kind: the copies that a convolution makes are the convolution's.
    What the profiler itself costs lies most on small operators.

    Args:
        step: The step, warm.
        device: Where it runs.
        steps: Number of calls. The fastest is the one that the machine disturbed least.
        model: Split the time by its modules, too. Backward work belongs to the module whose forward
            made it. Its modules get hooks meanwhile, so it must not be compiled.
    """
    with _named_modules(model):
        return min((_profile_once(step, device, model) for _ in range(steps)),
                   key=lambda found: found.seconds)


def _profile_once(step: Step, device: str, model: nn.Module | None) -> Profile:
    on_cuda = torch.device(device).type == 'cuda'
    arguments = step.arguments()
    wait(device)
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_cuda]
    with torch.profiler.profile(activities=activities) as profiler, record_function(_STEP):
        step.run(*arguments)
        wait(device)
    recorded = profiler.events()
    events = _in_order(recorded)
    if not on_cuda:
        events = _below_step(events)
    kinds: Counter[str] = Counter(dict.fromkeys(KINDS, 0.0))
    modules: Counter[str] = Counter()
    by_module = _modules_of(events)
    for event, kind in zip(events, _kinds_of(events), strict=True):
        taken = _kernel_time(event) if on_cuda else event.self_cpu_time_total
        kinds[kind] += taken
        modules[by_module[id(event)]] += taken
    if on_cuda:  # kernels whose operator the profiler does not know
        lost = max(0.0, sum(map(_device_time, recorded)) - sum(kinds.values()))
        kinds[OUTSIDE] += lost
        modules[NO_MODULE] += lost
    total = sum(kinds.values())
    classes = {name: type(module).__name__ for name, module in _modules(model)}
    parts = [PartTime(name, classes.get(name, ''), taken * 1e-6, _ratio(taken, total))
             for name, taken in modules.most_common() if taken] if model is not None else []
    measure = 'time of kernels' if on_cuda else 'time of the calling thread'
    return Profile(total * 1e-6, {kind: _ratio(taken, total) for kind, taken in kinds.items()},
                   parts, measure)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _modules(model: nn.Module | None) -> Iterable[tuple[str, nn.Module]]:
    return () if model is None else model.named_modules()


@contextmanager
def _named_modules(model: nn.Module | None) -> Iterator[None]:
    """Let the profiler see when each module begins and ends."""
    open_ranges: list[record_function] = []

    def begin(name: str) -> None:
        open_ranges.append(record_function(_MODULE + name))
        open_ranges[-1].__enter__()

    def end() -> None:
        open_ranges.pop().__exit__(None, None, None)

    def named(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begin(name)
            try:
                return method(*args, **kwargs)
            finally:
                end()
        return call

    handles, wrapped = [], []
    for name, module in _modules(model):
        handles += [
            module.register_forward_pre_hook(lambda *_, name=name: begin(name), prepend=True),
            module.register_forward_hook(lambda *_: end(), always_call=True)]
        for method in _METHODS:
            if callable(getattr(module, method, None)) and method not in vars(module):
                setattr(module, method, named(name, getattr(module, method)))
                wrapped.append((module, method))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, method in wrapped:
            delattr(module, method)


def _kernel_time(event: FunctionEvent) -> float:
    """Microseconds of the kernels that an operator itself started."""
    return 0.0 if event.is_user_annotation else sum(k.duration for k in event.kernels)


def _device_time(event: FunctionEvent) -> float:
    """Microseconds of an event on a device, 0 for one of the CPU."""
    on_cpu = event.device_type == DeviceType.CPU
    return 0.0 if on_cpu or event.is_user_annotation else event.time_range.elapsed_us()


def _in_order(events: Iterable[FunctionEvent]) -> list[FunctionEvent]:
    """What the CPU did, each event after the one that holds it."""
    on_cpu = (event for event in events if event.device_type == DeviceType.CPU
              and not event.is_async)
    return sorted(on_cpu, key=lambda event: (event.time_range.start, -event.time_range.end))


def _below_step(events: list[FunctionEvent]) -> list[FunctionEvent]:
    """The step and the events within it."""
    inside: set[int] = set()
    for event in events:
        if event.name == _STEP or id(event.cpu_parent) in inside:
            inside.add(id(event))
    return [event for event in events if id(event) in inside]


def _kinds_of(events: list[FunctionEvent]) -> Iterator[str]:
    """The kind of each event: that of the outermost one around it that is of the first two."""
    found: dict[int, str] = {}
    for event in events:
        above = found.get(id(event.cpu_parent))
        if above in (DEFORMABLE, PRODUCTS):
            kind = above
        elif event.name.startswith('ops_dcn::'):
            kind = DEFORMABLE
        elif _PRODUCT.fullmatch(event.name):
            kind = PRODUCTS
        elif '::' in event.name and not event.name.startswith((_MODULE, 'autograd::')):
            kind = OTHERS
        else:
            kind = OUTSIDE
        found[id(event)] = kind
        yield kind


def _modules_of(events: list[FunctionEvent]) -> dict[int, str]:
    """The name of the module that each event belongs to, by its ``id``."""
    found: dict[int, str] = {}
    makers: dict[int, str] = {}  # module by the number that a forward operator and its node share
    for event in events:
        is_node = event.scope == _BACKWARD_SCOPE or event.name.startswith(_BACKWARD_NODE)
        module = found.get(id(event.cpu_parent), NO_MODULE)
        if event.name.startswith(_MODULE):
            module = event.name.removeprefix(_MODULE)
        elif event.name.startswith('Optimizer.'):
            module = OPTIMIZER
        elif is_node:
            module = makers.get(event.sequence_nr, module)
        if not is_node and event.sequence_nr >= 0:
            # Several may show a number before its node is made: the last of them makes it.
            makers[event.sequence_nr] = module
        found[id(event)] = module
    return found
