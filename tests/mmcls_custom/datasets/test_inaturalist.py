"""iNaturalist 2018: labels, times and places of its files, and what is refused."""
from __future__ import annotations

import json
import logging

import pytest
from mmengine.registry import DefaultScope

pytest.importorskip('mmpretrain')

from mmcls_custom.datasets.inaturalist import INaturalistCheck, encode_place, encode_time
from mmdcn.data.checks import build_dataset, check_dataset, find_check
from mmdcn.errors import UserError
from tests.mmcls_custom import inaturalist

HALF, ROOT3 = 0.5, 0.75**0.5


@pytest.mark.parametrize(('date', 'expected'), [
    ('2017-03-05 10:11:12', (1, 0)), ('2016-12-31', (0, 1)), ('2015-6-1', (0, -1)),
    (' 2015-01-09', (HALF, ROOT3)), ('2018-10-02T00:00:00+02:00', (-ROOT3, HALF)),
    (None, (0, 0)), ('', (0, 0)), ('summer', (0, 0)), ('2017-13-01', (0, 0)),
    ('2017-00-01', (0, 0)), ('2017-5', (0, 0))])
def test_time(date, expected):
    assert encode_time(date) == pytest.approx((*expected, 0, 0), abs=1e-12)


@pytest.mark.parametrize(('latitude', 'longitude', 'expected'), [
    (90, 50, (0, 0, 1)), (-90.0, 1, (0, 0, -1)), (30, 180, (-ROOT3, 0, HALF)),
    (-30, 90, (0, ROOT3, -HALF)), (60, -60, (HALF * HALF, -HALF * ROOT3, ROOT3)),
    (None, None, (0, 0, 0)), (None, 5.0, (0, 0, 0)), (5.0, None, (0, 0, 0)),
    (0.0, 5.0, (0, 0, 0)), (5.0, 0, (0, 0, 0))])
def test_place(latitude, longitude, expected):
    assert encode_place(latitude, longitude) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(('latitude', 'longitude', 'words'), [
    (91, 0.1, 'latitude is not valid: got 91, expected -90 to 90 degrees'),
    (1, -180.5, 'longitude is not valid: got -180.5, expected -180 to 180 degrees'),
    (float('nan'), 1, 'latitude is not valid: got nan'), ('5', 1, "latitude is not valid: got '5'"),
    (True, 1, 'latitude is not valid: got True')])
def test_places_that_are_none(latitude, longitude, words):
    with pytest.raises(UserError, match=words):
        encode_place(latitude, longitude)


@pytest.fixture
def read(tmp_path):
    """Function that writes the set, builds and checks it."""
    root = inaturalist.make(tmp_path / 'set')

    def function(annotations=None, locations=None, loc_file='train2018_locations.json', **kwargs):
        if annotations is not None:
            (root / 'train2018.json').write_text(json.dumps(annotations))
        if locations is not None:
            (root / 'train2018_locations.json').write_text(json.dumps(locations))
        cfg = dict(type='INaturalist2018', data_root=str(root), ann_file='train2018.json',
                   loc_file=loc_file, **kwargs)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            dataset = build_dataset(cfg, 'train')
            check_dataset(dataset, 'train', False, print)
        return dataset
    function.root = root
    return function


EXPECTED = [(1, 0, 0, 0, 0, HALF**HALF, HALF**HALF), (0,) * 7, (0, 1, 0, 0, -ROOT3, 0, -HALF),
            (0,) * 7]


def test_samples(read):
    dataset = read()
    samples = [dataset.get_data_info(i) for i in range(4)]
    assert [sample['gt_label'] for sample in samples] == [0, 1, 0, 1]
    assert [sample['time_place'].tolist() for sample in samples] == [
        pytest.approx(row, abs=1e-6) for row in EXPECTED]
    assert samples[3]['img_path'] == str(read.root / 'train_val2018/Aves/7/3.jpg')
    assert dataset.metainfo['classes'] == ('Ardea alba', 'Bufo bufo')
    assert type(find_check(type(dataset))) is INaturalistCheck


def test_locations_belong_to_ids_where_they_have_any(read):
    by_id = read(locations=inaturalist.LOCATIONS[:0:-1])  # another order, one missing
    by_place = read(locations=[{key: value for key, value in entry.items() if key != 'id'}
                               for entry in inaturalist.LOCATIONS])
    without = read(loc_file=None)
    rows = [[tuple(dataset.get_data_info(i)['time_place']) for i in range(4)]
            for dataset in (by_id, by_place, without)]
    assert rows[0] == [pytest.approx(row, abs=1e-6) for row in [(0,) * 7, *EXPECTED[1:]]]
    assert rows[1] == [pytest.approx(row, abs=1e-6) for row in EXPECTED]
    assert rows[2] == [(0,) * 7] * 4


def test_unknown_times_and_places_are_counted(read, monkeypatch):
    lines = []
    monkeypatch.setattr('mmcls_custom.datasets.inaturalist.print_log',
                        lambda text, logger, level: lines.append((text, level)))
    read()
    assert lines == [(f'train: the {what} of 2 pictures is not known, zeros stand in',
                      logging.INFO) for what in ('time', 'place')]
    lines.clear()
    read(loc_file=None)
    assert [level for _, level in lines] == [logging.WARNING] * 2


def changed(part, number, **changes):
    """The annotations with one entry of a part changed."""
    entries = [dict(entry) for entry in inaturalist.content()[part]]
    entries[number] |= changes
    return inaturalist.content(**{part: entries})


@pytest.mark.parametrize(('annotations', 'words'), [
    ([], 'train2018.json is not valid: got a list, expected an object with images'),
    (dict(images=[]), 'train2018.json: annotations is not valid: got a NoneType, expected a list'),
    (inaturalist.content(images=[{'id': 1}]), r"images\[0\] is not valid: got \{'id': 1\}"),
    (changed('images', 2, file_name=['x']), r'images\[2\] is not valid'),
    (changed('annotations', 0, category_id=8142),
     'annotation of image 13 is not valid: got category_id 8142, expected the id of one of the 2'),
    (inaturalist.content(annotations=inaturalist.content()['annotations'][1:]),
     'image 13 is not valid: got no annotation'),
    (inaturalist.content(images=[], annotations=[]), 'train is not valid: it holds no image'),
    (changed('images', 1, file_name='train_val2018/absent.jpg'),
     '(?s)1 missing.*missing file .*/set/train_val2018/absent.jpg'),
])
def test_annotations_that_are_none(read, annotations, words):
    with pytest.raises(UserError, match=words):
        read(annotations)


@pytest.mark.parametrize(('locations', 'words'), [
    ({}, 'train2018_locations.json is not valid: got a dict, expected a list'),
    ([{'lat': 1}], r'_locations.json\[0\] is not valid: got .*, expected an object with date, lat'),
    ([dict(lat=1, lon=1, date=None)], 'got 1 entries without id, expected 4, one for each image'),
    ([dict(id=12, lat=120.5, lon=30, date=None)], r'_locations.json: latitude of image 12 is not '
     'valid: got 120.5, expected -90 to 90 degrees, or None; correct it; mind that the latitude'),
])
def test_locations_that_are_none(read, locations, words):
    with pytest.raises(UserError, match=words):
        read(locations=locations)


def test_files_that_cannot_be_read(read):
    with pytest.raises(UserError, match='val2018_locations.json.* does not exist'):
        (read.root / 'val2018_locations.json').unlink()
        read(loc_file='val2018_locations.json')
    (read.root / 'train2018_locations.json').write_text('{"id": ')
    with pytest.raises(UserError, match=r'train2018_locations.json is not valid: not JSON \('):
        read()
    (read.root / 'train2018.json').write_bytes(b'\x1f\x8b\xff')
    with pytest.raises(UserError, match=r'train2018.json is not valid: not JSON \('):
        read()


@pytest.mark.parametrize(('classes', 'words'), [
    (['Ardea alba'], '(?s)disagree with the categories in .*train2018.json.*only: Bufo bufo'),
    (['Bufo bufo', 'Ardea alba'], 'same names, other order from position 0')])
def test_classes_must_be_the_categories(read, classes, words):
    with pytest.raises(UserError, match=words):
        read(metainfo=dict(classes=classes))
