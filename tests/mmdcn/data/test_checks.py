"""Checks of data sets, on their own."""
from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.registry import DATASETS

from mmdcn.data import checks
from mmdcn.data.checks import (
    DataCheck,
    build_dataset,
    check_dataset,
    check_together,
    compare_classes,
    drop_samples,
    find_check,
    leaves,
    register_check,
    shorten,
)
from mmdcn.errors import UserError
from tests.mmdcn.data.images import Images, write_images


@pytest.mark.parametrize('serialize', [True, False])
def test_bad_samples_are_dropped_below_wrappers(tmp_path, serialize):
    first = Images(write_images(tmp_path / 'a', 5), serialize)
    second = Images(write_images(tmp_path / 'b', 4), serialize)
    (tmp_path / 'a' / '1.jpg').unlink()
    (tmp_path / 'b' / '3.jpg').write_bytes(b'')
    whole = ConcatDataset([first, second])
    assert len(whole) == 9 and list(leaves(whole)) == [first, second]
    lines: list[str] = []
    bad = check_dataset(whole, 'train', True, lines.append)
    assert bad == [[1], [3]] and len(lines) == 2 and len(whole) == 9
    drop_samples(whole, bad)
    names = [Path(whole.get_data_info(i)['img_path']).stem for i in range(len(whole))]
    assert names == ['0', '2', '3', '4', '0', '1', '2']


def test_repetition_is_counted_anew(tmp_path):
    whole = RepeatDataset(Images(write_images(tmp_path, 5)), 3)
    drop_samples(whole, [[0, 4]])
    assert len(whole) == 9
    assert Path(whole.get_data_info(3)['img_path']).stem == '1'


def test_class_balance_is_counted_anew(tmp_path):
    balanced = ClassBalancedDataset(Images(write_images(tmp_path, 6)), oversample_thr=0.1)
    drop_samples(balanced, [[0, 3]])
    assert len(balanced) == 4
    names = {Path(balanced.get_data_info(i)['img_path']).stem for i in range(len(balanced))}
    assert names == {'1', '2', '4', '5'}


def test_empty_data_set():
    with pytest.raises(UserError, match='train is empty'):
        check_dataset(Images([], serialize_data=False), 'train', False, print)


class Labelled(Images):
    """A kind of data set that has a check."""


class Special(Labelled):
    """A kind whose base has a check."""


class LabelledCheck(DataCheck):
    """Refuses sets of less than three images, and says so before they are built, too."""

    def check(self, dataset, where):
        if len(dataset) < 3:
            raise UserError(where, f'got {len(dataset)} images', 'at least 3')

    def explain(self, dataset_cfg, where, error):
        if 'strange' in str(error):
            raise UserError(where, 'it is strange', 'a usual one')


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(checks, '_CHECKS', dict(checks._CHECKS))
    return register_check(Labelled)(LabelledCheck)


def test_check_is_found_by_the_nearest_base(registered, monkeypatch):
    assert isinstance(find_check(Labelled), LabelledCheck)
    assert find_check(Special) is find_check(Labelled)
    assert find_check(Images) is None

    class Nearer(DataCheck):
        pass

    register_check(Special)(Nearer)
    assert isinstance(find_check(Special), Nearer)
    assert isinstance(find_check(Labelled), LabelledCheck)


@pytest.mark.parametrize('kind', [Labelled, Special])
def test_registered_check_runs_below_wrappers(registered, tmp_path, kind):
    few = kind(write_images(tmp_path, 2))
    with pytest.raises(UserError, match='train is not valid: got 2 images, expected at least 3'):
        check_dataset(RepeatDataset(few, 5), 'train', False, print)
    assert check_dataset(kind(write_images(tmp_path, 3)), 'train', False, print) == [[]]


def test_kind_that_nobody_knows_is_named_once(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(checks, 'print_log', lambda text, **options: lines.append(text))
    assert check_dataset(Images(write_images(tmp_path, 4)), 'val', False, print) == [[]]
    line, = lines
    assert line.startswith('val: annotations not checked') and 'Images' in line


def test_check_explains_what_the_data_set_refused(registered, monkeypatch):
    class Refusing(Labelled):
        def __init__(self, words, **options):
            raise AssertionError(words)

    monkeypatch.setitem(DATASETS.module_dict, 'Refusing', Refusing)
    with pytest.raises(UserError, match='set is not valid: it is strange, expected a usual one'):
        build_dataset(dict(type='Refusing', words='strange'), 'set')
    with pytest.raises(UserError, match='set is not valid: too plain'):
        build_dataset(dict(type='Refusing', words='too plain', data_root='here'), 'set')


@pytest.mark.parametrize(('found', 'words'), [
    (['a', 'c'], ['in the config only:      b', 'in the annotations only: c']),
    (['b', 'a'], ['same names, other order from position 0: config a, b; annotations b, a']),
    (['a', 'b', 'c'], ['in the annotations only: c']),
    (['a'], ['in the config only:      b']),
])
def test_difference_of_class_lists(found, words):
    with pytest.raises(UserError) as caught:
        compare_classes(['a', 'b'], found, 'train', 'labels.json')
    for word in ('train', 'labels.json', 'metainfo', *words):
        assert word in str(caught.value)
    compare_classes(['a', 'b'], ['a', 'b'], 'train', 'labels.json')


def test_long_lists_are_cut():
    assert shorten(range(3)) == '0, 1, 2'
    assert shorten(range(12)) == '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (12 in all)'


def test_broken_files_are_told_with_their_number(tmp_path):
    images = Images(write_images(tmp_path, 3), serialize_data=False)
    (tmp_path / '1.jpg').unlink()
    with pytest.raises(UserError) as caught:
        check_dataset(images, 'train', False, print)
    error = caught.value
    assert (error.name, error.found) == (
        'train', '1 of 3 samples have broken files (1 missing, 0 damaged)')
    assert error.remedy == 'fix them, or carry on without them: `skip_bad=True`'
    assert error.details == f'  missing file {tmp_path}/1.jpg'


def test_every_process_gets_the_error_with_its_fields(tmp_path, monkeypatch):
    images = Images(write_images(tmp_path, 2), serialize_data=False)
    (tmp_path / '0.jpg').unlink()
    sent: list[list] = []
    monkeypatch.setattr(checks, 'broadcast_object_list', lambda outcome: sent.append(
        pickle.loads(pickle.dumps(outcome))))
    with pytest.raises(UserError) as first:
        check_together(images, 'train', False, print)
    monkeypatch.setattr(checks, 'is_main_process', lambda: False)
    monkeypatch.setattr(checks, 'broadcast_object_list',
                        lambda outcome: outcome.__setitem__(0, sent[0][0]))
    with pytest.raises(UserError) as other:
        check_together(images, 'train', False, print)
    assert other.value is not first.value and vars(other.value) == vars(first.value)
    assert other.value.name == 'train' and '0.jpg' in other.value.details


@pytest.mark.parametrize(('found', 'lines'), [
    (['a', 'c'], ['  in the config only:      b', '  in the annotations only: c']),
    (['b', 'a'], ['  same names, other order from position 0: config a, b; annotations b, a']),
])
def test_classes_that_disagree(found, lines):
    compare_classes(['a', 'b'], ['a', 'b'], 'train', 'x.json')
    with pytest.raises(UserError, match=r'^train\.metainfo\.classes is not valid: ') as caught:
        compare_classes(['a', 'b'], found, 'train', 'x.json')
    assert caught.value.found == 'they disagree with x.json'
    assert caught.value.details.splitlines() == lines
