"""Heads against classes, and the categories of files that mmdet reads itself."""
from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from torch import nn

from mmdcn.errors import UserError
from mmdet_custom.datasets.checks import CocoCheck, coco_categories


def data(count, **values):
    return SimpleNamespace(metainfo=dict(classes=[f'c{i}' for i in range(count)]),
                           **{'return_classes': False, **values})


def detector(config):
    """A detector of mmdet, without weights in memory."""
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        return MODELS.build(get_config(f'mmdet::{config}').model)


# The head that is named first.
@pytest.mark.parametrize(('config', 'path'), [
    ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'roi_head.bbox_head'),
    ('cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', 'roi_head.bbox_head.0'),
    ('dino/dino-4scale_r50_8xb2-12e_coco.py', 'bbox_head'),
    ('ssd/ssd300_coco.py', 'bbox_head'),
    ('mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', 'panoptic_head'),
    ('htc/htc_r50_fpn_1x_coco.py', 'roi_head.bbox_head.0'),
])
def test_heads_of_another_number_of_classes_are_named(config, path):
    model = detector(config)
    CocoCheck().check_model(model, data(80), 'train')
    for count in (79, 81):
        with pytest.raises(UserError) as caught:
            CocoCheck().check_model(model, data(count), 'train_dataloader.dataset')
        error = caught.value
        assert (error.name, error.found) == (f'model.{path}.num_classes', 'got 80')
        assert error.expected == \
            f'{count}, as many as train_dataloader.dataset.metainfo.classes has'
        assert 'whichever is wrong' in error.remedy


def test_only_one_head_differs_and_texts_have_no_number():
    model = detector('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    model.roi_head.mask_head.num_classes = 1
    with pytest.raises(UserError, match='model.roi_head.mask_head.num_classes is not valid: got 1'):
        CocoCheck().check_model(model, data(80), 'train')
    CocoCheck().check_model(model, data(3, return_classes=True), 'train')
    CocoCheck().check_model(model, data(0), 'train')


def test_wrapped_model_is_looked_into():
    model = nn.DataParallel(detector('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'))
    with pytest.raises(UserError, match=r'^model\.roi_head\.bbox_head\.num_classes'):
        CocoCheck().check_model(model, data(3), 'train')


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
