"""A data set of given image files."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from mmengine.dataset import BaseDataset


class Images(BaseDataset):
    """Data set of given image files."""

    def __init__(self, paths: list[Path], serialize_data: bool = True) -> None:
        self.paths = paths
        super().__init__(serialize_data=serialize_data)

    def load_data_list(self) -> list[dict]:
        return [{'img_path': str(path)} for path in self.paths]

    def get_cat_ids(self, idx: int) -> list[int]:
        return [idx % 2]


def write_images(folder: Path, count: int, suffix: str = '.jpg') -> list[Path]:
    folder.mkdir(exist_ok=True)
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    paths = [folder / f'{i}{suffix}' for i in range(count)]
    for path in paths:
        assert cv2.imwrite(str(path), image)
    return paths
