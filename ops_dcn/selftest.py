"""``python -m ops_dcn.selftest``: compare the compiled operators with the reference.

Needs nothing but torch and this package. Prints one line per operator and device and ends in
``PASS`` (exit status 0), or in what is wrong and what to do about it (exit status 1). CUDA kernels
are checked where there is a CUDA device.
"""
from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import Tensor

import ops_dcn
from ops_dcn import _library, reference
from ops_dcn.operators import OPERATORS, Call, Convolution, Pyramid

# Largest difference allowed, relative to the largest value. Half precisions: both sides compute in
# float32 and round once, so one unit in the last place.
_TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-3,
              torch.bfloat16: 1.6e-2}
# A rectangular kernel with unequal strides, on an image that is no multiple of anything.
_SIZES = {
    Convolution: Convolution(2, 7, 9, groups=3, depth=12, spread=2.0, options={
        'kernel_size': (3, 2), 'stride': (2, 1), 'padding': (1, 0), 'dilation': (1, 2),
        'offset_scale': 1.5}),
    Pyramid: Pyramid(2, ((7, 9), (4, 5), (1, 2)), groups=3, depth=16, points=4, queries=11)}
_REMEDY = ('build the library again with `make env` or `pip install --force-reinstall '
           '--no-build-isolation .`; if that does not help, report this output '
           '(OPS_DCN_CPU_ISA=baseline avoids the vector instructions)')


def main() -> int:
    """Run the comparison and return the exit status."""
    try:
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
    for name, operator in OPERATORS.items():
        for options in operator.variants:
            case = operator.case(_SIZES[operator.kind], **options)
            _say(f'{name:18}{device:8}' + '  '.join(_compare(name, case, device)))


def _say(line: str) -> None:
    sys.stdout.write(line + '\n')


def _compare(name: str, case: Call, device: str) -> Iterator[str]:
    """Yield the difference per dtype; ``RuntimeError`` where it is too large."""
    for dtype, tolerance in _TOLERANCE.items():
        results = []
        for module, place in ((ops_dcn, device), (reference, 'cpu')):
            tensors = {key: tensor.to(place, dtype).requires_grad_()
                       if tensor.is_floating_point() else tensor
                       for key, tensor in case.tensors.items()}
            leaves = [tensor for tensor in tensors.values() if tensor.requires_grad]
            output = getattr(module, name)(**tensors, **case.options)
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
