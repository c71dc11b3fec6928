"""Sizes that annotations give against those of the pictures, as the pipeline loads them."""
from __future__ import annotations

from types import SimpleNamespace

import cv2
import pytest
from PIL import Image

pytest.importorskip('mmdet')

from mmdet.registry import TRANSFORMS
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

import mmdet_custom  # noqa: F401
from mmdcn.data.checks import build_dataset, check_dataset
from mmdcn.errors import UserError
from mmdet_custom.datasets import picture_sizes
from mmdet_custom.datasets.picture_sizes import (
    Sized,
    compare_sizes,
    headers_of,
    loads_as_stored,
    mend_sizes,
)
from tests.mmdet_custom.datasets.coco_sets import save_picture


@pytest.mark.parametrize('options', [{}, dict(color_type='color_ignore_orientation'),
                                     dict(color_type='unchanged'), dict(color_type='grayscale')])
@pytest.mark.parametrize('nested', [False, True])
def test_what_the_pipeline_does_with_orientation(tmp_path, options, nested):
    save_picture(tmp_path / 'a.jpg', (6, 4), orientation=6)
    load = dict(type='LoadImageFromFile', **options)
    with DefaultScope.overwrite_default_scope('mmdet'):
        steps = Compose([TRANSFORMS.build(
            dict(type='RandomChoice', transforms=[[load]]) if nested else load)])
    height, width = steps(dict(img_path=str(tmp_path / 'a.jpg')))['img'].shape[:2]
    stored = loads_as_stored(SimpleNamespace(pipeline=steps))
    assert stored == ((width, height) == (6, 4))
    compare_sizes([Sized('a', str(tmp_path / 'a.jpg'), (width, height))], stored, 'file')
    image = dict(id=1, file_name='a.jpg')
    mend_sizes([image], str(tmp_path), stored, SimpleNamespace(file='', add=lambda *_: None))
    assert (image['width'], image['height']) == (width, height)


def test_pipeline_without_pictures():
    assert not loads_as_stored(SimpleNamespace())
    assert not loads_as_stored(SimpleNamespace(pipeline=Compose([])))


@pytest.mark.parametrize(('size', 'orientation', 'words'), [
    ((4, 6), None, ['got 4 x 6', 'expected 6 x 4', 'exchanged']),
    ((6, 4), 8, ['expected 4 x 6', 'EXIF orientation is 8', 'color_ignore_orientation']),
    ((3, 2), 8, ['expected 4 x 6', 'resized']),
])
def test_difference_is_explained(tmp_path, size, orientation, words):
    save_picture(tmp_path / 'a.jpg', (6, 4), orientation)
    with pytest.raises(UserError) as caught:
        compare_sizes([Sized(f'image {i}', str(tmp_path / 'a.jpg'), size) for i in range(9)],
                      False, 'file')
    message = str(caught.value)
    assert all(word in message for word in [*words, 'file: image 0', 'a.jpg', 'and 4 more'])


@pytest.mark.parametrize(('size', 'orientation', 'stored', 'told'), [
    ((6, 4), 3, False, True), ((5, 5), 6, False, True), ((6, 4), 3, True, False),
    ((6, 4), 1, False, False),
])
def test_turned_without_a_change_of_size_is_told(tmp_path, monkeypatch, size, orientation, stored,
                                                 told):
    save_picture(tmp_path / 'a.jpg', size, orientation)
    lines = []
    monkeypatch.setattr(picture_sizes, 'print_log', lambda text, **options: lines.append(text))
    compare_sizes([Sized('a', str(tmp_path / 'a.jpg'), size)] * 2, stored, 'file')
    assert len(lines) == told
    assert not told or ('file: 2 pictures' in lines[0] and f'a.jpg: {orientation}' in lines[0])


def test_what_has_no_header_passes(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'no picture')
    compare_sizes([Sized('a', path, (1, 1)) for path in (
        str(tmp_path / 'a.jpg'), str(tmp_path / 'absent.jpg'), 's3://bucket/a.jpg')], False, 'file')


def test_picture_beyond_the_limit_of_pil_hides_no_other(tmp_path, monkeypatch):
    for name, size in (('a.png', (30, 30)), ('b.png', (5, 5))):
        Image.new('L', size).save(tmp_path / name)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    found = headers_of([str(tmp_path / 'a.png'), str(tmp_path / 'b.png')])
    assert found[str(tmp_path / 'a.png')] is None and found[str(tmp_path / 'b.png')].width == 5


def test_other_formats_than_coco_are_compared(tmp_path):
    for folder in ('JPEGImages', 'Annotations'):
        (tmp_path / folder).mkdir()
    save_picture(tmp_path / 'JPEGImages' / '1.jpg', (40, 30))
    (tmp_path / 'list.txt').write_text('1')
    xml = ('<annotation><size><width>{}</width><height>{}</height></size><object><name>box</name>'
           '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>'
           '</annotation>')
    cfg = dict(type='XMLDataset', data_root=str(tmp_path), ann_file='list.txt', pipeline=[],
               data_prefix=dict(sub_data_root=''), metainfo=dict(classes=('box', )))
    for size in ((40, 30), (30, 40)):
        (tmp_path / 'Annotations' / '1.xml').write_text(xml.format(*size))
        with DefaultScope.overwrite_default_scope('mmdet'):
            dataset = build_dataset(cfg, 'train')
        if size == cv2.imread(str(tmp_path / 'JPEGImages' / '1.jpg')).shape[1::-1]:
            check_dataset(dataset, 'train', False, print)
            continue
        with pytest.raises(UserError, match=r'1\.jpg\) is not valid: got 30 x 40'):
            check_dataset(dataset, 'train', False, print)
