"""NYU Depth V2 as a set for segmentation; mmseg's ``NYUDataset`` is its depth."""
from __future__ import annotations

from typing import Any

from mmseg.datasets import ADE20KDataset, BaseSegDataset
from mmseg.registry import DATASETS


@DATASETS.register_module()
class NYUDepthV2Dataset(BaseSegDataset):
    """The 40 classes of NYU Depth V2; label 0 of the files is void.

    Args:
        img_suffix: Of the pictures.
        seg_map_suffix: Of the label maps.
        reduce_zero_label: Whether label 0 is void, as in the published files.
        **kwargs: As of mmseg's ``BaseSegDataset``.
    """

    METAINFO = dict(
        classes=('wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window',
                 'bookshelf', 'picture', 'counter', 'blinds', 'desk', 'shelves', 'curtain',
                 'dresser', 'pillow', 'mirror', 'floor mat', 'clothes', 'ceiling', 'books',
                 'refridgerator', 'television', 'paper', 'towel', 'shower curtain', 'box',
                 'whiteboard', 'person', 'night stand', 'toilet', 'sink', 'lamp', 'bathtub', 'bag',
                 'otherstructure', 'otherfurniture', 'otherprop'),
        palette=ADE20KDataset.METAINFO['palette'][:40])

    def __init__(self, img_suffix: str = '.png', seg_map_suffix: str = '.png',
                 reduce_zero_label: bool = True, **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix,
                         reduce_zero_label=reduce_zero_label, **kwargs)
