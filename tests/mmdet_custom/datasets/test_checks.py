"""What the annotations of detection data sets are checked for."""
from __future__ import annotations

import json

import pytest

pytest.importorskip('mmdet')

from mmdet_custom.datasets.checks import coco_categories


@pytest.mark.parametrize('pad', [0, 200_000])
def test_categories_are_read_wherever_they_stand(tmp_path, pad):
    names = ['a "quoted" name', 'größe', 'x' * 70_000]
    content = {'info': {'note': '"categories"'}, 'images': [{'file_name': 'f' * pad}],
               'categories': [{'id': i, 'name': name} for i, name in enumerate(names)]}
    path = tmp_path / 'a.json'
    for order in (content, dict(reversed(content.items()))):
        path.write_text(json.dumps(order, ensure_ascii=False), encoding='utf-8')
        assert coco_categories(str(path)) == names


@pytest.mark.parametrize('content', ['', '{}', '{"categories": {}}', '{"categories": [1, 2]}',
                                     '{"categories": [{"id": 1'])
def test_no_categories(tmp_path, content):
    (tmp_path / 'a.json').write_text(content)
    assert coco_categories(str(tmp_path / 'a.json')) is None
