"""Bad input: one clear message on stderr, exit code 2, nothing half-written."""
from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests import tiny
from tests.helpers import ROOT
from tools import predict, test, train


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Function that runs a tool, demands its refusal, and gives its message."""

    def run(main: Callable, *argv: object, work_dir: bool = True) -> str:
        work = tmp_path / 'new' / 'work'
        extra = ['--work-dir', str(work)] if work_dir else []
        capsys.readouterr()
        code = main([str(arg) for arg in argv] + extra)
        message = capsys.readouterr().err
        assert code == 2, message
        assert 'Traceback' not in message
        assert not work.parent.exists(), 'a refused run wrote files'
        return message

    return run


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return tiny.make_classifier(tmp_path / 'cls')


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    return tiny.make_detector(tmp_path / 'det')


@pytest.fixture
def segmentor(tmp_path: Path) -> Path:
    return tiny.make_segmentor(tmp_path / 'seg')


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def edit_annotations(config: Path, change: Callable[[dict], None]) -> None:
    path = config.parent / 'annotations.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# The config.

def test_missing_config(refused, classifier):
    message = refused(train.main, classifier.with_name('clasifier.py'))
    assert 'expected an existing file' in message
    assert 'did you mean classifier.py?' in message


def test_syntax_error(refused, classifier):
    edit(classifier, 'test_dataloader = val_dataloader', 'test_dataloader = (')
    assert 'classifier.py' in refused(train.main, classifier)


def test_unknown_base(refused, classifier):
    classifier.write_text("_base_ = ['absent.py']\n" + classifier.read_text())
    assert 'absent.py' in refused(train.main, classifier)


def test_config_without_model(refused, tmp_path):
    (tmp_path / 'part.py').write_text('x = 1\n')
    assert 'has no model' in refused(train.main, tmp_path / 'part.py')


def test_config_without_training(refused, classifier):
    edit(classifier, 'optim_wrapper =', 'optim_wraper =')
    assert 'has no optim_wrapper' in refused(train.main, classifier)


@pytest.mark.parametrize(('option', 'words'), [
    ('train_cfg.max_iter=3', 'did you mean max_iters'),
    ('trian_cfg.max_iters=3', 'did you mean train_cfg'),
    ('pipeline.7.scale=3', 'expected an index below 3'),
    ('work_dir', 'expected KEY=VALUE'),
    ('train_cfg.max_iters=[1,2', 'expected a number'),
])
def test_cfg_options(refused, classifier, option, words):
    assert words in refused(train.main, classifier, '--cfg-options', option)


@pytest.mark.parametrize(('old', 'new', 'words'), [
    ("type='MobileNetV2'", "type='MobilNetV2'",
     ["'MobilNetV2' at model.backbone.type", 'did you mean MobileNetV2']),
    ("type='PackInputs'", "type='PackInput'", ["'PackInput'", 'did you mean PackInputs']),
    ("type='IterTimerHook'", "type='IterTimeHook'", ['default_hooks.timer.type', 'IterTimerHook']),
    ("type='SGD'", "type='SDG'", ["'SDG' at optim_wrapper.optimizer.type"]),
    ("type='Accuracy'", "type='Acuracy'", ["'Acuracy'", 'did you mean Accuracy']),
    ('widen_factor=0.1', 'widden_factor=0.1',
     ['MobileNetV2', "'widden_factor' at model.backbone.widden_factor", 'widen_factor']),
])
def test_unknown_type_or_key(refused, classifier, old, new, words):
    edit(classifier, old, new)
    message = refused(train.main, classifier)
    for word in words:
        assert word in message


@pytest.mark.parametrize(('old', 'new', 'words'), [
    ("type='SGD', lr=0.01", "type='SGD', lr=-1.0",
     ['SGD at optim_wrapper.optimizer.type', 'refuses its arguments', 'raised at']),
    ('max_iters=4', 'max_iters=4.5', ['IterBasedTrainLoop', 'max_iters']),
    ('val_interval=4', "dynamic_intervals='often'", ['IterBasedTrainLoop at train_cfg.type']),
    ('widen_factor=0.1', "widen_factor='wide'", ['MobileNetV2 at model.backbone.type']),
])
def test_arguments_that_a_constructor_refuses(refused, classifier, old, new, words):
    edit(classifier, old, new)
    message = refused(train.main, classifier)
    for word in words:
        assert word in message


@pytest.mark.parametrize(('edits', 'words'), [
    ([('scale=64', 'scale=32'), ('batch_size=2', 'batch_size=1')],
     'batch normalisation got a single value per channel'),
    ([('in_channels=1280', 'in_channels=640')], 'a linear layer 640x2 got an input 2x1280'),
])
def test_what_the_first_iteration_cannot_do(classifier, tmp_path, capsys, edits, words):
    for old, new in edits:
        edit(classifier, old, new)
    assert train.main([str(classifier), '--work-dir', str(tmp_path / 'work')]) == 2
    message = capsys.readouterr().err
    assert words in message and 'Traceback' not in message


def test_missing_option_values(refused, classifier, tmp_path):
    assert 'tta_model' in refused(test.main, classifier, write_checkpoint(tmp_path), '--tta')
    edit(classifier, 'base_batch_size=16', 'batch=16')
    assert 'base_batch_size' in refused(train.main, classifier, '--auto-scale-lr')


def test_work_dir_is_a_file(classifier, capsys):
    assert train.main([str(classifier), '--work-dir', str(classifier / 'work')]) == 2
    assert 'is a file, expected a folder' in capsys.readouterr().err


def test_work_dir_not_writable(classifier, capsys, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda *args: False)
    assert train.main([str(classifier), '--work-dir', str(classifier.parent / 'w')]) == 2
    assert 'is not writable' in capsys.readouterr().err


@pytest.mark.parametrize(('launcher', 'words'), [('pytorch', 'torchrun'), ('slurm', 'srun')])
def test_launcher_environment(refused, classifier, monkeypatch, launcher, words):
    for name in ('RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    assert words in refused(train.main, classifier, '--launcher', launcher)


# The data.

def test_missing_annotation_file(refused, detector):
    (detector.parent / 'annotations.json').unlink()
    message = refused(train.main, detector)
    assert 'train_dataloader.dataset' in message and 'annotations.json' in message


def test_annotation_file_is_not_json(refused, detector):
    truncate(detector.parent / 'annotations.json')
    message = refused(train.main, detector)
    assert 'not JSON' in message and 'annotations.json' in message


def test_annotations_lack_a_key(refused, detector):
    edit_annotations(detector, lambda c: c['images'][0].pop('file_name'))
    assert 'annotations.json: image id 1' in refused(train.main, detector)


def test_annotations_of_export_tools_are_mended(detector, tmp_path, capsys):
    def change(content):
        for entry in content['annotations']:
            entry['id'] -= 1
            del entry['iscrowd'], entry['area']
        for entry in content['images']:
            del entry['width'], entry['height']
        content['categories'].insert(0, dict(id=0, name='things', supercategory='none'))
    edit_annotations(detector, change)
    assert train.main([str(detector), '--work-dir', str(tmp_path / 'work')]) == 0
    out = capsys.readouterr().out
    for words in ('iscrowd was taken as 0', 'area that is absent', 'width and height were read',
                  'ids were numbered anew', 'things (0 annotations)'):
        assert out.count(words) == 1, words


@pytest.mark.parametrize(('part', 'count'), [('bbox_head', 1), ('mask_head', 3)])
def test_head_of_another_number_of_classes(refused, detector, part, count):
    message = refused(train.main, detector, '--cfg-options',
                      f'model.roi_head.{part}.num_classes={count}')
    assert f'model.roi_head.{part}.num_classes is not valid: got {count}, expected 2' in message


def test_no_image_at_all(refused, detector):
    edit(detector, "type='CocoDataset', serialize_data=False", "type='CocoDataset'")
    edit_annotations(detector, lambda c: c.update(images=[], annotations=[]))
    assert 'it holds no image' in refused(train.main, detector)


def test_class_that_the_data_set_does_not_know(refused, segmentor):
    edit(segmentor, "type='BaseSegDataset'", "type='ADE20KDataset'")
    assert "('ground', 'box') is not a subset of classes ('wall'" in refused(train.main, segmentor)


def test_missing_images(refused, detector):
    for i in (2, 5):
        (detector.parent / 'images' / f'00{i}.jpg').unlink()
    message = refused(train.main, detector)
    assert '2 of 6 samples' in message and '2 missing' in message
    assert '002.jpg' in message and '005.jpg' in message and '--skip-bad-images' in message


def test_truncated_images(refused, classifier):
    truncate(classifier.parent / 'train' / 'light' / '1.jpg')
    message = refused(train.main, classifier)
    assert 'light/1.jpg: cannot be decoded' in message and '1 of 6 samples' in message


def test_truncated_label_map(refused, segmentor):
    truncate(segmentor.parent / 'annotations' / '3.png')
    assert 'annotations/3.png' in refused(train.main, segmentor)


def test_all_images_bad(refused, classifier):
    for path in (classifier.parent / 'train').rglob('*.jpg'):
        truncate(path)
    assert 'Nothing is left' in refused(train.main, classifier, '--skip-bad-images')


def test_skip_bad_images(classifier, tmp_path, capsys):
    truncate(classifier.parent / 'train' / 'light' / '1.jpg')
    (classifier.parent / 'val' / 'dark' / '0.jpg').write_bytes(b'')
    work = tmp_path / 'work'
    assert train.main([str(classifier), '--work-dir', str(work), '--skip-bad-images']) == 0
    out = capsys.readouterr().out
    assert '2 images skipped' in out.splitlines()[-1]
    assert 'light/1.jpg' in out and 'val/dark/0.jpg: empty file' in out
    assert test.main([str(classifier), str(work / 'iter_4.pth'), '--work-dir', str(work),
                      '--skip-bad-images']) == 0
    assert '1 images skipped' in capsys.readouterr().out.splitlines()[-1]


def test_existing_work_dir_is_left_as_it_was(classifier, tmp_path):
    work = tmp_path / 'work'
    work.mkdir()
    (work / classifier.name).write_text('from a run before')
    edit(classifier, "type='MobileNetV2'", "type='MobilNetV2'")
    assert train.main([str(classifier), '--work-dir', str(work)]) == 2
    assert [path.name for path in work.iterdir()] == [classifier.name]
    assert (work / classifier.name).read_text() == 'from a run before'


def test_classes_disagree_with_coco(refused, detector):
    edit_annotations(detector, lambda c: c['categories'][1].update(name='disc'))
    message = refused(train.main, detector)
    assert 'got disk, expected names that' in message and 'did you mean disc?' in message


def test_classes_disagree_with_folders(refused, classifier):
    shutil.move(classifier.parent / 'train' / 'light', classifier.parent / 'train' / 'lite')
    message = refused(train.main, classifier)
    assert 'in the config only:      light' in message
    assert 'in the annotations only: lite' in message


def test_one_class_folder_too_many(refused, classifier):
    shutil.copytree(classifier.parent / 'train' / 'light', classifier.parent / 'train' / 'grey')
    assert 'in the annotations only: grey' in refused(train.main, classifier)


def test_label_map_holds_an_unknown_class(refused, segmentor):
    path = str(segmentor.parent / 'annotations' / '2.png')
    labels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    labels[20:] = 9
    cv2.imwrite(path, labels)
    message = refused(train.main, segmentor)
    assert '2.png of train_dataloader.dataset holds the values 9, expected 1 to 2' in message


def test_masks_of_0_and_255_are_warned_of(segmentor, capsys):
    text = segmentor.read_text().replace('reduce_zero_label=True', 'reduce_zero_label=False')
    segmentor.write_text(text)
    for path in (segmentor.parent / 'annotations').iterdir():
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(labels == 2, 255, 0).astype(np.uint8))
    argv = [str(segmentor), '--work-dir', str(segmentor.parent / 'work'), '--cfg-options',
            'val_dataloader.dataset.metainfo.classes=a,b,c']
    assert train.main(argv) == 2  # after the training set, by the heads
    assert 'If 255 stands for box, write new label maps' in capsys.readouterr().out


def test_head_has_other_classes_than_the_label_maps(refused, segmentor):
    edit(segmentor, 'num_classes=2', 'num_classes=3')
    message = refused(train.main, segmentor)
    assert 'model.decode_head.num_classes is not valid: got 3, expected 2' in message


# The checkpoint.

def write_checkpoint(folder: Path, **tensors: torch.Tensor) -> str:
    path = folder / 'made.pth'
    torch.save({'state_dict': tensors}, path)
    return str(path)


class _Evil:
    def __reduce__(self):
        return os.mkdir, ('pwned',)


def test_missing_checkpoint(refused, classifier):
    assert 'absent.pth' in refused(test.main, classifier, 'absent.pth')


@pytest.mark.parametrize('content', [b'', b'no checkpoint', None])
def test_corrupt_checkpoint(refused, classifier, tmp_path, content):
    path = Path(write_checkpoint(tmp_path, a=torch.zeros(10000)))
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    assert 'cannot be read' in refused(test.main, classifier, path)


def test_checkpoint_with_code_is_not_executed(refused, classifier, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': {}, 'meta': _Evil()}, tmp_path / 'evil.pth')
    message = refused(test.main, classifier, tmp_path / 'evil.pth')
    assert 'mkdir' in message and 'not executed' in message
    (tmp_path / 'old.pth').write_bytes(pickle.dumps(_Evil()))
    refused(test.main, classifier, tmp_path / 'old.pth')
    assert not (tmp_path / 'pwned').exists()


@pytest.mark.parametrize('main', [train.main, test.main, predict.main])
def test_checkpoint_of_another_architecture(refused, trained, tmp_path, classifier, main):
    state = torch.load(trained('classifier').checkpoint, weights_only=False)['state_dict']
    state['head.fc.weight'] = torch.zeros(5, 1280)
    for key in [key for key in state if key.startswith('backbone.conv2')]:
        state[key.replace('conv2', 'stem')] = state.pop(key)
    path = write_checkpoint(tmp_path, **state)
    if main is train.main:
        message = refused(main, classifier, '--cfg-options', f'load_from={path}')
    elif main is test.main:
        message = refused(main, classifier, path)
    else:
        out = tmp_path / 'out'
        message = refused(main, classifier, path, classifier.parent / 'val' / 'dark',
                          '--out-dir', out, work_dir=False)
        assert not out.exists()
    assert 'missing 6: backbone.conv2.conv.weight' in message
    assert 'unexpected: 6: backbone.stem' in message
    assert 'head.fc.weight (checkpoint (5, 1280), model (2, 1280))' in message


def test_resume_from_nothing(refused, classifier):
    assert 'holds no checkpoint' in refused(train.main, classifier, '--resume')
    assert 'absent.pth' in refused(train.main, classifier, '--resume', 'absent.pth')


def test_pretrained_weights_are_missing(refused, classifier):
    edit(classifier, "type='MobileNetV2',",
         "type='MobileNetV2', init_cfg=dict(type='Pretrained', checkpoint='absent.pth'),")
    assert 'got absent.pth, expected an existing file' in refused(train.main, classifier)


# Prediction.

@pytest.mark.parametrize('make', [
    lambda folder: folder / 'absent.jpg',
    lambda folder: (folder / 'empty').mkdir() or folder / 'empty',
])
def test_nothing_to_predict(refused, trained, tmp_path, make):
    system = trained('classifier')
    message = refused(predict.main, system.config, system.checkpoint, make(tmp_path),
                      '--out-dir', tmp_path / 'out', work_dir=False)
    assert 'expected an image or a folder' in message and not (tmp_path / 'out').exists()


def test_predict_damaged_image(refused, trained, tmp_path):
    system = trained('classifier')
    folder = tmp_path / 'images'
    folder.mkdir()
    for name in ('a.jpg', 'b.jpg'):
        cv2.imwrite(str(folder / name), np.full((32, 32, 3), 99, np.uint8))
    truncate(folder / 'b.jpg')
    argv = [system.config, system.checkpoint, str(folder), '--out-dir', str(tmp_path / 'out')]
    assert 'b.jpg' in refused(predict.main, *argv, work_dir=False)
    assert predict.main([*argv, '--skip-bad-images']) == 0
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['a.jpg', 'a.json']


def test_exit_code_of_the_process(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / 'tools' / 'train.py'), 'absent.py'],
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith('train.py: error: config is not valid')
    assert not list(tmp_path.iterdir())
