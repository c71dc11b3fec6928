"""The runner's own parts, with a model of two layers where one is needed."""
from __future__ import annotations

import pytest
import torch

from mmdcn.checkpoints import CheckpointError, loading_policy
from mmdcn.engine import runner
from mmdcn.engine.runner import CheckedRunner, restore_on_error
from mmdcn.errors import UserError
from tests.mmdcn.data.images import write_images
from tests.mmdcn.engine.conftest import ToyImages


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


def test_an_interrupt_counts_as_a_failing_start(tmp_path):
    with pytest.raises(KeyboardInterrupt), restore_on_error(str(tmp_path / 'a'), lambda: False):
        (tmp_path / 'a').mkdir()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_what_succeeds_stays(tmp_path):
    with restore_on_error(str(tmp_path / 'a'), lambda: False):
        (tmp_path / 'a').mkdir()
    assert (tmp_path / 'a').is_dir()


@pytest.fixture
def saved(make, tmp_path):
    """Checkpoint of two steps."""
    first = make()
    first.train()
    return tmp_path / 'work' / 'iter_2.pth'


def test_config_is_written_when_the_run_begins(make, tmp_path):
    made = make()
    assert not made.started and not list((tmp_path / 'work').glob('*.py'))
    made.call_hook('before_train')
    assert made.started and len(list((tmp_path / 'work').glob('*.py'))) == 1


def test_runners_of_one_second_have_stamps_of_their_own(make, monkeypatch):
    monkeypatch.setattr(runner.Runner, 'setup_env', lambda self, env_cfg: setattr(
        self, '_timestamp', '20260102_030405'))
    monkeypatch.setattr(CheckedRunner, '_stamps', ['20260102_030404'])
    stamps = []
    for _ in range(3):
        bare = CheckedRunner.__new__(CheckedRunner)
        bare.setup_env({})
        stamps.append(bare._timestamp)
    assert stamps == ['20260102_030405', '20260102_030405_1', '20260102_030405_2']


def test_data_sets_are_built_and_checked_once(make):
    made = make()
    assert made.prepare_data(['train_dataloader', 'val_dataloader'], skip_bad=False) == 0
    checked = made._train_dataloader['dataset']['type']()
    loader = made.build_dataloader(made._train_dataloader)
    assert loader.dataset is checked and len(checked) == 4 and ToyImages.built == 1


def test_bad_images_stop_the_start_or_are_skipped(make, tmp_path, monkeypatch):
    bad = tmp_path / 'images' / '1.jpg'
    bad.write_bytes(bad.read_bytes()[:100])
    with pytest.raises(UserError, match='1 of 4 samples have broken files') as caught:
        make().prepare_data(['train_dataloader'], skip_bad=False)
    assert caught.value.name == 'train_dataloader.dataset'
    made, lines = make(), []
    monkeypatch.setattr(made.logger, 'warning', lines.append)
    assert made.prepare_data(['train_dataloader'], skip_bad=True) == 1
    assert len(made._train_dataloader['dataset']['type']()) == 3
    assert len(lines) == 1 and 'skipped train_dataloader.dataset' in lines[0]


def test_skipped_images_of_a_validation_are_a_warning_about_metrics(make, tmp_path, monkeypatch):
    write_images(tmp_path / 'val', 3)
    (tmp_path / 'val' / '0.jpg').write_bytes(b'')
    made, lines = make(), []
    made._val_dataloader = make.loader('val')
    monkeypatch.setattr(made.logger, 'warning', lines.append)
    assert made.prepare_data(['train_dataloader', 'val_dataloader'], skip_bad=True) == 1
    assert len(lines) == 2 and 'count the skipped images' in lines[1]


def test_trusted_data_is_not_looked_at(make, tmp_path):
    (tmp_path / 'images' / '1.jpg').write_bytes(b'')
    made = make()
    assert made.prepare_data(['train_dataloader'], skip_bad=False, trust_data=True) == 0
    assert len(made._train_dataloader['dataset']['type']()) == 4


def test_unknown_optimizer_is_named(make):
    made = make()
    with pytest.raises(KeyError, match='SDG is not in the mmengine::optimizer registry'):
        made.build_optim_wrapper(dict(optimizer=dict(type='SDG', lr=0.1)))


def test_kept_checkpoint_is_the_best_else_the_last(make, tmp_path):
    made = make()
    assert made.kept_checkpoint() == 'none'
    (tmp_path / 'work' / 'iter_2.pth').write_text('')
    assert made.kept_checkpoint() == str(tmp_path / 'work' / 'iter_2.pth')
    made.message_hub.update_info('best_ckpt', 'work/best.pth')
    assert made.kept_checkpoint() == 'work/best.pth'


def test_saved_state_needs_no_permissions_and_continues(make, saved):
    state = torch.load(saved, weights_only=True)
    assert state['meta']['iter'] == 2 and state['optimizer']['state']
    second = make(resume=True, load_from=str(saved),
                  train_cfg=dict(type='IterBasedTrainLoop', max_iters=4))
    second.train()
    assert second.iter == 4
    assert torch.load(saved.with_name('iter_4.pth'), weights_only=True)['meta']['iter'] == 4


def test_weights_alone_do_not_continue_but_start_anew(make, saved):
    weights = saved.with_name('weights.pth')
    torch.save({'state_dict': torch.load(saved, weights_only=True)['state_dict']}, weights)
    with pytest.raises(CheckpointError, match=r'weights\.pth lacks meta\.epoch, meta\.iter'):
        make(resume=True, load_from=str(weights)).train()
    started = make(load_from=str(weights))
    started.train()
    assert started.iter == 2


@pytest.mark.parametrize(('change', 'words'), [
    (lambda state: state['optimizer']['param_groups'].append({'params': []}), 'ValueError'),
    (lambda state: state['optimizer'].pop('param_groups'), 'lacks param_groups'),
    (lambda state: state.update(optimizer=[1]), 'is a list, expected a dictionary'),
])
def test_training_state_of_another_config_is_refused(make, saved, change, words):
    state = torch.load(saved, weights_only=True)
    change(state)
    torch.save(state, saved)
    with pytest.raises(CheckpointError, match=words) as caught:
        make(resume=True, load_from=str(saved)).train()
    assert caught.value.name == 'resume' and 'use the config it was trained with' in str(
        caught.value)


def test_weights_of_another_model_are_refused_unless_less_is_allowed(make, saved):
    made = make(model=dict(type='Toy', width=5))
    with pytest.raises(CheckpointError):
        made.load_checkpoint(str(saved))
    assert not made._has_loaded
    with loading_policy(min_match=0):
        made.load_checkpoint(str(saved))
    assert made._has_loaded
    with loading_policy(min_match=0), pytest.raises(CheckpointError):
        made.load_checkpoint(str(saved), strict=True)


def test_deformable_attention_of_a_model_runs_on_our_operators():
    from mmcv.ops import MultiScaleDeformableAttention as Original

    from mmdcn.layers import MultiScaleDeformableAttention
    original = torch.nn.Sequential(Original(embed_dims=8, num_heads=2, num_levels=1))
    model = CheckedRunner.build_model(object.__new__(CheckedRunner), original)
    assert isinstance(model[0], MultiScaleDeformableAttention)
