"""The claims as data: complete, and every variant is the model that its label says."""
from __future__ import annotations

import pytest
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmdcn.analysis.complexity import build_on_meta
from mmdcn.apis.config import load_config
from tests.helpers import ROOT
from tools.dev.paper_claims.trials import (
    BATCH,
    CLAIMS,
    EARLY,
    EVERY,
    ITERATIONS,
    SEEDS,
    VARIANTS,
)

CORES = {'dcnv3': 'DCNv3', 'dcnv4': 'DCNv4', 'dwconv': 'DepthwiseConv', 'attention': 'Attention',
         'dcnv3-no-softmax': 'DCNv3WithoutSoftmax', 'dcnv4-softmax': 'DCNv4WithSoftmax',
         'unshared': 'DCNv3Unshared', 'no-layer-scale': 'DCNv3', 'layer-scale-1e-5': 'DCNv3',
         'post-norm': 'DCNv3', 'center': 'DCNv3'}


def built(name: str) -> nn.Module:
    cfg = load_config(str(ROOT / VARIANTS[name].config), list(VARIANTS[name].options))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return build_on_meta(lambda: MODELS.build(cfg.model))


def test_claims_are_complete():
    used = {name for claim in CLAIMS.values() for name in claim.variants}
    assert used == set(VARIANTS)
    for claim in CLAIMS.values():
        assert claim.title and claim.source and claim.says.endswith('.')
        for comparison in claim.comparisons:
            assert {comparison.first, comparison.second} <= set(claim.variants)
            assert comparison.expected in ('higher', 'lower', 'alike')
            assert comparison.measure in ('early', 'end', 'params', 'memory')
        assert set(claim.labels) <= set(claim.variants)
        assert not claim.steps or set(claim.steps) == set(claim.variants)
        labels = [claim.label(name) for name in claim.variants]
        assert len(set(labels)) == len(labels)
    assert len(SEEDS) == 3 and EARLY % EVERY == ITERATIONS % EVERY == 0


@pytest.mark.parametrize('name', VARIANTS)
def test_training_is_the_same_for_all(name: str):
    cfg = load_config(str(ROOT / VARIANTS[name].config), list(VARIANTS[name].options))
    assert cfg.train_dataloader.batch_size == BATCH
    assert [step.type for step in cfg.train_dataloader.dataset.pipeline] == [
        'LoadImageFromFile', 'ResizeEdge', 'CenterCrop', 'PackInputs']
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (ITERATIONS, EVERY)
    warm_up, decay = cfg.param_scheduler
    assert warm_up.end == decay.begin and decay.end == ITERATIONS
    assert cfg.optim_wrapper.optimizer.lr == 1e-3
    assert not cfg.model.get('train_cfg')


@pytest.mark.parametrize('name', CORES)
def test_the_core_is_what_the_label_says(name: str):
    blocks = [block for level in built(name).backbone.levels for block in level.blocks]
    assert {type(block.dcn).__name__ for block in blocks} == {CORES[name]}
    for block in blocks:
        assert block.post_norm is (name == 'post-norm')
        assert (block.gamma1 is None) is (name == 'no-layer-scale')
        assert getattr(block.dcn, 'center_feature_scale', False) is (name == 'center')


@pytest.mark.parametrize('name', [name for name in VARIANTS if name.startswith('step-')])
def test_steps_are_those_of_the_roadmap(name: str):
    model = built(name)
    step = int(name.removeprefix('step-'))
    assert model.backbone.step == step
    assert model.backbone.depths == ((1, 1, 3, 1) if step >= 2 else (2, 2, 2, 2))
    assert model.head.fc.in_features == model.backbone.stages[-1][-1].cout


def test_vits_differ_in_what_mixes_the_patches():
    plain, deformable = built('vit').backbone, built('vit-dcnv4').backbone
    assert [type(layer.attn.dcn).__name__ for layer in deformable.layers] == ['DCNv4'] * 6
    assert plain.cls_token is None and len(plain.layers) == 6
    for one, other in zip(plain.layers, deformable.layers, strict=True):
        assert repr(one.ffn) == repr(other.ffn)
