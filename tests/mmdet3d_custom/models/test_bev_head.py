"""The BEV head: parameters of the release, groups, extra queries, losses, predictions."""
from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip('mmdet3d_custom')
from mmdet3d.registry import MODELS  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from mmdcn.analysis.complexity import build_on_meta  # noqa: E402
from mmdet3d_custom.models.bev_head import (  # noqa: E402
    BEVFormerHead,
    HeadOutputs,
    check_frames,
    frame_validity,
)
from mmdet3d_custom.models.bev_transformer import ExtraQueries  # noqa: E402
from mmdet3d_custom.models.box_coding import encode_boxes  # noqa: E402
from tests.mmdet3d_custom.pico import make_batch, make_boxes, pico_config  # noqa: E402

T = 'transformer.'


def linear(name: str, rows: int, columns: int) -> dict[str, tuple]:
    return {f'{name}.weight': (rows, columns), f'{name}.bias': (rows,)}


def norm(name: str, width: int) -> dict[str, tuple]:
    return {f'{name}.weight': (width,), f'{name}.bias': (width,)}


def released_names(groups: int, frames: int, inter: int | None = None) -> dict[str, tuple]:
    """Names and shapes of the head of a released checkpoint."""
    names = {'code_weights': (10,), 'bev_embedding.weight': (40000, 256),
             'query_embedding.weight': (900 * groups, 512),
             'positional_encoding.row_embed.weight': (200, 128),
             'positional_encoding.col_embed.weight': (200, 128),
             f'{T}level_embeds': (4, 256), f'{T}cams_embeds': (6, 256),
             **linear(f'{T}reference_points', 3, 256)}
    for i in range(6):
        for part in (0, 3):
            names |= linear(f'cls_branches.{i}.{part}', 256, 256)
            names |= norm(f'cls_branches.{i}.{part + 1}', 256)
        names |= linear(f'cls_branches.{i}.6', 10, 256)
        for part, rows in ((0, 256), (2, 256), (4, 10)):
            names |= linear(f'reg_branches.{i}.{part}', rows, 256)
        layer = f'{T}encoder.layers.{i}.'
        names |= linear(f'{layer}attentions.0.sampling_offsets', 128, 512)
        names |= linear(f'{layer}attentions.0.attention_weights', 64, 512)
        names |= linear(f'{layer}attentions.0.value_proj', 256, 256)
        names |= linear(f'{layer}attentions.0.output_proj', 256, 256)
        names |= linear(f'{layer}attentions.1.output_proj', 256, 256)
        names |= linear(f'{layer}attentions.1.deformable_attention.sampling_offsets', 512, 256)
        names |= linear(f'{layer}attentions.1.deformable_attention.attention_weights', 256, 256)
        names |= linear(f'{layer}attentions.1.deformable_attention.value_proj', 256, 256)
        layer = f'{T}decoder.layers.{i}.'
        names |= {f'{layer}attentions.0.attn.in_proj_weight': (768, 256),
                  f'{layer}attentions.0.attn.in_proj_bias': (768,)}
        names |= linear(f'{layer}attentions.0.attn.out_proj', 256, 256)
        names |= linear(f'{layer}attentions.1.sampling_offsets', 64, 256)
        names |= linear(f'{layer}attentions.1.attention_weights', 32, 256)
        names |= linear(f'{layer}attentions.1.value_proj', 256, 256)
        names |= linear(f'{layer}attentions.1.output_proj', 256, 256)
        for room in ('encoder', 'decoder'):
            layer = f'{T}{room}.layers.{i}.'
            names |= linear(f'{layer}ffns.0.layers.0.0', 512, 256)
            names |= linear(f'{layer}ffns.0.layers.1', 256, 512)
            for part in range(3):
                names |= norm(f'{layer}norms.{part}', 256)
    if frames > 1:
        width = inter or frames * 256
        for i in range(3):
            block = f'{T}fusion.layers.{i}.'
            names[f'{block}conv1.weight'] = (width, frames * 256 if i == 0 else width, 3, 3)
            names[f'{block}conv2.weight'] = (width, width, 3, 3)
            names |= norm(f'{block}bn1', width) | norm(f'{block}bn2', width)
        if width != frames * 256:
            names[f'{T}fusion.layers.0.downsample.0.weight'] = (width, frames * 256, 3, 3)
            names |= norm(f'{T}fusion.layers.0.downsample.1', width)
        names |= linear(f'{T}fusion.layer_norm.0', 256, width)
        names |= norm(f'{T}fusion.layer_norm.1', 256)
    return names


@pytest.mark.parametrize(('groups', 'frames', 'inter'), [
    (1, (0,), None), (11, (-1, 0), None), (11, tuple(range(-7, 1)), 512)], ids=['t1', 't2', 't8'])
def test_parameters_are_those_of_the_release(groups, frames, inter):
    transformer = dict(type='PerceptionTransformerV2', fusion=dict(inter_channels=inter))
    head = build_on_meta(lambda: BEVFormerHead(num_groups=groups, frames=frames,
                                               transformer=transformer))
    got = {name: tuple(value.shape) for name, value in head.named_parameters()}
    assert got == released_names(groups, len(frames), inter)
    buffers = {name.rpartition('.')[2] for name, _ in head.named_buffers()}
    assert buffers <= {'running_mean', 'running_var', 'num_batches_tracked'}
    assert not head.code_weights.requires_grad


@MODELS.register_module()
class _FixedQueries(nn.Module):
    """Stands in for the module that makes queries of proposals."""

    def __init__(self, embed_dims: int, pc_range: tuple) -> None:
        super().__init__()
        self.content = nn.Embedding(4, embed_dims)
        self.calls = []

    def forward(self, proposals: list, metas: list) -> ExtraQueries:
        self.calls.append((proposals, metas))
        samples = len(proposals)
        generator = torch.Generator().manual_seed(9)
        valid = torch.arange(4) < torch.tensor([len(each) for each in proposals])[:, None]
        content = self.content.weight.expand(samples, -1, -1)
        return ExtraQueries(torch.rand(samples, 4, 3, generator=generator),
                            torch.randn(samples, 4, content.shape[-1], generator=generator),
                            content, valid)


def make_head(**changes: object) -> BEVFormerHead:
    head = BEVFormerHead(**{key: value for key, value in dict(
        pico_config()['pts_bbox_head'], **changes).items() if key != 'type'})
    head.init_weights()
    return head.eval()


def features(samples: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    return [torch.randn(samples, 6, 64, *size, generator=generator)
            for size in ((8, 20), (4, 10), (2, 5), (1, 3))]


def proposals(*counts: int) -> list[InstanceData]:
    return [InstanceData(bboxes_3d=make_boxes(count), scores_3d=torch.rand(count))
            for count in counts]


def metas(samples: list) -> list[dict]:
    return [sample.metainfo for sample in samples]


def test_eval_uses_the_first_group_of_training():
    head, (_, samples) = make_head(), make_batch()
    alone = head(features(), metas(samples))
    assert alone.logits.shape == (2, 2, 1, 20, 10) and alone.codes.shape == (2, 2, 1, 20, 10)
    for module in head.modules():
        module.training = False
    head.training = True  # three groups, without dropout
    groups = head(features(), metas(samples))
    assert groups.logits.shape == (2, 2, 3, 20, 10)
    torch.testing.assert_close(groups.logits[:, :, :1], alone.logits)
    torch.testing.assert_close(groups.codes[:, :, :1], alone.codes)
    assert not torch.allclose(groups.logits[:, :, 1], alone.logits[:, :, 0], atol=1e-3)


def test_scores_start_near_one_in_a_hundred():
    head = make_head()
    for branch in head.cls_branches:
        torch.testing.assert_close(branch[-1].bias.sigmoid(), torch.full((10,), 0.01))
    with torch.no_grad():
        logits = head(features(), metas(make_batch()[1])).logits
    assert 0.003 < float(logits.sigmoid().mean()) < 0.03


def naive_losses(head: BEVFormerHead, outputs: HeadOutputs, gts: list[InstanceData],
                 ) -> dict[str, float]:
    """Losses by loops over layers, groups, samples and queries."""
    layers, samples, groups = outputs.logits.shape[:3]
    result = {}
    for layer in range(layers):
        cls_total = bbox_total = 0.0
        for group in range(groups):
            cls_sum = bbox_sum = 0.0
            positives = 0
            for sample in range(samples):
                rows = outputs.valid[sample].nonzero().flatten().tolist()
                logits = outputs.logits[layer, sample, group, rows]
                codes = outputs.codes[layer, sample, group, rows]
                targets = encode_boxes(gts[sample].bboxes_3d)
                labels = gts[sample].labels_3d
                queries, objects = head.matcher(logits[None], codes[None], labels, targets)
                owner = dict(zip(queries[0].tolist(), objects[0].tolist(), strict=True))
                positives += len(owner)
                for q in range(len(rows)):
                    for c in range(logits.shape[1]):
                        p = logits[q, c].sigmoid()
                        hit = q in owner and int(labels[owner[q]]) == c
                        cls_sum -= float(0.25 * (1 - p) ** 2 * p.log() if hit
                                         else 0.75 * p ** 2 * (1 - p).log())
                    if q in owner and targets[owner[q]].isfinite().all():
                        distance = F.smooth_l1_loss(codes[q], targets[owner[q]], reduction='none')
                        weights = torch.tensor([1.0] * 8 + [0.2] * 2)
                        bbox_sum += float((distance * weights).sum())
            cls_total += 2.0 * cls_sum / max(positives, 1)
            bbox_total += 0.75 * bbox_sum / max(positives, 1)
        prefix = '' if layer == layers - 1 else f'd{layer}.'
        result[f'{prefix}loss_cls'] = cls_total / groups
        result[f'{prefix}loss_bbox'] = bbox_total / groups
    return result


def random_outputs(samples: int = 2, queries: int = 7) -> HeadOutputs:
    valid = torch.ones(samples, queries, dtype=torch.bool)
    valid[0, -2:] = False
    return HeadOutputs(torch.randn(2, samples, 3, queries, 10, requires_grad=True),
                       (10 * torch.randn(2, samples, 3, queries, 10)).requires_grad_(), valid)


def ground_truth(*counts: int) -> list[InstanceData]:
    return [InstanceData(bboxes_3d=make_boxes(count, seed), labels_3d=torch.arange(count) % 10)
            for seed, count in enumerate(counts)]


@pytest.mark.parametrize('counts', [(3, 4), (0, 2), (0, 0), (9, 9)])
def test_losses_are_those_of_loops(counts):
    head, outputs, gts = make_head(), random_outputs(), ground_truth(*counts)
    got = head.loss_by_feat(outputs, gts)
    expected = naive_losses(head, outputs, gts)
    assert got.keys() == expected.keys() == {'loss_cls', 'loss_bbox', 'd0.loss_cls',
                                             'd0.loss_bbox'}
    for name, loss in got.items():
        assert float(loss) == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
    sum(got.values()).backward()
    assert outputs.logits.grad.isfinite().all() and outputs.codes.grad.isfinite().all()
    # What does not count has no gradient.
    assert not outputs.logits.grad[:, 0, :, -2:].any()
    assert not outputs.codes.grad[:, 0, :, -2:].any()
    assert outputs.logits.grad[:, 1].abs().sum() > 0


def test_a_box_without_extent_is_matched_but_not_regressed():
    head, outputs, gts = make_head(), random_outputs(), ground_truth(3, 2)
    gts[0].bboxes_3d.tensor[1, 4] = 0
    got, expected = head.loss_by_feat(outputs, gts), naive_losses(head, outputs, gts)
    assert all(loss.isfinite() for loss in got.values())
    assert float(got['loss_bbox']) == pytest.approx(expected['loss_bbox'], rel=1e-4)


@pytest.mark.parametrize('label', [-1, 10])
def test_labels_beyond_the_classes_are_refused(label):
    gts = ground_truth(2, 2)
    gts[1].labels_3d[1] = label
    with pytest.raises(ValueError, match='labels_3d is not valid.*ObjectNameFilter'):
        make_head().loss_by_feat(random_outputs(), gts)


def test_extra_queries_are_matched_and_selected_where_valid():
    head = make_head(hybrid_queries=dict(type='_FixedQueries'))
    _, samples = make_batch()
    given = proposals(3, 0)
    outputs = head(features(), metas(samples), proposals=given)
    assert outputs.logits.shape == (2, 2, 1, 24, 10)
    assert outputs.valid.tolist() == [[True] * 23 + [False], [True] * 20 + [False] * 4]
    assert head.hybrid_queries.calls[0] == (given, metas(samples))
    # A sample without proposals is as without the module.
    plain = make_head()
    plain.load_state_dict({name: value for name, value in head.state_dict().items()
                           if 'hybrid' not in name})
    without = plain(features(), metas(samples))
    torch.testing.assert_close(outputs.logits[:, 1, :, :20], without.logits[:, 1])
    assert not torch.allclose(outputs.logits[:, 0, :, :20], without.logits[:, 0], atol=1e-4)
    found = head.predict(features(), samples, proposals=given)
    assert [len(each) for each in found] == [230, 200]
    expected = plain.predict(features(), samples)
    torch.testing.assert_close(found[1].scores_3d, expected[1].scores_3d)
    with pytest.raises(ValueError, match='proposals is not valid: got None'):
        head(features(), metas(samples))


def test_extra_queries_train_in_each_group():
    head = make_head(hybrid_queries=dict(type='_FixedQueries')).train()
    _, samples = make_batch()
    losses = head.loss(features(), samples, proposals=proposals(3, 2))
    sum(losses.values()).backward()
    touched = head.hybrid_queries.content.weight.grad.abs().sum(1) > 0
    assert touched.tolist() == [True, True, True, False]
    assert head.query_embedding.weight.grad.abs().sum(1).gt(0).all()


def test_history_takes_the_place_of_frames():
    head, (_, samples) = make_head(frames=(-1, 0)), make_batch((-1, 0))
    past = torch.randn(2, 256, 64)
    both = head(features(), metas(samples), [past, None])
    samples[0].set_metainfo(dict(frame_valid=np.array([False, True])))
    filled = head(features(), metas(samples), [past, None])
    torch.testing.assert_close(filled.logits[:, 1], both.logits[:, 1])
    current = head.encode(features(), metas(samples), 1)
    expected = head(features(), metas(samples), [torch.stack([current[0], past[1]]), None])
    torch.testing.assert_close(filled.logits, expected.logits)
    assert not torch.allclose(filled.logits[:, 0], both.logits[:, 0], atol=1e-4)
    with pytest.raises(ValueError, match='history is not valid: got 1 maps'):
        head(features(), metas(samples), [None])


def test_each_frame_has_its_own_matrices():
    head, (_, samples) = make_head(frames=(-1, 0)), make_batch((-1, 0))
    lidar2img = samples[0].lidar2img
    assert not np.allclose(lidar2img[0], lidar2img[1])
    got = head.encode(features(), metas(samples), 0)
    for sample in samples:
        sample.set_metainfo(dict(lidar2img=sample.lidar2img[::-1].copy()))
    torch.testing.assert_close(head.encode(features(), metas(samples), 1), got)
    assert not torch.allclose(head.encode(features(), metas(samples), 0), got, atol=1e-4)


@pytest.mark.parametrize(('change', 'words'), [
    (dict(lidar2img=np.zeros((2, 6, 4, 4))), r'lidar2img.shape is not valid: got \(2, 6, 4, 4\)'),
    (dict(bda=np.zeros((4, 4))), r'bda.shape is not valid: got \(4, 4\), expected \(3, 3\)'),
    (dict(lidar2img=None), "got no 'lidar2img'"),
    (dict(batch_input_shape=None), "got no 'batch_input_shape'"),
])
def test_metainfo_that_does_not_fit_is_refused(change, words):
    head, (_, samples) = make_head(), make_batch()
    given = [{key: value for key, value in {**meta, **change}.items() if value is not None}
             for meta in metas(samples)]
    with pytest.raises(ValueError, match=words):
        head.encode(features(), given, 0)


@pytest.mark.parametrize('frames', [(), (-1,), (0, -1), (-1, 0, 0), (0, 0.5)])
def test_frames_are_ascending_integers_around_zero(frames):
    with pytest.raises(ValueError, match='frames is not valid'):
        check_frames(frames)


def test_validity_defaults_to_all_and_includes_the_current_frame():
    assert frame_validity([{}, {'frame_valid': [False, True]}], (-1, 0)).tolist() == [
        [True, True], [False, True]]
    for wrong in ([True], [True, False]):
        with pytest.raises(ValueError, match='frame_valid is not valid'):
            frame_validity([{'frame_valid': wrong}], (-1, 0))
