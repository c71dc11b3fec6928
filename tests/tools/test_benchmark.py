"""tools/benchmark.py on a CPU: mini models of every task, comparisons, and what is refused."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from mmdcn.analysis import speed
from mmdcn.apis.config import load_config
from ops_dcn import DCNv4
from tests import tiny
from tests.helpers import ROOT
from tools import benchmark

MINI = sorted((ROOT / 'configs' / 'mini').glob('*.py'))
CLASSIFIER = next(str(path) for path in MINI if path.stem.startswith('flash-internimage'))
DETECTOR = next(str(path) for path in MINI if path.stem.startswith('mask-rcnn_flash'))
QUICK = ['--device', 'cpu', '--size', '64', '64', '--repetitions', '1', '--warmup', '1',
         '--profile-steps', '1']
FEW_BOXES = ['--cfg-options', 'model.test_cfg.rcnn.max_per_img=2',
             'model.test_cfg.rpn.max_per_img=5', 'model.train_cfg.rpn_proposal.max_per_img=5']

FEW_QUERIES = ['--cfg-options', 'model.num_queries=10', 'model.dn_cfg.group_cfg.num_dn_queries=4',
               'model.encoder.num_layers=1', 'model.decoder.num_layers=1']


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope='module')
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier without deformable operators."""
    return str(tiny.make_classifier(tmp_path_factory.mktemp('tiny') / 'data'))


def run(*arguments: str, folder: Path) -> dict[str, Any]:
    """What the tool writes as JSON."""
    path = folder / 'speed.json'
    assert benchmark.main([*arguments, *QUICK, '--json', str(path)]) == 0
    return json.loads(path.read_text())


def test_there_are_mini_models_of_every_task() -> None:
    scopes = [load_config(str(path)).default_scope for path in MINI]
    assert set(scopes) == {'mmpretrain', 'mmdet', 'mmseg', 'mmdet3d'}


@pytest.mark.parametrize('mode', ['train', 'inference'])
@pytest.mark.parametrize('path', MINI, ids=lambda path: path.stem.partition('_1xb')[0])
def test_every_mini_model_in_both_modes(path: Path, mode: str, tmp_path: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    options = FEW_BOXES if 'rcnn' in path.stem else FEW_QUERIES if 'dino' in path.stem else []
    found = run(str(path), '--mode', mode, '--batch', '2', *options, folder=tmp_path)
    record, = found['records']
    rate, memory = record['images_per_s'], record['memory']
    assert 0 < rate['low'] <= rate['median'] <= rate['high']
    assert record['seconds_per_step']['median'] == pytest.approx(2 / rate['median'])
    assert 4 * record['parameters'] < memory['held'] < memory['peak']
    assert sum(record['shares'].values()) == pytest.approx(1)
    ours = 'dcnv4' in path.stem or ('internimage' in path.stem and 'dwconv' not in path.stem)
    assert (record['shares'][speed.DEFORMABLE] > 0) == ours
    assert len(record['slowest_modules']) > len(record['slowest_classes']) > benchmark.SLOWEST
    assert sum(part['share'] for part in record['slowest_modules']) == pytest.approx(1)
    padded = 'mask-rcnn_vit' in path.stem
    assert record['size'] == [64, 64]
    assert record['input_size'] == ([160, 160] if padded else [64, 64])
    assert (', padded to 160x160' in capsys.readouterr().out) == padded
    assert found['ratios'] == []
    assert found['options']['mode'] == mode and found['machine']['threads'] == 1


def test_two_configs_are_compared_in_turn(classifier: str, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    found = run(classifier, classifier, '--mode', 'train', '--batch', '2', folder=tmp_path)
    assert [record['name'] for record in found['records']] == ['A eager', 'B eager']
    assert all(record['shares'][speed.DEFORMABLE] == 0 for record in found['records'])
    ratio, = found['ratios']
    assert (ratio['of'], ratio['to']) == ('B eager', 'A eager')
    assert ratio['times_as_fast']['median'] > 0
    shown = capsys.readouterr().out
    assert 'B eager is' in shown and 'MobileNetV2' not in shown.splitlines()[0]
    assert 'batches of 2, images of 64x64 (height x width)\n' in shown
    assert 'slowest modules' in shown


def test_ratios_by_hand() -> None:
    taken = {'A eager': [2.0, 20.0], 'A compiled': [1.0, 10.0], 'B eager': [8.0, 80.0],
             'B compiled': [2.0, 20.0]}
    found = {(ratio['of'], ratio['to']): ratio['times_as_fast']['median']
             for ratio in benchmark.ratios(taken)}
    assert found == {('A compiled', 'A eager'): 2, ('B compiled', 'B eager'): 4,
                     ('B eager', 'A eager'): 0.25, ('B compiled', 'A compiled'): 0.5}
    assert benchmark.ratios({'A eager': [1.0]}) == []


@pytest.mark.parametrize('option', ['--compile', '--compile-step'])
def test_compiled_and_eager_take_turns(classifier: str, option: str, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, ran = [], []

    def compile_(function: Any) -> Any:
        compiled.append(function)

        def call(*args: Any, **kwargs: Any) -> Any:
            ran.append(function)
            return function(*args, **kwargs)
        return call
    monkeypatch.setattr(benchmark.torch, 'compile', compile_)
    found = run(classifier, option, folder=tmp_path)
    eager, other = found['records']
    assert (eager['form'], other['form']) == ('eager', 'compiled')
    assert other['compile_s'] >= 0 and 'compile_s' not in eager
    assert 'slowest_modules' in eager and 'slowest_modules' not in other
    assert [(ratio['of'], ratio['to']) for ratio in found['ratios']] == [
        ('A compiled', 'A eager')]
    # Warm-up, timing, profile, and twice for memory: as many as the other form has.
    names = ['forward', 'forward'] if option == '--compile' else ['predict']
    assert [function.__name__ for function in compiled] == names
    assert len(ran) == 5 * len(names)


def test_options_of_the_compiler_are_for_the_first_config(classifier: str, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def compile_(function: Any, options: dict[str, Any] | None = None) -> Any:
        given.append(options)
        return function
    monkeypatch.setattr(benchmark.torch, 'compile', compile_)
    run(classifier, classifier, '--compile-step', '--compile-options', 'layout_optimization=False',
        folder=tmp_path)
    assert given[-2:] == [{'layout_optimization': False}, None]


@pytest.mark.parametrize(('options', 'said'), [
    (['--compile', '--compile-options', 'nonsense=1'], 'nonsense'),
    (['--compile', '--compile-options', 'layout_optimization=7'], 'layout_optimization'),
    (['--compile-options', 'layout_optimization=False'], 'without compiling anything')])
def test_options_of_the_compiler_are_checked(options: list[str], said: str, classifier: str,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([classifier, *options, *QUICK]) == 2
    error = capsys.readouterr().err
    assert '--compile-options is not valid' in error and said in error


def test_seconds_to_compile_are_what_the_warm_up_took_longer(
        monkeypatch: pytest.MonkeyPatch, classifier: str, tmp_path: Path) -> None:
    monkeypatch.setattr(benchmark.torch, 'compile', lambda function: function)
    monkeypatch.setattr(benchmark, 'warm_up', lambda step, args: 100.0)
    record = run(classifier, '--compile', folder=tmp_path)['records'][1]
    assert record['compile_s'] == pytest.approx(100 - record['seconds_per_step']['median'])


def test_what_torch_cannot_compile_is_said(monkeypatch: pytest.MonkeyPatch, classifier: str,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def refuse(*args: Any) -> None:
        raise TorchDynamoException('no C++ compiler')
    monkeypatch.setattr(benchmark.torch, 'compile', lambda function: refuse)
    assert benchmark.main([classifier, '--compile', *QUICK]) == 2
    assert '--compile is not valid: torch cannot compile it (no C++' in capsys.readouterr().err


def arguments(*options: str) -> Any:
    return benchmark.build_parser().parse_args(['config', *QUICK, *options])


def subject(config: str, *options: str) -> benchmark.Subject:
    return benchmark.build_subject('A', config, load_config(config), arguments(*options))


def test_steps_of_a_training_do_the_same_work(classifier: str) -> None:
    """Weights stay, the optimizer runs, gradients do not add up, and batches are not used up."""
    made = subject(classifier, '--mode', 'train', '--batch', '2')
    step, (model, optimizer) = made.steps['eager'], made.holders
    before = [parameter.clone() for parameter in model.parameters()]
    labels = []
    model.data_preprocessor.register_forward_pre_hook(
        lambda module, inputs: labels.append([int(s.gt_label) for s in inputs[0]['data_samples']]))
    for _ in range(2):
        step.run(*step.arguments())
    assert all(map(torch.equal, before, model.parameters()))
    assert len(optimizer.state) == len(before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert labels[0] == labels[1] and len(labels[0]) == 2
    assert model.training


def test_predictions_record_no_gradients(classifier: str) -> None:
    made = subject(classifier)
    assert made.holders == [made.model] and not made.model.training
    seen = []
    made.model.head.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0][-1].requires_grad))
    made.steps['eager'].run(*made.steps['eager'].arguments())
    assert seen in ([False], [])
    sample, = made.steps['eager'].run(*made.steps['eager'].arguments())
    assert not sample.pred_score.requires_grad


def test_a_classifier_normalises_as_in_a_run() -> None:
    made = subject(CLASSIFIER)
    assert made.model.data_preprocessor.mean.flatten().tolist() == pytest.approx(
        [123.675, 116.28, 103.53])


@pytest.mark.parametrize('merge', [False, True])
def test_projections_are_merged_where_asked(merge: bool) -> None:
    made = subject(CLASSIFIER, *['--merge-projections'] * merge)
    layers = [layer for layer in made.model.modules() if isinstance(layer, DCNv4)]
    assert layers and all(bool(layer._merged) == merge for layer in layers)


def test_crops_of_segmentors_follow_the_size(tmp_path: Path) -> None:
    made = subject(str(tiny.make_segmentor(tmp_path / 'data')), '--mode', 'train')
    data = made.model.data_preprocessor(*made.steps['eager'].arguments(), True)
    assert data['inputs'].shape == (1, 3, 64, 64)
    assert data['data_samples'][0].gt_sem_seg.shape == (64, 64)


def test_no_weights_are_loaded() -> None:
    model = dict(
        pretrained='a.pth', pretrained_cfg=dict(pretrained=True),
        backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='b.pth')),
        necks=[dict(init_cfg=[dict(type='Kaiming'), dict(type='mmdet.PretrainedInit')])],
        head=dict(init_cfg=dict(type='Normal', std=0.1)))
    benchmark.drop_weights(model)
    assert model == dict(
        pretrained=None, pretrained_cfg=dict(pretrained=True), backbone=dict(init_cfg=None),
        necks=[dict(init_cfg=[dict(type='Kaiming')])],
        head=dict(init_cfg=dict(type='Normal', std=0.1)))


@pytest.mark.parametrize(('dtype', 'device', 'kind', 'rest'), [
    ('float32', 'cuda', 'OptimWrapper', {}), ('bfloat16', 'cpu', 'CpuAmpOptimWrapper', {}),
    ('float16', 'cuda', 'AmpOptimWrapper', dict(dtype='float16', loss_scale='dynamic')),
    ('bfloat16', 'cuda', 'AmpOptimWrapper', dict(dtype='bfloat16', loss_scale=1.0))])
@pytest.mark.parametrize('given', [{}, dict(type='AmpOptimWrapper', loss_scale=512.0)])
def test_precision_of_a_training(given: dict, dtype: str, device: str, kind: str,
                                 rest: dict) -> None:
    wrapper = ConfigDict(optimizer=dict(type='SGD'), **given)
    benchmark.set_precision(wrapper, dtype, device)
    assert wrapper == dict(type=kind, optimizer=dict(type='SGD'), **rest)


@pytest.mark.parametrize('mode', ['train', 'inference'])
def test_mixed_precision_on_a_cpu(mode: str, tmp_path: Path) -> None:
    made = subject(CLASSIFIER, '--mode', mode, '--dtype', 'bfloat16')
    seen = []
    layers = [layer for layer in made.model.backbone.modules() if isinstance(layer, nn.Linear)]
    layers[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    made.steps['eager'].run(*made.steps['eager'].arguments())
    assert seen == [torch.bfloat16]


def test_configs_of_packages_take_options() -> None:
    cfg = benchmark.read_config('mmpretrain::resnet/resnet18_8xb16_cifar10.py',
                                ['model.head.num_classes=3'])
    assert cfg.model.head.num_classes == 3
    assert cfg.filename == 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'


def change(config: str, folder: Path, **keys: Any) -> str:
    """A copy of a config with other values of some keys."""
    path = folder / 'changed.py'
    cfg = Config.fromfile(config)
    cfg.update(keys)
    path.write_text(cfg.pretty_text)
    return str(path)


@pytest.mark.parametrize(('options', 'words'), [
    (['--batch', '0'], '--batch is not valid: got 0, expected a number >= 1'),
    (['--repetitions', '0'], '--repetitions is not valid: got 0'),
    (['--warmup', '0'], '--warmup is not valid: got 0'),
    (['--profile-steps', '-1'], '--profile-steps is not valid: got -1'),
    (['--size', '16', '64'], '--size is not valid: got 16 64, expected at least 32 each'),
    (['--dtype', 'float16'], '--dtype is not valid: got float16 on a CPU'),
    (['--mode', 'train', '--merge-projections'], '--merge-projections is not valid: got it with'),
    (['--mode', 'half'], "argument --mode: invalid choice: 'half'"),
    (['--json', f'{__file__}/x.json'], f'--json is not valid: {__file__} is a file'),
    (['--cfg-options', 'moddel.x=1'], "--cfg-options is not valid: got 'moddel.x'"),
    (['mmpretrain::resnet/absent.py'], 'CONFIG is not valid: got mmpretrain::resnet/absent.py'),
    (['absent.py'], 'CONFIG is not valid: got absent.py, expected an existing file')])
def test_options_that_cannot_be_met(options: list[str], words: str, classifier: str,
                                    monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(benchmark, 'build_subject', None)  # nothing is built, let alone measured
    assert benchmark.main([classifier, *options, '--device', 'cpu']) == 2
    assert words in capsys.readouterr().err


def test_json_never_takes_the_place_of_a_config(classifier: str,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([classifier, *QUICK, '--json', classifier]) == 2
    assert '--json is not valid' in capsys.readouterr().err


@pytest.mark.parametrize(('mode', 'key'), [('train', 'train_dataloader'),
                                           ('train', 'optim_wrapper'),
                                           ('inference', 'test_dataloader')])
def test_configs_without_what_a_mode_needs(mode: str, key: str, classifier: str, tmp_path: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    changed = change(classifier, tmp_path, **{key: None})
    assert benchmark.main([changed, '--mode', mode, *QUICK]) == 2
    assert f'{changed} has no {key}' in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_without_a_device_it_ends_with_two(classifier: str,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([classifier, '--device', 'cuda']) == 2
    assert 'torch finds no CUDA device' in capsys.readouterr().err


def test_wrappers_that_decide_for_themselves() -> None:
    wrapper = ConfigDict(type='ApexOptimWrapper')
    benchmark.set_precision(wrapper, 'float32', 'cuda')
    assert wrapper.type == 'ApexOptimWrapper'
    with pytest.raises(benchmark.UserError, match='optim_wrapper.type is ApexOptimWrapper'):
        benchmark.set_precision(wrapper, 'float16', 'cuda')
