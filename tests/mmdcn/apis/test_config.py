"""Options on the command line."""
from __future__ import annotations

import pytest

from mmdcn.apis import config
from mmdcn.errors import UserError


def test_option_may_name_an_argument_that_the_config_leaves_at_its_default(tmp_path):
    path = tmp_path / 'small.py'
    path.write_text("model = dict(type='A', backbone=dict(type='B'))\nloader = dict(size=1)\n")
    cfg = config.load_config(str(path), ['model.backbone.init_cfg.checkpoint=weights.pth',
                                         'model.backbone.frozen_stages=4'])
    assert cfg.model.backbone == dict(type='B', init_cfg=dict(checkpoint='weights.pth'),
                                      frozen_stages=4)
    with pytest.raises(UserError, match="got 'loader.sizes', expected a key of loader.*size"):
        config.load_config(str(path), ['loader.sizes=2'])
