"""Mask2Former's head with the order of inference that InternImage and DCNv4 evaluate with."""
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads import Mask2FormerHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample


@MODELS.register_module()
class LateUpsampleMask2FormerHead(Mask2FormerHead):
    """Mask2Former's head; what is upsampled are the scores of classes, not the masks of queries.

    mmseg upsamples the mask of every query to the size of the picture, then applies the sigmoid
    and sums over queries. The published results were made the other way round, at a quarter of
    the size. The numbers differ a little, the memory much: no tensor of queries has full size.
    Weights, losses and options are mmseg's.
    """

    def predict(self, x: tuple[torch.Tensor, ...], batch_img_metas: list[dict[str, Any]],
                test_cfg: dict[str, Any]) -> torch.Tensor:
        """Scores of the classes.

        Args:
            x: Maps of the backbone, each (N, C, H, W).
            batch_img_metas: Of each picture; ``pad_shape`` or ``img_shape`` of the first is the
                size of the result.
            test_cfg: Not used.

        Returns:
            Of shape (N, classes, H, W), between 0 and the number of queries.
        """
        samples = [SegDataSample(metainfo=meta) for meta in batch_img_metas]
        scores, masks = (outputs[-1] for outputs in self(x, samples))
        size = batch_img_metas[0].get('pad_shape', batch_img_metas[0]['img_shape'])
        classes = torch.einsum('bqc,bqhw->bchw', scores.softmax(-1)[..., :-1], masks.sigmoid())
        return F.interpolate(classes, size=size[:2], mode='bilinear',
                             align_corners=self.align_corners)
