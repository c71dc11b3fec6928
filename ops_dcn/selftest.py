"""``python -m ops_dcn.selftest``: compare the compiled operators with the reference.

Needs nothing but torch and this package. Prints one line per operator and device and ends in
``PASS`` (exit status 0), or in what is wrong and what to do about it (exit status 1). CUDA kernels
are checked where there is a CUDA device.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import ops_dcn
from ops_dcn import reference

# Largest difference allowed, relative to the largest value. Half precisions: both sides compute in
# float32 and round once, so one unit in the last place.
_TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-3,
              torch.bfloat16: 1.6e-2}
_REMEDY = ('build the library again with `make env` or `pip install --force-reinstall '
           '--no-build-isolation .`; if that does not help, report this output '
           '(OPS_DCN_CPU_ISA=baseline avoids the vector instructions)')


def main() -> int:
    """Run the comparison and return the exit status."""
    try:
        from ops_dcn import _library
        backends = _library.backends()
        compiled = ', '.join(f'{device}: {kernels or "not available"}'
                             for device, kernels in backends.items())
        _say(f'ops_dcn selftest, torch {torch.__version__}, {compiled}')
        _say('largest difference from the reference, outputs and gradients:')
        _check('cpu')
        if torch.cuda.is_available() and _library.cuda_problem():
            raise ImportError(f'ops_dcn cannot run on CUDA: {_library.cuda_problem()}')
        if not torch.cuda.is_available():
            _say('cuda is not checked: ' + (_library.cuda_problem() or 'no CUDA device'))
        for index in range(torch.cuda.device_count()):
            _check(f'cuda:{index}')
    except (ImportError, ValueError, RuntimeError) as error:
        _say(f'FAIL: {error}')
        return 1
    _say('PASS')
    return 0


def _check(device: str) -> None:
    """Compare every operator on one device; ``RuntimeError`` where it differs."""
    torch.manual_seed(0)
    for name, floats, arguments in _problems():
        _say(f'{name:18}{device:8}' + '  '.join(_compare(name, floats, arguments, device)))


def _say(line: str) -> None:
    sys.stdout.write(line + '\n')


def _problems() -> Iterator[tuple[str, list[Tensor], Callable[..., dict[str, Any]]]]:
    """Yield operator, floating tensors, and how they become the arguments of a call."""
    size, groups, points = (2, 7, 9), 3, 6
    # A rectangular kernel with unequal strides, on an image that is no multiple of anything.
    options = {'groups': groups, 'kernel_size': (3, 2), 'stride': (2, 1), 'padding': (1, 0),
               'dilation': (1, 2), 'offset_scale': 1.5}
    output = (2, 4, 7)
    value = _normal(*size, groups * 12)
    offset, mask = _normal(*output, groups * points * 2) * 2, _normal(*output, groups * points)
    yield ('dcnv3', [value, offset, mask],
           lambda v, o, m: {'value': v, 'offset': o, 'mask': m, **options})
    for softmax in (False, True):
        yield ('dcnv4', [value, _normal(*output, 56) * 2], lambda v, o, s=softmax: {
            'value': v, 'offset_mask': o, 'softmax': s, **options})
    shapes = torch.tensor([[7, 9], [4, 5], [1, 2]])
    starts = torch.tensor([0, 63, 83])
    levels = {'spatial_shapes': shapes, 'level_start_index': starts}
    value, locations = _normal(2, 85, groups, 16), torch.rand(2, 11, groups, 3, 4, 2).double()
    logits = _normal(2, 11, groups, 12)
    weights = logits.softmax(-1).unflatten(-1, (3, 4))
    yield ('ms_deform_attn', [value, locations * 1.4 - 0.2, weights], lambda v, x, w: {
        'value': v, 'sampling_locations': x, 'attention_weights': w, **levels})
    packed = torch.cat([locations.flatten(3) * 1.4 - 0.2, logits], -1)
    yield ('flash_deform_attn', [value, packed], lambda v, p: {
        'value': v, 'sampling_loc_attn': p, 'num_points': 4, **levels})


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def _compare(name: str, floats: list[Tensor], arguments: Callable[..., dict[str, Any]],
             device: str) -> Iterator[str]:
    """Yield the difference per dtype; ``RuntimeError`` where it is too large."""
    for dtype, tolerance in _TOLERANCE.items():
        results = []
        for module, place in ((ops_dcn, device), (reference, 'cpu')):
            leaves = [tensor.to(place, dtype).requires_grad_() for tensor in floats]
            output = getattr(module, name)(**arguments(*leaves))
            gradient = torch.linspace(-1, 1, output.numel()).view_as(output).to(output)
            results.append([output, *torch.autograd.grad(output, leaves, gradient)])
        worst = max(_difference(*both) for both in zip(*results, strict=True))
        short = str(dtype).removeprefix('torch.')
        if not worst <= tolerance:
            raise RuntimeError(f'{name} in {short} is not valid: got a difference of {worst:.1e} '
                               f'from the reference on {device}, expected at most {tolerance:.1e}; '
                               f'{_REMEDY}')
        yield f'{short} {worst:.1e}'


def _difference(got: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    got, expected = got.detach().cpu().double(), expected.detach().double()
    return float((got - expected).abs().max() / expected.abs().max())


if __name__ == '__main__':
    sys.exit(main())
