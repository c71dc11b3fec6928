"""COCO's reader and evaluator on mended annotations: order of classes, the metric's own file."""
from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

pytest.importorskip('mmdet')

from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmdet.datasets.api_wrappers import COCOPanoptic
from mmengine.registry import METRICS, DefaultScope

import mmdet_custom  # noqa: F401
from mmdcn.data.checks import find_check
from mmdcn.errors import UserError
from mmdet_custom.datasets import coco_api
from mmdet_custom.datasets.checks import CocoCheck
from tests.mmdet_custom.datasets.coco_sets import CLASSES, CocoSet


def nothing(content, pictures):
    """Change that changes nothing."""


def test_the_names_of_mmdet_lead_here():
    with DefaultScope.overwrite_default_scope('mmdet'), \
            METRICS.switch_scope_and_registry(None) as registry:
        assert registry.get('CocoMetric') is coco_api.MendedCocoMetric
    assert CocoDataset.__new__(CocoDataset).COCOAPI.func is coco_api.MendedCOCO
    assert CocoPanopticDataset.COCOAPI is COCOPanoptic
    assert isinstance(find_check(CocoDataset), CocoCheck)


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('many', [False, True])
@pytest.mark.parametrize('classes', [CLASSES, ('star', 'disk'), ('disk', 'star', 'box')])
def test_results_of_each_class_bear_its_name(tmp_path, classes, many, reverse):
    def change(content, _):
        if reverse:
            content['categories'].reverse()
    coco = CocoSet(tmp_path, change, classes=classes, masks=False)
    dataset = coco.read()
    coco.objects = lambda image, all_objects=coco.objects: [
        entry for entry in all_objects(image) if CLASSES[entry['category_id'] - 1] != 'star']
    scores = coco.score(dataset, classwise=True, use_mp_eval=many)
    assert {name: scores[f'coco/{name}_precision'] for name in classes} == {
        name: 0.0 if name == 'star' else 1.0 for name in classes}


def test_proposals_are_evaluated_without_classes(tmp_path):
    coco = CocoSet(tmp_path, nothing, masks=False)
    assert coco.score(coco.read(), metric='proposal')['coco/AR@100'] == 1.0


def metric(coco, classes, kind='bbox'):
    with DefaultScope.overwrite_default_scope('mmdet'):
        made = METRICS.build(dict(type='CocoMetric', metric=kind,
                                  ann_file=str(coco.folder / 'annotations.json')))
    made.dataset_meta = dict(classes=classes)
    return made


def test_metric_refuses_its_file_before_the_run(tmp_path):
    def change(content, _):
        content['annotations'][0]['segmentation'] = []
    coco = CocoSet(tmp_path, change)
    with pytest.raises(UserError, match='got stars, expected names that'):
        metric(coco, ('box', 'stars'))
    metric(coco, CLASSES)
    metric(coco, ('disk', 'star'), ['bbox', 'segm'])
    with pytest.raises(UserError, match='annotation id 1 of image id 1 .* got segmentation'):
        metric(coco, CLASSES, ['bbox', 'segm'])


def test_metric_without_a_file_knows_the_truth_from_the_data_set():
    with DefaultScope.overwrite_default_scope('mmdet'):
        made = METRICS.build(dict(type='CocoMetric'))
    made.dataset_meta = dict(classes=CLASSES)
    assert made.dataset_meta == dict(classes=CLASSES)


def test_masks_of_classes_that_are_left_out_may_be_absent(tmp_path):
    def change(content, _):
        for entry in content['annotations'][::3]:
            del entry['segmentation']
    coco = CocoSet(tmp_path, change, classes=('star', 'disk'))
    assert coco.score(coco.read())['coco/segm_mAP'] == 1.0


def test_skipped_pictures_of_unknown_size_are_missed(tmp_path):
    def change(content, _):
        for entry in content['images']:
            del entry['width']
    coco = CocoSet(tmp_path, change)
    dataset = coco.read()
    dataset.get_subset_([0, 1])
    assert 0.6 < coco.score(dataset)['coco/segm_mAP'] < 0.7


def test_repairs_are_told_once_in_a_run(tmp_path, monkeypatch):
    def change(content, _):
        for entry in content['annotations']:
            del entry['iscrowd']
    lines = []
    monkeypatch.setattr(coco_api, 'print_log', lambda line, **options: lines.append(line))
    coco = CocoSet(tmp_path, change)
    for _ in range(2):
        coco.read()
    line, = lines
    assert line.startswith(f'{tmp_path}/annotations.json: ') and 'iscrowd' in line
    monkeypatch.setattr(coco_api, 'MMLogger', SimpleNamespace(
        get_current_instance=lambda: SimpleNamespace(instance_name='next run')))
    coco.read()
    assert lines == [line, line]


def test_the_file_is_left_as_it_is(tmp_path):
    def change(content, _):
        content['annotations'][0]['id'] = 0
    coco = CocoSet(tmp_path, change)
    coco.read()
    content = json.loads((tmp_path / 'annotations.json').read_text())
    assert content['annotations'][0]['id'] == 0 and 'id_in_file' not in str(content)
