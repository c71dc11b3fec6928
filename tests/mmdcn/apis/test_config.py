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
    path, = (ROOT / 'configs' / 'mini').glob('upernet_flash-internimage-*.py')
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


BASE = "model = dict(type='A')\n"


def test_a_config_is_not_replaced_by_what_a_run_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'small.py').write_text('# by hand\n' + BASE)
    cfg = config.load_config('small.py')
    with pytest.raises(UserError, match='work_dir is not valid: .*would replace small.py'):
        config.set_work_dir(cfg, '.')
    config.set_work_dir(cfg, 'work')
    (tmp_path / 'work').mkdir()
    cfg.dump('work/small.py')  # by a run; the next may start from it and write it again
    config.set_work_dir(config.load_config('work/small.py'), 'work')


def test_files_that_a_config_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('data/ann/val.json', 'weights.pth', 'b.json'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'small.py').write_text(
        BASE + "load_from = 'weights.pth'\nloader = dict(dataset=dict(data_root='data/', "
        "ann_file='ann/val.json', number=1, paths=['b.json', 'absent.json']))\n")
    assert config.named_files(config.load_config('small.py')) == [
        'small.py', 'b.json', 'data/ann/val.json', 'weights.pth']
