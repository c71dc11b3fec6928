"""What a detector finds in an image does not depend on the images beside it in the batch."""
from __future__ import annotations

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.structures import DetDataSample
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdcn.apis.config import load_config
from mmdcn.apis.inference import task_scope
from mmdcn.layers import replace_deformable_attention
from tests.helpers import ROOT

PADDED = (128, 160)  # height, width
SIZES = [(128, 160), (128, 96), (90, 160), (101, 77)]


def detector(config: str) -> nn.Module:
    """A mini detector with random weights, among them offsets of pixels and scores that differ."""
    cfg = load_config(str(ROOT / 'configs' / 'mini' / config))
    cfg.model.data_preprocessor.update(type='FixedSizeDetDataPreprocessor', pad_size=PADDED)
    torch.manual_seed(0)
    with task_scope(cfg):
        model = MODELS.build(cfg.model)
        model.init_weights()
    replace_deformable_attention(model)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if name.rpartition('.')[2].startswith('gamma'):  # what feeds the lead of two
                param.normal_(std=0.3)
            elif 'offset' in name:  # about a pixel; larger ones multiply float32's rounding
                param.normal_(std=0.3 if param.ndim == 1 else 0.02)
            elif name.startswith(('rpn_head.rpn_', 'roi_head.bbox_head.fc_')) and param.ndim > 1:
                param.mul_(5.0)
            elif 'cls_branches' in name or 'attention_weights' in name:
                param.normal_(std=0.1)
    return model.eval()


def images() -> list[Tensor]:
    """Pictures (3, H, W) uint8 of different sizes, with edges at several scales."""
    generator = torch.Generator().manual_seed(1)
    pictures = []
    for height, width in SIZES:
        coarse = torch.rand(1, 3, 6, 6, generator=generator)
        fine = torch.rand(1, 3, 40, 40, generator=generator)
        parts = [nn.functional.interpolate(part, (height, width), mode=mode)
                 for part, mode in ((coarse, 'nearest'), (fine, 'bilinear'))]
        pictures.append((255 * (0.7 * parts[0] + 0.3 * parts[1]))[0].to(torch.uint8))
    return pictures


def detect(model: nn.Module, pictures: list[Tensor]) -> list[DetDataSample]:
    """What the model finds in a batch of pictures."""
    samples = [DetDataSample(metainfo=dict(
        img_shape=picture.shape[1:], ori_shape=picture.shape[1:], scale_factor=(1.0, 1.0)))
        for picture in pictures]
    with torch.no_grad():
        return model.test_step(dict(inputs=pictures, data_samples=samples))


@pytest.mark.parametrize('config', [
    'mask-rcnn_flash-internimage-pico_fpn_1xb4-2k_mini-coco-160x128.py',
    'dino-4scale_flash-internimage-pico_1xb4-3k_mini-coco-160x128.py',
    'cb-dino-4scale_internimage-pico_1xb4-3k_mini-coco-160x128.py'])
def test_four_at_once_are_as_one_by_one(config: str) -> None:
    model, pictures = detector(config), images()
    together = detect(model, pictures)
    for found, picture in zip(together, pictures, strict=True):
        alone, = detect(model, [picture])
        got, expected = found.pred_instances, alone.pred_instances
        assert len(expected) > 10
        assert len(got) == len(expected)
        torch.testing.assert_close(got.scores, expected.scores, rtol=0, atol=1e-5)
        torch.testing.assert_close(got.bboxes, expected.bboxes, rtol=0, atol=1e-3)
        assert torch.equal(got.labels, expected.labels)
        if 'masks' in expected:
            assert (got.masks == expected.masks).float().mean() > 0.9999
