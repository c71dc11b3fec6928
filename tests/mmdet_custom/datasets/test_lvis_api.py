"""LVIS: what is read, and what the evaluator finds, against the values of LVIS's own package."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('mmdet')

from mmdet.datasets import LVISV1Dataset
from pycocotools import mask as rle

from mmdcn.errors import UserError
from mmdet_custom.datasets.lvis_api import (
    LVISEval,
    MendedLVIS,
    MendedLVISMetric,
    MendedLVISV1Dataset,
    load_results,
)
from tests.mmdet_custom.datasets.other_sets import lvis

NAMES = [f'c{number}' for number in range(1, 8)]
# Found by lvis 0.5.3 with NumPy's former name of float, on what `federated_set` writes.
OFFICIAL: dict[str, dict[str, float]] = {
    'bbox': {
        'AP': 0.2329645437, 'AP50': 0.4896273968, 'AP75': 0.2079865356, 'APs': 0.1986261854,
        'APm': 0.2965280204, 'APl': 0.5733467875, 'APr': 0.363143971, 'APc': 0.1608124999,
        'APf': 0.2110131821, 'AR@300': 0.6525836663, 'ARs@300': 0.435, 'ARm@300': 0.7038321995,
        'ARl@300': 0.8666666667},
    'segm': {
        'AP': 0.2330192991, 'AP50': 0.4661843766, 'AP75': 0.2128415657, 'APs': 0.1978249551,
        'APm': 0.2996953912, 'APl': 0.5738353915, 'APr': 0.3658393254, 'APc': 0.1587834444,
        'APf': 0.211553055, 'AR@300': 0.6650736763, 'ARs@300': 0.4528571429,
        'ARm@300': 0.7171598639, 'ARl@300': 0.8666666667},
}


def box_polygon(box: list[float]) -> list[list[float]]:
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def federated_set(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Annotations of seven classes in 14 pictures, and up to some hundred boxes found in each."""
    rng = np.random.default_rng(5)
    images, annotations = [], []
    for number in range(1, 15):
        unseen = [int(kind) for kind in rng.choice(np.arange(1, 8), 2, replace=False)]
        seen = [kind for kind in range(1, 8) if kind not in unseen and rng.random() < 0.5]
        images.append(dict(
            id=number, coco_url=f'http://host/val2017/{number}.jpg', width=400, height=300,
            neg_category_ids=unseen,
            not_exhaustive_category_ids=[kind for kind in seen if rng.random() < 0.4]))
        for kind in seen:
            for _ in range(rng.integers(1, 5)):
                x, y = rng.uniform(0, 250), rng.uniform(0, 150)
                w, h = rng.uniform(5, 145, 2)
                box = [float(x), float(y), float(w), float(h)]
                annotations.append(dict(
                    id=len(annotations) + 1, image_id=number, category_id=kind, bbox=box,
                    area=box[2] * box[3] * 0.9, segmentation=box_polygon(box)))
    found = []
    for entry in annotations:
        for _ in range(rng.integers(0, 90)):
            box = np.array(entry['bbox']) + rng.normal(0, 8, 4)
            box[2:] = np.maximum(box[2:], 2)
            kind = entry['category_id'] if rng.random() < 0.8 else int(rng.integers(1, 8))
            found.append(dict(image_id=entry['image_id'], category_id=kind, bbox=box.tolist(),
                              score=float(rng.random())))
    file = folder / 'truth.json'
    file.write_text(json.dumps(dict(
        images=images, annotations=annotations,
        categories=[dict(id=i, name=name, frequency='rcf'[i % 3])
                    for i, name in enumerate(NAMES, 1)])))
    return file, found


def as_masks(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Boxes as run-length codes, of which a few are empty."""
    masks = []
    for entry in found:
        code = rle.frPyObjects(box_polygon(entry['bbox']), 300, 400)[0]
        masks.append(dict(entry, segmentation=dict(code, counts=code['counts'].decode())))
    return masks


def evaluate(truth: MendedLVIS, found: list[dict[str, Any]], folder: Path,
             kind: str = 'bbox') -> dict[str, float]:
    (folder / 'found.json').write_text(json.dumps(found))
    evaluator = LVISEval(truth, load_results(truth, str(folder / 'found.json')), kind)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator.get_results()


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_evaluates_as_the_package_of_lvis(kind, tmp_path):
    file, found = federated_set(tmp_path)
    truth = MendedLVIS(str(file))
    truth.check_federated()
    truth.select(NAMES, kind == 'segm')
    results = evaluate(truth, as_masks(found) if kind == 'segm' else found, tmp_path, kind)
    assert results == pytest.approx(OFFICIAL[kind], abs=1e-9)


def test_only_classes_of_the_data_set_are_evaluated_in_its_order(tmp_path):
    file, found = federated_set(tmp_path)
    truth = MendedLVIS(str(file))
    truth.select(['c5', 'c2'], False)
    precisions = []
    for names in (['c5', 'c2'], ['c2'], ['c5']):
        truth.select(names, False)
        precisions.append(evaluate(truth, found, tmp_path)['AP'])
    assert precisions[0] == pytest.approx(np.mean(precisions[1:])) and precisions[1] > 0


def test_data_set_reads_addresses_and_the_misspelt_class(tmp_path):
    written = lvis(tmp_path)
    dataset = written.build()
    assert type(dataset) is MendedLVISV1Dataset
    assert dataset.get_data_info(0)['img_path'] == str(tmp_path / 'val2017/1.jpg')
    assert [entry['bbox_label'] for entry in dataset.get_data_info(0)['instances']] == [0, 1]
    assert set(written.dataset['metainfo']['classes']) <= set(LVISV1Dataset.METAINFO['classes'])
    written.dataset['metainfo'] = dict(classes=('speaker_(stereo_equipment)', 'aerosol_can'))
    assert [entry['bbox_label']
            for entry in written.build().get_data_info(0)['instances']] == [1, 0]


@pytest.mark.parametrize(('key', 'part'), [
    ('neg_category_ids', 'images'), ('not_exhaustive_category_ids', 'images'),
    ('frequency', 'categories')])
def test_metric_refuses_what_is_not_of_lvis(key, part, tmp_path):
    lvis(tmp_path)
    file = tmp_path / 'lvis.json'
    content = json.loads(file.read_text())
    del content[part][0][key]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f'got {key} None'):
        MendedLVISMetric(str(file))


def test_metric_needs_annotations_and_their_classes(tmp_path):
    with pytest.raises(UserError, match='LVISMetric.ann_file is not valid: got None'):
        MendedLVISMetric()
    lvis(tmp_path)
    metric = MendedLVISMetric(str(tmp_path / 'lvis.json'))
    with pytest.raises(UserError, match='got aerosol, expected names that'):
        metric.dataset_meta = dict(classes=('aerosol', ))


def test_nothing_found_is_told_apart(tmp_path):
    lvis(tmp_path)
    (tmp_path / 'found.json').write_text('[]')
    with pytest.raises(IndexError):
        load_results(MendedLVIS(str(tmp_path / 'lvis.json')), str(tmp_path / 'found.json'))
