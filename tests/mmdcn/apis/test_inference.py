"""Single images: the network finds them, sees them, and shows what it sees."""
from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from torch import nn

from mmdcn.apis import cli
from mmdcn.apis.inference import find_backbone


def test_model_without_backbone() -> None:
    with pytest.raises(ValueError, match='Linear has no backbone'):
        find_backbone(nn.Linear(2, 2))


def test_image_is_shown_in_its_own_colours(deformable: Any, tmp_path: Any) -> None:
    made = deformable('DCNv3')
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :, 2] = 200  # red, as OpenCV writes it
    cv2.imwrite(str(tmp_path / 'red.png'), picture)
    parser = cli.build_image_parser('x', 'x', out_dir=str(tmp_path / 'out'))
    rgb = {'num_classes': 2, 'mean': [127.0, 100.0, 90.0], 'std': [60.0, 55.0, 50.0],
           'to_rgb': True}
    for options in ([], ['--cfg-options', f'model.data_preprocessor={rgb}']):
        predictor, images, _ = cli.open_images(parser.parse_args(
            [made.config, made.checkpoint, str(tmp_path / 'red.png'), *options]))
        shown = predictor.show(predictor.read(*images))
        assert shown.shape == (64, 64, 3) and shown[5, 5].tolist() == [200, 0, 0]
