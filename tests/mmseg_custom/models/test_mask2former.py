"""Mask2Former's head: what is upsampled, what it learns from, and that batches change nothing."""
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.models.decode_heads import Mask2FormerHead
from mmseg.structures import SegDataSample
from torch import nn

from mmdcn.apis.config import load_config
from mmdcn.layers import MultiScaleDeformableAttention, replace_deformable_attention
from mmseg_custom.models import LateUpsampleMask2FormerHead
from tests.helpers import ROOT

CONFIG = 'configs/mini/mask2former_flash-internimage-pico_1xb8-2k_mini-ade-128x128.py'
META = dict(img_shape=(96, 64), pad_shape=(96, 64), ori_shape=(96, 64))


def build(**head: Any) -> nn.Module:
    cfg = load_config(str(ROOT / CONFIG)).model
    cfg.decode_head.update(head)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg)
        model.init_weights()
    replace_deformable_attention(model)
    return model


@pytest.fixture(scope='module')
def model() -> nn.Module:
    return build().eval()


@torch.no_grad()
def maps(model: nn.Module, count: int = 1) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return model.extract_feat(torch.randn(count, 3, 96, 64))


def test_attention_of_the_pixel_decoder_is_ours(model: nn.Module) -> None:
    kinds = [isinstance(layer.self_attn, MultiScaleDeformableAttention)
             for layer in model.decode_head.pixel_decoder.encoder.layers]
    assert kinds == [True, True]


@torch.no_grad()
def test_scores_of_classes_are_upsampled(model: nn.Module) -> None:
    head, features = model.decode_head, maps(model)
    assert isinstance(head, LateUpsampleMask2FormerHead)
    scores, masks = (outputs[-1] for outputs in head(features, [SegDataSample(metainfo=META)]))
    assert masks.shape == (1, 20, 24, 16) and scores.shape == (1, 20, 9)
    small = torch.zeros(1, 8, 24, 16)
    for query in range(20):
        share = scores[0, query].softmax(0)[:8]
        small += share[:, None, None] * masks[0, query].sigmoid()
    expected = F.interpolate(small, size=(96, 64), mode='bilinear', align_corners=False)
    torch.testing.assert_close(head.predict(features, [META], {}), expected)


@torch.no_grad()
def test_differs_from_mmseg_in_the_order_alone(model: nn.Module) -> None:
    """Where every mask is one number, the order does not matter."""
    head, features = model.decode_head, maps(model)
    theirs = Mask2FormerHead.predict(head, features, [META], {})
    ours = head.predict(features, [META], {})
    assert theirs.shape == ours.shape and (theirs - ours).abs().max() > 1e-6
    flat = [torch.zeros_like(feature) for feature in features]
    embed, head.mask_embed = head.mask_embed, nn.Sequential(nn.Flatten(2), _Nothing())
    try:
        torch.testing.assert_close(Mask2FormerHead.predict(head, flat, [META], {}),
                                   head.predict(flat, [META], {}))
    finally:
        head.mask_embed = embed


class _Nothing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


@torch.no_grad()
def test_size_without_padding_is_that_of_the_picture(model: nn.Module) -> None:
    meta = dict(img_shape=(90, 61, 3))
    assert model.decode_head.predict(maps(model), [meta], {}).shape == (1, 8, 90, 61)


@torch.no_grad()
def test_batch_equals_single_pictures(model: nn.Module) -> None:
    features = maps(model, 4)
    together = model.decode_head.predict(features, [META] * 4, {})
    for index in range(4):
        alone = model.decode_head.predict(
            tuple(feature[index:index + 1] for feature in features), [META], {})
        torch.testing.assert_close(together[index:index + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('labels', ['some', 'none'])
def test_losses_reach_all_parameters(labels: str) -> None:
    """Also where every pixel of a crop is ignored."""
    model = build().train()
    ground_truth = torch.full((1, 96, 64), 255)
    if labels == 'some':
        ground_truth[:, 20:60, 10:40] = 3
        ground_truth[:, 60:, :] = 0
    sample = SegDataSample(gt_sem_seg=PixelData(data=ground_truth), metainfo=META)
    losses = model.loss(torch.randn(1, 3, 96, 64), [sample])
    total = sum(value for name, value in losses.items() if 'loss' in name)
    assert torch.isfinite(total)
    total.backward()
    unused = [name for name, param in model.named_parameters() if param.grad is None]
    assert not unused, unused
    if labels == 'some':
        assert losses['decode.loss_mask'] > 0 and losses['decode.loss_dice'] > 0
