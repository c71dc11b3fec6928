"""Files that are whole or not there."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mmdcn.writing import whole_file, write_text


def test_file_appears_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / 'new' / 'a.json'
    write_text(path, 'old')
    with whole_file(path) as part:
        assert part.parent == path.parent and part.suffix == '.json'
        part.write_text('new')
        assert path.read_text() == 'old'
    assert path.read_text() == 'new' and os.listdir(path.parent) == ['a.json']


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    with pytest.raises(OSError, match='No space'), whole_file(path) as part:
        part.write_text('ne')
        raise OSError(28, 'No space left on device')
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['a.txt']


def test_kill_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    code = ('import os, sys; from mmdcn.writing import whole_file\n'
            'with whole_file(sys.argv[1]) as part:\n'
            '    part.write_text("half"); os.kill(os.getpid(), 9)\n')
    assert subprocess.run([sys.executable, '-c', code, str(path)]).returncode == -9
    assert path.read_text() == 'old'


def test_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(os, 'fsync', lambda handle: order.append('sync'))
    replace = os.replace
    monkeypatch.setattr(os, 'replace', lambda *names: order.append('name') or replace(*names))
    write_text(tmp_path / 'a.txt', 'text')
    assert order == ['sync', 'name', 'sync']
