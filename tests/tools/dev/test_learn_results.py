"""What a training depends on: which files, which digests, which commit."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmdcn.errors import UserError
from tests.helpers import ROOT
from tools.dev import learn, learn_results
from tools.dev.learn_results import Outcome, Record

RECORD = Record(Outcome({'mIoU': 60.0}, 2000, 8.5), {'code': 'a', 'config': 'b'}, 'abc1234',
                'a processor, 2 cores', '2026-11-26')

# Imports what a config registers and builds its model; prints the project's files in use.
LOADED = '''
import sys
from pathlib import Path
from tools import test, train
from mmengine.registry import MODELS, DefaultScope
from mmdcn.apis import config
cfg = config.load_config(sys.argv[1])
with DefaultScope.overwrite_default_scope(cfg.default_scope):
    MODELS.build(cfg.model)
files = [Path(m.__file__) for m in list(sys.modules.values()) if getattr(m, '__file__', None)]
print(*sorted(str(f.relative_to(Path.cwd())) for f in files if Path.cwd() in f.parents), sep='\\n')
'''


def project(folder: Path, files: dict[str, str]) -> list[str]:
    """A project of ``tools/train.py``, ``tools/test.py`` and some files; what a training reads."""
    for name, text in {'tools/train.py': 'import mmdcn.a', 'tools/test.py': '', **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return [str(path.relative_to(folder)) for path in learn_results.source_files(['plug'], folder)]


def test_files_are_those_that_imports_reach(tmp_path):
    got = project(tmp_path, {
        'mmdcn/__init__.py': '', 'mmdcn/a.py': 'def f():\n    from mmdcn.room import b',
        'mmdcn/room/__init__.py': 'import torch', 'mmdcn/room/b.py': '', 'mmdcn/room/unused.py': '',
        'plug/__init__.py': 'from plug.heads import Head', 'plug/heads.py': 'import mmdcn.a',
        'other/__init__.py': '', 'docs/a.py': ''})
    assert got == ['mmdcn/__init__.py', 'mmdcn/a.py', 'mmdcn/room/__init__.py', 'mmdcn/room/b.py',
                   'plug/__init__.py', 'plug/heads.py', 'tools/test.py', 'tools/train.py']


def test_operators_come_with_their_sources(tmp_path):
    files = {'plug.py': 'from ops_dcn import dcnv4', 'ops_dcn/__init__.py': '',
             'ops_dcn/csrc/cpu/launch.cpp': '', 'ops_dcn/csrc/notes.md': '', 'setup.py': ''}
    assert project(tmp_path, files) == ['ops_dcn/__init__.py', 'ops_dcn/csrc/cpu/launch.cpp',
                                        'plug.py', 'setup.py', 'tools/test.py', 'tools/train.py']


@pytest.mark.parametrize('name', ['dino', 'bevformer-v2-t2'])
def test_no_file_that_a_training_loads_is_missed(name):
    pytest.importorskip('mmdet')
    config = ROOT / learn.SYSTEMS[name].config
    got = subprocess.run([sys.executable, '-c', LOADED, str(config)], cwd=ROOT, check=True,
                         capture_output=True, text=True).stdout.splitlines()
    # An environment may lie in the checkout.
    loaded = {line for line in got if line.endswith('.py') and 'site-packages' not in line}
    cfg = learn_results.load_config(str(config))
    known = {str(path.relative_to(ROOT)) for path in learn_results.source_files(
        cfg.custom_imports.imports)}
    assert len(loaded) > 30 and loaded <= known | set(learn_results.NOT_REACHED)
    assert not any(path.startswith(('mmseg_custom', 'docs', 'tests')) for path in known)
    assert 'ops_dcn/csrc/operators/dcnv4.cpp' in known


@pytest.fixture
def data(monkeypatch, tmp_path):
    """A manifest of the set that every config of these tests trains on."""
    pytest.importorskip('mmdet')
    manifest = tmp_path / 'mini_data.json'
    manifest.write_text('{"digest": "0123456789abcdef01234"}')
    original = learn_results.load_config

    def load(path, options=None):
        cfg = original(path, options)
        cfg.train_dataloader.dataset.data_root = str(tmp_path)
        return cfg
    monkeypatch.setattr(learn_results, 'load_config', load)
    return manifest


def test_digests_tell_what_changed(data, monkeypatch):
    config = learn.SYSTEMS['mask-rcnn'].config
    first = learn_results.digests(config)
    assert learn_results.digests(config) == first
    assert first['data'] == '0123456789abcdef'

    def changes(options=()):
        now = learn_results.digests(config, options)
        return learn_results.changed(Record(RECORD.outcome, first, '', '', ''), now)
    assert changes() == []
    assert changes(learn.FROZEN) == ['config']
    data.write_text('{"digest": "another"}')
    monkeypatch.setattr(learn_results, 'PROGRAMS', ('tools/train.py', 'tools/dev/learn.py'))
    monkeypatch.setattr(learn_results.metadata, 'version', lambda name: '0.0')
    assert changes() == ['code', 'data', 'frameworks']


def test_missing_data_is_told(data):
    data.unlink()
    with pytest.raises(UserError, match='mini_data.json cannot be read: .*; make data'):
        learn_results.digests(learn.SYSTEMS['mask-rcnn'].config)


def test_commit_says_whether_the_files_differ(monkeypatch):
    pytest.importorskip('mmdet')
    asked, status = [], ''

    def git(*words):
        asked.append(words)
        return 'abc1234' if words[0] == 'rev-parse' else status
    monkeypatch.setattr(learn_results, '_git', git)
    config = learn.SYSTEMS['mask-rcnn'].config
    assert learn_results.current_commit(config) == 'abc1234'
    assert 'configs' in asked[-1] and 'mmdcn/engine/runner.py' in asked[-1]
    assert 'docs' not in asked[-1]
    status = ' M mmdcn/engine/runner.py'
    assert learn_results.current_commit(config) == 'abc1234+'

    def absent(*words):
        raise subprocess.CalledProcessError(128, words)
    monkeypatch.setattr(learn_results, '_git', absent)
    assert learn_results.current_commit(config) == 'none'


def test_records_come_back_as_written(tmp_path):
    path = tmp_path / 'learn.json'
    assert learn_results.read_records(path) == {}
    learn_results.write_records(path, {'upernet': RECORD})
    assert learn_results.read_records(path) == {'upernet': RECORD}
    path.write_text('{"upernet": {"commit": 1}}')
    with pytest.raises(UserError, match='expected what this tool writes; delete it'):
        learn_results.read_records(path)


def test_a_part_that_is_new_has_changed():
    assert learn_results.changed(RECORD, {'code': 'a', 'config': 'b'}) == []
    assert learn_results.changed(RECORD, {'code': 'x', 'config': 'b', 'data': 'c'}) == [
        'code', 'data']
    assert learn_results.changed(RECORD, {'code': 'a'}) == ['config']


def test_machine_and_day_are_named():
    assert ' cores, torch ' in learn_results.machine()
    assert len(learn_results.today()) == 10
