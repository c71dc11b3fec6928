"""The runner's own parts, without a training."""
from __future__ import annotations

import pytest

from mmdcn.checkpoints import CheckpointError
from mmdcn.engine import runner
from mmdcn.engine.runner import find_checkpoint, restore_on_error
from mmdcn.errors import UserError

WHOLE = dict(meta=dict(epoch=1, iter=10),
             message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}))


def test_last_checkpoint_is_found_by_its_note(tmp_path):
    with pytest.raises(UserError, match='holds no checkpoint to continue from') as caught:
        find_checkpoint(str(tmp_path))
    assert caught.value.name == 'resume'
    (tmp_path / 'last_checkpoint').write_text('somewhere/iter_4.pth\n')
    assert find_checkpoint(str(tmp_path)) == 'somewhere/iter_4.pth'


@pytest.mark.parametrize(('change', 'words'), [
    (dict(meta=None), 'lacks meta.epoch, meta.iter'),
    (dict(meta=dict(epoch=1)), 'lacks meta.iter'),
    (dict(meta=dict(epoch='1', iter=3)), 'lacks meta.epoch'),
    (dict(message_hub=dict(log_scalars={})), 'lacks message_hub'),
    (dict(message_hub=7), 'lacks message_hub'),
])
def test_weights_alone_are_not_resumed(change, words):
    runner._check_training_state(WHOLE, 'a.pth')
    with pytest.raises(CheckpointError, match=words) as caught:
        runner._check_training_state({**WHOLE, **change}, 'a.pth')
    assert caught.value.name == 'resume' and 'load_from=FILE' in str(caught.value)


def fail(folder, begun):
    with pytest.raises(KeyError), restore_on_error(str(folder), lambda: begun):
        (folder / 'logs').mkdir(parents=True)
        (folder / 'logs' / 'a.txt').write_text('x')
        (folder / 'b.txt').write_text('x')
        raise KeyError('x')


def test_new_folders_vanish_when_the_start_fails(tmp_path):
    fail(tmp_path / 'new' / 'work', begun=False)
    assert not list(tmp_path.iterdir())


def test_old_files_stay_when_the_start_fails(tmp_path):
    (tmp_path / 'old.txt').write_text('x')
    fail(tmp_path, begun=False)
    assert [path.name for path in tmp_path.iterdir()] == ['old.txt']


def test_nothing_vanishes_once_the_run_has_begun(tmp_path):
    fail(tmp_path / 'work', begun=True)
    assert {path.name for path in (tmp_path / 'work').iterdir()} == {'logs', 'b.txt'}


def test_notes_of_dependencies_are_filtered():
    class Record:
        def __init__(self, text):
            self.getMessage = lambda: text
    assert not runner._is_of_use(Record('"FileClient" will be deprecated in future'))
    assert runner._is_of_use(Record('the "FileClient" will be deprecated'))
