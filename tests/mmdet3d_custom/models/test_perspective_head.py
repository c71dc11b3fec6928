"""The perspective head: published names, losses at the truth and without it, predictions."""
from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import distributed

from mmdet3d_custom.models import perspective_head as module
from mmdet3d_custom.models import perspective_targets as targets
from mmdet3d_custom.models.perspective_head import PerspectiveHead, PerspectiveOutputs
from tests.mmdet3d_custom.models import perspective_scene as scene

STRIDES = (8, 16)
SHAPES = [(12, 20), (6, 10)]
RANGES = ((-1, 48), (48, 1e8))
LOSSES = {f'loss_{name}_mono' for name in (
    'cls', 'box2d_reg', 'centerness', 'box3d_quat', 'box3d_proj_ctr', 'box3d_depth', 'box3d_size',
    'conf3d', 'attr', 'speed')}


def tiny(**changes: object) -> PerspectiveHead:
    torch.manual_seed(0)
    head = PerspectiveHead(**(dict(
        classes=scene.CLASSES, in_channels=8, strides=STRIDES, num_convs=1, ranges=RANGES,
        mean_depth_per_level=(20, 10), std_depth_per_level=(8, 4)) | changes))
    head.init_weights()
    return head


def features(samples: int, cameras: int = 3, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(samples, cameras, 8, *shape, generator=generator).requires_grad_()
            for shape in SHAPES]


def true_outputs(head: PerspectiveHead, sample: object, pictures: list[int]) -> PerspectiveOutputs:
    """Maps that say the truth about a sample's pictures, written by hand at every location."""
    found = sample.gt_instances_perspective
    count = len(scene.CLASSES)
    channels = dict(cls_logits=count, box2d_reg=4, centerness=1, quat=4 * count, ctr=2 * count,
                    depth=count, size=3 * count, conf=count, attr_logits=3, speed=1)
    locations = targets.level_locations(SHAPES, STRIDES, torch.device('cpu'))
    flat = {name: torch.zeros(len(pictures), channel, sum(map(len, locations)))
            for name, channel in channels.items()}
    flat['cls_logits'] -= 30
    points = torch.cat(locations)
    for row, camera in enumerate(pictures):
        index = (found.cameras == camera).nonzero()[:, 0]
        matched = targets.assign_locations(locations, STRIDES, RANGES, 1.5, found.bboxes[index])
        for place in (matched >= 0).nonzero()[:, 0].tolist():
            one = index[matched[place]]
            label = int(found.labels[one])
            center, point = found.centers[one].double().numpy(), points[place]
            pixel = scene.INTRINSICS @ center
            pixel = pixel[:2] / pixel[2]
            egocentric = Rotation.from_quat(found.quaternions[one][[1, 2, 3, 0]]).as_matrix()
            frame = scene.ray_frame(pixel, scene.INTRINSICS)
            canonical = np.array(module.CANONICAL_SIZES[scene.CLASSES[label]])
            said = dict(
                quat=scene.quaternion(Rotation.from_matrix(frame.T @ egocentric)),
                ctr=pixel - point.numpy(), depth=center[2] * 500 * np.hypot(1 / 120, 1 / 110),
                size=np.arctanh(found.sizes[one].numpy() / canonical - 1), conf=20.0)
            for name, value in said.items():
                for component, number in enumerate(np.atleast_1d(value)):
                    flat[name][row, component * count + label, place] = float(number)
            flat['cls_logits'][row, label, place] = 30
            sides = targets.box_sides(point, found.bboxes[one])
            flat['box2d_reg'][row, :, place] = sides
            flat['centerness'][row, 0, place] = targets.centerness(sides[None]).logit()
            flat['speed'][row, 0, place] = found.speeds[one]
            if found.attributes[one] < 3:
                flat['attr_logits'][row, found.attributes[one], place] = 30
    sizes = [len(level) for level in locations]
    return PerspectiveOutputs(**{name: [
        part.unflatten(-1, shape) for part, shape in zip(value.split(sizes, -1), SHAPES,
                                                         strict=True)]
        for name, value in flat.items()})


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device('meta'):
        head = module.MODELS.build(dict(type='PerspectiveHead'))
    expected: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, bias: bool = True) -> None:
        expected[f'{name}.weight'] = (out, 256, 3, 3)
        if bias:
            expected[f'{name}.bias'] = (out,)

    for tower in ('fcos2d_head.cls_tower', 'fcos2d_head.box2d_tower', 'fcos3d_head.box3d_tower'):
        for index in range(4):
            conv(f'{tower}.{index}', 256, bias=False)
            for level in range(5):
                for part in ('weight', 'bias', 'running_mean', 'running_var'):
                    expected[f'{tower}.{index}.norm.{level}.{part}'] = (256,)
                expected[f'{tower}.{index}.norm.{level}.num_batches_tracked'] = ()
    for name, out in (('fcos2d_head.cls_logits', 10), ('fcos2d_head.box2d_reg', 4),
                      ('fcos2d_head.centerness', 1), ('attr_logits', 3), ('speed', 1),
                      *((f'fcos3d_head.box3d_{name}.0', out) for name, out in (
                          ('quat', 40), ('ctr', 20), ('depth', 10), ('size', 30), ('conf', 10)))):
        conv(name, out, bias='depth' not in name)
    for level in range(5):
        expected[f'fcos2d_head.scales_box2d_reg.{level}.scale'] = (1,)
        for name in ('proj_ctr', 'size', 'conf', 'depth'):
            expected[f'fcos3d_head.scales_{name}.{level}.scale'] = (1,)
        expected[f'fcos3d_head.offsets_depth.{level}.bias'] = (1,)
    for name in ('mean', 'std'):
        expected[f'fcos3d_head.{name}_depth_per_level'] = (5,)
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == expected


def test_nothing_but_centerness_is_lost_at_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    head, sample = tiny(), scene.make_sample(3, (3, 0, 2))
    monkeypatch.setattr(head, 'forward', lambda _: true_outputs(head, sample, [0, 2]))
    got = head.loss(features(1), [sample])
    assert set(got) == LOSSES
    centerness = got.pop('loss_centerness_mono')
    assert centerness > 0  # the entropy of its soft targets
    for name, value in got.items():
        assert float(value) < 1e-4, name
    # What is not the truth costs something.
    for name in ('quat', 'ctr', 'depth', 'size'):
        wrong = true_outputs(head, sample, [0, 2])
        wrong = wrong._replace(**{name: [x * 1.1 + 0.1 for x in getattr(wrong, name)]})
        monkeypatch.setattr(head, 'forward', lambda _, wrong=wrong: wrong)
        loss = dict(ctr='proj_ctr').get(name, name)
        assert float(head.loss(features(1), [sample])[f'loss_box3d_{loss}_mono']) > 1e-3


def naive_losses(outputs: PerspectiveOutputs, sample: object, pictures: list[int],
                 ) -> dict[str, float]:
    """All losses of a sample, one location after the other, in plain Python."""
    found, count = sample.gt_instances_perspective, len(scene.CLASSES)
    total = dict.fromkeys(LOSSES, 0.0)
    sums = dict.fromkeys(('positive', 'centerness', 'attributes'), 0.0)
    for level, (stride, limits) in enumerate(zip(STRIDES, RANGES, strict=True)):
        maps = {name: value[level].detach().double().numpy()
                for name, value in outputs._asdict().items()}
        for row, camera in enumerate(pictures):
            boxes = (found.cameras == camera).nonzero()[:, 0].tolist()
            for i, j in np.ndindex(SHAPES[level]):
                at = {name: value[row, :, i, j] for name, value in maps.items()}
                point = np.array([j * stride, i * stride], float)
                one = naive_match(point, stride, limits, found.bboxes.double().numpy(), boxes)
                probability = 1 / (1 + np.exp(-at['cls_logits']))
                for label in range(count):
                    true = one is not None and label == int(found.labels[one])
                    right = probability[label] if true else 1 - probability[label]
                    total['loss_cls_mono'] -= (0.25 if true else 0.75) * (1 - right)**2 * np.log(
                        right)
                if one is not None:
                    naive_positive(at, point, found, one, total, sums)
    for name in total:
        kind = name.split('_')[1]
        denominator = {'cls': 'positive', 'centerness': 'positive', 'attr': 'attributes'}.get(
            kind, 'centerness')
        total[name] *= {'box3d': 2, 'attr': 0.2, 'speed': 0.2}.get(kind, 1) / max(
            sums[denominator], 1e-6)
    return total


def naive_match(point: np.ndarray, stride: int, limits: tuple[float, float], bboxes: np.ndarray,
                indices: list[int]) -> int | None:
    best = None
    for index in indices:
        box = bboxes[index]
        sides = np.r_[point - box[:2], box[2:] - point]
        near = (np.abs(point - (box[:2] + box[2:]) / 2) < 1.5 * stride).all()
        area = (box[2:] - box[:2]).prod()
        if near and sides.min() > 0 and limits[0] < sides.max() <= limits[1] and (
                best is None or area < best[0]):
            best = area, index
    return None if best is None else best[1]


def naive_positive(at: dict[str, np.ndarray], point: np.ndarray, found: object, one: int,
                   total: dict[str, float], sums: dict[str, float]) -> None:
    label, count = int(found.labels[one]), len(scene.CLASSES)
    box, size = found.bboxes[one].double().numpy(), found.sizes[one].double().numpy()
    sides = np.r_[point - box[:2], box[2:] - point]
    weight = np.sqrt(min(sides[0], sides[2]) / max(sides[0], sides[2])
                     * min(sides[1], sides[3]) / max(sides[1], sides[3]))
    sums['positive'] += 1
    sums['centerness'] += weight
    said = at['box2d_reg']

    def area(values: np.ndarray) -> float:
        return (values[0] + values[2]) * (values[1] + values[3])

    overlap, hull = area(np.minimum(said, sides)), area(np.maximum(said, sides))
    union = area(said) + area(sides) - overlap
    total['loss_box2d_reg_mono'] += weight * (1 - (overlap + 1) / (union + 1)
                                              + (hull - union) / hull)

    def entropy(logit: float, wanted: float) -> float:
        return np.log1p(np.exp(logit)) - wanted * logit

    total['loss_centerness_mono'] += entropy(at['centerness'][0], weight)
    # The box, of which the parts are exchanged one by one.
    quat, ctr, (depth,), raw, (conf,) = (at[name].reshape(-1, count)[:, label] for name in (
        'quat', 'ctr', 'depth', 'size', 'conf'))
    pixel, center = point + ctr, found.centers[one].double().numpy()
    said3d = dict(
        quat=scene.ray_frame(pixel, scene.INTRINSICS) @ Rotation.from_quat(
            quat[[1, 2, 3, 0]]).as_matrix(),
        proj_ctr=pixel, depth=np.clip(depth / (500 * np.hypot(1 / 120, 1 / 110)), 0.1, 80),
        size=(np.tanh(raw) + 1) * module.CANONICAL_SIZES[scene.CLASSES[label]])
    seen = scene.INTRINSICS @ center
    true = dict(quat=Rotation.from_quat(found.quaternions[one][[1, 2, 3, 0]]).as_matrix(),
                proj_ctr=seen[:2] / seen[2], depth=center[2], size=size)

    def corners(parts: dict[str, np.ndarray]) -> np.ndarray:
        ray = np.linalg.inv(scene.INTRINSICS) @ np.r_[parts['proj_ctr'], 1]
        return scene.corners(parts['quat'], ray * parts['depth'], parts['size'])

    for name in true:
        error = np.abs(corners(true | {name: said3d[name]}) - corners(true)).flatten()
        values = [0.5 * e * e if e < 0.05 else e - 0.025 for e in error]
        total[f'loss_box3d_{name}_mono'] += weight * sum(values) / 24
    wanted = np.exp(-np.abs(corners(said3d) - corners(true)).mean())
    total['loss_conf3d_mono'] += weight * entropy(conf, wanted)
    attribute = int(found.attributes[one])
    if attribute != 3:
        sums['attributes'] += 1
        logits = at['attr_logits']
        total['loss_attr_mono'] += np.log(np.exp(logits).sum()) - logits[attribute]
    error = abs(at['speed'][0] - float(found.speeds[one]))
    total['loss_speed_mono'] += weight * (
        0.5 * error**2 / 0.05 if error < 0.05 else error - 0.025)


@pytest.mark.parametrize('seed', [3, 5])
def test_losses_are_the_loops(seed: int) -> None:
    head, inputs, sample = tiny().eval(), features(1, seed=seed), scene.make_sample(seed, (3, 0, 4))
    expected = naive_losses(head([x[0, [0, 2]] for x in inputs]), sample, [0, 2])
    got = {name: value.item() for name, value in head.loss(inputs, [sample]).items()}
    assert got == pytest.approx(expected, rel=1e-4)


def test_predictions_at_the_truth_are_the_boxes_in_lidar(monkeypatch: pytest.MonkeyPatch) -> None:
    head, sample = tiny(), scene.make_sample(4, (2, 0, 3))
    monkeypatch.setattr(head, 'forward', lambda _: true_outputs(head, sample, [0, 1, 2]))
    got, = head.predict(features(1), [sample.metainfo])
    found = sample.gt_instances_perspective
    assert got.bboxes_3d.tensor.shape[1] == 9 and not (got.cameras == 1).any()
    matrices = sample.metainfo['lidar2cam'][found.cameras]
    centers = np.stack([m[:3, :3].T @ (center - m[:3, 3]) for m, center in zip(
        matrices, found.centers.double().numpy(), strict=True)])
    distances = np.linalg.norm(
        got.bboxes_3d.gravity_center.numpy()[:, None] - centers, axis=-1)
    nearest = distances.argmin(1)
    # Small boxes may have no location of their own; what is predicted is right.
    assert distances.min(1).max() < 1e-3 and len(set(nearest)) >= 3
    assert torch.equal(got.labels_3d, found.labels[nearest])
    assert torch.equal(got.cameras, found.cameras[nearest])
    np.testing.assert_allclose(got.bboxes_3d.dims, found.sizes[nearest][:, [1, 0, 2]], rtol=1e-3)
    np.testing.assert_allclose(got.bboxes_3d.tensor[:, 7:].norm(dim=1), found.speeds[nearest],
                               rtol=1e-3)
    heading = [(m[:3, :3].T @ Rotation.from_quat(q[[1, 2, 3, 0]]).as_matrix())[:, 0]
               for m, q in zip(matrices[nearest], found.quaternions[nearest].numpy(), strict=True)]
    difference = got.bboxes_3d.yaw.numpy() - [np.arctan2(h[1], h[0]) for h in heading]
    np.testing.assert_allclose(np.cos(difference), 1, atol=1e-5)


def gradients(head: PerspectiveHead, inputs: list[torch.Tensor],
              samples: list[object]) -> dict[str, float]:
    """Losses, after a backward pass that must reach every parameter and every input."""
    got = head.loss(inputs, samples)
    assert set(got) == LOSSES
    sum(got.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert all(x.grad.isfinite().all() for x in inputs)
    return {name: value.item() for name, value in got.items()}


def test_one_sample_is_learned_by_heart() -> None:
    head, inputs, sample = tiny(num_convs=2), features(1), scene.make_sample(5, (3, 0, 4))
    optimizer = torch.optim.AdamW(head.parameters(), 2e-2)
    history = []
    for _ in range(60):
        found = head.loss(inputs, [sample])
        history.append({name: value.item() for name, value in found.items()})
        optimizer.zero_grad()
        sum(found.values()).backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 35)
        optimizer.step()
    first, last = history[0], history[-1]
    soft = {'loss_centerness_mono', 'loss_conf3d_mono'}  # their targets are between 0 and 1
    assert all(last[name] < (0.9 if name in soft else 0.2) * first[name] for name in first)


def test_loss_reaches_every_parameter_and_only_annotated_pictures() -> None:
    head, inputs = tiny(), features(2)
    samples = [scene.make_sample(5, (2, 0, 3)), scene.make_sample(6, (0, 0, 4))]
    got = gradients(head, inputs, samples)
    assert all(0 < value < 1e4 for value in got.values())
    assert all(parameter.grad.any() for parameter in head.parameters())
    reached = (inputs[0].grad.abs().amax((2, 3, 4)) > 0).tolist()
    assert reached == [[True, False, True], [False, False, True]]


def test_without_annotations_all_is_zero_but_reaches_everything() -> None:
    head, inputs = tiny(), features(2)
    got = gradients(head, inputs, [scene.make_sample(seed, (0, 0, 0)) for seed in (0, 1)])
    assert set(got.values()) == {0.0}
    assert not any(parameter.grad.any() for parameter in head.parameters())


def test_without_a_positive_location_only_classes_learn() -> None:
    head, inputs, sample = tiny(), features(1), scene.make_sample(7, (1, 0, 0))
    sample.gt_instances_perspective.bboxes[:] = torch.tensor([81., 41, 83, 43])  # between locations
    got = gradients(head, inputs, [sample])
    assert got.pop('loss_cls_mono') > 0
    assert set(got.values()) == {0.0}


@pytest.mark.parametrize('counts', [(0, 0, 0), (1, 0, 0), (3, 2, 1)])
def test_processes_wait_for_each_other_alike(counts: tuple[int, ...],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []

    def reduce(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(tensor.tolist())
        return tensor

    monkeypatch.setattr(module, 'reduce_mean', reduce)
    tiny().loss(features(1), [scene.make_sample(8, counts)])
    assert len(seen) == 1 and len(seen[0]) == 2


class Trained(torch.nn.Module):
    """A head whose forward pass is its loss, as DistributedDataParallel wants it."""

    def __init__(self, head: PerspectiveHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, inputs: list[torch.Tensor], samples: list[object]) -> torch.Tensor:
        return sum(self.head.loss(inputs, samples).values())


def train_together(rank: int, folder: Path) -> None:
    """One step of two processes, of which the second has no annotation; writes its gradients."""
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', f'file://{folder / "meet"}', rank=rank, world_size=2)
    # The default of DDP: a parameter without a gradient would be waited for.
    model = torch.nn.parallel.DistributedDataParallel(Trained(tiny()))
    model(features(1, seed=rank), [scene.make_sample(5, (2, 0, 3) if rank == 0 else (0, 0, 0))]
          ).backward()
    torch.save([parameter.grad for parameter in model.parameters()], folder / f'{rank}.pt')
    distributed.destroy_process_group()


def test_a_process_without_annotations_does_not_keep_others_waiting(tmp_path: Path) -> None:
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=train_together, args=(rank, tmp_path), daemon=True)
                 for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f'{rank}.pt') for rank in range(2))
    # The mean with a process that has no loss, but whose denominators are halved, is as if alone;
    # attributes have a denominator of their own.
    alone = tiny()
    sum(alone.loss(features(1), [scene.make_sample(5, (2, 0, 3))]).values()).backward()
    for (name, parameter), one, other in zip(alone.named_parameters(), first, second, strict=True):
        torch.testing.assert_close(one, other, msg=name)
        if name.startswith(('fcos3d_head.', 'attr_logits.')):
            share = 0.5 if name.startswith('attr') else 1
            torch.testing.assert_close(one, parameter.grad * share, rtol=1e-4, atol=1e-6, msg=name)


def test_other_processes_count_in_the_denominators(monkeypatch: pytest.MonkeyPatch) -> None:
    head, sample = tiny().eval(), scene.make_sample(9, (3, 2, 1))
    alone = head.loss(features(1), [sample])
    monkeypatch.setattr(module, 'reduce_mean', lambda tensor: tensor * 4)
    got = head.loss(features(1), [sample])
    for name, value in got.items():
        factor = 1 if name == 'loss_attr_mono' else 4
        assert value.item() * factor == pytest.approx(alone[name].item(), rel=1e-5), name


def test_a_batch_is_its_samples() -> None:
    head, inputs = tiny(test_cfg=dict(score_thr=0.2)).eval(), features(2)
    metas = [scene.make_sample(seed).metainfo for seed in (1, 2)]
    metas[1]['cam2img'] = metas[1]['cam2img'] * [[[1.2], [1.1], [1]]]
    together = head.predict(inputs, metas)
    for index, meta in enumerate(metas):
        alone, = head.predict([x[index:index + 1] for x in inputs], [meta])
        assert len(alone) > 5
        for name in ('scores_3d', 'labels_3d', 'cameras'):
            torch.testing.assert_close(together[index][name], alone[name])
        torch.testing.assert_close(together[index].bboxes_3d.tensor, alone.bboxes_3d.tensor,
                                   rtol=1e-4, atol=1e-4)


def test_of_a_view_the_best_are_left() -> None:
    limits = dict(score_thr=0.2, nms_pre=30, max_per_view=7)
    inputs, meta = features(1), scene.make_sample(1).metainfo
    got, = tiny(test_cfg=limits).eval().predict(inputs, [meta])
    more, = tiny(test_cfg=limits | dict(max_per_view=50)).eval().predict(inputs, [meta])
    for camera in range(3):
        scores = more.scores_3d[more.cameras == camera]
        assert len(scores) > 7 and torch.equal(scores, scores.sort(descending=True).values)
        assert torch.equal(got.scores_3d[got.cameras == camera], scores[:7])
    empty, = tiny(test_cfg=dict(score_thr=0.999)).eval().predict(inputs, [meta])
    assert len(empty) == 0 and empty.bboxes_3d.tensor.shape == (0, 9)


def test_candidates_are_the_loops() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = [torch.randn(count, 3, generator=generator) for count in (9, 4)]
    center = [torch.randn(count, 1, generator=generator) for count in (9, 4)]
    location, label, score = module._candidates(logits, center, 0.3, 5)
    expected, start = [], 0
    for one, other in zip(logits, center, strict=True):
        level = [(float(one[place, c].sigmoid() * other[place, 0].sigmoid()), place + start, c)
                 for place in range(len(one)) for c in range(3)]
        expected += sorted([entry for entry in level if entry[0] > 0.3], reverse=True)[:5]
        start += len(one)
    assert list(zip(location.tolist(), label.tolist(), strict=True)) == [e[1:] for e in expected]
    assert score.tolist() == pytest.approx([e[0]**0.5 for e in expected])


def test_bfloat16_autocast_is_finite_and_close() -> None:
    head, inputs, sample = tiny(), features(1), scene.make_sample(10, (3, 2, 1))
    expected = {name: value.item() for name, value in head.loss(inputs, [sample]).items()}
    with torch.autocast('cpu', torch.bfloat16):
        got = gradients(head, inputs, [sample])
        proposals, = head.eval().predict(inputs, [sample.metainfo])
    assert proposals.bboxes_3d.tensor.isfinite().all()
    assert got == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(classes=('car', 'tram')), r"classes is not valid: .* of \['tram'\] in canonical_sizes"),
    (dict(classes=('tram',), canonical_sizes=dict(tram=(2, 9))), 'canonical_sizes is not valid'),
    (dict(mean_depth_per_level=(1, 2, 3)), 'mean_depth_per_level is not valid: got 3 values'),
    (dict(loss_weights=dict(depth=1)), r"loss_weights is not valid: got \['depth'\]"),
    (dict(test_cfg=dict(nms=1)), 'test_cfg is not valid'),
])
def test_wrong_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


@pytest.mark.parametrize('call', [lambda head, x, sample: head(x),
                                  lambda head, x, sample: head.loss(x, [sample])])
def test_wrong_number_of_levels_is_refused(call: Callable) -> None:
    with pytest.raises(ValueError, match='features are not valid: got 1 levels'):
        call(tiny(), features(1)[:1], scene.make_sample(0))


def test_own_classes_and_weights() -> None:
    head = tiny(classes=('car', 'tram'), canonical_sizes=dict(tram=(2.5, 30, 3.5)), loss_weight=2.0,
                loss_weights=dict(box3d=3.0), norm_cfg=dict(type='GN', num_groups=2))
    assert head.canonical_sizes.tolist() == [pytest.approx(module.CANONICAL_SIZES['car']),
                                             [2.5, 30, 3.5]]
    assert head.loss_weights['box3d'] == 6 and head.loss_weights['attr'] == 0.4
    maps = head([x.flatten(0, 1) for x in features(1)])
    assert [tuple(x.shape) for x in maps.size] == [(3, 6, *shape) for shape in SHAPES]
