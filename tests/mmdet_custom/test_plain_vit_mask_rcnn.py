"""Mask R-CNN with a plain ViT: size and cost, and the recipe's traps."""
from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip('mmdet')

from mmengine.optim.scheduler import CosineAnnealingLR, LinearLR
from mmengine.registry import PARAM_SCHEDULERS

from mmdcn.analysis.complexity import count
from mmdcn.apis.config import load_config
from mmdcn.engine.optimizers import LayerDecayOptimWrapperConstructor
from tests.helpers import ROOT

CONFIG = 'configs/coco/mask-rcnn_vit-{}-mae_fpn_32xb2-100e_coco-1024x1024.py'


VITDET = 'configs/coco/cascade-mask-rcnn_vitdet-b_64xb1-184k_coco-1024x1024.py'


def load(size):
    return load_config(str(ROOT / CONFIG.format(size)))


def build(cfg, device):
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device(device):
        return MODELS.build(cfg.model)


# Millions of parameters, and 10^9 multiply-adds at no detection, derived by hand from the network
# of arXiv:2111.11429; each detection adds 0.53 in the mask head.
@pytest.mark.parametrize('size, params, macs', [('b', 115.7, 839), ('l', 339.0, 1894)])
def test_published_size_and_cost(size, params, macs):
    model = build(load(size), 'meta')

    def detect(image):
        maps = model.neck(model.backbone(image))
        model.rpn_head(maps)
        # The box head sees 1000 proposals whatever the image shows.
        model.roi_head.bbox_head(torch.empty(1000, 256, 7, 7, device='meta'))

    got = count(model, (1, 3, 1024, 1024), detect)
    assert round(got.params / 1e6, 1) == params
    assert got.macs / 1e9 == pytest.approx(macs, rel=0.001)
    mask_head = count(model.roi_head.mask_head, (1, 256, 14, 14))
    assert mask_head.macs / 1e9 == pytest.approx(0.53, abs=0.005)


def test_learning_rate_warms_up_and_falls_to_zero():
    cfg = load('b')
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    length, rates = 40, []
    schedulers = [PARAM_SCHEDULERS.get(c.pop('type')).build_iter_from_epoch(
        optimizer, epoch_length=length, **{k: v for k, v in c.items()
                                           if k != 'convert_to_iter_based'})
        for c in cfg.param_scheduler]
    assert [type(s) for s in schedulers] == [LinearLR, CosineAnnealingLR]
    for _ in range(100 * length):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert rates[0] == pytest.approx(0.001) and rates[5] == pytest.approx(0.5, abs=0.06)
    assert rates[10] == pytest.approx(1, abs=1e-4) == max(rates)
    assert rates[50 * length] == pytest.approx(0.5, abs=1e-3)
    assert rates[-1] < 1e-6


def test_position_weights_do_not_decay():
    cfg = load('b').optim_wrapper
    assert cfg.pop('type') == 'AmpOptimWrapper'
    settings = LayerDecayOptimWrapperConstructor(cfg, cfg.pop('paramwise_cfg')).param_settings(
        build(load('b'), 'meta'))
    decay = {name: setting.decay_mult for name, setting in settings.items()}
    assert {setting.lr_scale for setting in settings.values()} == {1}
    assert decay['backbone.pos_embed'] == 0
    assert decay['backbone.window_rel_pos.relative_position_bias_table'] == 0
    assert decay['backbone.blocks.0.attn.qkv.bias'] == decay['neck.fpn_convs.0.bn.weight'] == 0
    assert decay['backbone.blocks.0.attn.qkv.weight'] == 1
    assert decay['neck.fpn_convs.0.conv.weight'] == 1


@pytest.mark.parametrize('size, drop_path', [('b', 0.1), ('l', 0.3)])
def test_recipe(size, drop_path):
    cfg = load(size)
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert cfg.auto_scale_lr.base_batch_size == 64 and cfg.train_cfg.max_epochs == 100
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        resize, = (step for step in loader.dataset.pipeline if step.type == 'Resize')
        assert resize.scale == (1024, 1024) and resize.keep_ratio
    assert cfg.model.data_preprocessor.pad_size == (1024, 1024)
    assert 'clip_grad' not in cfg.optim_wrapper and 'custom_hooks' not in cfg


@pytest.mark.parametrize('path', [CONFIG.format('b'), VITDET], ids=['plain', 'vitdet'])
def test_small_one_trains_and_predicts_on_images_of_several_sizes(path):
    from mmdet.testing import demo_mm_inputs
    cfg = load_config(str(ROOT / path))
    cfg.model.backbone.update(arch='pico', image_size=64, pretrain_image_size=64, window_size=3)
    cfg.model.neck.in_channels = 64 if path == VITDET else [64] * 4
    cfg.model.data_preprocessor.pad_size = (96, 96)
    cfg.model.test_cfg.rpn.max_per_img = cfg.model.test_cfg.rcnn.max_per_img = 10
    for stage in cfg.model.train_cfg.rcnn if path == VITDET else [cfg.model.train_cfg.rcnn]:
        stage.sampler.num = 32
    model = build(cfg, 'cpu')
    data = demo_mm_inputs(2, [[3, 96, 64], [3, 60, 96]], with_mask=True, num_classes=80)
    losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all()
               for p in model.backbone.parameters())
    model.eval()
    with torch.no_grad():
        found = model(**model.data_preprocessor(data, training=False), mode='predict')
    assert [sample.batch_input_shape for sample in found] == [(96, 96)] * 2
    assert all('masks' in sample.pred_instances for sample in found)
