"""Mapillary Vistas with the classes of Cityscapes, to pre-train for it (InternImage's recipes)."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.datasets import BaseSegDataset, CityscapesDataset, MapillaryDataset_v1
from mmseg.registry import DATASETS

# For each class of Cityscapes those of Mapillary Vistas v1.2 that count as it; all others are
# ignored.
SOURCES: dict[str, tuple[str, ...]] = {
    'road': ('Road', 'Lane Marking - General', 'Manhole'),
    'sidewalk': ('Curb', 'Sidewalk'),
    'building': ('Building',),
    'wall': ('Wall',),
    'fence': ('Fence',),
    'pole': ('Pole', 'Utility Pole'),
    'traffic light': ('Traffic Light',),
    'traffic sign': ('Traffic Sign (Front)',),
    'vegetation': ('Vegetation',),
    'terrain': ('Terrain',),
    'sky': ('Sky',),
    'person': ('Person',),
    'rider': ('Bicyclist', 'Motorcyclist', 'Other Rider'),
    'car': ('Car',),
    'truck': ('Truck',),
    'bus': ('Bus',),
    'train': ('On Rails',),
    'motorcycle': ('Motorcycle',),
    'bicycle': ('Bicycle',),
}


@DATASETS.register_module()
class MapillaryAsCityscapes(BaseSegDataset):
    """Mapillary Vistas v1.2, its 66 classes told apart as the 19 of Cityscapes.

    Args:
        img_suffix: Of the pictures.
        seg_map_suffix: Of the label maps, which hold the numbers of the 66 classes.
        **kwargs: As of mmseg's ``BaseSegDataset``; ``metainfo`` may not name other classes.
    """

    METAINFO = CityscapesDataset.METAINFO

    def __init__(self, img_suffix: str = '.jpg', seg_map_suffix: str = '.png',
                 **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """The class of Cityscapes, or 255, for each number in the label maps.

        Raises:
            ValueError: The classes are not those of Cityscapes.
        """
        classes = list(cls.METAINFO['classes'])
        if new_classes is not None and list(new_classes) != classes:
            raise ValueError(f'metainfo.classes is not valid: got {list(new_classes)}, expected '
                             f'those of Cityscapes, {classes}')
        numbers = {source: classes.index(name)
                   for name, sources in SOURCES.items() for source in sources}
        return {old: numbers.get(name, 255)
                for old, name in enumerate(MapillaryDataset_v1.METAINFO['classes'])}
