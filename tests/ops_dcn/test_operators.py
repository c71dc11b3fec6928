"""The table of operators: complete, true to the library, and no operator without a cost."""
from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import ops_dcn
from ops_dcn import _autograd, _library, reference
from ops_dcn.operators import Convolution, Operator, Pyramid, raw_operators
from tests.ops_dcn.cases import OPERATORS, make_case

for_every_operator = pytest.mark.parametrize('op', OPERATORS)


@pytest.fixture
def unlisted() -> Iterator[str]:
    """A raw operator that the table does not know."""
    library = torch.library.Library('ops_dcn', 'FRAGMENT')
    library.define('unlisted(Tensor x) -> Tensor')
    library.impl('unlisted', torch.clone, 'CompositeExplicitAutograd')
    yield 'unlisted'
    library._destroy()


def test_library_and_table_name_the_same_operators() -> None:
    assert raw_operators() == {name for op in ops_dcn.OPERATORS.values() for name in op.raw}


@for_every_operator
def test_names_belong_to_one_operator(op: str) -> None:
    operator = ops_dcn.OPERATORS[op]
    assert operator.name == op
    assert op in ops_dcn.__all__
    signatures = [inspect.signature(getattr(module, op)) for module in (ops_dcn, reference)]
    assert signatures[0] == signatures[1]


@for_every_operator
def test_differentiable_arguments_are_those_of_the_schemas(op: str) -> None:
    forward, backward = (getattr(torch.ops.ops_dcn, name).default._schema
                         for name in ops_dcn.OPERATORS[op].raw)
    names = [argument.name for argument in forward.arguments]
    assert [a.name for a in backward.arguments] == ['grad_output', *names, 'deterministic']
    case = make_case(op)
    floats = tuple(names.index(name) for name, tensor in case.tensors.items()
                   if tensor.is_floating_point())
    assert ops_dcn.OPERATORS[op].differentiable == floats
    assert len(backward.returns) == len(floats)


def test_library_with_other_operators_is_refused(unlisted: str,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    words = r"without the operators \[\] and with \['unlisted'\], which ops_dcn.OPERATORS"
    with pytest.raises(ImportError, match=words):
        _library.load.__wrapped__()
    monkeypatch.setattr(_library, 'load', _library.load.__wrapped__)
    monkeypatch.setattr(_autograd, '_load_error', '')
    _autograd.register()
    with pytest.raises(ImportError, match='unlisted'):
        make_case('dcnv4').call()


def test_operator_that_the_library_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = dataclasses.replace(ops_dcn.OPERATORS['dcnv4'], name='dcnv5')
    monkeypatch.setitem(ops_dcn.OPERATORS, 'dcnv5', extra)
    with pytest.raises(ImportError, match=r"without the operators \['dcnv5_backward', 'dcnv5_for"):
        _library.load.__wrapped__()


@pytest.mark.parametrize('part', ['fake', 'macs', 'arrange'])
def test_entry_must_be_complete(part: str) -> None:
    entry = {field.name: getattr(ops_dcn.OPERATORS['dcnv3'], field.name)
             for field in dataclasses.fields(Operator)}
    with pytest.raises(ValueError, match=f'dcnv3.{part} is not valid: got None, expected a funct'):
        Operator(**{**entry, part: None})
    with pytest.raises(TypeError, match=part):
        Operator(**{name: value for name, value in entry.items() if name != part})


def counted(call: Callable[[], object]) -> int:
    """FLOPs by torch's counter, which takes an operator without a formula for free."""
    with FlopCounterMode(display=False, custom_mapping=ops_dcn.multiply_adds()) as counter:
        call()
    return counter.get_total_flops()


@for_every_operator
def test_cost_is_five_per_point_and_channel(op: str) -> None:
    """A kernel of 3x3 points; three levels of three points each."""
    case = make_case(op, n=2, groups=3, depth=4)
    assert counted(case.call) == 5 * 9 * case.call().numel()


def test_cost_of_an_unlisted_operator_is_an_error(unlisted: str) -> None:
    with pytest.raises(ValueError, match='multiply-adds of ops_dcn::unlisted are not valid: got '
                                         'no formula'):
        counted(lambda: torch.ops.ops_dcn.unlisted(torch.ones(2)))


@for_every_operator
def test_cost_of_a_backward_is_an_error(op: str) -> None:
    """It would count as 0; nobody has published a convention for it."""
    leaves = [tensor.requires_grad_() for tensor in make_case(op).floats]
    with pytest.raises(ValueError, match=f'multiply-adds of ops_dcn::{op}_backward are not valid'):
        counted(lambda: make_case(op).call(*leaves).sum().backward())


@for_every_operator
def test_fake_has_the_output_of_the_kernel(op: str) -> None:
    case = make_case(op, dtype=torch.float16)
    tensors, options = case.raw()
    fake = ops_dcn.OPERATORS[op].fake(*(tensor.to('meta') for tensor in tensors), *options)
    got = case.call()
    assert (fake.shape, fake.dtype) == (got.shape, got.dtype)


def test_encoder_queries_sample_around_themselves() -> None:
    """One query per pixel: the mean of many locations is its center, in (x, y)."""
    torch.manual_seed(0)
    parts = Pyramid(200, ((3, 5), (2, 2)), groups=4, depth=1, points=4).draw(torch.float64)
    got = parts['locations'][:, :, :, 0].mean((0, 2, 3))
    assert got.shape == (19, 2)
    expected = torch.tensor([(3 + 0.5) / 5, (1 + 0.5) / 3]).double()
    torch.testing.assert_close(got[5 + 3], expected, rtol=0, atol=0.05)
    assert parts['level_start_index'].tolist() == [0, 15]


def test_sizes_of_a_convolution() -> None:
    size = Convolution(2, 7, 9, groups=3, depth=4, spread=0.0, options={
        'kernel_size': 3, 'stride': (2, 1), 'padding': 0, 'remove_center': True})
    parts: dict[str, Tensor] = size.draw(torch.float32)
    assert {name: tuple(tensor.shape) for name, tensor in parts.items()} == {
        'value': (2, 7, 9, 12), 'offset': (2, 3, 7, 3, 16), 'mask': (2, 3, 7, 3, 8)}
    assert not parts['offset'].any()
    assert parts['mask'].dtype == torch.float32
