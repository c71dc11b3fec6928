"""The perspective head of BEVFormer v2: monocular 3-D boxes from each picture alone.

In training it gives backbone and neck a loss of their own; its predictions are proposals for hybrid
object queries (``mmdet3d_custom/models/hybrid_queries.py``), which the release has not.
Source: DD3D (arXiv:2108.06417), BEVFormer v2 (arXiv:2211.10439) and its release.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmdet.utils import reduce_mean
from mmdet3d.registry import MODELS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.ops import batched_nms, sigmoid_focal_loss

from mmdet3d_custom.models import perspective_losses as losses
from mmdet3d_custom.models import perspective_targets as targets
from mmdet3d_custom.models.bev_attention import at_least_float32
from mmdet3d_custom.models.perspective_geometry import (
    CameraBoxes,
    camera_boxes,
    decode_boxes,
    to_lidar,
)
from mmdet3d_custom.models.perspective_layers import (
    FCOS2DHead,
    FCOS3DHead,
    predictor,
)

# Width, length and height in m of nuScenes' classes, in the order of the published heads.
CANONICAL_SIZES = {
    'barrier': (2.3524184, 0.5062202, 1.0413622),
    'bicycle': (0.61416006, 1.7016163, 1.3054738),
    'bus': (2.9139307, 10.725025, 3.2832346),
    'car': (1.9751819, 4.641267, 1.74352),
    'construction_vehicle': (2.772134, 6.565072, 3.2474296),
    'motorcycle': (0.7800532, 2.138673, 1.4437162),
    'pedestrian': (0.6667362, 0.7181772, 1.7616143),
    'traffic_cone': (0.40246472, 0.4027083, 1.0084083),
    'trailer': (3.0059454, 12.8197, 4.1213827),
    'truck': (2.4986045, 6.9310856, 2.8382742),
}
NUM_ATTRIBUTES = 3
_WEIGHTS = {'cls': 1.0, 'box2d_reg': 1.0, 'centerness': 1.0, 'box3d': 2.0, 'conf3d': 1.0,
            'attr': 0.2, 'speed': 0.2}
_TEST = {'score_thr': 0.05, 'nms_pre': 1000, 'iou_threshold': 0.75, 'max_per_view': 100}


class PerspectiveOutputs(NamedTuple):
    """Maps of every level, each (n, channels, h, w) in float32.

    Attributes:
        cls_logits: ``num_classes`` channels.
        box2d_reg: 4: left, top, right, bottom in pixels, not negative.
        centerness: 1, a logit.
        quat: 4 * ``num_classes``, the class being the fast axis, as in those that follow.
        ctr: 2 * ``num_classes``, pixels.
        depth: ``num_classes``.
        size: 3 * ``num_classes``.
        conf: ``num_classes``, logits.
        attr_logits: 3.
        speed: 1, in m/s, not negative.
    """

    cls_logits: list[Tensor]
    box2d_reg: list[Tensor]
    centerness: list[Tensor]
    quat: list[Tensor]
    ctr: list[Tensor]
    depth: list[Tensor]
    size: list[Tensor]
    conf: list[Tensor]
    attr_logits: list[Tensor]
    speed: list[Tensor]


@MODELS.register_module()
class PerspectiveHead(BaseModule):
    """FCOS with the 3-D boxes of DD3D, attributes and speed, on every picture of a sample.

    The layers are shared by the levels, except for the norms and the scales. All that follows the
    convolutions is in float32, under autocast too. Names of parameters are the published ones.

    Args:
        classes: Names, in the order of labels.
        in_channels: C of the features, and of all towers.
        strides: Of the levels, in pixels.
        num_convs: Of each tower.
        norm_cfg: Norm after each convolution of a tower, one for each level.
        canonical_sizes: Width, length and height in m of classes, added to nuScenes'.
        mean_depth_per_level: What the depth of each level starts at.
        std_depth_per_level: What the depth of each level is scaled with at first, times 0.3.
        depth_range: Least and greatest depth in m.
        focal_factor: Depth is predicted for a camera whose pixel has a diagonal of
            ``1 / focal_factor`` at depth 1.
        ranges: Distances in pixels from a location to the farthest side of its box, for each level.
        center_radius: Radius in strides of the locations around the center of a box.
        beta: Of the smooth L1 losses, in m and m/s.
        temperature: Error in m at which the target of the confidence is 1/e.
        loss_weight: Factor on all losses.
        loss_weights: Factors that differ from the published: ``cls``, ``box2d_reg``,
            ``centerness``, ``box3d`` (of four losses), ``conf3d``, ``attr``, ``speed``.
        test_cfg: What differs from the published: ``score_thr`` on class times centerness,
            ``nms_pre`` locations of a level, ``iou_threshold`` of the 2-D NMS, ``max_per_view``.
        init_cfg: See ``BaseModule``.

    Raises:
        ValueError: An argument is not valid.
    """

    def __init__(self, classes: Sequence[str] = tuple(CANONICAL_SIZES), in_channels: int = 256,
                 strides: Sequence[int] = (8, 16, 32, 64, 128), num_convs: int = 4,
                 norm_cfg: dict | None = None,
                 canonical_sizes: dict[str, Sequence[float]] | None = None,
                 mean_depth_per_level: Sequence[float] = (44.921, 20.252, 11.712, 7.166, 8.548),
                 std_depth_per_level: Sequence[float] = (24.331, 9.833, 6.223, 4.611, 8.275),
                 depth_range: tuple[float, float] = (0.1, 80.0), focal_factor: float = 500.0,
                 ranges: Sequence[tuple[float, float]] = (
                     (-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8)),
                 center_radius: float = 1.5, beta: float = 0.05, temperature: float = 1.0,
                 loss_weight: float = 1.0, loss_weights: dict[str, float] | None = None,
                 test_cfg: dict[str, float] | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        for name, values in (('mean_depth_per_level', mean_depth_per_level), ('ranges', ranges),
                             ('std_depth_per_level', std_depth_per_level)):
            if len(values) != len(strides):
                raise ValueError(f'{name} is not valid: got {len(values)} values, expected one '
                                 f'for each of the {len(strides)} strides; correct either')
        self.classes, self.strides = tuple(classes), tuple(strides)
        self.ranges, self.center_radius = tuple(ranges), center_radius
        self.depth_range, self.focal_factor = tuple(depth_range), focal_factor
        self.beta, self.temperature = beta, temperature
        weights = _merged('loss_weights', _WEIGHTS, loss_weights)
        self.loss_weights = {name: weight * loss_weight for name, weight in weights.items()}
        self.test_cfg = _merged('test_cfg', _TEST, test_cfg)
        sizes = _canonical_sizes(self.classes, canonical_sizes or {})
        self.register_buffer('canonical_sizes', sizes, persistent=False)
        norm_cfg = norm_cfg or dict(type='BN')
        self.fcos2d_head = FCOS2DHead(len(self.classes), in_channels, strides, num_convs, norm_cfg)
        self.fcos3d_head = FCOS3DHead(len(self.classes), in_channels, strides, num_convs, norm_cfg,
                                       mean_depth_per_level, std_depth_per_level)
        self.attr_logits = predictor(in_channels, NUM_ATTRIBUTES)
        self.speed = predictor(in_channels, 1)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def init_weights(self) -> None:
        """Kaiming normal (fan out) in towers, kaiming uniform in predictors, biases zero."""
        for name, module in self.named_modules():
            if not isinstance(module, nn.Conv2d):
                continue
            if '_tower.' in name:
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            else:
                nn.init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        super().init_weights()

    def forward(self, features: Sequence[Tensor]) -> PerspectiveOutputs:
        """Maps of all predictions.

        Args:
            features: Of each level, (n, C, h, w).
        """
        self._check_levels(features)
        cls_tower, maps = self.fcos2d_head(features)
        maps |= self.fcos3d_head(features)
        maps['attr_logits'] = [at_least_float32(self.attr_logits(x)) for x in cls_tower]
        maps['speed'] = [at_least_float32(self.speed(x)).relu() for x in cls_tower]
        return PerspectiveOutputs(**maps)

    def loss(self, features: Sequence[Tensor],
             batch_data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Losses of the pictures that have an annotation.

        Args:
            features: Of each level, (B, cameras, C, h, w), un-flipped.
            batch_data_samples: B samples with ``gt_instances_perspective`` and ``cam2img``, see
                ``docs/bevformer_v2.md``.

        Returns:
            Scalars whose names end in ``_mono``. Where no picture has an annotation all are zero,
            with zero gradients for all parameters.

        Raises:
            ValueError: An annotation is missing or does not fit.
        """
        self._check_levels(features)
        found = targets.gather_annotations(batch_data_samples, features[0].shape[1],
                                           self.num_classes, features[0].device)
        outputs = self([x.flatten(0, 1)[found.pictures] for x in features])
        with torch.autocast(features[0].device.type, enabled=False):
            return {f'{name}_mono': value for name, value in self._losses(outputs, found).items()}

    def _losses(self, outputs: PerspectiveOutputs, found: targets.Annotations) -> dict[str, Tensor]:
        """Losses by name, before the suffix."""
        locations = self._locations(outputs)
        matched = self._match(locations, found)
        picture, location = (matched >= 0).nonzero(as_tuple=True)
        index = matched[picture, location]
        labels = found.labels[index]
        at = {name: _flat(maps)[picture, location]
              for name, maps in outputs._asdict().items() if name != 'cls_logits'}
        points = torch.cat(locations)[location]
        sides = targets.box_sides(points, found.bboxes[index])
        weights = targets.centerness(sides)
        # Before anything that may differ between processes: each takes part, with or without boxes.
        count, weight = reduce_mean(torch.stack([
            weights.new_tensor(len(index)), weights.sum()])).clamp(min=1e-6)
        count = count.clamp(min=1)

        logits = _flat(outputs.cls_logits)
        wanted = torch.zeros_like(logits)
        wanted[picture, location, labels] = 1
        # Only where no picture has an annotation; the picture that stands in teaches nothing.
        has_boxes = float(len(found.labels) > 0)
        values = {
            'cls': sigmoid_focal_loss(logits, wanted, reduction='sum') * has_boxes / count,
            'box2d_reg': (losses.giou_loss(at['box2d_reg'], sides) * weights).sum() / weight,
            'centerness': F.binary_cross_entropy_with_logits(
                at['centerness'][:, 0], weights, reduction='sum') / count,
            'attr': losses.attribute_loss(at['attr_logits'], found.attributes[index],
                                          targets.IGNORED_ATTRIBUTE),
            'speed': losses.speed_loss(at['speed'][:, 0], found.speeds[index], weights,
                                       self.beta) / weight,
        }
        values |= self._losses_3d(at, labels, points, found, index, weights / weight)
        return {f'loss_{name}': value * self.loss_weights[
                    'box3d' if name.startswith('box3d_') else name]
                for name, value in values.items()}

    def _losses_3d(self, at: dict[str, Tensor], labels: Tensor, points: Tensor,
                   found: targets.Annotations, index: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Losses of the 3-D boxes, by name.

        Args:
            at: Predictions at P positive locations.
            labels: (P,).
            points: (P, 2), the locations.
            found: The annotations.
            index: (P,), which of them each location stands for.
            weights: (P,), with the denominator in them.
        """
        inverse = found.inverse_intrinsics[found.picture[index]]
        boxes = self._decode(at, labels, points, inverse)
        true = camera_boxes(found.quaternions[index], found.centers[index], found.sizes[index],
                            inverse)
        values = {f'box3d_{name}': (value * weights).sum() for name, value in
                  losses.disentangled_losses(boxes, true, self.beta).items()}
        confidence = losses.confidence_targets(boxes, true, self.temperature)
        logits = _of_class(at['conf'], labels, self.num_classes)[:, 0]
        values['conf3d'] = (F.binary_cross_entropy_with_logits(
            logits, confidence, reduction='none') * weights).sum()
        return values

    def _decode(self, at: dict[str, Tensor], labels: Tensor, points: Tensor,
                inverse: Tensor) -> CameraBoxes:
        """Boxes of class ``labels`` (P,) from predictions at ``points`` (P, 2)."""
        quat, ctr, depth, size = (_of_class(at[name], labels, self.num_classes)
                                  for name in ('quat', 'ctr', 'depth', 'size'))
        return decode_boxes(quat, ctr, depth[:, 0], size, points, inverse,
                            self.canonical_sizes[labels], self.depth_range, self.focal_factor)

    def _match(self, locations: list[Tensor], found: targets.Annotations) -> Tensor:
        """(I, R) int64: the annotation that each location of each picture stands for, or -1."""
        rows = []
        for picture in range(len(found.pictures)):
            index = (found.picture == picture).nonzero()[:, 0]
            row = targets.assign_locations(locations, self.strides, self.ranges,
                                           self.center_radius, found.bboxes[index])
            rows.append(torch.where(row < 0, row, index[row]) if len(index) else row)
        return torch.stack(rows)

    @torch.no_grad()
    def predict(self, features: Sequence[Tensor],
                batch_img_metas: Sequence[dict[str, Any]]) -> list[InstanceData]:
        """Boxes of all cameras of each sample, in its LiDAR frame.

        Of each view the best ``max_per_view`` are left after a 2-D NMS of each class; views are
        not compared. Velocity is the speed along the box's x axis.

        Args:
            features: Of each level, (B, cameras, C, h, w), un-flipped.
            batch_img_metas: Of each sample ``cam2img``, ``lidar2cam`` and ``img_shape``.

        Returns:
            Of each sample ``bboxes_3d`` (n boxes with 9 columns), ``scores_3d`` (n,), ``labels_3d``
            (n,) and ``cameras`` (n,), view by view, the best first.
        """
        self._check_levels(features)
        count = features[0].shape[1]
        outputs = self([x.flatten(0, 1) for x in features])
        locations = self._locations(outputs)
        inverse = targets.inverse_intrinsics(batch_img_metas, features[0].device)
        results = []
        with torch.autocast(features[0].device.type, enabled=False):
            for sample, meta in enumerate(batch_img_metas):
                views = [self._predict_view(outputs, sample * count + camera, locations,
                                            inverse[sample * count + camera], meta, camera)
                         for camera in range(count)]
                rows, scores, labels, cameras = map(torch.cat, zip(*views, strict=True))
                results.append(InstanceData(
                    bboxes_3d=LiDARInstance3DBoxes(rows, box_dim=9, origin=(0.5, 0.5, 0.5)),
                    scores_3d=scores, labels_3d=labels, cameras=cameras))
        return results

    def _predict_view(self, outputs: PerspectiveOutputs, picture: int, locations: list[Tensor],
                      inverse: Tensor, meta: dict[str, Any], camera: int) -> tuple[Tensor, ...]:
        """Rows (n, 9) in LiDAR, scores (n,), labels (n,) and camera (n,) of one picture."""
        maps = {name: [x[picture].flatten(1).T for x in level]
                for name, level in outputs._asdict().items()}
        location, labels, scores = _candidates(
            maps['cls_logits'], maps['centerness'], self.test_cfg['score_thr'],
            int(self.test_cfg['nms_pre']))
        at = {name: torch.cat(level)[location] for name, level in maps.items()}
        points = torch.cat(locations)[location]
        scores = scores * _of_class(at['conf'], labels, self.num_classes)[:, 0].sigmoid()
        sides = at['box2d_reg']
        flat = torch.cat([points - sides[:, :2], points + sides[:, 2:]], 1)
        height, width = meta['img_shape'][:2]
        # Clipped before, as the NMS of classes relies on coordinates that are not negative.
        flat = flat.clamp(min=0).minimum(flat.new_tensor([width, height, width, height]))
        keep = batched_nms(flat, scores, labels, self.test_cfg['iou_threshold'])
        keep = keep[:int(self.test_cfg['max_per_view'])]
        at = {name: value[keep] for name, value in at.items()}
        boxes = self._decode(at, labels[keep], points[keep], inverse.expand(len(keep), 3, 3))
        lidar2cam = torch.as_tensor(meta['lidar2cam'][camera], dtype=torch.float64,
                                    device=flat.device)
        rows = to_lidar(boxes, lidar2cam.expand(len(keep), 4, 4), at['speed'][:, 0])
        return rows, scores[keep], labels[keep], torch.full_like(labels[keep], camera)

    def _locations(self, outputs: PerspectiveOutputs) -> list[Tensor]:
        shapes = [tuple(x.shape[-2:]) for x in outputs.cls_logits]
        return targets.level_locations(shapes, self.strides, outputs.cls_logits[0].device)

    def _check_levels(self, features: Sequence[Tensor]) -> None:
        if len(features) != len(self.strides):
            raise ValueError(f'features are not valid: got {len(features)} levels, expected one '
                             f'for each of the strides {self.strides}; change num_mono_levels of '
                             'the detector or the strides of the head')


def _flat(maps: Sequence[Tensor]) -> Tensor:
    """(n, R, channels) of maps (n, channels, h, w), the levels one after the other."""
    return torch.cat([x.flatten(2) for x in maps], -1).transpose(1, 2)


def _of_class(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(P, components) of (P, components * classes), for the class of each row."""
    values = values.unflatten(1, (-1, num_classes))
    return values[torch.arange(len(labels), device=labels.device), :, labels]


def _candidates(cls_logits: Sequence[Tensor], centerness: Sequence[Tensor], threshold: float,
                limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Index of location, label and score (n,) of what is worth comparing in a picture.

    Args:
        cls_logits: (R_l, classes) of each level.
        centerness: (R_l, 1).
        threshold: On probability of the class times centerness; the score is its root.
        limit: Of each level.
    """
    found, start = [], 0
    for logits, center in zip(cls_logits, centerness, strict=True):
        scores = logits.sigmoid() * center.sigmoid()
        location, label = (scores > threshold).nonzero(as_tuple=True)
        value, best = scores[location, label].topk(min(limit, len(location)))
        found.append((location[best] + start, label[best], value.sqrt()))
        start += len(logits)
    location, label, score = map(torch.cat, zip(*found, strict=True))
    return location, label, score


def _merged(name: str, defaults: dict[str, float],
            changes: dict[str, float] | None) -> dict[str, float]:
    """The defaults with changes, all of whose keys must be known."""
    unknown = sorted(set(changes or {}) - set(defaults))
    if unknown:
        raise ValueError(f'{name} is not valid: got {unknown}, expected some of '
                         f'{sorted(defaults)}; correct the name')
    return defaults | dict(changes or {})


def _canonical_sizes(classes: Sequence[str], given: dict[str, Sequence[float]]) -> Tensor:
    """(classes, 3) float32 from nuScenes' sizes and the given ones."""
    sizes = CANONICAL_SIZES | {name: tuple(size) for name, size in given.items()}
    missing = [name for name in classes if name not in sizes]
    if missing or not classes:
        raise ValueError(f'classes is not valid: got {list(classes)}, expected names with a '
                         f'canonical size; name width, length and height of {missing} in '
                         'canonical_sizes')
    wrong = [name for name in classes if len(sizes[name]) != 3 or min(sizes[name]) <= 0]
    if wrong:
        raise ValueError(f'canonical_sizes is not valid: got {sizes[wrong[0]]} for {wrong[0]}, '
                         'expected three positive numbers: width, length, height in m')
    return torch.tensor([sizes[name] for name in classes], dtype=torch.float32)
