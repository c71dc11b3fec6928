"""Class folders, labels of annotation files and heads against the class list."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip('mmpretrain')

from mmcls_custom.datasets.checks import ClassCheck, ClassFolderCheck
from mmdcn.data.checks import build_dataset, check_dataset, check_model, find_check
from mmdcn.errors import UserError
from tests.mmdcn.data.images import write_images


def dataset(classes, folders):
    return SimpleNamespace(metainfo=dict(classes=classes), ann_file='',
                           folder_to_idx={name: i for i, name in enumerate(folders)})


def test_serves_folder_data_sets_and_imagenet():
    from mmpretrain.datasets import CIFAR10, CustomDataset, ImageNet
    assert isinstance(find_check(CustomDataset), ClassFolderCheck)
    assert find_check(ImageNet) is find_check(CustomDataset)
    assert type(find_check(CIFAR10)) is ClassCheck


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


@pytest.fixture
def listed(tmp_path):
    """Function that builds and checks a data set of an annotation file."""
    write_images(tmp_path / 'images', 4)

    def read(lines, kind='CustomDataset'):
        (tmp_path / 'list.txt').write_text('\n'.join(lines))
        cfg = dict(type=kind, data_root=str(tmp_path), ann_file='list.txt',
                   data_prefix='images', serialize_data=False,
                   metainfo=dict(classes=['a', 'b', 'c']))
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            dataset = build_dataset(cfg, 'train')
            check_dataset(dataset, 'train', False, print)
        return dataset
    return read


GOOD = ['0.jpg 0', '1.jpg 2', '2.jpg 1']


@pytest.mark.parametrize('kind', ['CustomDataset', 'ImageNet'])
@pytest.mark.parametrize(('line', 'words'), [
    ('3.jpg 3', ['list.txt: the label of', '3.jpg', 'got label 3', '0 to 2', '3 classes of train',
                 'count from 0']),
    ('3.jpg -1', ['got label -1']),
    ('3.jpg a', ["list.txt: line 4 is not valid: got '3.jpg a'", 'PATH LABEL']),
    ('3.jpg', ["list.txt: line 4 is not valid: got '3.jpg'"]),
    ('\n', ["list.txt: line 4 is not valid: got ''"]),
])
def test_labels_that_are_no_class_are_named(listed, kind, line, words):
    listed(GOOD, kind)
    with pytest.raises(UserError) as caught:
        listed([*GOOD, line], kind)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def classifier(count, **preprocessor):
    model = dict(type='ImageClassifier', backbone=dict(type='LeNet5'), data_preprocessor=dict(
        type='ClsDataPreprocessor', **preprocessor),
        head=dict(type='LinearClsHead', num_classes=count, in_channels=84))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(model)


def test_heads_of_another_number_of_classes_are_named(listed):
    data = listed(GOOD)
    check_model(classifier(3), data, 'train')
    check_model(classifier(3, num_classes=1000), data, 'train')  # without use for it
    for count in (2, 4):
        with pytest.raises(UserError, match=f'model.head.num_classes is not valid: got {count}, '
                           'expected 3, as many as train has classes; set it'):
            check_model(classifier(count), data, 'train')
    with pytest.raises(UserError, match='^data_preprocessor.num_classes is not valid: got 1000'):
        check_model(classifier(3, num_classes=1000, to_onehot=True), data, 'train')
