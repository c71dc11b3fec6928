"""Checkpoints that strangers made, and our own, through the command line tools."""
from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmdcn.checkpoints import save_checkpoint
from tests import tiny
from tools import predict, test, train


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return tiny.make_classifier(tmp_path / 'cls')


@pytest.fixture
def state(trained) -> dict[str, torch.Tensor]:
    """Weights that fit the classifier."""
    return dict(torch.load(trained('classifier').checkpoint, weights_only=True)['state_dict'])


def write(folder: Path, content: object, name: str = 'a.pth') -> str:
    """Write a checkpoint, or bytes as they are."""
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    return str(path)


def arguments(tool: str, config: Path, checkpoint: str, out: Path) -> tuple[Callable, list[str]]:
    """A tool and its command line that read the checkpoint."""
    work = ['--work-dir', str(out)]
    if tool == 'pretrained':
        text = config.read_text().replace(
            "type='MobileNetV2',", f"type='MobileNetV2', init_cfg=dict(type='Pretrained', "
                                   f"checkpoint={checkpoint!r}),")
        config.write_text(text)
        return train.main, [str(config), *work]
    if tool == 'resume':
        return train.main, [str(config), *work, '--resume', checkpoint]
    if tool == 'load_from':
        return train.main, [str(config), *work, '--cfg-options', f'load_from={checkpoint}']
    if tool == 'test':
        return test.main, [str(config), checkpoint, *work]
    images = str(config.parent / 'val' / 'dark')
    return predict.main, [str(config), checkpoint, images, '--out-dir', str(out)]


TOOLS = ['resume', 'load_from', 'pretrained', 'test', 'predict']


@pytest.fixture
def refused(tmp_path, classifier, capsys):
    """Function that runs a tool on a checkpoint, demands its refusal, and gives its message."""

    def run(tool: str, checkpoint: str, *more: str) -> str:
        main, argv = arguments(tool, classifier, checkpoint, tmp_path / 'new' / 'out')
        capsys.readouterr()
        code = main([*argv, *more])
        message = capsys.readouterr().err
        assert code == 2, message
        assert message.count('error:') == 1 and 'Traceback' not in message
        assert not (tmp_path / 'new').exists(), 'a refused run wrote files'
        return message

    return run


@pytest.mark.parametrize('tool', TOOLS)
def test_code_in_a_checkpoint_is_not_run(refused, state, tmp_path, tool):
    evil = {'meta': {'epoch': 0, 'iter': 2}, 'state_dict': state, 'message_hub': {},
            'optimizer': {'state': {0: {'momentum_buffer': Call(os.mkdir, str(tmp_path / 'ran'))}}}}
    message = refused(tool, write(tmp_path, evil))
    assert 'mkdir' in message and 'not executed' in message and '--trust-checkpoint' in message
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('tool', TOOLS)
def test_truncated_file(refused, state, tmp_path, tool):
    path = Path(write(tmp_path, {'state_dict': state}))
    path.write_bytes(path.read_bytes()[:-2000])
    assert 'cannot be read' in refused(tool, str(path))


@pytest.mark.parametrize('tool', ['pretrained', 'test'])
@pytest.mark.parametrize(('content', 'words'), [
    (b'<html>404</html>', 'web page'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
    ({'levels.0.weight': torch.ones(3)}, 'does not fit the model'),
    ([1, 2], 'expected a dictionary'),
])
def test_other_files(refused, tmp_path, tool, content, words):
    assert words in refused(tool, write(tmp_path, content))


@pytest.mark.parametrize('tool', TOOLS)
def test_trust_reaches_every_way(tmp_path, classifier, state, capsys, tool):
    made = tmp_path / 'ran'
    if tool == 'resume':
        config = classifier.parent / 'copy.py'
        config.write_text(classifier.read_text())
        assert train.main([str(config), '--work-dir', str(tmp_path / 'first')]) == 0
        content = torch.load(tmp_path / 'first' / 'iter_2.pth', weights_only=True)
    else:
        content = {'state_dict': state}
    path = write(tmp_path, {**content, 'extra': Call(os.makedirs, str(made), 0o777, True)})
    main, argv = arguments(tool, classifier, path, tmp_path / 'out')
    capsys.readouterr()
    assert main([*argv, '--trust-checkpoint']) == 0
    assert made.is_dir()
    out = ''.join(capsys.readouterr())
    assert f'--trust-checkpoint: {path} is unpickled without restrictions' in out
    made.rmdir()
    assert main(argv) == 2 and not made.exists()


def test_min_match(refused, classifier, state, tmp_path, capsys):
    for key in [key for key in state if key.startswith('backbone.conv2')]:
        del state[key]
    path = write(tmp_path, state)
    assert 'missing 6: backbone.conv2.conv.weight, ' in refused('test', path)
    main, argv = arguments('test', classifier, path, tmp_path / 'out')
    assert main([*argv, '--min-match', '0.9']) == 0
    assert 'expected a number within 0..1' in refused_option(main, argv, capsys)


def refused_option(main: Callable, argv: list[str], capsys: pytest.CaptureFixture) -> str:
    capsys.readouterr()
    assert main([*argv, '--min-match', '9']) == 2
    return capsys.readouterr().err


def test_safetensors(classifier, state, tmp_path, capsys):
    save_checkpoint(tmp_path / 'a.safetensors', state, {'dataset_meta': {'classes': ['x', 'y']}})
    for tool in ('load_from', 'pretrained', 'test', 'predict'):
        main, argv = arguments(tool, classifier, str(tmp_path / 'a.safetensors'), tmp_path / tool)
        assert main(argv) == 0
    assert list((tmp_path / 'predict').glob('*.json'))


def test_weights_alone_are_not_resumed(refused, state, tmp_path):
    message = refused('resume', write(tmp_path, {'state_dict': state}))
    assert 'lacks meta.epoch, meta.iter, message_hub' in message and 'load_from' in message


def test_another_optimizer_is_not_resumed(refused, trained):
    message = refused('resume', trained('classifier').checkpoint, '--cfg-options',
                      'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=0.1')
    assert 'does not continue this config' in message and 'parameter group' in message


@pytest.mark.parametrize('task', ['classifier', 'detector', 'segmentor'])
def test_checkpoints_of_every_task_need_no_permissions(trained, task):
    content = torch.load(trained(task).checkpoint, weights_only=True)
    assert content['meta']['dataset_meta']['classes'] and content['optimizer']['state']
    assert content['message_hub']['runtime_info'] and content['message_hub']['log_scalars']


def test_own_checkpoints_need_no_permissions(classifier, tmp_path):
    hook = "custom_hooks = [dict(type='EMAHook', ema_type='ExponentialMovingAverage')]\n"
    classifier.write_text(classifier.read_text() + hook)
    common = [str(classifier), '--seed', '0']
    assert train.main([*common, '--work-dir', str(tmp_path / 'whole')]) == 0
    whole = torch.load(tmp_path / 'whole' / 'iter_4.pth', weights_only=True)
    assert {'state_dict', 'ema_state_dict', 'optimizer', 'message_hub', 'param_schedulers',
            'meta'} <= whole.keys()
    assert train.main([*common, '--work-dir', str(tmp_path / 'rest'), '--resume',
                       str(tmp_path / 'whole' / 'iter_2.pth')]) == 0
    rest = torch.load(tmp_path / 'rest' / 'iter_4.pth', weights_only=True)
    for part in ('state_dict', 'ema_state_dict'):
        assert whole[part].keys() == rest[part].keys()
    lengths = [{name: len(value['log_history']) for name, value in
                content['message_hub']['log_scalars'].items()} for content in (whole, rest)]
    assert lengths[0] == lengths[1] and lengths[0]['train/loss'] == 4
    assert whole['param_schedulers'][0]['last_step'] == rest['param_schedulers'][0]['last_step']


CODE = "open({target!r}, 'w').write('x')"
BAITS = [
    ('outside', CODE), ('work', "import os\nos.mkdir({target!r})"), ('outside', '{file}'),
    ('work', '{file}'), ('outside', '{folder}'), ('work', '{folder}'), ('outside', 'file://{file}'),
    ('outside', 'http://localhost:9/{file}'), ('outside', '../outside/best_file.pth'),
]


def baited(value: object, bait: str) -> object:
    """The same data with every text replaced, and the keys that mmengine looks for put in."""
    if isinstance(value, dict):
        return {key: baited(item, bait) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(baited(item, bait) for item in value)
    return bait if isinstance(value, str) else value


def bait_all(checkpoint: dict, bait: str) -> dict:
    """A checkpoint that still resumes, if all that is not numbers is just not used."""
    made = {key: value if key == 'state_dict' else baited(value, bait)
            for key, value in checkpoint.items()}
    made['meta'].update(config=bait, cfg=bait, mmengine_version=bait, hook_msgs={'last_ckpt': bait},
                        CLASSES=bait, PALETTE=bait, env_info=bait)
    names = ('best_ckpt', 'last_ckpt', 'cfg', 'loop_stage', 'experiment_name', 'work_dir',
             f'best_ckpt_{bait}', 'best_ckpt_accuracy/top1')
    made['message_hub']['runtime_info'].update(
        dict.fromkeys(names, bait), keep_ckpt_ids=[7, bait, 2, bait], best_score=-1.0)
    made['message_hub']['log_scalars'][f'train/{bait}'] = bait
    made['message_hub']['resumed_keys'].update({bait: bait, 'train/loss': bait})
    made['optimizer']['param_groups'][0].update(foreach_name=bait, group_name=bait)
    made['param_schedulers'][0].update(step=bait, _get_value=bait, verbose_name=bait)
    return {**made, 'filename': bait, 'hooks': [bait], 'init_cfg': {'checkpoint': bait}}


@pytest.fixture(scope='module')
def half_run(tmp_path_factory) -> Path:
    """Folder of a run that was stopped in its middle, with a best checkpoint."""
    root = tmp_path_factory.mktemp('half')
    config = tiny.make_classifier(root / 'data')
    config.write_text(config.read_text().replace("save_best='auto'", (
        "save_best='auto', max_keep_ckpts=1")).replace('val_interval=4', 'val_interval=1'))
    work = ['--work-dir', str(root / 'work')]
    assert train.main([str(config), *work, '--cfg-options', 'train_cfg.max_iters=2']) == 0
    return root


def snapshot(folder: Path) -> dict[str, tuple]:
    """What lies in a folder: names, contents and when each was last read and written."""
    return {str(path): (path.read_bytes() if path.is_file() else b'', path.stat().st_mtime_ns)
            for path in sorted(folder.rglob('*'))}


@pytest.mark.parametrize(('place', 'bait'), BAITS)
def test_no_text_of_a_checkpoint_is_more_than_data(half_run, tmp_path, monkeypatch, place, bait):
    shutil.copytree(half_run / 'work', tmp_path / 'work')
    sentinels = tmp_path / place / 'sentinels'
    for folder in {tmp_path / 'outside', sentinels.parent, sentinels}:
        (folder / 'best_folder.pth').mkdir(parents=True)
        (folder / 'iter_7.pth').mkdir()
        for name in ('best_file.pth', 'best_folder.pth/x', 'iter_7.pth/x'):
            (folder / name).write_text('precious')
    watched = tmp_path / 'outside', sentinels, tmp_path / 'work' / 'iter_7.pth'
    before = [snapshot(folder) for folder in watched]
    bait = bait.format(target=str(sentinels / 'made'), file=sentinels / 'best_file.pth',
                       folder=sentinels / 'best_folder.pth')
    opened = []
    monkeypatch.setattr('builtins.open', spy(open, opened))
    monkeypatch.setattr('io.open', spy(io.open, opened))
    path = tmp_path / 'work' / 'iter_2.pth'
    torch.save(bait_all(torch.load(path, weights_only=True), bait), path)
    monkeypatch.chdir(tmp_path / 'work')
    config = str(half_run / 'data' / 'classifier.py')
    assert train.main([config, '--work-dir', str(tmp_path / 'work'), '--resume', str(path)]) == 0
    assert not [name for name in opened if 'sentinels' in name or 'outside/' in name]
    assert [snapshot(folder) for folder in watched] == before
    assert (tmp_path / 'work' / 'iter_4.pth').is_file() and not path.exists()


def spy(function: Callable, opened: list[str]) -> Callable:
    """The same function, whose first arguments are noted."""
    def call(file: object, *args: object, **kwargs: object) -> object:
        opened.append(str(file))
        return function(file, *args, **kwargs)

    return call


def test_an_honest_file_knows_its_best_checkpoint(half_run, tmp_path, capsys):
    shutil.copytree(half_run / 'work', tmp_path / 'moved')
    old_best = next((tmp_path / 'moved').glob('best_*.pth'))
    path = tmp_path / 'moved' / 'iter_2.pth'
    content = torch.load(path, weights_only=True)
    content['message_hub']['runtime_info']['best_score'] = -1.0  # any score is better
    torch.save(content, path)
    config = str(half_run / 'data' / 'classifier.py')
    capsys.readouterr()
    assert train.main([config, '--work-dir', str(tmp_path / 'moved'), '--resume', str(path)]) == 0
    best = next((tmp_path / 'moved').glob('best_*.pth'))
    assert best.name != old_best.name and not old_best.exists()
    assert f'checkpoint {best}' in capsys.readouterr().out
    assert next((half_run / 'work').glob('best_*.pth')).name == old_best.name


@pytest.fixture
def of_80_classes(trained, tmp_path) -> str:
    """Weights of the tiny detector as if trained on 80 classes."""
    state = torch.load(trained('detector').checkpoint, weights_only=True)['state_dict']
    for name, rows in (('bbox_head.fc_cls', 81), ('bbox_head.fc_reg', 320),
                       ('mask_head.conv_logits', 80)):
        for part in ('weight', 'bias'):
            key = f'roi_head.{name}.{part}'
            state[key] = torch.ones(rows, *state[key].shape[1:])
    names = [f'class {i}' for i in range(80)]
    return write(tmp_path, {'state_dict': state, 'meta': {'dataset_meta': {'classes': names}}})


@pytest.mark.parametrize('hooks', ['', "custom_hooks = [dict(type='EMAHook', strict_load=True)]\n"])
def test_training_starts_from_another_number_of_classes(trained, of_80_classes, tmp_path, capsys,
                                                        hooks):
    config = Path(trained('detector').config)
    own = config.with_name(f'finetune{len(hooks)}.py')
    own.write_text(config.read_text() + hooks)
    capsys.readouterr()
    assert train.main([str(own), '--work-dir', str(tmp_path / 'work'), '--cfg-options',
                       f'load_from={of_80_classes}', 'train_cfg.max_iters=2']) == 0
    out = ''.join(capsys.readouterr())
    assert 're-initialised, as the classes are others: 6: roi_head.bbox_head.fc_cls.weight' in out
    assert 'other classes than the data' not in out and 'do not match exactly' not in out


def test_testing_and_predicting_are_strict_about_classes(trained, of_80_classes, tmp_path, capsys):
    system = trained('detector')
    for main, more in ((test.main, ['--work-dir', str(tmp_path / 'a')]),
                       (predict.main, [str(system.data / 'images'), '--out-dir', str(tmp_path)])):
        assert main([system.config, of_80_classes, *more]) == 2
        assert 'does not fit the model' in capsys.readouterr().err


def test_as_many_classes_of_other_names_are_said(classifier, state, tmp_path, capsys):
    for names, said in ((['dark', 'light'], False), (['cat', 'light'], True)):
        path = write(tmp_path, {'state_dict': state, 'meta': {'dataset_meta': {'classes': names}}})
        main, argv = arguments('load_from', classifier, path, tmp_path / names[0])
        capsys.readouterr()
        assert main([*argv, 'train_cfg.max_iters=1']) == 0
        assert ("1 names differ, the first is 'cat' for 'dark'"
                in ''.join(capsys.readouterr())) is said


@pytest.mark.parametrize('meta', [{'classes': [1, 2]}, {'palette': [[0, 0, 256]] * 2}, [1]])
def test_hostile_names_of_classes(refused, state, tmp_path, meta):
    path = write(tmp_path, {'state_dict': state, 'meta': {'dataset_meta': meta}})
    assert f'of {path} is a list' in refused('predict', path)
