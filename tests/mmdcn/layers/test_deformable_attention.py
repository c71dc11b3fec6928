"""The layer against mmcv's: interface, numbers, precision, errors."""
from __future__ import annotations

import copy
import inspect
import io
import itertools

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmdcn.layers import MultiScaleDeformableAttention
from tests.mmdcn.layers.cases import MmcvAttention, assert_same, inputs, outcome, pair

OPTIONS = ({}, {'num_levels': 1, 'num_points': 5}, {'embed_dims': 15, 'num_heads': 5},
           {'embed_dims': 7, 'num_heads': 1}, {'value_proj_ratio': 0.5},
           {'value_proj_ratio': 2.0, 'num_levels': 2})


# ----------------------------------------------------------------------------- the interface
def test_constructor_and_forward_take_what_mmcv_takes():
    ours, theirs = (inspect.signature(cls) for cls in (MultiScaleDeformableAttention,
                                                       MmcvAttention))
    assert ([(p.name, p.default) for p in ours.parameters.values()]
            == [(p.name, p.default) for p in theirs.parameters.values()])
    ours, theirs = (inspect.signature(inspect.unwrap(cls.forward)).parameters
                    for cls in (MultiScaleDeformableAttention, MmcvAttention))
    assert ([(p.name, p.default, p.kind) for p in ours.values()]
            == [(p.name, p.default, p.kind) for p in theirs.values()])


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_same_start(options):
    states = []
    for cls in (MultiScaleDeformableAttention, MmcvAttention):
        torch.manual_seed(3)
        layer = cls(**options)
        states.append(layer.state_dict())
        assert layer.is_init
    assert list(states[0]) == list(states[1])
    for name in states[0]:  # angles may differ in the last bit
        torch.testing.assert_close(states[0][name], states[1][name], rtol=0, atol=1e-6)


def test_starting_again_keeps_the_dtype():
    layer = MultiScaleDeformableAttention(8, 2).double()
    expected = layer.sampling_offsets.bias.detach().clone()
    layer.sampling_offsets.bias.data.zero_()
    layer.init_weights()
    torch.testing.assert_close(layer.sampling_offsets.bias.detach(), expected)


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_state_dicts_load_both_ways(options):
    ours, theirs = MultiScaleDeformableAttention(**options), MmcvAttention(**options)
    expected = {name: torch.randn_like(value) for name, value in theirs.state_dict().items()}
    ours.load_state_dict(expected, strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert all(torch.equal(theirs.state_dict()[name], expected[name]) for name in expected)


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg'])
def test_registered_name(scope):
    if scope != 'mmengine':
        pytest.importorskip(f'{scope}.models')
    with DefaultScope.overwrite_default_scope(scope):
        layer = MODELS.build(dict(type='MMDCNDeformableAttention', embed_dims=8, num_heads=2))
        assert MODELS.get('MultiScaleDeformableAttention') is MmcvAttention
    assert type(layer) is MultiScaleDeformableAttention


# ------------------------------------------------------------------------------- the numbers
@pytest.mark.parametrize('options', OPTIONS, ids=str)
@pytest.mark.parametrize(('batch_first', 'box', 'mask', 'batch'), [
    (True, 2, False, 2), (False, 2, True, 3), (True, 4, True, 1), (False, 4, False, 2)])
def test_outputs_and_gradients_are_mmcvs(options, batch_first, box, mask, batch):
    ours, theirs = pair(batch_first=batch_first, **options)
    arguments = inputs(ours, batch=batch, box=box, mask=mask)
    assert_same(outcome(ours, arguments), outcome(theirs, arguments))


def test_float32_is_mmcvs_at_a_usual_width():
    ours, theirs = pair(torch.float32, embed_dims=256, num_heads=8, num_points=4)
    for layer in (ours, theirs):  # offsets of a few pixels
        layer.sampling_offsets.weight.data.mul_(0.1)
    arguments = inputs(ours, queries=50, dtype=torch.float32)
    assert_same(outcome(ours, arguments), outcome(theirs, arguments), 1e-3, 2e-3)


@pytest.mark.parametrize('batch_first', [True, False])
@pytest.mark.parametrize('leave_out', [
    names for count in (1, 2, 3) for names in itertools.combinations(
        ('value', 'identity', 'query_pos'), count)], ids='-'.join)
def test_what_is_left_out_is_replaced_as_in_mmcv(leave_out, batch_first):
    ours, theirs = pair(batch_first=batch_first)
    arguments = inputs(ours, queries=5 * 7 + 3 * 4 + 2, mask=True)
    for name in leave_out:
        del arguments[name]
    assert_same(outcome(ours, arguments), outcome(theirs, arguments))


def test_positional_arguments_have_mmcvs_order():
    ours, theirs = pair()
    a = inputs(ours, mask=True)
    order = ('query', 'key', 'value', 'identity', 'query_pos', 'key_padding_mask',
             'reference_points', 'spatial_shapes', 'level_start_index')
    values = [a.get(name) for name in order]
    torch.testing.assert_close(ours(*values), theirs(*values))


def test_unused_arguments_change_nothing():
    ours, _ = pair()
    arguments = inputs(ours)
    got = ours(**arguments, key=torch.randn(4, 2, 24), key_pos=None, attn_mask=None,
               valid_ratios=torch.ones(2, 3, 2))
    assert torch.equal(got, ours(**arguments))


def test_old_name_of_identity():
    ours, theirs = pair()
    arguments = inputs(ours)
    arguments['residual'] = arguments.pop('identity')
    with pytest.warns(DeprecationWarning, match='residual'):
        expected = theirs(**arguments)
    torch.testing.assert_close(ours(**arguments), expected)


@pytest.mark.parametrize('axis', [0, 1, 2])
@pytest.mark.parametrize('box', [2, 4])
def test_reference_points_repeat_along_axes_of_length_1(axis, box):
    ours, theirs = pair(batch_first=True)
    arguments = inputs(ours, box=box)
    arguments['reference_points'] = arguments['reference_points'].narrow(axis, 0, 1)
    assert_same(outcome(ours, arguments), outcome(theirs, arguments))


def test_query_pos_and_mask_of_one_image_serve_the_batch():
    ours, theirs = pair(batch_first=True)
    arguments = inputs(ours, mask=True)
    for name in ('query_pos', 'key_padding_mask'):
        arguments[name] = arguments[name][:1]
    assert_same(outcome(ours, arguments), outcome(theirs, arguments))


def test_level_start_index_may_be_left_out():
    ours, _ = pair()
    arguments = inputs(ours)
    expected = ours(**arguments)
    assert torch.equal(ours(**(arguments | {'level_start_index': None})), expected)


@pytest.mark.parametrize('batch_first', [True, False])
def test_dropout_is_mmcvs(batch_first):
    ours, theirs = pair(dropout=0.5, batch_first=batch_first)
    arguments = inputs(ours)
    outputs = []
    for layer in (ours, theirs):
        torch.manual_seed(5)
        outputs.append(layer(**arguments))
    torch.testing.assert_close(*outputs)
    untouched = outputs[0] == arguments['identity']
    assert 0.3 < untouched.double().mean() < 0.7
    torch.testing.assert_close(ours.eval()(**arguments), theirs.eval()(**arguments))


def test_padded_rows_do_not_reach_the_output():
    ours, _ = pair(batch_first=True)
    arguments = inputs(ours, mask=True)
    expected = ours(**arguments)
    arguments['value'] = arguments['value'].masked_fill(
        arguments['key_padding_mask'][..., None], float('nan'))
    assert torch.equal(ours(**arguments), expected)


def test_a_batch_is_its_images():
    ours, _ = pair(batch_first=True)
    arguments = inputs(ours, batch=5, mask=True)
    whole = ours(**arguments)
    for image in range(5):
        alone = {name: value if 'level' in name or 'spatial' in name else value[image:image + 1]
                 for name, value in arguments.items()}
        torch.testing.assert_close(ours(**alone), whole[image:image + 1])


@pytest.mark.parametrize('size', [{'queries': 0}, {'batch': 0}], ids=str)
def test_empty(size):
    ours, _ = pair()
    arguments = inputs(ours, mask=True, **size)
    got = outcome(ours, arguments)
    assert got['output'].shape == arguments['query'].shape
    assert not got['value_proj.weight'].any()


# ----------------------------------------------------------------------------- the precision
def wide_map(dtype):
    """A layer that returns the column it looks at, in a map of 1,001 columns, and its inputs."""
    layer = MultiScaleDeformableAttention(2, 1, num_levels=1, num_points=1, dropout=0.0,
                                          batch_first=True)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for projection in (layer.value_proj, layer.output_proj):
            projection.weight.copy_(torch.eye(2))
    columns = 1001
    parity = (torch.arange(columns) % 2).float()
    value = torch.stack((parity, 1 - parity), -1)[None]
    query = torch.zeros(1, 400, 2)
    points = torch.stack(((torch.arange(500, 900) + 0.5) / columns, torch.full((400,), 0.5)), -1)
    return layer.to(dtype), dict(query=query.to(dtype), value=value.to(dtype),
                                 reference_points=points[None, :, None],
                                 spatial_shapes=torch.tensor([[1, columns]]),
                                 level_start_index=torch.tensor([0])), value[:, 500:900]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_locations_are_not_rounded_in_a_half_module(dtype):
    layer, arguments, expected = wide_map(dtype)
    got = layer(**arguments)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_locations_are_not_rounded_under_autocast(dtype):
    layer, arguments, expected = wide_map(torch.float32)
    with torch.autocast('cpu', dtype):
        got = layer(**arguments)
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=5e-3)


def test_autocast_and_its_gradients_stay_near_float32():
    ours, theirs = pair(torch.float32, batch_first=True)
    for parameter in (*ours.parameters(), *theirs.parameters()):
        parameter.data.mul_(0.5)
    arguments = inputs(ours, dtype=torch.float32, mask=True)
    expected = outcome(theirs, arguments)
    with torch.autocast('cpu', torch.bfloat16):
        got = outcome(ours, arguments)
    assert got['output'].dtype == torch.float32  # the identity's, as in mmcv
    assert not torch.equal(got['output'], expected['output'])
    for name in ('output', 'value', 'value_proj.weight', 'output_proj.weight'):
        error = (got[name] - expected[name]).norm() / expected[name].norm()
        assert error < 0.03, name


def test_float64_reference_points_leave_the_dtype_alone():
    ours, _ = pair(torch.float32)
    arguments = inputs(ours, dtype=torch.float32)
    expected = ours(**arguments)
    got = ours(**(arguments | {'reference_points': arguments['reference_points'].double()}))
    torch.testing.assert_close(got, expected)


# --------------------------------------------------------------------- compilers and copies
@pytest.mark.parametrize(('box', 'mask'), [(2, True), (4, False)])
def test_compile_without_a_graph_break(box, mask):
    torch.compiler.reset()
    ours, _ = pair(batch_first=True)
    compiled = torch.compile(ours, fullgraph=True, backend='aot_eager', dynamic=True)
    for queries in (6, 9):
        arguments = inputs(ours, queries=queries, box=box, mask=mask)
        got, expected = outcome(compiled, arguments), outcome(ours, arguments)
        assert_same({name.removeprefix('_orig_mod.'): value for name, value in got.items()},
                    expected)


@pytest.mark.slow
def test_inductor():
    torch.compiler.reset()
    ours, _ = pair(torch.float32)
    compiled = torch.compile(ours, fullgraph=True)
    arguments = inputs(ours, dtype=torch.float32, mask=True)
    got = {name.removeprefix('_orig_mod.'): value
           for name, value in outcome(compiled, arguments).items()}
    assert_same(got, outcome(ours, arguments), 1e-4, 1e-4)


def pickled(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, pickled])
def test_copies(duplicate):
    ours, _ = pair()
    arguments = inputs(ours)
    twin = duplicate(ours)
    assert torch.equal(twin(**arguments), ours(**arguments))
    twin.value_proj.weight.data.zero_()
    assert ours.value_proj.weight.any()


# ------------------------------------------------------------------------------- the errors
@pytest.mark.parametrize(('options', 'words'), [
    ({'embed_dims': 10, 'num_heads': 4},
     r'embed_dims is not valid: got 10, expected a positive multiple of num_heads \(4\)'),
    ({'embed_dims': 0}, 'embed_dims is not valid: got 0, expected a positive multiple'),
    ({'num_heads': 0}, 'num_heads is not valid: got 0, expected at least 1'),
    ({'num_levels': 0}, 'num_levels is not valid: got 0, expected at least 1'),
    ({'num_points': -1}, 'num_points is not valid: got -1, expected at least 1'),
    ({'value_proj_ratio': 0.01}, r'value_proj_ratio is not valid: got 0.01 \(2 channels\), '
                                 r'expected a positive multiple of num_heads \(8\)'),
    ({'value_proj_ratio': 0.0}, r'value_proj_ratio is not valid: got 0.0 \(0 channels\)'),
])
def test_constructor_errors(options, words):
    with pytest.raises(ValueError, match=words):
        MultiScaleDeformableAttention(**options)


@pytest.mark.parametrize(('change', 'words'), [
    ({'query': torch.zeros(2, 6, 23)},
     r'query.shape is not valid: got \(2, 6, 23\), expected three axes, the last of embed_dims = '
     '24; batch_first=True takes'),
    ({'query': torch.zeros(6, 24)}, r'query.shape is not valid: got \(6, 24\)'),
    ({'value': torch.zeros(2, 49, 1)}, r'value.shape is not valid: got \(2, 49, 1\)'),
    ({'value': torch.zeros(49, 2, 24)},
     'value is not valid: got a batch of 49, expected 2 as in query; batch_first=True takes'),
    ({'query_pos': torch.zeros(6, 2, 24)},
     r'query_pos.shape is not valid: got \(6, 2, 24\), expected \(2, 6, 24\) as query'),
    ({'identity': torch.zeros(6, 2, 24)},
     r'identity.shape is not valid: got \(6, 2, 24\), expected \(2, 6, 24\) as query'),
    ({'key_padding_mask': torch.zeros(2, 49)},
     r'key_padding_mask.dtype is not valid: got torch.float32, expected torch.bool; convert'),
    ({'key_padding_mask': torch.zeros(49, 2, dtype=torch.bool)},
     r'key_padding_mask.shape is not valid: got \(49, 2\), expected \(2, 49\); its axes are'),
    ({'key_padding_mask': torch.zeros(2, 49, 1, dtype=torch.bool)},
     r'key_padding_mask.shape is not valid: got \(2, 49, 1\)'),
    ({'reference_points': None},
     'reference_points is not valid: got NoneType, expected a torch.Tensor; pass'),
    ({'reference_points': torch.zeros(2, 6, 3, 3)},
     r'reference_points.shape is not valid: got \(2, 6, 3, 3\), expected four axes, the last of 2'),
    ({'reference_points': torch.zeros(2, 6, 2)},
     r'reference_points.shape is not valid: got \(2, 6, 2\), expected four axes'),
    ({'reference_points': torch.zeros(6, 2, 3, 2)},
     r'reference_points.shape is not valid: got \(6, 2, 3, 2\), expected \(2, 6, 3, 2\); its axes'),
    ({'reference_points': torch.zeros(2, 6, 4, 2)},
     r'reference_points.shape is not valid: got \(2, 6, 4, 2\), expected \(2, 6, 3, 2\)'),
    ({'spatial_shapes': None},
     'spatial_shapes is not valid: got NoneType, expected a torch.Tensor; pass'),
    ({'spatial_shapes': torch.tensor([[5, 7], [3, 4]])},
     r'spatial_shapes.shape is not valid: got \(2, 2\), expected \(3, 2\); pass'),
    ({'spatial_shapes': torch.tensor([[5, 7], [3, 4], [1, 1]])},
     r'spatial_shapes is not valid: got \[\[5, 7\], \[3, 4\], \[1, 1\]\] \(48 rows\), expected the '
     '49 rows of value'),
    ({'spatial_shapes': torch.tensor([[5, 7], [3, 4], [2, 1]], dtype=torch.int32)},
     'spatial_shapes is not valid: got torch.int32, expected an int64 tensor'),
    ({'level_start_index': torch.tensor([0, 35])}, r'level_start_index.shape\[0\] is not valid'),
    ({'level_start_index': torch.tensor([0, 35, 48])}, 'level 2 of 2x1 from row 48'),
])
def test_forward_errors(change, words):
    ours, _ = pair(torch.float32, batch_first=True)
    arguments = inputs(ours, dtype=torch.float32)
    assert ours(**arguments).shape == (2, 6, 24)
    with pytest.raises(ValueError, match=words):
        ours(**(arguments | change))
