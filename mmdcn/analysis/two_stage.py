"""The forward pass of a two-stage detector as the published figures count it.

mmdet 2.x, whose counts the papers print, ran both heads on a fixed number of regions whatever the
picture: 1,000 in each stage of the box head, the first 100 of them in each mask head. How many
pass non-maximum suppression would depend on the weights.
"""
from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

PROPOSALS = 1000
MASKS = 100


def is_two_stage(model: nn.Module) -> bool:
    """Whether a detector has regions of interest, as Faster, Mask and Cascade R-CNN have."""
    return hasattr(model, 'rpn_head') and hasattr(model, 'roi_head')


def two_stage_pass(model: nn.Module) -> Callable[[Tensor], None]:
    """What runs for one picture: backbone, neck, region proposals and heads.

    Args:
        model: A detector of mmdet with ``rpn_head`` and ``roi_head`` (Mask R-CNN, Cascade ...).

    Returns:
        A function of an image (1, 3, H, W). Regions are not pooled from the features, whose values
        do not matter for a count: zeros of their shape go into the heads.
    """

    def run(image: Tensor) -> None:
        features = model.extract_feat(image)
        model.rpn_head(features)
        head = model.roi_head
        for box_head in _each(head.bbox_head):
            box_head(_regions(image, PROPOSALS, _first(head.bbox_roi_extractor)))
        for mask_head in _each(head.mask_head) if head.with_mask else ():
            mask_head(_regions(image, MASKS, _first(head.mask_roi_extractor)))

    return run


def _each(heads: nn.Module) -> list[nn.Module]:
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]


def _first(extractor: nn.Module) -> nn.Module:
    return _each(extractor)[0]


def _regions(image: Tensor, count: int, extractor: nn.Module) -> Tensor:
    """Zeros of the shape that ``count`` pooled regions have, (count, C, h, w)."""
    size = extractor.roi_layers[0].output_size
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return image.new_zeros(count, extractor.out_channels, height, width)
