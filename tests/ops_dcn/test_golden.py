"""The reference data, by the compiled kernels and by the plain PyTorch reference."""
from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ops_dcn
from ops_dcn import reference
from tests.helpers import reference_path
from tests.ops_dcn.cases import Case, outcome

CONVOLUTIONS = ('v3_basic', 'v3_k5', 'v3_remove_center', 'v3_scale2_batch2', 'v3_zero_offset',
                'v4_basic', 'v4_remove_center', 'v4_scale_half_batch2', 'v4_softmax',
                'v4_unbounded_mask')
ATTENTIONS = ('msda_2level', 'msda_4level_wide')
MODULES = {'module_dcnv3_cfs': ops_dcn.DCNv3, 'module_dcnv4_dw_cfs': ops_dcn.DCNv4,
           'module_msda_ref2': ops_dcn.FlashDeformAttn}
PRECISIONS = {torch.float64: {'output': (1e-9, 1e-10), 'grad': (1e-9, 1e-10)},
              torch.float32: {'output': (1e-4, 2e-5), 'grad': (1e-4, 1e-4)}}

by_both = pytest.mark.parametrize('module', [ops_dcn, reference], ids=['compiled', 'reference'])
in_both = pytest.mark.parametrize('dtype', list(PRECISIONS), ids=['float64', 'float32'])


@functools.cache
def load(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(reference_path('ops', f'{name}.npz')))


def compare(got: dict[str, Tensor], data: dict[str, np.ndarray], dtype: torch.dtype) -> None:
    for name, tensor in got.items():
        rtol, atol = PRECISIONS[dtype]['output' if name == 'output' else 'grad']
        expected = torch.from_numpy(data[f'{name}_f64'])
        assert tensor.dtype == dtype
        torch.testing.assert_close(tensor.double(), expected, rtol=rtol, atol=atol,
                                   msg=lambda text, name=name: f'{name}: {text}')


@in_both
@by_both
@pytest.mark.parametrize('name', CONVOLUTIONS)
def test_convolution(name: str, module: Any, dtype: torch.dtype) -> None:
    data = load(name)
    pairs = {option: (int(data[f'{key}_h']), int(data[f'{key}_w'])) for option, key in (
        ('kernel_size', 'kernel'), ('stride', 'stride'), ('padding', 'pad'),
        ('dilation', 'dilation'))}
    options = {**pairs, 'groups': int(data['group']), 'offset_scale': float(data['offset_scale']),
               'remove_center': bool(data['remove_center'])}
    op = str(data['op'])
    names = ('input', 'offset', 'mask') if op == 'dcnv3' else ('input', 'offset_mask')
    if op == 'dcnv4':
        options['softmax'] = bool(data['softmax'])
    case = Case(op, {key: torch.from_numpy(data[key]) for key in names}, options).to(dtype)
    compare(outcome(case, torch.from_numpy(data['grad_output']), module), data, dtype)


def attention_tensors(data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    keys = ('value', 'spatial_shapes', 'level_start_index', 'sampling_locations')
    return {key: torch.from_numpy(data[key]) for key in keys}


@in_both
@by_both
@pytest.mark.parametrize('name', ATTENTIONS)
def test_attention(name: str, module: Any, dtype: torch.dtype) -> None:
    data = load(name)
    tensors = attention_tensors(data)
    # The weights are stored in float64 only: float32 rounding is within its tolerance.
    tensors['attention_weights'] = torch.from_numpy(data['attention_weights_f64'])
    case = Case('ms_deform_attn', tensors).to(dtype)
    compare(outcome(case, torch.from_numpy(data['grad_output']), module), data, dtype)


@in_both
@by_both
@pytest.mark.parametrize('name', ATTENTIONS)
def test_packed_attention(name: str, module: Any, dtype: torch.dtype) -> None:
    data = load(name)
    tensors = attention_tensors(data)
    locations = tensors.pop('sampling_locations')
    logits = torch.from_numpy(data['attention_logits'])
    tensors['sampling_loc_attn'] = torch.cat([locations.flatten(3), logits.flatten(3)], -1)
    case = Case('flash_deform_attn', tensors, {'num_points': int(data['n_points'])}).to(dtype)
    got = outcome(case, torch.from_numpy(data['grad_output']), module)
    packed = got.pop('grad_sampling_loc_attn')
    split = locations[0, 0, 0].numel()
    got['grad_sampling_locations'] = packed[..., :split].reshape(locations.shape)
    got['grad_attention_logits'] = packed[..., split:].reshape(logits.shape)
    compare(got, data, dtype)


@in_both
@by_both
@pytest.mark.parametrize('name', MODULES)
def test_module(name: str, module: Any, dtype: torch.dtype,
                monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(name)
    for op in ('dcnv3', 'dcnv4', 'flash_deform_attn'):
        monkeypatch.setattr(f'ops_dcn.modules.{op}', getattr(module, op))
    arguments = {key[4:]: None if data[key] == -1 else data[key].item()
                 for key in data if key.startswith('arg_')}
    layer = MODULES[name](**arguments).eval()
    layer.load_state_dict({key[7:]: torch.from_numpy(data[key])
                           for key in data if key.startswith('state__')})
    layer.to(dtype)
    keys = [key[5:-4] for key in data
            if key.startswith('grad_') and key.endswith('_f64') and key[5:-4] in data]
    inputs = {key: torch.from_numpy(data[key]).to(dtype).requires_grad_() for key in keys}
    output = run_module(name, layer, data, inputs)
    output.backward(torch.from_numpy(data['grad_output']).to(dtype))
    got = {'output': output.detach(), **{f'grad_{key}': inputs[key].grad for key in keys}}
    parameters = {f'gradparam__{key}': tensor.grad for key, tensor in layer.named_parameters()}
    assert len(parameters) == sum(key.startswith('gradparam__') for key in data)
    compare(got | parameters, data, dtype)


def run_module(name: str, layer: torch.nn.Module, data: dict[str, np.ndarray],
               inputs: dict[str, Tensor]) -> Tensor:
    if name == 'module_dcnv4_dw_cfs':
        return layer(inputs['input'], (int(data['height']), int(data['width'])))
    if name == 'module_dcnv3_cfs':
        return layer(inputs['input'])
    levels = (torch.from_numpy(data[key]) for key in ('spatial_shapes', 'level_start_index'))
    return layer(inputs['query'], inputs['reference_points'], inputs['input_flatten'], *levels)


def test_every_file_is_used() -> None:
    """A case that is added to the reference data must be added here."""
    found = {path.stem for path in reference_path('ops').glob('*.npz')}
    assert found <= {*CONVOLUTIONS, *ATTENTIONS, *MODULES}
