"""Error analysis of detectors: planted errors, the published package, bad files."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmdcn.analysis import tide
from mmdcn.errors import UserError

PACKAGE = {'Cls': 'cls', 'Loc': 'loc', 'Both': 'both', 'Dupe': 'dup', 'Bkg': 'bkg', 'Miss': 'miss',
           'FalsePos': 'fp', 'FalseNeg': 'fn'}


def polygon(box: list[float]) -> list[list[float]]:
    left, top, width, height = box
    return [[left, top, left + width, top, left + width, top + height, left, top + height]]


def run_lengths(box: list[float]) -> dict[str, Any]:
    rle = coco_mask.merge(coco_mask.frPyObjects(polygon(box), 80, 120))
    return {'size': [80, 120], 'counts': rle['counts'].decode()}


def annotation_file(objects: list[tuple[int, int, list[float], int]], images: int) -> dict:
    """Objects (image, class, box, crowd) as COCO has them, of classes 1 to 4 and images 3, 6..."""
    return dict(
        images=[dict(id=3 * i, file_name=f'{i}.jpg', width=120, height=80)
                for i in range(1, images + 1)],
        categories=[dict(id=i, name=f'class {i}') for i in range(1, 5)],
        annotations=[dict(id=number, image_id=image, category_id=category, bbox=box, iscrowd=crowd,
                          area=box[2] * box[3], segmentation=polygon(box))
                     for number, (image, category, box, crowd) in enumerate(objects, 1)])


def prediction(image: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return dict(image_id=image, category_id=category, bbox=box, score=score,
                segmentation=run_lengths(box))


def perfect() -> tuple[dict, list[dict]]:
    """Four images, each with one object of classes 1 and 2, all found."""
    objects = [(3 * i, category, [10.0 + 60 * (category - 1), 10.0, 20.0, 20.0], 0)
               for i in range(1, 5) for category in (1, 2)]
    found = [prediction(image, category, list(box), 0.9) for image, category, box, _ in objects]
    return annotation_file(objects, 4), found


def random_set(seed: int) -> tuple[dict, list[dict]]:
    """Objects, crowds among them, and predictions with errors of all kinds; many equal scores."""
    rng = np.random.default_rng(seed)
    objects, found = [], []
    for image in range(3, 33, 3):
        boxes = []
        for _ in range(rng.integers(0, 6)):
            box = [float(v) for v in (*rng.integers(0, 50, 2), *rng.integers(8, 30, 2))]
            boxes.append((box, int(rng.integers(1, 4))))
            objects.append((image, boxes[-1][1], box, int(rng.random() < 0.15)))
        for _ in range(rng.integers(0, 130 if seed == 0 else 30)):
            box = [float(v) for v in (*rng.integers(0, 50, 2), *rng.integers(8, 30, 2))]
            category = int(rng.integers(1, 5))
            if boxes and rng.random() < 0.8:
                near, right = boxes[rng.integers(len(boxes))]
                box = (np.abs(near + rng.normal(size=4) * rng.choice([1, 4, 8])) + 0.5).tolist()
                category = right if rng.random() < 0.7 else category
            found.append(prediction(image, category, box, round(float(rng.random()), 1 + seed % 2)))
    return annotation_file(objects, 10), found


def save(folder: Path, truth: Any, found: Any) -> tuple[Path, Path]:
    paths = folder / 'annotations.json', folder / 'predictions.json'
    for path, content in zip(paths, (truth, found), strict=True):
        path.write_text(json.dumps(content))
    return paths


def errors_of(folder: Path, truth: Any, found: Any, iou_type: str = 'bbox') -> dict[str, float]:
    ann, predictions = save(folder, truth, found)
    read = tide.read_truth(ann, iou_type)
    return tide.analyse_errors(read, tide.read_predictions(predictions, read, iou_type), iou_type)


def test_perfect_predictions_cost_nothing(tmp_path):
    got = errors_of(tmp_path, *perfect())
    assert got.pop('AP50') == pytest.approx(100)
    assert set(got) == set(PACKAGE.values()) and not any(got.values())


# What is done to the predictions, and what the only costs are, worked out by hand: of class 1 one
# object of four is lost, or a false positive ranks first.
@pytest.mark.parametrize(('error', 'iou_type', 'special'), [
    ('loc', 'bbox', 'both'), ('loc', 'segm', 'both'), ('cls', 'bbox', 'both'),
    ('cls', 'segm', 'both'), ('miss', 'bbox', 'fn'), ('dup', 'bbox', 'fp'), ('bkg', 'segm', 'fp'),
    ('both', 'bbox', 'fp')])
def test_a_planted_error_is_in_its_own_row(tmp_path, error, iou_type, special):
    truth, found = perfect()
    if error == 'loc':
        box = [20.0, 10.0, 20.0, 20.0]  # IoU 1/3
        found[0].update(bbox=box, segmentation=run_lengths(box))
    elif error == 'cls':
        found[0]['category_id'] = 2
    elif error == 'miss':
        del found[0]
    elif error == 'dup':
        found.append(prediction(3, 1, [10.0, 10.0, 20.0, 20.0], 0.8))
        found[2]['score'] = found[4]['score'] = found[6]['score'] = 0.7
    elif error == 'bkg':
        found.append(prediction(3, 1, [90.0, 50.0, 20.0, 20.0], 1.0))
    else:
        found.append(prediction(3, 1, [80.0, 10.0, 20.0, 20.0], 1.0))  # on an object of class 2
    got = errors_of(tmp_path, truth, found, iou_type)
    costs = {key: value for key, value in got.items() if key in tide.KINDS or key == 'miss'}
    assert [key for key, value in costs.items() if value > 1] == [error]
    assert got['AP50'] + costs[error] == pytest.approx(100)
    assert sum(costs.values()) == pytest.approx(costs[error])
    assert got['AP50'] == pytest.approx(
        {'miss': (100 * 76 / 101 + 100) / 2, 'bkg': 90, 'both': 90, 'dup': (
            (26 + 75 * 4 / 5) / 101 * 100 + 100) / 2}.get(error, got['AP50']))
    lost = [key for key in ('fp', 'fn') if got[key] > 1]
    assert lost == (['fp', 'fn'] if special == 'both' else [special])


def test_crowds_excuse_what_lies_within_them(tmp_path):
    truth, found = perfect()
    truth['annotations'].append(dict(id=9, image_id=3, category_id=1, bbox=[80.0, 40.0, 40.0, 40.0],
                                     iscrowd=1, segmentation=run_lengths([80, 40, 40, 40])))
    inside = [90.0, 50.0, 10.0, 10.0]
    got = errors_of(tmp_path, truth, [*found, prediction(3, 1, inside, 1.0)])
    assert got['AP50'] == pytest.approx(100) and not got['bkg']
    got = errors_of(tmp_path, truth, [*found, prediction(3, 2, inside, 1.0)])
    assert got['bkg'] > 5


def test_the_best_hundred_of_an_image_count(tmp_path):
    truth, found = perfect()
    wrong = [prediction(3, 1, [90.0, 50.0, 20.0, 20.0], 1.0)] * 100
    assert errors_of(tmp_path, truth, [*found, *wrong])['miss'] > 5
    assert errors_of(tmp_path, truth, [*found, *wrong[2:]])['miss'] == 0


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('seed', range(6))
def test_figures_are_those_of_the_published_package(tmp_path, seed, iou_type):
    with matplotlib.rc_context():  # it changes the style of all pictures drawn after its import
        package = pytest.importorskip('tidecv', reason='needs tidecv (requirements/dev.txt)')
    truth, found = random_set(seed)
    ann, predictions = save(tmp_path, truth, found)
    judge = package.TIDE()
    judge.evaluate(package.datasets.COCO(str(ann)), package.datasets.COCOResult(str(predictions)),
                   mode={'bbox': judge.BOX, 'segm': judge.MASK}[iou_type], name='it')
    every = judge.get_all_errors()
    expected = {PACKAGE[key]: value for part in every.values() for key, value in part['it'].items()}
    got = errors_of(tmp_path, truth, found, iou_type)
    assert got == pytest.approx({'AP50': judge.runs['it'].ap, **expected}, abs=1e-9)
    assert sum(value > 0.1 for value in got.values()) >= 5


@pytest.mark.parametrize(('change', 'words'), [
    (lambda truth, found: {}, 'holds a dict, expected a list'),
    (lambda truth, found: [], 'empty list'),
    (lambda truth, found: [*found, 3], r'\[8\] is 3, expected an object'),
    (lambda truth, found: [{**found[0], 'image_id': 77}], r'\[0\] has image_id 77.*\(3, 6, 9'),
    (lambda truth, found: [{**found[0], 'image_id': '3'}], "has image_id '3'"),
    (lambda truth, found: [{**found[0], 'category_id': 0}], 'has category_id 0'),
    (lambda truth, found: [{**found[0], 'score': None}], 'has score None'),
    (lambda truth, found: [{**found[0], 'score': float('nan')}], 'has score nan'),
    (lambda truth, found: [{**found[0], 'bbox': [1, 2, 3]}], r'has bbox \[1, 2, 3\]'),
    (lambda truth, found: [{'image_id': 3, 'category_id': 1}], 'has no score, bbox')])
def test_predictions_that_are_not_valid(tmp_path, change, words):
    truth, found = perfect()
    with pytest.raises(UserError, match=f'^predictions is not valid: .*{words}'):
        errors_of(tmp_path, truth, change(truth, found))


@pytest.mark.parametrize(('change', 'words'), [
    (lambda truth: [], 'holds a list'),
    (lambda truth: {**truth, 'annotations': []}, 'has no annotations'),
    (lambda truth: {**truth, 'images': [{}]}, r'images\[0\] has no id'),
    (lambda truth: {**truth, 'images': truth['images'][1:]}, r'annotations\[0\] has image_id 3'),
    (lambda truth: {**truth, 'annotations': [{**truth['annotations'][0], 'iscrowd': 1}]},
     'crowd regions only')])
def test_annotations_that_are_not_valid(tmp_path, change, words):
    truth, found = perfect()
    with pytest.raises(UserError, match=f'^ann is not valid: .*{words}'):
        errors_of(tmp_path, change(truth), found)


def test_masks_that_are_not_valid(tmp_path):
    truth, found = perfect()
    found[0]['segmentation']['size'] = [8, 12]
    with pytest.raises(UserError, match='mask of image 3 .*the image has'):
        errors_of(tmp_path, truth, found, 'segm')
    del found[0]['segmentation']
    with pytest.raises(UserError, match='has no segmentation'):
        errors_of(tmp_path, truth, found, 'segm')


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match='cannot be read'):
        tide.read_truth(tmp_path / 'absent.json')
    (tmp_path / 'cut.json').write_text('{"images": [')
    with pytest.raises(UserError, match='is no JSON'):
        tide.read_truth(tmp_path / 'cut.json')
