"""DINO on a composite backbone: both halves train, the lead detects.

Sources: H. Zhang et al., "DINO: DETR with Improved DeNoising Anchor Boxes for End-to-End Object
Detection", arXiv:2203.03605; T. Liang et al., "CBNet", arXiv:2107.00420 (assistant supervision).
"""
from __future__ import annotations

from typing import Any

from mmdet.models import DINO
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor

from mmdet_custom.backbones import CompositeInternImage


@MODELS.register_module()
class CompositeDINO(DINO):
    """DINO whose neck and head see, in training, the maps of both halves of the backbone.

    Neck and head have one set of weights; each half has its own denoising queries, drawn from the
    same ground truth, and its own losses. At test time it is a DINO on the lead.

    Args:
        *args: As DINO's.
        aux_weight: Factor on the losses of the assisting half; those of the lead count in full.
        **kwargs: As DINO's; the backbone is a CompositeInternImage.

    Raises:
        ValueError: The backbone has one network only.
    """

    def __init__(self, *args: Any, aux_weight: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.backbone, CompositeInternImage):
            raise ValueError(f'backbone is not valid: got {type(self.backbone).__name__}, expected '
                             'CompositeInternImage, or DINO in the place of CompositeDINO')
        self.aux_weight = aux_weight

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of both halves.

        Args:
            batch_inputs: Images (N, 3, H, W), any N.
            batch_data_samples: Their ground truth; images may be without objects.

        Returns:
            The losses of the lead by DINO's names, and those of the assisting half, weighted, by
            the same names after ``aux.``.
        """
        losses = {}
        for maps, prefix, weight in zip(self.backbone(batch_inputs, halves=True), ('aux.', ''),
                                        (self.aux_weight, 1.0), strict=True):
            features = self.neck(maps) if self.with_neck else maps
            found = self.bbox_head.loss(
                **self.forward_transformer(features, batch_data_samples),
                batch_data_samples=batch_data_samples)
            losses.update({f'{prefix}{name}': loss * weight for name, loss in found.items()})
        return losses
