"""The data of the model zoo: malformed rows are named; tables and titles for people."""
from __future__ import annotations

import json

import pytest

from mmdcn.analysis.model_zoo import markdown_table, read_zoo, size, title
from mmdcn.errors import UserError

ROW = dict(task='detection', family='F', model='M', dataset='COCO', metrics={}, source='s',
           config='')


def write(folder, **change):
    (folder / 'docs').mkdir(exist_ok=True)
    path = folder / 'docs' / 'zoo.json'
    row = {key: value for key, value in {**ROW, **change}.items() if value is not None}
    path.write_text(json.dumps(dict(sources={'s': {}}, rows=[row])))
    return path


def test_a_good_row_passes(tmp_path):
    assert read_zoo(write(tmp_path))['rows'] == [ROW]
    (tmp_path / 'a.py').write_text('')
    assert read_zoo(write(tmp_path, config='a.py'))
    assert read_zoo(write(tmp_path, config='mmdet::x.py'))


@pytest.mark.parametrize(('change', 'words'), [
    (dict(metrics=None), 'got no metrics'), (dict(sise=3), 'got sise, expected'),
    (dict(task='dreaming'), 'got task dreaming'), (dict(source='t'), 'source t'),
    (dict(config='absent.py'), 'got config absent.py'),
])
def test_a_bad_row_is_named(tmp_path, change, words):
    with pytest.raises(UserError, match=words) as caught:
        read_zoo(write(tmp_path, **change))
    assert 'M' in str(caught.value)


def test_a_file_that_is_no_json(tmp_path):
    path = write(tmp_path)
    path.write_text('{')
    with pytest.raises(UserError, match=r'zoo\.json'):
        read_zoo(path)


@pytest.mark.parametrize('content', [
    [], {}, dict(sources={}), dict(rows=[]), dict(sources=[], rows=[]), dict(sources={}, rows={}),
    dict(sources={}, rows=[3]), 'text', None,
])
def test_a_file_of_another_form(tmp_path, content):
    path = write(tmp_path)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r'zoo\.json of another form, expected an object with sour'):
        read_zoo(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r'^data is not valid: .*absent\.json.*No such file'):
        read_zoo(tmp_path / 'docs' / 'absent.json')


def test_table_drops_empty_columns_and_prints_zero():
    columns = {'a': lambda row: row, 'none': lambda row: None, 'zero': lambda row: 0}
    assert markdown_table([1, 2], columns).splitlines() == [
        '| a | zero |', '| --- | --- |', '| 1 | 0 |', '| 2 | 0 |']


def test_titles_and_sizes():
    assert size(224) == '224' and size([512, 1024]) == '512x1024' and size(None) == ''
    assert title(dict(model='T', pretraining='22K', resolution=384)) == 'T, 22K, 384'
    assert title(dict(task='roadmap', family='ResNet-50', model='step 3')) == 'ResNet-50, step 3'
