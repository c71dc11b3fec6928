"""The detector: batches, frames, flips, cached features, gradients, mixed precision."""
from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip('mmdet3d_custom')
from mmdet3d.registry import MODELS  # noqa: E402
from mmdet3d.structures import Det3DDataSample  # noqa: E402
from mmengine.optim import OptimWrapper  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from mmdcn.analysis.complexity import build_on_meta  # noqa: E402
from mmdcn.engine.amp import bfloat16_features  # noqa: E402
from mmdet3d_custom.models.bevformer_v2 import (  # noqa: E402
    BEVFormerV2,
    FeatureCache,
    eval_mode,
    surround_matrices,
)
from tests.mmdet3d_custom.pico import (  # noqa: E402
    HEIGHT,
    WIDTH,
    make_batch,
    make_boxes,
    pico_config,
    pico_model,
)

# Parameters without a gradient in a training step of one frame: a constant of the losses.
WITHOUT_GRADIENT = {'pts_bbox_head.code_weights'}


@MODELS.register_module()
class _FakePerspective(nn.Module):
    """Stands in for the perspective head, and notes what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.calls = []

    def loss(self, features: tuple, samples: list) -> dict[str, Tensor]:
        self.calls.append(('loss', features, self.training))
        return dict(loss_cls_mono=sum(level.mean() for level in features) * self.scale)

    def predict(self, features: tuple, metas: list) -> list[InstanceData]:
        self.calls.append(('predict', features, self.training))
        return [InstanceData(bboxes_3d=make_boxes(2)) for _ in metas]


@MODELS.register_module()
class _NoQueries(nn.Module):
    """Extra queries of which none counts."""

    def __init__(self, embed_dims: int, pc_range: tuple) -> None:
        super().__init__()
        self.embed_dims = embed_dims

    def forward(self, proposals: list, metas: list) -> object:
        from mmdet3d_custom.models.bev_transformer import ExtraQueries
        zeros = torch.zeros(len(metas), 1, self.embed_dims)
        return ExtraQueries(zeros[..., :3], zeros, zeros, torch.zeros(len(metas), 1) > 0)


def select(batch: tuple[dict, list], rows: list[int]) -> tuple[dict, list]:
    """Some samples of a batch."""
    return dict(imgs=batch[0]['imgs'][rows]), [batch[1][row] for row in rows]


@torch.no_grad()
def raw(model: BEVFormerV2, batch: tuple[dict, list]) -> tuple[Tensor, Tensor]:
    return model(*batch, mode='tensor')


def turn(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0],
                     [0, 0, 1]])


def test_two_samples_are_as_each_alone():
    # Matrices, flips, missing frames and augmentations differ.
    model = pico_model(frames=(-2, -1, 0, 1))
    batch = make_batch((-2, -1, 0, 1), flips=(True, False, False))
    batch[1][0].set_metainfo(dict(frame_valid=np.array([0, 0, 1, 1], bool)))
    batch[1][1].set_metainfo(dict(frame_valid=np.array([0, 1, 1, 0], bool), bda=turn(20)))
    together = raw(model, batch)
    for row in range(3):
        for a, b in zip(together, raw(model, select(batch, [row])), strict=True):
            # Centers are 50 m from the origin, of which float32 has 4e-6.
            assert float(((a[:, row:row + 1] - b) / b.abs().clamp(min=1)).abs().max()) < 1e-5


def test_predictions_of_a_batch_are_those_of_its_samples():
    model, batch = pico_model(), make_batch()
    with torch.no_grad():
        together = model(*copy.deepcopy(batch), mode='predict')
        alone = [model(*copy.deepcopy(select(batch, [row])), mode='predict')[0] for row in (0, 1)]
    for a, b in zip(together, alone, strict=True):
        assert isinstance(a, Det3DDataSample)
        found = a.pred_instances_3d
        assert found.bboxes_3d.tensor.shape == (200, 9) and found.labels_3d.max() < 10
        assert (found.scores_3d.diff() <= 0).all()
        torch.testing.assert_close(found.scores_3d, b.pred_instances_3d.scores_3d)
        assert 'pred_instances' in a  # which mmdet3d's metric asks for


class _Means(nn.Module):
    """A backbone that does the same in mirrored pictures: means of squares of pixels."""

    def forward(self, imgs: Tensor) -> list[Tensor]:
        return [nn.functional.avg_pool2d(imgs, stride) for stride in (8, 16, 32)]


def test_flipped_pictures_have_features_at_the_place_of_unflipped_ones():
    model = pico_model()
    model.img_backbone, model.img_neck = _Means(), None
    imgs = torch.randn(2, 6, 3, HEIGHT, WIDTH)
    plain = model.extract_feat(imgs)
    given = torch.stack([imgs[0].flip(-1), imgs[1]])
    back = model.extract_feat(given, [dict(flip=True), dict(flip=False)])
    assert [tuple(level.shape) for level in back] == [
        (2, 6, 3, 8, 20), (2, 6, 3, 4, 10), (2, 6, 3, 2, 5)]
    for a, b in zip(back, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert not torch.allclose(model.extract_feat(given)[0][0], plain[0][0], atol=0.1)


def test_a_narrower_sample_is_mirrored_within_its_own_width():
    model = pico_model()
    imgs = torch.randn(2, 6, 3, 64, 160)
    given = [dict(flip=True, pad_shape=(64, 96)), dict(flip=False, pad_shape=(64, 160))]
    plain = model.extract_feat(imgs)[0]
    back = model.extract_feat(imgs, given)[0]
    assert torch.equal(back[1], plain[1])
    assert torch.equal(back[0, ..., :12], plain[0, ..., :12].flip(-1))  # 96 / 8
    assert torch.equal(back[0, ..., 12:], plain[0, ..., 12:])


def test_missing_frames_are_filled_and_never_computed():
    model, seen = pico_model(frames=(-2, -1, 0)), []
    model.img_backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    batch = make_batch((-2, -1, 0))
    batch[1][0].set_metainfo(dict(frame_valid=np.array([0, 1, 1], bool)))
    batch[1][1].set_metainfo(dict(frame_valid=np.array([0, 0, 1], bool)))
    got = raw(model, batch)
    assert seen == [6, 12]  # one sample at -1, both at 0
    other = copy.deepcopy(batch)
    other[0]['imgs'][:, :6] = 100.0  # the pictures of a missing frame are nobody's business
    assert all(torch.equal(a, b) for a, b in zip(got, raw(model, other), strict=True))
    # The rule: frame -2 of sample 0 is its frame -1; all of sample 1 are its current frame.
    past = model._history(batch[0]['imgs'].unflatten(1, (3, 6)), [s.metainfo for s in batch[1]],
                          remember=False)
    assert past[0] is None and past[2] is None and not past[1][1].any()
    features = model.extract_feat(batch[0]['imgs'][:, 12:], [s.metainfo for s in batch[1]])
    head, metas = model.pts_bbox_head, [s.metainfo for s in batch[1]]
    with torch.no_grad():
        current = head.encode(features, metas, 2)
        one = torch.stack([past[1][0], current[1]])
        fused = head.transformer.fuse([one, one, current], head.bev_shape)
        found = head.transformer.decode(fused, head.query_embedding.weight[:20], head.bev_shape,
                                        head.reg_branches)
    expected = head.cls_branches[-1](found.states[-1])
    torch.testing.assert_close(got[0][-1][:, 0], expected, rtol=1e-4, atol=1e-5)


def test_history_is_in_eval_mode_without_gradient_and_flags_come_back():
    model = pico_model(frames=(-1, 0), grid_mask=dict(prob=1.0)).train()
    model.img_backbone.levels[0].eval()  # frozen by hand
    flags = {name: module.training for name, module in model.named_modules()}
    seen = []
    model.img_backbone.register_forward_pre_hook(lambda module, args: seen.append(
        (module.training, torch.is_grad_enabled(), bool((args[0] == 0).any()))))
    losses = model(*make_batch((-1, 0)), mode='loss')
    assert seen == [(False, False, False), (True, True, True)]  # the mask is for the current one
    assert {name: module.training for name, module in model.named_modules()} == flags
    sum(losses.values()).backward()
    assert model.pts_bbox_head.transformer.fusion.layers[0].conv1.weight.grad.abs().sum() > 0


def test_flags_come_back_after_an_error():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()).train()
    model[1].eval()
    with pytest.raises(RuntimeError), eval_mode(model):
        assert not model[0].training and not torch.is_grad_enabled()
        raise RuntimeError
    assert model.training and model[0].training and not model[1].training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize('changes', [
    dict(), dict(frames=(-1, 0)), dict(fcos3d_bbox_head=dict(type='_FakePerspective'),
                                       img_neck=dict(pico_config()['img_neck'], num_outs=5))],
    ids=['one frame', 'two frames', 'perspective'])
@pytest.mark.parametrize('objects', [3, 0])
def test_every_parameter_has_a_gradient(changes, objects):
    model = pico_model(**changes).train()
    losses = model(*make_batch(changes.get('frames', (0,)), objects=objects), mode='loss')
    total, _ = model.parse_losses(losses)
    assert total.isfinite()
    total.backward()
    missing = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert missing == WITHOUT_GRADIENT
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters()
               if parameter.grad is not None)


def test_levels_that_nobody_reads_have_no_gradient():
    # The list of exceptions: without a perspective head the neck should end at the encoder's level.
    model = pico_model(img_neck=dict(pico_config()['img_neck'], num_outs=5)).train()
    sum(model(*make_batch(), mode='loss').values()).backward()
    missing = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert missing == WITHOUT_GRADIENT | {'img_neck.fpn_convs.4.conv.weight',
                                          'img_neck.fpn_convs.4.conv.bias'}


def test_the_perspective_head_gets_unflipped_features_of_the_current_frame():
    neck = dict(pico_config()['img_neck'], num_outs=5)
    model = pico_model(fcos3d_bbox_head=dict(type='_FakePerspective'), img_neck=neck,
                       frames=(-1, 0), mono_loss_weight=0.5)
    batch = make_batch((-1, 0), flips=(True, False))
    losses = model(*batch, mode='loss')
    (kind, features, _), = model.fcos3d_bbox_head.calls
    assert kind == 'loss' and len(features) == 5 and features[0].shape == (2, 6, 64, 8, 20)
    expected = model.extract_feat(batch[0]['imgs'][:, 6:], [s.metainfo for s in batch[1]])
    for a, b in zip(features, expected, strict=True):
        torch.testing.assert_close(a, b)
    mono = sum(level.mean() for level in features) * 0.5
    torch.testing.assert_close(losses['loss_cls_mono'], mono)
    model.fcos3d_bbox_head.calls.clear()
    raw(model, batch)
    assert not model.fcos3d_bbox_head.calls  # an auxiliary loss only


def test_proposals_are_made_in_eval_mode_where_the_bev_head_wants_them():
    head = dict(pico_config()['pts_bbox_head'], hybrid_queries=dict(type='_NoQueries'))
    neck = dict(pico_config()['img_neck'], num_outs=5)
    model = pico_model(pts_bbox_head=head, img_neck=neck,
                       fcos3d_bbox_head=dict(type='_FakePerspective')).train()
    model(*make_batch(), mode='loss')
    (first, features, training), (second, _, _) = model.fcos3d_bbox_head.calls
    assert (first, second) == ('predict', 'loss') and not training
    assert not any(level.requires_grad for level in features)
    assert model.fcos3d_bbox_head.training
    with pytest.raises(ValueError, match='fcos3d_bbox_head is not valid: got None'):
        MODELS.build(pico_config(pts_bbox_head=head))


def scene(length: int) -> list[tuple[dict, list]]:
    """Samples of a scene in order, each with its previous frame."""
    torch.manual_seed(6)
    pictures = torch.randn(length, 6, 3, HEIGHT, WIDTH)
    batches = []
    for index in range(length):
        inputs, samples = make_batch((-1, 0), flips=(False,))
        valid = np.array([index > 0, True])
        inputs['imgs'] = torch.cat([pictures[max(index - 1, 0)] * valid[0], pictures[index]])[None]
        samples[0].set_metainfo(dict(
            frame_valid=valid, frame_tokens=[f'frame{index - 1}' if index else '',
                                             f'frame{index}']))
        batches.append((inputs, samples))
    return batches


@torch.no_grad()
def predictions(model: BEVFormerV2, batches: list) -> list[Tensor]:
    found = []
    for batch in batches:
        for sample in model(*copy.deepcopy(batch), mode='predict'):
            found += [sample.pred_instances_3d.scores_3d, sample.pred_instances_3d.bboxes_3d.tensor]
    return found


def counted(model: BEVFormerV2) -> list[int]:
    """The number of pictures of each pass through the backbone, as they come."""
    seen: list[int] = []
    model.img_backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    return seen


def test_cached_features_give_the_same_boxes_and_each_picture_passes_once():
    plain, caching = pico_model(frames=(-1, 0)), pico_model(frames=(-1, 0), feature_cache=2)
    caching.load_state_dict(plain.state_dict())
    batches, passes, cached_passes = scene(4), counted(plain), counted(caching)
    expected, got = predictions(plain, batches), predictions(caching, batches)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert passes == [6] * 7 and cached_passes == [6] * 4
    assert len(caching.cache) == 2
    # Once more from the start: frames 0 and 1 are gone.
    again = predictions(caching, batches[:2])
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=False))
    assert cached_passes == [6] * 6


def test_cached_features_of_a_batch_are_those_of_its_samples():
    model = pico_model(frames=(-1, 0), feature_cache=4)
    seen = counted(model)
    first, second = scene(3)[1:]
    pair = (dict(imgs=torch.cat([first[0]['imgs'], second[0]['imgs']])), first[1] + second[1])
    got = predictions(model, [pair])
    assert seen == [6] * 3  # frames 0, 1 (shared by both) and 2
    model.cache.clear()
    for a, b in zip(got, predictions(model, [first, second]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_nothing_is_cached_without_tokens_in_training_or_with_gradients():
    model = pico_model(frames=(-1, 0), feature_cache=8)
    batches = scene(2)
    model(*batches[1], mode='tensor')  # gradients are recorded
    assert not len(model.cache)
    for change in (dict(frame_tokens=['', '']), dict(frame_tokens=None)):
        batch = copy.deepcopy(batches[1])
        batch[1][0].set_metainfo(change)
        raw(model, batch)
        assert not len(model.cache)
    model.train()
    model(*batches[1], mode='loss')
    raw(model, batches[1])
    assert not len(model.cache)


def test_a_switch_of_mode_and_new_weights_empty_the_cache():
    model, batch = pico_model(frames=(-1, 0), feature_cache=8), scene(2)[1]
    for change in (model.train, model.eval, lambda: model.load_state_dict(model.state_dict())):
        model.eval()
        raw(model, batch)
        assert len(model.cache) == 2
        change()
        assert not len(model.cache)


def test_frames_that_were_treated_otherwise_are_not_mixed_up():
    model, batch = pico_model(frames=(-1, 0), feature_cache=8), scene(2)[1]
    raw(model, batch)
    flipped = copy.deepcopy(batch)
    flipped[1][0].set_metainfo(dict(flip=True))
    flipped[0]['imgs'] = flipped[0]['imgs'].flip(-1)
    got = raw(model, flipped)
    assert len(model.cache) == 4
    model.cache.clear()
    assert all(torch.equal(a, b) for a, b in zip(got, raw(model, flipped), strict=True))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        raw(model, flipped)
    assert len(model.cache) == 4


def test_the_cache_forgets_what_was_used_longest_ago():
    cache = FeatureCache(2)
    for name in 'ab':
        cache.put((name,), ())
    cache.get(('a',))
    cache.put(('c',), ())
    assert cache.get(('b',)) is None and cache.get(('a',)) == () and len(cache) == 2
    with pytest.raises(ValueError, match='capacity is not valid: got -1'):
        FeatureCache(-1)


def test_bfloat16_autocast_is_finite_and_close():
    model, batch = pico_model(frames=(-1, 0)), make_batch((-1, 0), flips=(True, False))
    exact = raw(model, batch)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = raw(model, batch)
    assert all(each.dtype == torch.float32 and each.isfinite().all() for each in rough)
    torch.testing.assert_close(rough[0].sigmoid(), exact[0].sigmoid(), rtol=0, atol=0.02)
    # Centers within 1 m in the median: references and branches are exact, features are not.
    distance = (rough[1] - exact[1])[..., [0, 1, 4]].norm(dim=-1)
    assert float(distance.median()) < 1
    model.train()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model(*batch, mode='loss')
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters()
               if parameter.grad is not None)


def test_cpu_mixed_precision_finds_backbone_and_neck():
    model, batch = pico_model(), make_batch()
    seen = []
    model.img_backbone.levels[0].register_forward_hook(
        lambda *_: seen.append(torch.is_autocast_enabled('cpu')))
    with bfloat16_features(model):
        rough = raw(model, batch)
    assert seen == [True] and not torch.equal(rough[0], raw(model, batch)[0])
    assert {name.partition('.')[0] for name in model.state_dict()} == {
        'img_backbone', 'img_neck', 'pts_bbox_head'}


def test_a_step_on_pictures_of_two_sizes():
    model = pico_model(data_preprocessor=dict(
        type='mmdet3d.Det3DDataPreprocessor', mean=[123.0] * 3, std=[58.0] * 3,
        pad_size_divisor=32))
    _, samples = make_batch(flips=(True, True))
    images = [torch.randint(256, (6, 3, 60, width), dtype=torch.uint8) for width in (160, 120)]
    for sample in samples:
        del sample.batch_input_shape
        del sample.pad_shape
    data = dict(inputs=dict(img=images), data_samples=samples)
    given = model.data_preprocessor(copy.deepcopy(data), training=True)
    assert given['inputs']['imgs'].shape == (2, 6, 3, 64, 160)
    assert [sample.pad_shape for sample in given['data_samples']] == [(64, 160), (64, 128)]
    before = copy.deepcopy(model.state_dict())
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    losses = model.train().train_step(data, wrapper)
    assert losses['loss'].isfinite() and set(losses) == {
        'loss', 'loss_cls', 'loss_bbox', 'd0.loss_cls', 'd0.loss_bbox'}
    changed = {name for name, value in model.state_dict().items()
               if not torch.equal(value, before[name])}
    assert 'img_backbone.patch_embed.conv1.weight' in changed
    assert not changed & WITHOUT_GRADIENT


def test_checkpointing_is_an_option_of_encoder_and_fusion():
    torch.manual_seed(0)
    head = pico_config()['pts_bbox_head']
    saving = copy.deepcopy(head)
    saving['transformer']['encoder']['with_cp'] = True
    saving['transformer']['fusion'] = dict(with_cp=True)
    plain = pico_model(frames=(-1, 0), pts_bbox_head=head)
    other = pico_model(frames=(-1, 0), pts_bbox_head=saving)
    other.load_state_dict(plain.state_dict())
    gradients = []
    for model in (plain, other):
        model.train()
        torch.manual_seed(1)
        sum(model(*make_batch((-1, 0)), mode='loss').values()).backward()
        gradients.append([parameter.grad for parameter in model.parameters()
                          if parameter.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_the_whole_model_has_the_names_of_the_release():
    model = build_on_meta(lambda: MODELS.build(dict(
        type='BEVFormerV2', frames=(-1, 0), grid_mask=dict(),
        img_backbone=dict(type='mmdet.ResNet', depth=50, out_indices=(1, 2, 3), style='caffe'),
        img_neck=dict(type='mmdet.FPN', in_channels=[512, 1024, 2048], out_channels=256,
                      num_outs=5, add_extra_convs='on_output', relu_before_extra_convs=True),
        pts_bbox_head=dict(type='BEVFormerHead'))))
    names = {name: tuple(value.shape) for name, value in model.named_parameters()
             if not name.startswith('pts_bbox_head.')}
    backbone = re.compile(r'img_backbone\.(conv1|bn1|layer[1-4]\..+)\.(weight|bias)')
    assert len(names) - len([name for name in names if backbone.fullmatch(name)]) == 16
    for index, width in enumerate((512, 1024, 2048)):
        assert names[f'img_neck.lateral_convs.{index}.conv.weight'] == (256, width, 1, 1)
        assert names[f'img_neck.lateral_convs.{index}.conv.bias'] == (256,)
    for index in range(5):
        assert names[f'img_neck.fpn_convs.{index}.conv.weight'] == (256, 256, 3, 3)
        assert names[f'img_neck.fpn_convs.{index}.conv.bias'] == (256,)
    assert model.pts_bbox_head.frames == (-1, 0)


def test_any_backbone_and_no_neck():
    config = pico_config(img_backbone=dict(type='mmdet.ResNet', depth=18, base_channels=8,
                                           out_indices=(1, 2, 3)))
    config['img_neck']['in_channels'] = [16, 32, 64]
    model = MODELS.build(config).eval()
    assert raw(model, make_batch(flips=(False,)))[0].shape == (2, 1, 1, 20, 10)
    config = pico_config(img_neck=None)
    config['img_backbone']['out_indices'] = (1,)
    config['pts_bbox_head']['transformer']['num_feature_levels'] = 1
    model = MODELS.build(config).eval()
    assert raw(model, make_batch(flips=(False,)))[0].shape == (2, 1, 1, 20, 10)


def test_plain_tensors_are_enough_to_measure_costs():
    model = pico_model(frames=(-1, 0))
    with torch.no_grad():
        logits, codes = model(torch.randn(1, 12, 3, HEIGHT, WIDTH))
    assert logits.shape == (2, 1, 1, 20, 10) and codes.shape == (2, 1, 1, 20, 10)
    matrices = surround_matrices(6, 64, 160)
    # 10 m ahead along y of the LiDAR is in the middle of the first picture, x is to the right.
    point = matrices[0] @ torch.tensor([0.0, 10, 0, 1])
    torch.testing.assert_close(point[:3] / point[2], torch.tensor([80.0, 32, 1]))
    right = matrices[0] @ torch.tensor([1.0, 10, -1, 1])
    assert right[0] / right[2] > 80 and right[1] / right[2] > 32


@pytest.mark.parametrize(('change', 'words'), [
    (dict(frames=(-1,)), 'frames is not valid'),
    (dict(feature_cache=-1), 'capacity is not valid'),
    (dict(pts_bbox_head=dict(pico_config()['pts_bbox_head'], frames=(0, 1))),
     'pts_bbox_head.frames is not valid'),
])
def test_bad_arguments_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        MODELS.build(pico_config(**change))


def test_pictures_that_do_not_fit_the_frames_are_refused():
    model = pico_model(frames=(-1, 0))
    _, samples = make_batch((-1, 0))
    for shape in ((2, 11, 3, 64, 160), (1, 12, 3, 64, 160), (2, 3, 64, 160)):
        with pytest.raises(ValueError, match='imgs.shape is not valid'):
            model(dict(imgs=torch.zeros(shape)), samples, mode='predict')
