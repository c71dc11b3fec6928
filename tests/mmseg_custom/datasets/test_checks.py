"""Label maps are compared with their pictures and with the classes, heads with the classes.

The table at the end goes over variants of a tiny set as they come from annotation tools.
"""
from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmseg')

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmdcn.data.checks import build_dataset, check_dataset, check_model, find_check
from mmdcn.errors import UserError
from mmseg_custom.datasets import checks
from mmseg_custom.datasets.checks import LabelMapCheck


class Maps(SimpleNamespace):
    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        return {'seg_map_path': str(self.paths[index])}


def maps(folder, *arrays, **settings):
    paths = []
    for i, array in enumerate(arrays):
        paths.append(folder / f'{i}.png')
        cv2.imwrite(str(paths[-1]), np.array(array, np.uint8))
    return Maps(paths=paths, **{'metainfo': dict(classes=('a', 'b')), 'reduce_zero_label': False,
                                'ignore_index': 255, **settings})


def test_serves_all_segmentation_sets():
    from mmseg.datasets import ADE20KDataset, CityscapesDataset
    assert isinstance(find_check(ADE20KDataset), LabelMapCheck)
    assert find_check(CityscapesDataset) is find_check(ADE20KDataset)


@pytest.mark.parametrize(('values', 'settings'), [
    ([[0, 1], [1, 255]], {}), ([[0, 1], [2, 255]], dict(reduce_zero_label=True)),
    ([[0, 7], [1, 1]], dict(ignore_index=7)), ([[0, 9], [1, 1]], dict(label_map={9: 1})),
    ([[9]], dict(metainfo={})),
])
def test_classes_and_ignored_values_pass(tmp_path, values, settings):
    LabelMapCheck().check(maps(tmp_path, values, **settings), 'train')


@pytest.mark.parametrize(('values', 'settings', 'words'), [
    ([[0, 2]], {}, r'0\.png of train holds the values 2, expected 0 to 1 for 2 classes, or 255 to '
     'ignore; .* or set reduce_zero_label=True'),
    ([[3, 1]], dict(reduce_zero_label=True), 'values 3, expected 1 to 2 for 2 classes with redu'),
    ([[0, 255]], dict(ignore_index=7), 'values 255, .* or 7 to ignore'),
    ([[[0, 1, 1]]], {}, 'has pixels of the mode RGB, expected one channel'),
])
def test_strange_values_are_named(tmp_path, values, settings, words):
    with pytest.raises(UserError, match=words):
        LabelMapCheck().check(maps(tmp_path, values, **settings), 'train')


def test_subset_of_classes_is_read_as_the_loader_reads_it(tmp_path):
    from mmseg.datasets import BaseSegDataset

    class Three(BaseSegDataset):
        METAINFO = dict(classes=('a', 'b', 'c'), palette=[[0, 0, 0]] * 3)

    labels = [[0, 1, 2, 3], [255, 1, 2, 3]]
    for folder, array in (('images', np.zeros((2, 4, 3))), ('maps', labels)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / '0.png'), np.array(array, np.uint8))
    made = Three(data_root=str(tmp_path), data_prefix=dict(img_path='images', seg_map_path='maps'),
                 img_suffix='.png', metainfo=dict(classes=('c',)), reduce_zero_label=True,
                 pipeline=[dict(type='mmseg.LoadAnnotations')])
    assert np.unique(made[0]['gt_seg_map']).tolist() == [0, 255]
    LabelMapCheck().check(made, 'train')
    cv2.imwrite(str(tmp_path / 'maps' / '0.png'), np.array([[3, 4]], np.uint8))
    assert np.unique(made[0]['gt_seg_map']).tolist() == [0, 3]
    with pytest.raises(UserError, match='another size'):
        LabelMapCheck().check(made, 'train')
    cv2.imwrite(str(tmp_path / 'maps' / '0.png'), np.array([[3, 3, 3, 3], [3, 3, 3, 4]], np.uint8))
    with pytest.raises(UserError, match='holds the values 4'):
        LabelMapCheck().check(made, 'train')


def test_even_spread_of_a_large_set_is_looked_into(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, '_PIXELS_LOOKED_INTO', 2 * 20)
    good, bad = [[0, 1]], [[5, 5]]
    for place in (0, 39):
        with pytest.raises(UserError, match=rf'{place}\.png'):
            LabelMapCheck().check(maps(tmp_path, *[bad if i == place else good
                                                   for i in range(40)]), 'train')
    lines = []
    monkeypatch.setattr(checks, 'print_log', lambda text, **options: lines.append(text))
    LabelMapCheck().check(maps(tmp_path, *[[[0, 0]]] * 40), 'train')
    assert '20 of its 40 label maps hold the values 0' in lines[0]


def test_missing_and_damaged_maps_are_for_the_check_of_files(tmp_path):
    both = maps(tmp_path, [[0]], [[1]])
    both.paths[0].unlink()
    both.paths[1].write_bytes(b'no png')
    LabelMapCheck().check(both, 'train')


@dataclass
class TinySet:
    """Six pictures of 12x8 pixels with label maps of the classes ground (0) and box (1)."""

    folder: Path
    cfg: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / 'images').mkdir()
        (self.folder / 'maps').mkdir()
        labels = np.zeros((8, 12), np.uint8)
        labels[2:6, 3:9], labels[0] = 1, 255
        rng = np.random.default_rng(0)
        for i in range(6):
            self.save_picture(i, rng.integers(0, 255, (8, 12, 3)).astype(np.uint8))
            self.save_map(i, labels)
        self.cfg = dict(
            type='mmseg.BaseSegDataset', data_root=str(self.folder),
            data_prefix=dict(img_path='images', seg_map_path='maps'),
            metainfo=dict(classes=('ground', 'box')),
            pipeline=[dict(type='mmseg.LoadImageFromFile'), dict(type='mmseg.LoadAnnotations'),
                      dict(type='mmseg.PackSegInputs')])

    def picture(self, index: int) -> Path:
        return self.folder / 'images' / f'{index}.jpg'

    def map(self, index: int) -> Path:
        return self.folder / 'maps' / f'{index}.png'

    def save_picture(self, index: int, pixels: np.ndarray, orientation: int = 1) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(self.picture(index), exif=exif)

    def save_map(self, index: int, labels: np.ndarray) -> None:
        Image.fromarray(labels).save(self.map(index))

    def labels(self, index: int = 0) -> np.ndarray:
        return np.asarray(Image.open(self.map(index)))

    def each_map(self, change: Callable[[np.ndarray], Any]) -> None:
        """Replace every label map; a change gives the new values or an image."""
        for i in range(6):
            image = change(self.labels(i).copy())
            (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(self.map(i))

    def put(self, index: int, value: int) -> None:
        """Put one pixel of a value into a label map."""
        labels = self.labels(index).copy()
        labels[4, 4] = value
        self.save_map(index, labels)

    def turn(self, orientation: int, *indices: int) -> None:
        for i in indices:
            self.save_picture(i, np.asarray(Image.open(self.picture(i))), orientation)


def _palette(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels, 'P')
    image.putpalette([0, 0, 0, 250, 0, 0] * 128)
    return image


def _square(one: TinySet) -> None:
    one.save_picture(2, np.zeros((8, 8, 3), np.uint8), 6)
    one.save_map(2, one.labels()[:, :8])


def _upright_maps(one: TinySet) -> None:
    one.turn(6, *range(6))
    one.each_map(lambda labels: np.ascontiguousarray(labels.T))


# Name, what is done to the good set, and what must be said: nothing, a warning or a refusal.
VARIANTS: list[tuple[str, Callable[[TinySet], Any], str]] = [
    ('as it is', lambda one: None, 'fine'),
    ('0 and 255 as masks have it', lambda one: one.each_map(
        lambda labels: np.where(labels == 1, 255, 0).astype(np.uint8)),
     'warned: 100% of what is not ground is ignored (value 255) and not learned; its 6 label maps '
     'hold the values 0, 255. If 255 stands for box, write new label maps that hold 1'),
    ('0 and 255, palette', lambda one: one.each_map(
        lambda labels: _palette(np.where(labels == 1, 255, 0).astype(np.uint8))),
     'warned: If 255 stands for box'),
    ('a class that never occurs', lambda one: one.cfg.update(
        metainfo=dict(classes=('ground', 'box', 'disk'))),
     'warned: never in the label maps and not learned from them: the classes disk; its 6 label '
     'maps hold the values 0, 1, 255. Check metainfo.classes'),
    ('background that never occurs', lambda one: one.each_map(
        lambda labels: np.where(labels == 0, 255, labels)), 'warned: the classes ground'),
    ('most of the foreground ignored', lambda one: one.each_map(
        lambda labels: np.where(np.arange(12) < 6, np.where(labels == 1, 255, labels), labels)),
     'warned: 67% of what is not ground is ignored'),
    ('zero ignored by reduce_zero_label', lambda one: one.cfg.update(
        reduce_zero_label=True, metainfo=dict(classes=('box', ))),
     'warned: 75% of the pixels is ignored (value 255)'),
    ('a value beyond the classes in one map', lambda one: one.put(3, 9),
     'refused: 3.png of train holds the values 9, expected 0 to 1 for 2 classes, or 255'),
    ('classes from 1', lambda one: one.each_map(lambda labels: labels + np.uint8(1)),
     'refused: or set reduce_zero_label=True if the classes begin at 1'),
    ('a smaller map', lambda one: one.save_map(4, np.zeros((4, 6), np.uint8)),
     'refused: 1 of 6 of train have another size than their pictures; the first, {maps}/4.png, has '
     '6x4 pixels, expected 12x8 as {images}/4.jpg has; make each label map as large'),
    ('all maps transposed', lambda one: one.each_map(lambda labels: labels.T.copy()),
     'refused: 6 of 6 of train have another size'),
    ('EXIF orientation, maps as stored', lambda one: one.turn(6, 1),
     'refused: the first, {maps}/1.png, has 12x8 pixels, expected 8x12 as {images}/1.jpg has when '
     'turned as its EXIF orientation 6 says; turn the label maps alike, or write the pictures'),
    ('EXIF orientation, maps upright', _upright_maps, 'fine'),
    ('EXIF orientation not heeded, maps as stored', lambda one: (
        one.turn(6, *range(6)), one.cfg['pipeline'][0].update(
            color_type='color_ignore_orientation')), 'fine'),
    ('EXIF orientation not heeded, maps upright', lambda one: (
        _upright_maps(one), one.cfg['pipeline'][0].update(color_type='unchanged')),
     'refused: expected 12x8 as {images}/0.jpg has; make each label map'),
    ('EXIF upside down', lambda one: one.turn(3, 1, 2),
     'warned: 2 pictures are turned or mirrored as their EXIF orientation says ({images}/1.jpg: 3'),
    ('EXIF orientation of a square', _square, 'warned: 1 pictures are turned or mirrored'),
    ('16 bit with classes', lambda one: one.each_map(
        lambda labels: labels.astype(np.uint16)), 'fine'),
    ('16 bit with values that 8 bit would wrap', lambda one: one.each_map(
        lambda labels: labels.astype(np.uint16) + np.uint16(256)),
     'refused: holds the values 256, 257, 511, expected 0 to 1'),
    ('32 bit with a negative value', lambda one: Image.fromarray(
        np.where(one.labels() == 255, -1, 0).astype(np.int32)).save(one.map(0), format='TIFF'),
     'refused: holds the values -1, expected 0 to 1 for 2 classes, or 255 to ignore; label maps '
     'are read as 8 bit'),
    ('1 bit', lambda one: one.each_map(
        lambda labels: Image.fromarray(labels == 1)), 'fine'),
    ('palette', lambda one: one.each_map(_palette), 'fine'),
    ('RGB in one map', lambda one: Image.open(one.map(5)).convert('RGB').save(one.map(5)),
     'refused: 5.png of train has pixels of the mode RGB, expected one channel holding class'),
    ('RGBA', lambda one: one.each_map(lambda labels: Image.fromarray(labels).convert('RGBA')),
     'refused: mode RGBA'),
    ('grey with alpha', lambda one: one.each_map(
        lambda labels: Image.fromarray(labels).convert('LA')), 'refused: mode LA'),
    ('a map is missing', lambda one: one.map(2).unlink(),
     'refused: 1 of 6 samples have broken files (1 missing, 0 damaged)'),
    ('a map is cut off', lambda one: one.map(2).write_bytes(one.map(2).read_bytes()[:60]),
     'refused: (0 missing, 1 damaged)'),
    ('a picture of too many pixels', lambda one: (
        one.save_picture(1, np.zeros((900, 1000, 3), np.uint8)),
        one.save_map(1, np.zeros((900, 1000), np.uint8))),
     'refused: {images}/1.jpg: has more pixels than the 20000 that PIL opens'),
    ('a map of too many pixels', lambda one: one.save_map(1, np.zeros((900, 1000), np.uint8)),
     'refused: {maps}/1.png: has more pixels than the 20000 that PIL opens (1000x900)'),
    ('reduce_zero_label of the loader alone', lambda one: one.cfg['pipeline'][1].update(
        reduce_zero_label=True), 'refused: got True for LoadAnnotations and False for train'),
    ('reduce_zero_label and another ignore_index', lambda one: one.cfg.update(
        reduce_zero_label=True, ignore_index=7),
     'refused: train.ignore_index is not valid: got 7, expected 255 with reduce_zero_label'),
    ('another ignore_index', lambda one: (one.cfg.update(ignore_index=7), one.each_map(
        lambda labels: np.where(labels == 255, 7, labels).astype(np.uint8))), 'fine'),
]


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the check writes into the log."""
    lines: list[str] = []
    monkeypatch.setattr(checks, 'print_log', lambda text, **options: lines.append(text))
    return lines


@pytest.mark.parametrize(('change', 'outcome'), [row[1:] for row in VARIANTS],
                         ids=[row[0] for row in VARIANTS])
@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_variants(tmp_path, warned, monkeypatch, change, outcome):
    one = TinySet(tmp_path)
    change(one)
    kind, _, words = outcome.format(images=tmp_path / 'images', maps=tmp_path / 'maps'
                                    ).partition(': ')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10000)
    try:
        dataset = build_dataset(one.cfg, 'train')
        assert check_dataset(dataset, 'train', False, print) == [[]]
    except UserError as error:
        assert kind == 'refused' and words in str(error)
        return
    assert kind == 'warned' if warned else kind == 'fine', warned
    assert words in '\n'.join(warned)
    assert all(sample['data_samples'].gt_sem_seg.shape == sample['inputs'].shape[1:]
               for sample in dataset)


def test_command_of_the_warning_writes_maps_that_hold_classes(tmp_path, warned):
    one = TinySet(tmp_path)
    mask = np.where(one.labels() == 1, 255, 0).astype(np.uint8)
    one.each_map(lambda labels: _palette(mask))
    check_dataset(build_dataset(one.cfg, 'train'), 'train', False, print)
    command = re.search('python -c .*', '\n'.join(warned))[0]
    (tmp_path / 'new').mkdir()
    command = command.replace('NEW_FOLDER', 'new').replace('OLD_FOLDER', 'maps')
    subprocess.run(command.replace('python', sys.executable, 1), shell=True, cwd=tmp_path,
                   check=True)
    warned.clear()
    assert one.labels().tolist() == mask.tolist()
    one.cfg['data_prefix']['seg_map_path'] = 'new'
    check_dataset(build_dataset(one.cfg, 'train'), 'train', False, print)
    assert not warned


HEAD = dict(type='FCNHead', in_channels=8, channels=8, num_convs=1, num_classes=2,
            concat_input=False)


def heads(*parts: dict | str) -> nn.Module:
    """A model with a decode head, which can be that of a config, and auxiliary heads."""
    model = nn.Module()
    with DefaultScope.overwrite_default_scope('mmseg'):
        built = [MODELS.build(Config.fromfile(part)['model']['decode_head']
                              if isinstance(part, str) else HEAD | part) for part in parts]
    model.decode_head, model.auxiliary_head = built[0], nn.ModuleList(built[1:])
    return model


def weights(count: int) -> dict:
    return dict(loss_decode=dict(type='CrossEntropyLoss', class_weight=[1.0] * count))


@pytest.mark.parametrize(('parts', 'words'), [
    ([{}, {}], ''),
    ([dict(out_channels=1)], ''),
    ([dict(num_classes=1)], ''),
    ([weights(2)], ''),
    ([{}, dict(type='STDCHead', boundary_threshold=0.1)], ''),
    ([dict(num_classes=1), dict(num_classes=3)],
     'model.auxiliary_head.0.num_classes is not valid: got 3, expected 2, as many as '
     'train.metainfo.classes has; set it in every head'),
    ([dict(num_classes=150)], 'model.decode_head.num_classes is not valid: got 150'),
    ([dict(num_classes=3)], 'got 3, expected 2'),
    ([weights(3)], 'model.decode_head.loss_decode.class_weight is not valid: got 3 numbers, '
     'expected 2, one for each output'),
    ([{}, {}, weights(1)], 'model.auxiliary_head.1.loss_decode.class_weight'),
    ([dict(ignore_index=0)], 'warned: model.decode_head.ignore_index is 0, but ignore_index of '
     'train is 255'),
])
def test_heads_have_the_classes_of_the_set(tmp_path, warned, parts, words):
    dataset = build_dataset(TinySet(tmp_path).cfg, 'train')
    model = heads(*parts)
    if words and not words.startswith('warned: '):
        with pytest.raises(UserError) as caught:
            check_model(model, dataset, 'train')
        assert words in str(caught.value)
        return
    check_model(model, dataset, 'train')
    assert '\n'.join(warned).startswith(words.removeprefix('warned: '))
    assert bool(words) == bool(warned)


@pytest.mark.parametrize(('classes', 'weights', 'words'), [
    (2, 3, ''), (1, 2, 'model.decode_head.num_classes is not valid: got 1, expected 2'),
    (2, 20, 'model.decode_head.loss_cls.class_weight is not valid: got 20 numbers, expected 3'),
])
def test_head_of_mask2former(tmp_path, classes, weights, words):
    dataset = build_dataset(TinySet(tmp_path).cfg, 'train')
    (tmp_path / 'head.py').write_text(
        "_base_ = 'mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py'\n"
        f'model = dict(decode_head=dict(num_classes={classes}, '
        f'loss_cls=dict(class_weight=[1.0] * {weights})))')
    model = heads(str(tmp_path / 'head.py'))
    if words:
        with pytest.raises(UserError, match=words):
            check_model(model, dataset, 'train')
    else:
        check_model(model, dataset, 'train')


def test_head_that_updates_its_kernels(tmp_path):
    dataset = build_dataset(TinySet(tmp_path).cfg, 'train')
    model = heads({}, {})
    updates = [SimpleNamespace(num_classes=count, out_channels=8) for count in (2, 150)]
    model.decode_head.kernel_update_head = updates
    with pytest.raises(UserError, match='decode_head.kernel_update_head.1.num_classes is not va'):
        check_model(model, dataset, 'train')


def test_model_may_be_wrapped(tmp_path):
    from mmseg.models import SegTTAModel
    dataset = build_dataset(TinySet(tmp_path).cfg, 'train')
    wrapped = SegTTAModel.__new__(SegTTAModel)
    nn.Module.__init__(wrapped)
    wrapped.module = heads(dict(num_classes=3))
    with pytest.raises(UserError, match=r'model\.decode_head'):
        check_model(wrapped, dataset, 'train')
