"""bfloat16 on CPUs: backbone and neck only, outputs in float32, the model as it was."""
from __future__ import annotations

import pytest
import torch
from mmengine.model import BaseTTAModel
from torch import nn

from mmdcn.engine.amp import CpuAmpOptimWrapper, bfloat16_features


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.neck, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.dtypes = {}
        for name in ('backbone', 'neck', 'head'):
            getattr(self, name).register_forward_hook(
                lambda m, i, out, name=name: self.dtypes.__setitem__(name, out.dtype))
        self.inside = None

    def forward(self, x):
        original = torch.nn.functional.linear
        seen = []

        def spy(*args):
            seen.append(original(*args).dtype)
            return original(*args)
        torch.nn.functional.linear = spy
        try:
            return self.head(self.neck(self.backbone(x)))
        finally:
            torch.nn.functional.linear = original
            self.inside = seen


def test_only_features_are_computed_in_bfloat16():
    model = Net()
    with bfloat16_features(model):
        out = model(torch.randn(2, 4))
    assert model.inside == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert out.dtype == torch.float32
    model(torch.randn(2, 4))
    assert model.inside == [torch.float32] * 3


def test_forward_is_restored_after_an_error():
    model = Net()
    with pytest.raises(RuntimeError, match='stop'), bfloat16_features(model):
        assert 'forward' in vars(model.backbone)
        raise RuntimeError('stop')
    assert 'forward' not in vars(model.backbone) and 'forward' not in vars(model.neck)


def test_blocks_nest_and_a_forward_of_the_object_itself_comes_back():
    model = Net()
    own = model.neck.forward = lambda x: x + 1
    with bfloat16_features(model):
        with bfloat16_features(model):
            model(torch.randn(2, 4))
            assert model.inside == [torch.bfloat16, torch.float32]
        model(torch.randn(2, 4))
        assert model.inside == [torch.bfloat16, torch.float32]
    assert 'forward' not in vars(model.backbone) and model.neck.forward is own


def test_neck_that_is_the_backbone_is_changed_once():
    model = Net()
    model.neck = model.backbone
    with bfloat16_features(model):
        model(torch.randn(2, 4))
        assert model.inside == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert 'forward' not in vars(model.backbone)


def test_wrapped_models_are_looked_through():
    class Tta(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            return data_samples_list

    model = Net()
    wrapped = Tta.__new__(Tta)
    nn.Module.__init__(wrapped)
    wrapped.module = model
    with bfloat16_features(wrapped):
        model(torch.randn(1, 4))
    assert model.inside[0] == torch.bfloat16


def test_wrapper_trains_in_bfloat16_without_scaling():
    model = Net()
    wrapper = CpuAmpOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    before = model.backbone.weight.detach().clone()
    with wrapper.optim_context(model):
        loss = model(torch.randn(8, 4)).square().mean()
    assert model.inside[0] == torch.bfloat16 and loss.dtype == torch.float32
    wrapper.update_params(loss)
    assert model.backbone.weight.dtype == torch.float32
    assert not torch.equal(before, model.backbone.weight)
