"""The pyramid of the plain ViT from its last map alone."""
from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS

pytest.importorskip('mmdet')

from mmdet_custom.necks import SimpleFeaturePyramid


def test_simple_feature_pyramid():
    neck = MODELS.build(dict(type='SimpleFeaturePyramid', in_channels=32, out_channels=16))
    x = torch.randn(2, 32, 5, 6)
    outs = neck((torch.zeros(1), x))
    assert [tuple(out.shape) for out in outs] == [
        (2, 16, *s) for s in ((20, 24), (10, 12), (5, 6), (3, 3), (2, 2))]
    assert torch.equal(outs[4], outs[3][:, :, ::2, ::2])
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    assert all(p.grad.abs().sum() > 0 for p in neck.parameters())
    # Channel norm: at every position the channels have mean 0 and deviation 1.
    assert outs[2].mean(dim=1).abs().max() < 1e-5
    torch.testing.assert_close(outs[2].std(dim=1, correction=0), torch.ones(2, 5, 6),
                               rtol=0, atol=1e-3)
    for kwargs, words in ((dict(in_channels=30), 'in_channels is not valid: got 30'),
                          (dict(in_channels=32, num_outs=3), 'num_outs is not valid: got 3')):
        with pytest.raises(ValueError, match=words):
            SimpleFeaturePyramid(**kwargs)
    with pytest.raises(ValueError, match='feature shape is not valid'):
        neck((torch.zeros(2, 16, 5, 6),))
