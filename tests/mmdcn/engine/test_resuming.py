"""What a run takes over from a checkpoint, key by key."""
from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.optim import LinearLR, MultiStepLR, OneCycleLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmdcn.checkpoints import CheckpointError
from mmdcn.engine.resuming import resumable

BAIT = '../outside/bait'


def make_run(folder, loop=IterBasedTrainLoop, **hook) -> SimpleNamespace:
    """What is asked of a runner, with a real optimizer and real schedules."""
    layer = torch.nn.Linear(2, 1)
    optimizer = OptimWrapper(torch.optim.Adam(layer.parameters(), lr=0.1))
    schedules = [LinearLR(optimizer, by_epoch=False, end=4),
                 MultiStepLR(optimizer, [2, 3], by_epoch=False)]
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    hook = CheckpointHook(by_epoch=False, interval=2, filename_tmpl='iter_{}.pth', **hook)
    return SimpleNamespace(
        train_loop=loop.__new__(loop), max_iters=10, max_epochs=3, work_dir=str(folder),
        optim_wrapper=optimizer, param_schedulers=schedules, hooks=[hook],
        build_optim_wrapper=lambda made: made, build_param_scheduler=lambda made: made)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


@pytest.fixture
def checkpoint(run):
    """What such a run saves, with all that mmengine reads again."""
    return {
        'meta': {'epoch': 1, 'iter': 4, 'seed': 3, 'dataset_meta': {'classes': ('a',)},
                 'config': BAIT, 'cfg': BAIT, 'experiment_name': BAIT, 'time': BAIT},
        'state_dict': {'weight': torch.ones(1)}, 'ema_state_dict': {'module.weight': torch.ones(1)},
        'message_hub': {
            'log_scalars': {'train/loss': HistoryBuffer([1.0], [1])},
            'runtime_info': {'best_score': 0.5, 'best_ckpt': BAIT, 'last_ckpt': BAIT,
                             'keep_ckpt_ids': [2], 'cfg': BAIT, 'mine': [1, 2.0], 'iter': 9},
            'resumed_keys': {'train/loss': True}},
        'optimizer': copy.deepcopy(run.optim_wrapper.state_dict()),
        'param_schedulers': [copy.deepcopy(one.state_dict()) for one in run.param_schedulers],
        'unknown': BAIT}


def leaves(value: object, path: tuple = ()) -> Iterator[tuple]:
    """Paths of everything in nested lists and dictionaries, containers included."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else \
        enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        yield from leaves(item, (*path, key))


def put(value: dict, path: tuple, new: object) -> dict:
    """A copy with another value at one place."""
    if not path:
        return new
    if isinstance(value, tuple):
        return tuple(put(list(value), path, new))
    made = copy.copy(value)
    made[path[0]] = put(value[path[0]], path[1:], new)
    return made


def holds(value: object, bait: object) -> bool:
    parts = (*value.keys(), *value.values()) if isinstance(value, dict) else \
        value if isinstance(value, list | tuple) else ()
    return value is bait or any(holds(part, bait) for part in parts)


def test_numbers_are_taken_over(run, checkpoint):
    checkpoint['param_schedulers'][0]['last_step'] = 7
    checkpoint['optimizer']['param_groups'][0]['lr'] = 0.25
    kept = resumable(checkpoint, run, 'a.pth')
    assert kept['meta'] == {'epoch': 1, 'iter': 4, 'seed': 3, 'dataset_meta': {'classes': ('a',)}}
    assert kept['message_hub']['runtime_info'] == {'best_score': 0.5, 'keep_ckpt_ids': [],
                                                   'mine': [1, 2.0]}
    assert kept['message_hub']['log_scalars'].keys() == {'train/loss'}
    assert kept['param_schedulers'][0]['last_step'] == 7
    assert kept['optimizer']['param_groups'][0]['lr'] == 0.25
    assert kept.keys() == checkpoint.keys() - {'unknown'}
    run.optim_wrapper.load_state_dict(kept['optimizer'])
    for schedule, state in zip(run.param_schedulers, kept['param_schedulers'], strict=True):
        schedule.load_state_dict(state)
        schedule.step()
    run.optim_wrapper.step()


@pytest.mark.parametrize('bait', [
    "__import__('os').mkdir('pwned')", ['../x'], {'step': 'text'}, 10 ** 30, print,
    torch.ones(2).to_sparse()], ids=['text', 'list', 'dict', 'large', 'function', 'sparse'])
def test_every_key_takes_numbers_alone(run, checkpoint, bait):
    taken, refused = [], []
    for path in leaves(checkpoint):
        if path[0] == 'state_dict' or path[:2] == ('meta', 'dataset_meta'):
            continue  # copied into the model by shape, or compared
        try:
            kept = resumable(put(checkpoint, path, bait), run, 'a.pth')
        except (CheckpointError, ValueError) as error:
            refused.append(path)
            assert 'Traceback' not in str(error)
        else:
            assert not holds(kept, bait), path
            taken.append(path)
    assert len(refused) > 20 and len(taken) > 10


def test_a_schedule_keeps_its_methods_and_its_texts(run, checkpoint):
    checkpoint['param_schedulers'][0].update(step=1, _get_value=2, param_name='weight_decay',
                                             optimizer=3, more=4)
    state = resumable(checkpoint, run, 'a.pth')['param_schedulers'][0]
    assert state['param_name'] == 'lr'
    assert not {'step', '_get_value', 'optimizer', 'more'} & state.keys()


def test_functions_of_a_schedule_are_its_own(run):
    run.param_schedulers = [OneCycleLR(run.optim_wrapper, eta_max=0.1, total_steps=9)]
    own = run.param_schedulers[0].state_dict()
    whole = {'meta': {'epoch': 0, 'iter': 0}, 'state_dict': {},
             'message_hub': dict.fromkeys(('log_scalars', 'runtime_info', 'resumed_keys'), {}),
             'param_schedulers': [{**own, 'anneal_func': 'eval', '_schedule_phases': 3}]}
    state = resumable(whole, run, 'a.pth')['param_schedulers'][0]
    assert state['anneal_func'] == own['anneal_func']
    assert state['_schedule_phases'] == own['_schedule_phases']


@pytest.mark.parametrize(('name', 'found'), [
    ('best_acc_iter_2.pth', True), ('/elsewhere/run/best_acc_iter_2.pth', True),
    ('C:\\work\\best_acc_iter_2.pth', True), ('best_folder_1.pth', False), ('iter_2.pth', False),
    ('notes.txt', False), ('best_notes.txt', False), ('best_absent_3.pth', False),
    ('', False), ('best_\0.pth', False), (['best_acc_iter_2.pth'], False), (7, False)])
@pytest.mark.parametrize('key', ['best_ckpt', 'best_ckpt_acc'])
def test_best_checkpoints_are_those_of_this_folder(tmp_path, run, checkpoint, name, found, key):
    for file in ('best_acc_iter_2.pth', 'iter_2.pth', 'notes.txt', 'best_notes.txt'):
        (tmp_path / file).touch()
    (tmp_path / 'best_folder_1.pth').mkdir()
    checkpoint['message_hub']['runtime_info'][key] = name
    info = resumable(checkpoint, run, 'a.pth')['message_hub']['runtime_info']
    assert info.get(key) == (str(tmp_path / 'best_acc_iter_2.pth') if found else None)


def test_the_hook_may_have_a_folder_of_its_own(tmp_path, checkpoint):
    (tmp_path / 'kept' / 'work').mkdir(parents=True)
    run = make_run(tmp_path / 'work', out_dir=str(tmp_path / 'kept'))
    best = tmp_path / 'kept' / 'work' / 'best_a_iter_2.pth'
    best.touch()
    (tmp_path / 'kept' / 'work' / 'iter_2.pth').touch()
    checkpoint['message_hub']['runtime_info']['best_ckpt'] = 'gone/best_a_iter_2.pth'
    info = resumable(checkpoint, run, 'a.pth')['message_hub']['runtime_info']
    assert info['best_ckpt'] == str(best) and info['keep_ckpt_ids'] == [2]


def test_steps_to_prune_are_numbers_of_files(tmp_path, run, checkpoint):
    (tmp_path / 'iter_2.pth').touch()
    (tmp_path / 'iter_7.pth').mkdir()
    (tmp_path / 'iter_True.pth').touch()
    steps = [2, 7, 8, -1, True, '2', '../x', 2.0, 10 ** 5000, None, [2]]
    checkpoint['message_hub']['runtime_info']['keep_ckpt_ids'] = steps
    info = resumable(checkpoint, run, 'a.pth')['message_hub']['runtime_info']
    assert info['keep_ckpt_ids'] == [2] and type(info['keep_ckpt_ids'][0]) is int


@pytest.mark.parametrize(('change', 'words'), [
    (dict(meta=None), 'lacks meta.epoch, meta.iter'),
    (dict(meta=dict(epoch=1)), 'lacks meta.iter'),
    (dict(meta=dict(epoch='1', iter=3)), 'lacks meta.epoch'),
    (dict(meta=dict(epoch=True, iter=-1)), 'lacks meta.epoch, meta.iter'),
    (dict(message_hub=dict(log_scalars={})), 'lacks message_hub'),
    (dict(message_hub=dict(log_scalars=[], runtime_info=1, resumed_keys={})), 'lacks message_hub'),
    (dict(message_hub=7), 'lacks message_hub'),
])
def test_weights_alone_are_not_resumed(run, checkpoint, change, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        resumable({**checkpoint, **change}, run, 'a.pth')
    assert caught.value.name == 'resume' and 'load_from=FILE' in str(caught.value)


@pytest.mark.parametrize(('loop', 'meta', 'words'), [
    (IterBasedTrainLoop, dict(epoch=9, iter=11), 'iter 11, expected at most train_cfg.max_iters'),
    (EpochBasedTrainLoop, dict(epoch=4, iter=99), 'epoch 4, expected at most train_cfg.max_epochs'),
])
def test_a_file_from_beyond_the_end(tmp_path, checkpoint, loop, meta, words):
    run = make_run(tmp_path, loop)
    with pytest.raises(CheckpointError, match=words):
        resumable({**checkpoint, 'meta': meta}, run, 'a.pth')


def test_optimizers_by_name(run, checkpoint):
    own = run.optim_wrapper.state_dict()
    schedules = run.param_schedulers
    run.optim_wrapper = SimpleNamespace(state_dict=lambda: {'a': own, 'b': own})
    run.param_schedulers = {'a': schedules, 'b': []}
    both = {**checkpoint, 'optimizer': {'a': own, 'b': own, 'c': BAIT},
            'param_schedulers': {'a': checkpoint['param_schedulers'], 'b': []}}
    kept = resumable(both, run, 'a.pth')
    assert kept['optimizer'].keys() == {'a', 'b'} and len(kept['param_schedulers']['a']) == 2
    for key in ('optimizer', 'param_schedulers'):
        with pytest.raises(CheckpointError, match=f'{key} of a.pth: b is a NoneType'):
            resumable({**both, key: {'a': both[key]['a']}}, run, 'a.pth')


def test_lists_that_hold_one_another_a_thousand_times(run, checkpoint):
    level: list = [1]
    for _ in range(3):
        level = [level] * 3000
    checkpoint['message_hub']['runtime_info']['mine'] = level
    assert 'mine' not in resumable(checkpoint, run, 'a.pth')['message_hub']['runtime_info']
