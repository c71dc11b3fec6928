"""The BEV head: queries, branches, losses and predictions.

Source: C. Yang et al., "BEVFormer v2", arXiv:2211.10439, and its release, whose parameter names
and losses these are.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.models.layers import LearnedPositionalEncoding
from mmdet.models.losses import FocalLoss, SmoothL1Loss
from mmdet.utils import reduce_mean
from mmdet3d.registry import MODELS, TASK_UTILS
from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModule, bias_init_with_prob
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet3d_custom.models.bev_decoder import run_in_float32
from mmdet3d_custom.models.bev_encoder import PC_RANGE
from mmdet3d_custom.models.bev_transformer import PerceptionTransformerV2
from mmdet3d_custom.models.box_coding import CODE_SIZE, BoxSelector, encode_boxes, refer_codes
from mmdet3d_custom.models.matching import HungarianMatcher3D
from mmdet3d_custom.models.temporal_fusion import fill_missing

_POST_CENTER_RANGE = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
_PRIOR = 0.01

Meta = dict[str, Any]


class HeadOutputs(NamedTuple):
    """Predictions of all layers; G groups of Q queries each, extra ones included.

    Attributes:
        logits: (layers, B, G, Q, classes), float32.
        codes: (layers, B, G, Q, 10) in m and m/s, float32.
        valid: (B, Q) bool, which queries count; the same in each group.
    """

    logits: Tensor
    codes: Tensor
    valid: Tensor


def _cls_branch(channels: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU(inplace=True),
        nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU(inplace=True),
        nn.Linear(channels, classes))


def _reg_branch(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, channels), nn.ReLU(inplace=True),
        nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, CODE_SIZE))


@MODELS.register_module()
class BEVFormerHead(BaseModule):
    """Head on BEV maps, with groups of queries in training.

    In training there are ``num_groups`` groups of queries, each matched on its own, and losses are
    means over groups; otherwise the first group is all there is.

    Args:
        num_classes: Number of classes.
        num_query: Q, learned queries of a group.
        num_groups: Groups in training (Group DETR).
        bev_h: Hb, cells along the LiDAR's y.
        bev_w: Wb, cells along its x.
        embed_dims: C.
        pc_range: Minimum and maximum (x, y, z, x, y, z) of the map in m.
        frames: Offsets of the frames in key frames, ascending, 0 among them.
        transformer: Config of the transformer; missing are ``embed_dims``, ``pc_range`` and
            ``num_frames``.
        matcher: Config of the assignment.
        loss_cls_weight: Factor on the focal loss.
        loss_bbox_weight: Factor on the smooth L1 loss.
        code_weights: Of the ten entries of the code in that loss.
        post_center_range: Of the predicted centers that are kept.
        max_num: Boxes of a sample.
        hybrid_queries: Config of the module that makes extra queries of proposals, called with
            (proposals, batch_img_metas), which gives an :class:`ExtraQueries`; missing are
            ``embed_dims`` and ``pc_range``. ``None``: the head never sees proposals.
        init_cfg: As in mmengine.

    Raises:
        ValueError: An argument is not valid.
    """

    def __init__(self, num_classes: int = 10, num_query: int = 900, num_groups: int = 11,
                 bev_h: int = 200, bev_w: int = 200, embed_dims: int = 256,
                 pc_range: Sequence[float] = PC_RANGE, frames: Sequence[int] = (0,),
                 transformer: dict | None = None, matcher: dict | None = None,
                 loss_cls_weight: float = 2.0, loss_bbox_weight: float = 0.75,
                 code_weights: Sequence[float] = (1.0,) * 8 + (0.2, 0.2),
                 post_center_range: Sequence[float] = _POST_CENTER_RANGE, max_num: int = 300,
                 hybrid_queries: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.frames = check_frames(frames)
        self.current = self.frames.index(0)
        self.num_classes = num_classes
        self.num_query = num_query
        self.num_groups = num_groups
        self.bev_shape = (bev_h, bev_w)
        self.pc_range = tuple(float(bound) for bound in pc_range)
        shared = dict(embed_dims=embed_dims, pc_range=self.pc_range)
        self.transformer = MODELS.build(
            transformer or dict(type=PerceptionTransformerV2),
            default_args=dict(num_frames=len(self.frames), **shared))
        self.matcher = TASK_UTILS.build(matcher or dict(type=HungarianMatcher3D))
        self.selector = BoxSelector(post_center_range, max_num)
        self.loss_cls = FocalLoss(loss_weight=loss_cls_weight)
        self.loss_bbox = SmoothL1Loss(beta=1.0, loss_weight=loss_bbox_weight)
        self.code_weights = nn.Parameter(torch.tensor(code_weights), requires_grad=False)
        self.bev_embedding = nn.Embedding(bev_h * bev_w, embed_dims)
        self.positional_encoding = LearnedPositionalEncoding(embed_dims // 2, bev_h, bev_w)
        self.query_embedding = nn.Embedding(num_query * num_groups, 2 * embed_dims)
        layers = len(self.transformer.decoder.layers)
        self.cls_branches = nn.ModuleList(
            _cls_branch(embed_dims, num_classes) for _ in range(layers))
        self.reg_branches = nn.ModuleList(_reg_branch(embed_dims) for _ in range(layers))
        self.hybrid_queries = None
        if hybrid_queries is not None:
            self.hybrid_queries = MODELS.build(hybrid_queries, default_args=shared)

    def init_weights(self) -> None:
        """Of the parts; scores start near 0.01."""
        super().init_weights()
        for branch in self.cls_branches:
            nn.init.constant_(branch[-1].bias, bias_init_with_prob(_PRIOR))

    def encode(self, features: Sequence[Tensor], batch_img_metas: Sequence[Meta],
               frame: int) -> Tensor:
        """The BEV map of a frame, turned by the BEV augmentation.

        Args:
            features: Levels (B, N, C, h, w) of this frame, un-flipped.
            batch_img_metas: Metainfo of the B samples.
            frame: Index into ``frames``.

        Returns:
            (B, Hb * Wb, C).

        Raises:
            ValueError: Features or metainfo do not fit.
        """
        device = features[0].device
        cameras = features[0].shape[1]
        matrices = _matrices(batch_img_metas, 'lidar2img', (len(self.frames), cameras, 4, 4))
        bda = None
        if any('bda' in meta for meta in batch_img_metas):
            bda = _matrices([{'bda': meta.get('bda', np.eye(3))} for meta in batch_img_metas],
                            'bda', (3, 3)).to(device)
        mask = torch.zeros(1, *self.bev_shape, device=device)
        position = self.positional_encoding(mask).flatten(2).transpose(1, 2)[0]
        return self.transformer.encode(
            features, self.bev_embedding.weight, position, matrices[:, frame].to(device),
            _image_shape(batch_img_metas), self.bev_shape, bda)

    def forward(self, features: Sequence[Tensor], batch_img_metas: Sequence[Meta],
                history: Sequence[Tensor | None] | None = None,
                proposals: Sequence[InstanceData] | None = None) -> HeadOutputs:
        """Predictions of all layers.

        Args:
            features: Levels (B, N, C, h, w) of the current frame, un-flipped.
            batch_img_metas: Metainfo of the B samples.
            history: T maps (B, Hb * Wb, C) of the frames; ``None`` for the current one and for
                frames that no sample has. Rows of frames that a sample lacks (``frame_valid``)
                are replaced. May be ``None`` where the current frame is the only one.
            proposals: Of each sample; used with ``hybrid_queries`` only.

        Returns:
            The predictions.

        Raises:
            ValueError: An argument does not fit the others.
        """
        bev = self._fused(self.encode(features, batch_img_metas, self.current), batch_img_metas,
                          history)
        extra = None
        if self.hybrid_queries is not None:
            if proposals is None:
                raise ValueError('proposals is not valid: got None, expected those of each sample '
                                 'with hybrid_queries; give the detector a perspective head')
            extra = self.hybrid_queries(proposals, batch_img_metas)
        groups = self.num_groups if self.training else 1
        found = self.transformer.decode(
            bev, self.query_embedding.weight[:groups * self.num_query], self.bev_shape,
            self.reg_branches, groups, extra)
        logits = torch.stack([run_in_float32(branch, states) for branch, states in
                              zip(self.cls_branches, found.states, strict=True)])
        codes = refer_codes(torch.stack(found.raw_codes), torch.stack(found.references),
                            self.pc_range)
        valid = torch.ones(bev.shape[0], self.num_query, dtype=torch.bool, device=bev.device)
        if extra is not None:
            valid = torch.cat([valid, extra.valid], 1)
        return HeadOutputs(logits.unflatten(2, (groups, -1)), codes.unflatten(2, (groups, -1)),
                           valid)

    def _fused(self, bev: Tensor, batch_img_metas: Sequence[Meta],
               history: Sequence[Tensor | None] | None) -> Tensor:
        """The current map with those of the other frames."""
        if len(self.frames) == 1:
            return bev
        if history is None or len(history) != len(self.frames):
            got = None if history is None else f'{len(history)} maps'
            raise ValueError(f'history is not valid: got {got}, expected one map for each of '
                             f'frames={self.frames}')
        maps = [bev if frame == self.current else past for frame, past in enumerate(history)]
        valid = torch.from_numpy(frame_validity(batch_img_metas, self.frames))
        return self.transformer.fuse(fill_missing(maps, valid, self.current), self.bev_shape)

    def loss(self, features: Sequence[Tensor], batch_data_samples: Sequence[Det3DDataSample],
             history: Sequence[Tensor | None] | None = None,
             proposals: Sequence[InstanceData] | None = None) -> dict[str, Tensor]:
        """Losses of all layers; arguments as in :meth:`forward`.

        Returns:
            ``loss_cls`` and ``loss_bbox`` of the last layer, and of layer i after ``d{i}.``.

        Raises:
            ValueError: An argument does not fit, or the ground truth is not valid.
        """
        metas = [sample.metainfo for sample in batch_data_samples]
        outputs = self(features, metas, history, proposals)
        return self.loss_by_feat(outputs, [sample.gt_instances_3d for sample in batch_data_samples])

    def predict(self, features: Sequence[Tensor], batch_data_samples: Sequence[Det3DDataSample],
                history: Sequence[Tensor | None] | None = None,
                proposals: Sequence[InstanceData] | None = None) -> list[InstanceData]:
        """Boxes of each sample, best first; arguments as in :meth:`forward`.

        Returns:
            ``bboxes_3d``, ``scores_3d`` and ``labels_3d`` of each sample.

        Raises:
            ValueError: An argument does not fit.
        """
        metas = [sample.metainfo for sample in batch_data_samples]
        outputs = self(features, metas, history, proposals)
        return self.predict_by_feat(outputs)

    def predict_by_feat(self, outputs: HeadOutputs) -> list[InstanceData]:
        """Boxes of each sample of the last layer and the first group, best first."""
        return [self.selector(logits[0], codes[0], valid) for logits, codes, valid in
                zip(outputs.logits[-1], outputs.codes[-1], outputs.valid, strict=True)]

    def loss_by_feat(self, outputs: HeadOutputs,
                     batch_gt_instances_3d: Sequence[InstanceData]) -> dict[str, Tensor]:
        """Losses of predictions.

        Args:
            outputs: Of :meth:`forward`.
            batch_gt_instances_3d: ``bboxes_3d`` and ``labels_3d`` of each sample.

        Returns:
            As :meth:`loss`.

        Raises:
            ValueError: A label is not one of the classes, or boxes lack velocities.
        """
        device = outputs.logits.device
        targets = [encode_boxes(gt.bboxes_3d).to(device) for gt in batch_gt_instances_3d]
        labels = [gt.labels_3d.to(device) for gt in batch_gt_instances_3d]
        for label in labels:
            _check_labels(label, self.num_classes)
        rows = [valid.nonzero().flatten() for valid in outputs.valid]
        # As many in each group: all match the same objects with as many queries.
        matched = sum(min(len(row), len(label)) for row, label in zip(rows, labels, strict=True))
        count = reduce_mean(outputs.logits.new_tensor(float(matched))).clamp(min=1)
        losses = {}
        last = len(outputs.logits) - 1
        with torch.autocast(device.type, enabled=False):
            for layer, (logits, codes) in enumerate(zip(outputs.logits, outputs.codes,
                                                        strict=True)):
                prefix = '' if layer == last else f'd{layer}.'
                cls, bbox = self._layer_loss(
                    [sample[:, row] for sample, row in zip(logits, rows, strict=True)],
                    [sample[:, row] for sample, row in zip(codes, rows, strict=True)],
                    labels, targets, count * logits.shape[1])
                losses[f'{prefix}loss_cls'] = cls
                losses[f'{prefix}loss_bbox'] = bbox
        return losses

    def _layer_loss(self, logits: list[Tensor], codes: list[Tensor], labels: list[Tensor],
                    targets: list[Tensor], count: Tensor) -> tuple[Tensor, Tensor]:
        """Both losses of a layer over all groups, of lists over samples."""
        classes, found, wanted = [], [], []
        for logit, code, label, target in zip(logits, codes, labels, targets, strict=True):
            queries, objects = self.matcher(logit.detach(), code.detach(), label, target)
            one_hot = torch.zeros_like(logit)
            groups = torch.arange(len(logit), device=logit.device)[:, None]
            one_hot[groups, queries, label[objects]] = 1
            classes.append(one_hot.flatten(0, 1))
            found.append(code[groups, queries].flatten(0, 1))
            wanted.append(target[objects].flatten(0, 1))
        # Classes one-hot: else mmdet takes mmcv's compiled operator on a GPU.
        loss_cls = self.loss_cls(torch.cat([logit.flatten(0, 1) for logit in logits]),
                                 torch.cat(classes), avg_factor=count)
        found, wanted = torch.cat(found), torch.cat(wanted)
        finite = wanted.isfinite().all(-1)
        found, wanted = found[finite], wanted[finite]
        loss_bbox = self.loss_bbox(found, wanted, self.code_weights.expand_as(wanted),
                                   avg_factor=count)
        return loss_cls, loss_bbox


def check_frames(frames: Sequence[int]) -> tuple[int, ...]:
    """The offsets of the frames, or an error.

    Raises:
        ValueError: They are not ascending integers with 0 among them.
    """
    offsets = tuple(frames)
    if (not all(isinstance(offset, int) for offset in offsets) or 0 not in offsets
            or any(a >= b for a, b in zip(offsets, offsets[1:], strict=False))):
        raise ValueError(f'frames is not valid: got {offsets}, expected ascending integers with 0 '
                         'among them, e.g. (-1, 0)')
    return offsets


def frame_validity(batch_img_metas: Sequence[Meta], frames: Sequence[int]) -> np.ndarray:
    """(B, T) bool, which sample has which frame; all where the metainfo does not say.

    Raises:
        ValueError: ``frame_valid`` does not fit ``frames``, or denies the current frame.
    """
    rows = []
    for meta in batch_img_metas:
        row = np.asarray(meta.get('frame_valid', [True] * len(frames)), bool)
        if row.shape != (len(frames),) or not row[list(frames).index(0)]:
            raise ValueError(f'frame_valid is not valid: got {row.tolist()}, expected {len(frames)}'
                             f' values for frames={tuple(frames)}, True for the current one')
        rows.append(row)
    return np.stack(rows)


def _matrices(metas: Sequence[Meta], key: str, shape: tuple[int, ...]) -> Tensor:
    """Matrices of all samples, (B, *shape) float32."""
    found = []
    for meta in metas:
        if key not in meta:
            raise ValueError(f'metainfo is not valid: got no {key!r}, expected one of shape '
                             f'{shape}; name it in meta_keys of the packing transform')
        matrix = torch.as_tensor(np.asarray(meta[key]), dtype=torch.float32)
        if matrix.shape != shape:
            raise ValueError(f'{key}.shape is not valid: got {tuple(matrix.shape)}, expected '
                             f'{shape}')
        found.append(matrix)
    return torch.stack(found)


def _image_shape(metas: Sequence[Meta]) -> tuple[int, int]:
    """(height, width) of the padded pictures of the batch."""
    shape = metas[0].get('batch_input_shape')
    if shape is None:
        raise ValueError("metainfo is not valid: got no 'batch_input_shape', expected (height, "
                         'width) of the padded batch; Det3DDataPreprocessor sets it')
    return int(shape[0]), int(shape[1])


def _check_labels(labels: Tensor, num_classes: int) -> None:
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        raise ValueError(f'labels_3d is not valid: got {labels.unique().tolist()}, expected '
                         f'0..{num_classes - 1}; drop other classes with ObjectNameFilter')
