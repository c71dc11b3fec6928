"""Padding to one size in both modes."""
from __future__ import annotations

import pytest
import torch
from mmengine.registry import DefaultScope

pytest.importorskip('mmdet')

import numpy as np
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

import mmdet_custom

MEAN, STD = [10.0, 20.0, 30.0], [2.0, 4.0, 8.0]


def build(**kwargs):
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(dict(type='FixedSizeDetDataPreprocessor', pad_size=(24, 32), mean=MEAN,
                                  std=STD, bgr_to_rgb=True, pad_mask=True, **kwargs))
    assert type(model) is mmdet_custom.FixedSizeDetDataPreprocessor
    return model


def batch(*sizes):
    samples = []
    for height, width in sizes:
        masks = BitmapMasks(np.ones((1, height, width), np.uint8), height, width)
        samples.append(DetDataSample(gt_instances=InstanceData(masks=masks),
                                     metainfo=dict(img_shape=(height, width))))
    return dict(inputs=[torch.full((3, *size), 40, dtype=torch.uint8) for size in sizes],
                data_samples=samples)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('sizes', [[(16, 20), (12, 32)], [(24, 32)]])
def test_pads_in_both_modes(training, sizes):
    got = build()(batch(*sizes), training)
    assert got['inputs'].shape == (len(sizes), 3, 24, 32)
    for image, sample, (height, width) in zip(got['inputs'], got['data_samples'], sizes,
                                              strict=True):
        # Normalised where the image is, 0 (the mean colour) elsewhere.
        expected = torch.zeros(3, 24, 32)
        for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
            expected[channel, :height, :width] = (40 - mean) / std
        torch.testing.assert_close(image, expected)
        assert sample.batch_input_shape == sample.pad_shape == (24, 32)
        assert sample.img_shape == (height, width)
        masks = sample.gt_instances.masks
        assert (masks.height, masks.width) == ((24, 32) if training else (height, width))
        assert masks.masks.sum() == height * width


def test_works_without_samples():
    got = build()(dict(inputs=[torch.zeros(3, 5, 7, dtype=torch.uint8)]))
    assert got['inputs'].shape == (1, 3, 24, 32) and got['data_samples'] is None


def test_refuses_larger_images():
    with pytest.raises(ValueError, match=r'image size is not valid: got \(25, 20\)'):
        build()(batch((25, 20)))
