"""Sets in other formats than COCO's: training and evaluation, and what is found before a run."""
from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('mmdet')

import mmdet_custom  # noqa: F401
from mmdcn.errors import UserError
from mmdet_custom.datasets import other_formats
from tests.mmdet_custom.datasets.other_sets import HEIGHT, SETS, WIDTH
from tools import train

METRICS = dict(lvis='lvis/bbox_AP', voc='pascal_voc/mAP', crowdhuman='crowd_human/mAP',
               openimages='openimages/AP50')


@pytest.mark.parametrize('name', SETS)
def test_trains_and_evaluates_with_the_metric_of_the_set(name, tmp_path):
    config = SETS[name](tmp_path / 'data').config(tmp_path)
    assert train.main([str(config), '--work-dir', str(tmp_path / 'work'), '--seed', '0',
                       '--cfg-options', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
                       'default_hooks.checkpoint.interval=-1',
                       'default_hooks.checkpoint.save_best=None']) == 0
    scalars, = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    values = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [entry for entry in values if METRICS[name] in entry], values[-1]


@pytest.mark.parametrize('name', SETS)
def test_reads_what_was_written(name, tmp_path):
    dataset = SETS[name](tmp_path).build()
    assert len(dataset) == 3
    for index in range(3):
        info = dataset.get_data_info(index)
        assert (info['width'], info['height']) == (WIDTH, HEIGHT)
        assert [pytest.approx(instance['bbox'], abs=1e-4) for instance in info['instances']] == [
            [5, 4, 25, 24], [30, 20, 60, 44]]


def change(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def error_of(name: str, folder: Path, spoil: Any) -> UserError:
    written = SETS[name](folder)
    spoil(folder, written)
    with pytest.raises(UserError) as caught:
        written.build()
    return caught.value


@pytest.mark.parametrize(('old', 'new', 'name', 'found'), [
    ('</annotation>', '', 'Annotations/b.xml', 'no XML'),
    ('<width>64</width>', '<width>0</width>', "b.xml: width in size", "got '0'"),
    ('<name>dog</name>', '', 'b.xml: object 2: name', 'got None'),
    ('<xmin>6</xmin>', '', 'b.xml: object 1 (cat): bndbox', 'got None, 5, 26, 25'),
    ('<xmin>6</xmin>', '<xmin>nan</xmin>', 'b.xml: object 1 (cat): bndbox', 'got nan, 5'),
    ('<xmin>6</xmin>', '<xmin>30</xmin>', 'b.xml: object 1 (cat): bndbox', 'got 30, 5, 26, 25'),
])
def test_faulty_xml_is_named(old, new, name, found, tmp_path):
    error = error_of('voc', tmp_path, lambda folder, _: change(
        folder / 'VOC2007/Annotations/b.xml', old, new))
    assert error.name.endswith(name) and error.found.startswith(found)


@pytest.fixture
def told(monkeypatch) -> list[str]:
    """What the checks warn of."""
    lines: list[str] = []
    monkeypatch.setattr(other_formats, 'print_log', lambda text, **options: lines.append(text))
    return lines


def test_names_of_other_classes_in_xml_are_told(tmp_path, told):
    written = SETS['voc'](tmp_path)
    change(tmp_path / 'VOC2007/Annotations/b.xml', '<name>dog', '<name>lynx')
    written.build()
    assert told == [
        'data: objects of names that metainfo.classes does not hold are left out: lynx (1)']
    written.dataset['metainfo'] = dict(classes=('tiger', ))
    with pytest.raises(UserError, match='got tiger, expected names that .* cat, dog, lynx'):
        written.build()


def test_wrong_size_in_xml_is_refused(tmp_path):
    error = error_of('voc', tmp_path, lambda folder, _: change(
        folder / 'VOC2007/Annotations/b.xml', '<width>64</width>', '<width>90</width>'))
    assert "image id 'b'" in error.name and error.found == 'got 90 x 48'


@pytest.mark.parametrize(('old', 'new', 'name', 'found'), [
    ('"fbox": [5', '"fbox": [NaN', '(ID 1,a), box 1: fbox', 'got [nan'),
    ('"gtboxes"', '"boxes"', 'annotation_train.odgt: line 1', 'got no ID or no gtboxes'),
    ('"hbox"', '"head"', '(ID 1,a), box 1: hbox', 'got None'),
    ('"ID"', 'ID', 'annotation_train.odgt: line 1', 'not JSON'),
])
def test_faulty_line_of_crowdhuman_is_named(old, new, name, found, tmp_path):
    error = error_of('crowdhuman', tmp_path, lambda folder, _: change(
        folder / 'annotation_train.odgt', old, new))
    assert error.name.endswith(name) and error.found.startswith(found)


def test_faults_beside_the_lines_of_crowdhuman_are_named(tmp_path):
    def without_persons(folder, _):
        change(folder / 'annotation_train.odgt', '"person"', '"mask"', 3)

    def rename(folder, written):
        (folder / 'annotation_train.odgt').rename(folder / 'boxes.odgt')
        written.dataset['ann_file'] = 'boxes.odgt'

    error = error_of('crowdhuman', tmp_path / 'a', without_persons)
    assert error.expected.endswith('holds: mask')
    assert error_of('crowdhuman', tmp_path / 'b', rename).expected == \
        "a name that holds 'train' or 'val'"
    error = error_of('crowdhuman', tmp_path / 'c', lambda folder, _: (
        folder / 'Images/2,b.jpg').write_bytes(b'\xff\xd8\xff'))
    assert error.name.endswith('2,b.jpg') and error.expected == 'a whole picture'


@pytest.mark.parametrize(('text', 'found'), [('{"1,a": [48, 64]}', 'it lacks 2,b, 3,c'),
                                             ('{"1,a": [48', 'no JSON')])
def test_old_sizes_of_crowdhuman_are_named(text, found, tmp_path):
    error = error_of('crowdhuman', tmp_path, lambda folder, _: (
        folder / 'id_hw_train.json').write_text(text))
    assert error.name.endswith('id_hw_train.json') and error.found.startswith(found)
    assert error.remedy == 'remove it: it is written anew'


def test_sizes_of_other_pictures_are_named_with_their_file(tmp_path):
    def spoil(folder, _):
        (folder / 'id_hw_train.json').write_text(json.dumps({
            name: [HEIGHT, 99] for name in ('1,a', '2,b', '3,c')}))
    assert 'id_hw_train.json: image id' in error_of('crowdhuman', tmp_path, spoil).name


def sizes(*names: str) -> bytes:
    return pickle.dumps([dict(filename=f'{name}.jpg', ori_shape=(HEIGHT, WIDTH, 3))
                         for name in names])


@pytest.mark.parametrize(('spoil', 'name', 'found'), [
    (lambda d: change(d / 'classes.csv', '/m/1', 'LabelName,DisplayName\n/m/1'),
     'classes.csv', 'its first line is a heading'),
    (lambda d: change(d / 'hierarchy.json', '/m/2', '/m/9'), 'hierarchy.json',
     'got the class /m/9'),
    (lambda d: change(d / 'boxes.csv', '/m/2', '/m/9'), 'boxes.csv: line 3', 'got the class /m/9'),
    (lambda d: change(d / 'boxes.csv', ',0,0,0,0,0', ''), 'boxes.csv: line 2', 'got a, xclick'),
    (lambda d: (d / 'sizes.pkl').write_bytes(sizes('a', 'b')), 'sizes.pkl', 'got 2 pictures'),
    (lambda d: (d / 'sizes.pkl').write_bytes(sizes('a', 'c', 'b')), 'sizes.pkl',
     'got c at place 1'),
    (lambda d: (d / 'sizes.pkl').write_bytes(b'junk'), 'sizes.pkl', 'it cannot be read'),
    (lambda d: change(d / 'boxes.csv', ',0.9375,', ',1.9375,'), "boxes.csv: image id 'a'",
     'got the box'),
])
def test_files_of_openimages_that_do_not_fit_are_named(spoil, name, found, tmp_path):
    error = error_of('openimages', tmp_path, lambda folder, _: spoil(folder))
    assert error.name.endswith(name) and error.found.startswith(found)
