"""Class folders against the class list."""
from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip('mmpretrain')

from mmcls_custom.datasets.checks import ClassFolderCheck
from mmdcn.data.checks import find_check
from mmdcn.errors import UserError


def dataset(classes, folders):
    return SimpleNamespace(metainfo=dict(classes=classes),
                           folder_to_idx={name: i for i, name in enumerate(folders)})


def test_serves_folder_data_sets_and_imagenet():
    from mmpretrain.datasets import CIFAR10, CustomDataset, ImageNet
    assert isinstance(find_check(CustomDataset), ClassFolderCheck)
    assert find_check(ImageNet) is find_check(CustomDataset)
    assert find_check(CIFAR10) is None


@pytest.mark.parametrize('folders', [['a', 'b'], [], ['n01440764', 'n01443537']])
def test_equal_names_and_codes_pass(folders):
    ClassFolderCheck().check(dataset(['a', 'b'], folders), 'train')


@pytest.mark.parametrize(('folders', 'words'), [
    (['a', 'c'], 'in the annotations only: c'), (['b', 'a'], 'other order'),
    (['a'], 'in the config only:      b')])
def test_differences_are_told(folders, words):
    with pytest.raises(UserError, match=words):
        ClassFolderCheck().check(dataset(['a', 'b'], folders), 'train')


def test_folders_that_the_data_set_refused(tmp_path):
    for name in ('a', 'c'):
        (tmp_path / 'train' / name).mkdir(parents=True)
    cfg = dict(metainfo=dict(classes=['a', 'b']), data_root=str(tmp_path), data_prefix='train')
    error = AssertionError('The number of subfolders (2) differs')
    with pytest.raises(UserError, match='in the annotations only: c'):
        ClassFolderCheck().explain(cfg, 'train', error)
    with pytest.raises(UserError, match='in the annotations only: c'):
        ClassFolderCheck().explain({**cfg, 'data_prefix': dict(img_path='train')}, 'train', error)
    ClassFolderCheck().explain(cfg, 'train', AssertionError('something else'))
