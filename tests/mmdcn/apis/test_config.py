"""Options on the command line."""
from __future__ import annotations

import subprocess
import sys

import pytest

from mmdcn.apis import config
from mmdcn.errors import UserError
from tests.helpers import ROOT


def test_bases_of_mmseg_resolve_in_a_process_that_imported_nothing_else():
    pytest.importorskip('mmseg')
    path, = (ROOT / 'configs' / 'mini').glob('upernet_*.py')
    code = ('from mmdcn.apis.config import load_config; '
            f'print("type", load_config({str(path)!r}).model.type)')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.stdout.splitlines()[-1:] == ['type EncoderDecoder'], done.stderr[-500:]


def test_option_may_name_an_argument_that_the_config_leaves_at_its_default(tmp_path):
    path = tmp_path / 'small.py'
    path.write_text("model = dict(type='A', backbone=dict(type='B'))\nloader = dict(size=1)\n")
    cfg = config.load_config(str(path), ['model.backbone.init_cfg.checkpoint=weights.pth',
                                         'model.backbone.frozen_stages=4'])
    assert cfg.model.backbone == dict(type='B', init_cfg=dict(checkpoint='weights.pth'),
                                      frozen_stages=4)
    with pytest.raises(UserError, match="got 'loader.sizes', expected a key of loader.*size"):
        config.load_config(str(path), ['loader.sizes=2'])
