"""A linear classifier that also reads when and where a picture was taken."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmdcn.errors import UserError
from mmdcn.traits import answers

# Time and place, as mmcls_custom.datasets.inaturalist encodes them.
_TIME, _PLACE = 4, 3


class _ResidualBlock(nn.Module):
    """(..., C) -> (..., C): two linear layers, each with ReLU and then a norm, beside the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(channels, channels)
        self.norm_fn1 = nn.LayerNorm(channels)
        self.w2 = nn.Linear(channels, channels)
        self.norm_fn2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm_fn1(self.w1(x).relu())
        return x + self.norm_fn2(self.w2(inner).relu())


def _encoder(inputs: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, channels), nn.ReLU(), nn.LayerNorm(channels),
                         _ResidualBlock(channels))


@MODELS.register_module()
class TimePlaceHead(LinearClsHead):
    """Adds the scores of time and place to those of the picture.

    InternImage-H as published for iNaturalist 2018. The data samples carry ``time_place``, the
    numbers of :func:`mmcls_custom.datasets.inaturalist.encode_time` and ``encode_place``; for those
    without it zeros stand in, as for a picture of which neither is known. In the published file
    ``head.*`` are the keys of ``fc.*``; ``meta_head_1.*`` (time), ``meta_head_2.*`` (place),
    ``meta_norm.*`` and ``meta_head.*`` are called as here.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the pooled features.
        meta_channels: Width of the encoder of either.
        init_cfg: mmengine's. By default as published for fine-tuning: the scores of the picture
            begin a thousand times smaller than other linear layers.
        **kwargs: As of mmpretrain's ``ClsHead``.
    """

    def __init__(self, num_classes: int, in_channels: int, meta_channels: int = 64,
                 init_cfg: Any = None, **kwargs: Any) -> None:
        normal = dict(type='TruncNormal', std=0.02, bias=0.0)
        super().__init__(num_classes, in_channels, init_cfg=init_cfg or dict(
            normal, layer='Linear', override=dict(normal, name='fc', std=2e-5)), **kwargs)
        self.meta_head_1 = _encoder(_TIME, meta_channels)
        self.meta_head_2 = _encoder(_PLACE, meta_channels)
        self.meta_norm = nn.LayerNorm(2 * meta_channels, eps=1e-6)
        self.meta_head = nn.Linear(2 * meta_channels, num_classes)

    def forward(self, feats: tuple[Tensor, ...], time_place: Tensor | None = None) -> Tensor:
        """Class scores.

        Args:
            feats: Features (N, in_channels), of which the last count.
            time_place: (N, 7): four numbers of the time, three of the place; None: zeros.

        Returns:
            Scores (N, num_classes), before the softmax.
        """
        scores = super().forward(feats)
        if time_place is None:
            time_place = feats[-1].new_zeros(len(scores), _TIME + _PLACE)
        time, place = time_place.split((_TIME, _PLACE), dim=-1)
        meta = torch.cat([self.meta_head_1(time), self.meta_head_2(place)], dim=-1)
        return scores + self.meta_head(self.meta_norm(meta))

    def loss(self, feats: tuple[Tensor, ...], data_samples: list[DataSample],
             **kwargs: Any) -> dict[str, Tensor]:
        """Losses of a batch, as of mmpretrain's ``ClsHead``.

        Raises:
            UserError: The pictures of the batch are mixed, or a ``time_place`` is not valid.
        """
        if 'gt_score' in data_samples[0]:
            raise UserError('model.train_cfg.augments', 'got mixed pictures',
                            'whole ones: a mixture was taken at no time and place',
                            'leave it out, or use LinearClsHead')
        scores = self(feats, _gather(data_samples, feats[-1]))
        return self._get_loss(scores, data_samples, **kwargs)

    def predict(self, feats: tuple[Tensor, ...],
                data_samples: list[DataSample | None] | None = None) -> list[DataSample]:
        """Predictions of a batch, as of mmpretrain's ``ClsHead``.

        Raises:
            UserError: A ``time_place`` is not valid.
        """
        time_place = None if data_samples is None else _gather(data_samples, feats[-1])
        return self._get_predictions(self(feats, time_place), data_samples)


def _gather(data_samples: Sequence[DataSample | None], like: Tensor) -> Tensor:
    """``time_place`` of all samples, (N, 7), zeros where there is none."""
    gathered = like.new_zeros(len(data_samples), _TIME + _PLACE, dtype=torch.float32)
    for row, sample in zip(gathered, data_samples, strict=True):
        values = None if sample is None else sample.get('time_place')
        if values is None:
            continue
        values = torch.as_tensor(values)
        if values.shape != row.shape or not values.isfinite().all():
            raise UserError('time_place', f'got {values.tolist()}',
                            f'{len(row)} finite numbers, {_TIME} of the time and {_PLACE} of the '
                            'place', 'use encode_time and encode_place of '
                            'mmcls_custom.datasets.inaturalist, or leave it out')
        row.copy_(values)
    return gathered


@answers('checkpoint_may_lack')
def _classifiers_may_lack(module: nn.Module) -> tuple[str, ...] | None:
    """A classifier that starts from ImageNet has no weights of time and place yet."""
    return (r'^head\.meta_',) if isinstance(getattr(module, 'head', None), TimePlaceHead) else None
