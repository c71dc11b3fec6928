"""DINO on a composite backbone: losses of both halves, any batch, detections of the lead."""
from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

pytest.importorskip('mmdet')

from mmcv.transforms import Compose
from mmdet.models import DINO
from mmdet.structures import DetDataSample

from mmdcn.analysis.complexity import build_on_meta
from mmdcn.apis.config import load_config
from mmdcn.engine.amp import bfloat16_features
from mmdcn.layers import replace_deformable_attention
from mmdet_custom.models import CompositeDINO
from tests.helpers import ROOT

MINI = 'configs/mini/cb-dino-4scale_internimage-pico_1xb4-3k_mini-coco-160x128.py'
FULL = 'configs/coco/cb-dino-4scale_internimage-h_16xb1-20k_coco.py'
WIDTH = 32
ATTENTION = dict(embed_dims=WIDTH, num_heads=4)


def toy(**changes) -> CompositeDINO:
    """The mini system's detector, smaller still."""
    cfg = load_config(str(ROOT / MINI))
    layer = dict(self_attn_cfg=ATTENTION,
                 ffn_cfg=dict(embed_dims=WIDTH, feedforward_channels=WIDTH))
    cfg.merge_from_dict(dict(model=dict(
        num_queries=20, neck=dict(out_channels=WIDTH, norm_cfg=dict(num_groups=8)),
        encoder=dict(num_layers=1, layer_cfg=layer),
        decoder=dict(num_layers=2, layer_cfg=dict(layer, cross_attn_cfg=ATTENTION)),
        positional_encoding=dict(num_feats=WIDTH // 2), bbox_head=dict(embed_dims=WIDTH),
        dn_cfg=dict(group_cfg=dict(num_dn_queries=6)), test_cfg=dict(max_per_img=20), **changes)))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    model.init_weights()
    replace_deformable_attention(model)
    return model


def batch(*counts: int, size: tuple[int, int] = (72, 88)) -> tuple[Tensor, list[DetDataSample]]:
    """Pictures of odd sizes, each with that many boxes, padded to one size."""
    torch.manual_seed(len(counts))
    images, samples = torch.zeros(len(counts), 3, *size), []
    for i, count in enumerate(counts):
        height, width = size[0] - 7 * i - 1, size[1] - 5 * i - 1
        images[i, :, :height, :width] = torch.randn(3, height, width)
        corner = torch.rand(count, 2) * torch.tensor([width / 2, height / 2])
        truth = InstanceData(bboxes=torch.cat([corner, corner + 10 + 20 * torch.rand(count, 2)], 1),
                             labels=torch.randint(0, 8, (count,)))
        samples.append(DetDataSample(gt_instances=truth, metainfo=dict(
            img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0),
            batch_input_shape=size)))
    return images, samples


def awake(model: CompositeDINO) -> CompositeDINO:
    """Let the assisting half feed the lead, which it does not at the start."""
    for i in range(4):
        nn.init.normal_(getattr(model.backbone.cb_modules[1], f'gamma{i}'), std=0.3)
    return model


class Maps(nn.Module):
    """A backbone that gives the maps it holds."""

    def __init__(self, maps: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.maps


def on_maps(model: CompositeDINO, maps: tuple[Tensor, ...]) -> CompositeDINO:
    """The same neck and head on these maps."""
    plain = model.__class__.__new__(model.__class__)
    plain.__dict__.update(model.__dict__, _modules={**model._modules, 'backbone': Maps(maps)})
    return plain


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum(value.sum() for value in losses.values())


def test_each_half_has_the_losses_of_a_dino_on_its_maps() -> None:
    model = awake(toy()).train()
    images, samples = batch(3, 1)
    torch.manual_seed(5)
    losses = model.loss(images, samples)
    feeding, lead = model.backbone(images, halves=True)
    torch.manual_seed(5)  # the assisting half draws its denoising queries first
    expected = {f'aux.{name}': 0.5 * value
                for name, value in DINO.loss(on_maps(model, feeding), images, samples).items()}
    expected |= DINO.loss(on_maps(model, lead), images, samples)
    assert losses.keys() == expected.keys() and 'aux.d0.dn_loss_bbox' in losses
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
        assert 'loss' in name  # or the runner would not add it up
    assert not torch.equal(losses['aux.dn_loss_cls'], 0.5 * losses['dn_loss_cls'])


def test_mixed_precision_reaches_both_halves() -> None:
    model = awake(toy()).train()
    images, samples = batch(2)
    torch.manual_seed(5)
    full = model.loss(images, samples)
    seen = []
    block = model.backbone.cb_modules[1].levels[0].blocks[0].mlp.fc1
    block.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    torch.manual_seed(5)
    with bfloat16_features(model):
        mixed = model.loss(images, samples)
    assert seen == [torch.bfloat16]
    for name in ('aux.dn_loss_bbox', 'dn_loss_bbox'):  # without matching, which may flip
        torch.testing.assert_close(mixed[name], full[name], rtol=0.05, atol=0)


def test_weight_of_the_assisting_half() -> None:
    images, samples = batch(2)
    found = []
    for weight in (1.0, 0.25):
        model = toy(aux_weight=weight).train()
        torch.manual_seed(5)
        found.append(model.loss(images, samples))
    torch.testing.assert_close(found[1]['aux.loss_iou'], 0.25 * found[0]['aux.loss_iou'])
    torch.testing.assert_close(found[1]['loss_iou'], found[0]['loss_iou'])


@pytest.mark.parametrize('counts', [(2,), (3, 0, 1), (0,), (0, 0)],
                         ids=lambda counts: '-'.join(map(str, counts)))
def test_any_batch_gives_every_parameter_a_gradient(counts: tuple[int, ...]) -> None:
    model = awake(toy()).train()
    loss = total(model.loss(*batch(*counts)))
    loss.backward()
    assert math.isfinite(loss.item()) and loss.item() > 0
    for name, param in model.named_parameters():
        assert param.grad is not None and param.grad.isfinite().all(), name
    assert model.backbone.cb_linears[0][3].weight.grad.abs().sum() > 0
    objects = model.dn_query_generator.label_embedding.weight.grad.abs().sum()
    assert bool(objects > 0) is (sum(counts) > 0)


def test_detections_are_the_leads() -> None:
    model = awake(toy()).eval()
    images, samples = batch(1, 1)
    with torch.no_grad():
        lead = model.backbone(images, halves=True)[1]
        expected = DINO.predict(on_maps(model, lead), images, [s.clone() for s in samples])
        got = model.predict(images, samples)
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one.pred_instances.bboxes, other.pred_instances.bboxes)
        assert torch.equal(one.pred_instances.scores, other.pred_instances.scores)
        assert len(one.pred_instances.scores) == 20


def test_batch_detects_as_single_images() -> None:
    model = awake(toy()).eval().double()
    images, samples = torch.randn(3, 3, 71, 85).double(), batch(0, 0, 0)[1]
    for sample in samples:
        sample.set_metainfo(dict(img_shape=(71, 85), ori_shape=(71, 85),
                                 batch_input_shape=(71, 85)))
    with torch.no_grad():
        together = model.predict(images, [sample.clone() for sample in samples])
        for i, sample in enumerate(samples):
            alone, = model.predict(images[i:i + 1], [sample.clone()])
            for name in ('scores', 'bboxes'):
                torch.testing.assert_close(together[i].pred_instances[name],
                                           alone.pred_instances[name], rtol=1e-6, atol=1e-6)


def test_training_lowers_the_losses() -> None:
    model = toy().train()
    images, samples = batch(2, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    course = []
    for _ in range(24):
        losses = model.loss(images, samples)
        course.append([total({k: v for k, v in losses.items()
                              if k.startswith('aux.') is aux}).item()
                       for aux in (True, False)])
        optimizer.zero_grad()
        total(losses).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    course = torch.tensor(course)
    assert (course[-5:].mean(0) < 0.8 * course[:3].mean(0)).all()
    assert all(getattr(model.backbone.cb_modules[1], f'gamma{i}').abs().sum() > 0
               for i in range(4))


def augmented(model: CompositeDINO, picture: Path) -> InstanceData:
    """Detections by the published config's test-time augmentation, at a tenth of its sizes."""
    cfg = load_config(str(ROOT / FULL))
    pipeline = cfg.tta_pipeline
    for step in pipeline[1].transforms[0]:
        step.scale = tuple(side // 10 for side in step.scale)
    with DefaultScope.overwrite_default_scope('mmdet'):
        views = Compose(pipeline)(dict(img_path=str(picture), img_id=1))
        tta = MODELS.build(dict(cfg.tta_model, module=model))
    assert len(views['inputs']) == 10
    with torch.no_grad():
        found, = tta.test_step({name: [[view] for view in values]
                                for name, values in views.items()})
    return found.pred_instances


def test_augmented_detections_are_mirrored_with_the_picture(tmp_path: Path) -> None:
    model = awake(toy()).eval()
    picture = np.random.default_rng(0).integers(0, 255, (60, 83, 3), dtype=np.uint8)
    picture = cv2.resize(picture[::12, ::12], (83, 60))
    found = []
    for name, pixels in (('plain.png', picture), ('mirrored.png', picture[:, ::-1])):
        cv2.imwrite(str(tmp_path / name), pixels)
        found.append(augmented(model, tmp_path / name))
    plain, mirrored = found
    assert len(plain.scores) > 20  # more than one view gives
    assert (plain.scores.diff() <= 0).all() and plain.bboxes.max() <= 83 + 1e-3
    torch.testing.assert_close(mirrored.scores[:10], plain.scores[:10], rtol=1e-3, atol=1e-4)
    left, top, right, bottom = plain.bboxes[:10].unbind(1)
    torch.testing.assert_close(mirrored.bboxes[:10],
                               torch.stack([83 - right, top, 83 - left, bottom], 1),
                               rtol=1e-2, atol=0.1)


def test_one_network_is_refused() -> None:
    with pytest.raises(ValueError, match='backbone is not valid: got InternImage, expected Comp'):
        toy(backbone=dict(_delete_=True, type='InternImage', arch='pico', out_indices=(1, 2, 3)))


def test_full_size_is_the_published_one() -> None:
    cfg = load_config(str(ROOT / FULL))
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = build_on_meta(lambda: MODELS.build(cfg.model))
    assert isinstance(model, CompositeDINO) and cfg.model.bbox_head.num_classes == 80
    # The installed mmdet encodes reference points with twice the frequencies; see the converter.
    extra = model.decoder.ref_point_head.layers[0].weight.numel() - 256 * 512
    count = sum(param.numel() for param in model.parameters()) - extra
    assert round(count / 1e6, 3) == 2178.558
