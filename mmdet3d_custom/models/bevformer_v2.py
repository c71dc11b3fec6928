"""BEVFormer v2: a detector of any backbone, on six cameras and any number of frames.

Source: C. Yang et al., "BEVFormer v2: Adapting Modern Image Backbones to Bird's-Eye-View
Recognition via Perspective Supervision", arXiv:2211.10439. Decisions: ``docs/bevformer_v2.md``.
"""
from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmdet3d.models import Base3DDetector
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet3d_custom.models.bev_head import Meta, check_frames, frame_validity
from mmdet3d_custom.models.grid_mask import GridMask

Levels = tuple[Tensor, ...]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """The model as at test time, without gradients; then each module's own flag as it was.

    Flags are set singly: ``train()`` would thaw what is frozen, and run what models do in it.
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags:
            module.training = flag


class FeatureCache:
    """The feature maps of the frames used last.

    Args:
        capacity: Frames that are kept; with 0 nothing is.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ValueError(f'capacity is not valid: got {capacity}, expected 0 or more')
        self.capacity = capacity
        self._maps: OrderedDict[tuple, Levels] = OrderedDict()

    def __len__(self) -> int:
        return len(self._maps)

    def clear(self) -> None:
        """Forget all, as after a change of weights."""
        self._maps.clear()

    def get(self, key: tuple) -> Levels | None:
        """The maps of a frame, or None."""
        if key in self._maps:
            self._maps.move_to_end(key)
        return self._maps.get(key)

    def put(self, key: tuple, maps: Levels) -> None:
        """Keep the maps of a frame, and drop what was used longest ago."""
        self._maps[key] = maps
        while len(self._maps) > self.capacity:
            self._maps.popitem(last=False)


@MODELS.register_module()
class BEVFormerV2(Base3DDetector):
    """Camera-only 3-D detector with a BEV head and, in training, a perspective head.

    Other frames than the current one are computed in eval mode without gradients, for those
    samples of a batch that have them. Pictures may be mirrored (``flip`` of a sample): their
    features are mirrored back, matrices and boxes stay as they are.

    At test time every frame of a sample is computed anew, hence each picture T times. With
    ``feature_cache`` the maps of the neck are kept by the tokens of their frames
    (``frame_tokens``), so that the samples of a scene in their order compute each picture once: the
    number of frames that ``frames`` spans, from first to last, times the samples of a batch, are
    enough. Results are the same. A frame of six 640x1600 pictures takes 131 MB in float32. Where
    several processes test, mmengine's sampler deals the samples out one by one, which leaves less
    to find. It is off for frames without a token, in training, and where gradients are recorded;
    every switch between training and eval mode and every loading of weights empties it. Who changes
    weights in another way calls ``cache.clear()``.

    Args:
        img_backbone: Any registered backbone, e.g. ``dict(type='FlashInternImage')``.
        pts_bbox_head: The BEV head; missing is ``frames``.
        img_neck: The neck, e.g. ``dict(type='mmdet.FPN')``; ``None`` for none.
        fcos3d_bbox_head: The perspective head, or ``None``.
        frames: Offsets of the frames in key frames, ascending, 0 among them.
        num_mono_levels: Levels that the perspective head sees, finest first.
        mono_loss_weight: Factor on its losses.
        grid_mask: Arguments of :class:`GridMask`; ``None`` for none.
        feature_cache: Frames whose maps are kept at test time; 0 for none.
        data_preprocessor: Config of the data preprocessor.
        init_cfg: As in mmengine.

    Raises:
        ValueError: An argument is not valid.
    """

    def __init__(self, img_backbone: dict, pts_bbox_head: dict, img_neck: dict | None = None,
                 fcos3d_bbox_head: dict | None = None, frames: Sequence[int] = (0,),
                 num_mono_levels: int = 5, mono_loss_weight: float = 1.0,
                 grid_mask: dict | None = None, feature_cache: int = 0,
                 data_preprocessor: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.frames = check_frames(frames)
        self.current = self.frames.index(0)
        self.num_mono_levels = num_mono_levels
        self.mono_loss_weight = mono_loss_weight
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = None if img_neck is None else MODELS.build(img_neck)
        self.pts_bbox_head = MODELS.build(pts_bbox_head, default_args=dict(frames=self.frames))
        self.fcos3d_bbox_head = None
        if fcos3d_bbox_head is not None:
            self.fcos3d_bbox_head = MODELS.build(fcos3d_bbox_head)
        if tuple(self.pts_bbox_head.frames) != self.frames:
            raise ValueError(f'pts_bbox_head.frames is not valid: got {self.pts_bbox_head.frames}, '
                             f'expected {self.frames} as of the detector; leave it out')
        if self.fcos3d_bbox_head is None and self.pts_bbox_head.hybrid_queries is not None:
            raise ValueError('fcos3d_bbox_head is not valid: got None, expected a perspective head,'
                             ' which makes the proposals of hybrid_queries')
        self.grid_mask = None if grid_mask is None else GridMask(**grid_mask)
        self.cache = FeatureCache(feature_cache)
        self.register_load_state_dict_post_hook(lambda module, _: module.cache.clear())

    @property
    def backbone(self) -> nn.Module:
        """``img_backbone``, by the name that tools of all tasks look for."""
        return self.img_backbone

    @property
    def neck(self) -> nn.Module | None:
        """``img_neck``, likewise."""
        return self.img_neck

    def train(self, mode: bool = True) -> BEVFormerV2:
        """Switch to training or eval mode; forgets cached features."""
        self.cache.clear()
        return super().train(mode)

    def extract_feat(self, batch_inputs: Tensor, batch_img_metas: Sequence[Meta] | None = None,
                     ) -> Levels:
        """Un-flipped feature maps of one frame.

        Args:
            batch_inputs: (B, N, 3, H, W), pictures of N cameras.
            batch_img_metas: Metainfo of the B samples; without it nothing is flipped.

        Returns:
            Levels (B, N, C, h, w), finest first.
        """
        samples, cameras = batch_inputs.shape[:2]
        if self.grid_mask is not None:
            batch_inputs = self.grid_mask(batch_inputs)
        maps = self.img_backbone(batch_inputs.flatten(0, 1))
        maps = maps if self.img_neck is None else self.img_neck(maps)
        levels = [level.unflatten(0, (samples, cameras)) for level in maps]
        metas = [{}] * samples if batch_img_metas is None else batch_img_metas
        return tuple(_unflip(level, metas, batch_inputs.shape[-1]) for level in levels)

    def loss(self, batch_inputs: dict[str, Tensor], batch_data_samples: list[Det3DDataSample],
             **kwargs: Any) -> dict[str, Tensor]:
        """Losses of both heads.

        Args:
            batch_inputs: ``imgs`` (B, T*N, 3, H, W), frame by frame.
            batch_data_samples: Their metainfo and ground truth.
            **kwargs: Ignored.

        Returns:
            The BEV head's losses, and the perspective head's, whose names end in ``_mono``.

        Raises:
            ValueError: Pictures, metainfo or ground truth do not fit.
        """
        features, history, proposals = self._features(batch_inputs, batch_data_samples)
        losses = self.pts_bbox_head.loss(features, batch_data_samples, history, proposals)
        if self.fcos3d_bbox_head is not None:
            mono = self.fcos3d_bbox_head.loss(features[:self.num_mono_levels], batch_data_samples)
            losses.update({name: loss * self.mono_loss_weight for name, loss in mono.items()})
        return losses

    def predict(self, batch_inputs: dict[str, Tensor], batch_data_samples: list[Det3DDataSample],
                **kwargs: Any) -> list[Det3DDataSample]:
        """Boxes of each sample.

        Args:
            batch_inputs: ``imgs`` (B, T*N, 3, H, W), frame by frame.
            batch_data_samples: Their metainfo.
            **kwargs: Ignored.

        Returns:
            The samples with ``pred_instances_3d`` (and empty ``pred_instances``).

        Raises:
            ValueError: Pictures and metainfo do not fit.
        """
        features, history, proposals = self._features(batch_inputs, batch_data_samples)
        found = self.pts_bbox_head.predict(features, batch_data_samples, history, proposals)
        return self.add_pred_to_datasample(batch_data_samples, found)

    def _forward(self, batch_inputs: dict[str, Tensor] | Tensor,
                 batch_data_samples: list[Det3DDataSample] | None = None,
                 **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Logits (layers, B, groups, Q, classes) and codes (layers, B, groups, Q, 10).

        Without samples, as where costs are measured, the cameras look evenly around.
        """
        imgs = batch_inputs['imgs'] if isinstance(batch_inputs, dict) else batch_inputs
        if batch_data_samples is None:
            batch_data_samples = _surround_samples(imgs, len(self.frames))
        features, history, proposals = self._features(dict(imgs=imgs), batch_data_samples)
        metas = [sample.metainfo for sample in batch_data_samples]
        outputs = self.pts_bbox_head(features, metas, history, proposals)
        return outputs.logits, outputs.codes

    def _features(self, inputs: dict[str, Tensor], samples: Sequence[Det3DDataSample],
                  ) -> tuple[Levels, list[Tensor | None] | None, list[InstanceData] | None]:
        """Maps of the current frame, BEV maps of the others, proposals where they are wanted."""
        imgs, frames = inputs['imgs'], len(self.frames)
        if imgs.dim() != 5 or imgs.shape[1] % frames or imgs.shape[0] != len(samples):
            raise ValueError(f'imgs.shape is not valid: got {tuple(imgs.shape)}, expected '
                             f'({len(samples)}, {frames} frames * cameras, 3, H, W)')
        imgs = imgs.unflatten(1, (frames, -1))
        metas = [sample.metainfo for sample in samples]
        # Decided here, as history is computed in eval mode while weights train, too.
        remember = self.cache.capacity > 0 and not self.training and not torch.is_grad_enabled()
        history = self._history(imgs, metas, remember) if frames > 1 else None
        features = self._frame_features(imgs[:, self.current], metas, self.current, remember)
        proposals = None
        if self.pts_bbox_head.hybrid_queries is not None:
            with eval_mode(self.fcos3d_bbox_head):
                proposals = self.fcos3d_bbox_head.predict(
                    tuple(level.detach() for level in features[:self.num_mono_levels]), metas)
        return features, history, proposals

    def _history(self, imgs: Tensor, metas: Sequence[Meta], remember: bool,
                 ) -> list[Tensor | None]:
        """BEV maps of the other frames; rows of samples without a frame are zero."""
        valid = frame_validity(metas, self.frames)
        history: list[Tensor | None] = [None] * len(self.frames)
        with eval_mode(self):
            for frame in range(len(self.frames)):
                rows = valid[:, frame].nonzero()[0].tolist()
                if frame == self.current or not rows:
                    continue
                some = [metas[row] for row in rows]
                features = self._frame_features(imgs[rows, frame], some, frame, remember)
                bev = self.pts_bbox_head.encode(features, some, frame)
                history[frame] = bev.new_zeros(len(metas), *bev.shape[1:])
                history[frame][rows] = bev
        return history

    def _frame_features(self, imgs: Tensor, metas: Sequence[Meta], frame: int,
                        remember: bool) -> Levels:
        """Maps of a frame (B, N, 3, H, W), computed or remembered."""
        if not remember:
            return self.extract_feat(imgs, metas)
        found = []
        for row, meta in enumerate(metas):
            key = _cache_key(imgs, meta, frame)
            maps = None if key is None else self.cache.get(key)
            if maps is None:
                maps = self.extract_feat(imgs[row:row + 1], [meta])
                if key is not None:
                    self.cache.put(key, maps)
            found.append(maps)
        return tuple(torch.cat(level) for level in zip(*found, strict=True))


def _cache_key(imgs: Tensor, meta: Meta, frame: int) -> tuple | None:
    """What the maps of a frame depend on beside the weights; None where it has no token."""
    tokens = meta.get('frame_tokens')
    if tokens is None or not tokens[frame]:
        return None
    device = imgs.device.type
    precision = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    return (tokens[frame], bool(meta.get('flip', False)), tuple(meta.get('img_shape', ())),
            tuple(imgs.shape[-2:]), str(imgs.device), imgs.dtype, precision)


def _unflip(level: Tensor, metas: Sequence[Meta], width: int) -> Tensor:
    """Mirror the maps (B, N, C, h, w) of flipped samples back, within their own padded width."""
    rows = [row for row, meta in enumerate(metas) if meta.get('flip', False)]
    if not rows:
        return level
    maps = list(level)
    for row in rows:
        own = metas[row].get('pad_shape', (0, width))[1]
        columns = round(level.shape[-1] * own / width)
        mirrored = maps[row][..., :columns].flip(-1)
        maps[row] = torch.cat([mirrored, maps[row][..., columns:]], -1)
    return torch.stack(maps)


def surround_cameras(num_cams: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Cameras that look evenly around, at the height of the LiDAR.

    Args:
        num_cams: Number of cameras; the first looks along y.
        height: Of the pictures.
        width: Of the pictures; two thirds of it are the focal length.

    Returns:
        LiDAR to cameras (num_cams, 4, 4) and the intrinsics that all have (3, 3), float32.
    """
    intrinsic = torch.tensor([[width * 2 / 3, 0, width / 2], [0, width * 2 / 3, height / 2],
                              [0, 0, 1]])
    moves = []
    for index in range(num_cams):
        angle = math.pi / 2 - index * 2 * math.pi / num_cams
        ahead, aside = (math.cos(angle), math.sin(angle)), (math.sin(angle), -math.cos(angle))
        moves.append([[*aside, 0, 0], [0, 0, -1, 0], [*ahead, 0, 0], [0, 0, 0, 1]])
    return torch.tensor(moves), intrinsic


def surround_matrices(num_cams: int, height: int, width: int) -> Tensor:
    """LiDAR to pixels (num_cams, 4, 4) of :func:`surround_cameras`."""
    lidar2cam, intrinsic = surround_cameras(num_cams, height, width)
    return torch.block_diag(intrinsic, torch.eye(1)) @ lidar2cam


def _surround_samples(imgs: Tensor, num_frames: int) -> list[Det3DDataSample]:
    """Samples whose cameras look evenly around in every frame."""
    height, width = imgs.shape[-2:]
    matrices = surround_matrices(imgs.shape[1] // num_frames, height, width)
    meta = dict(lidar2img=matrices.expand(num_frames, -1, -1, -1).numpy(),
                batch_input_shape=(height, width))
    return [Det3DDataSample(metainfo=meta) for _ in range(imgs.shape[0])]
