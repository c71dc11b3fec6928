"""LVIS read and evaluated with COCO's own code, on mended annotations.

LVIS's package (``lvis`` 0.5.3) does not evaluate with NumPy 1.24 or later, and needs no replacement
beyond this: LVIS is COCO's format and protocol, with three differences. Files name a picture by its
address; up to 300 objects of a picture count; and classes of which nobody looked whether a picture
holds them are left out there (Gupta et al., "LVIS", CVPR 2019).
"""
from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset, LVISV1Dataset
from mmdet.evaluation.metrics import LVISMetric, lvis_metric
from mmdet.registry import DATASETS, METRICS
from mmengine.logging import print_log

from mmdcn.errors import UserError
from mmdet_custom.datasets.coco_annotations import Notes, image_name, refuse
from mmdet_custom.datasets.coco_api import MendedCOCO, MendedCocoMetric, OrderedCOCOeval

_MOST = 300
_FREQUENCIES = ('r', 'c', 'f')  # in under 10, under 100, or more training pictures
# The file's name of one class, and mmdet's.
_SPELLINGS = {'speaker_(stero_equipment)': 'speaker_(stereo_equipment)'}


class MendedLVIS(MendedCOCO):
    """Annotations of a file of LVIS; arguments and errors as of :class:`MendedCOCO`."""

    def _read(self, path: str, notes: Notes) -> dict[str, Any]:
        content = super()._read(path, notes)
        for image in content['images']:
            if isinstance(image.get('coco_url'), str):  # http://host/train2017/000000000009.jpg
                image['file_name'] = '/'.join(image['coco_url'].split('/')[-2:])
        for entry in content['annotations']:
            entry.setdefault('iscrowd', 0)
        for entry in content['categories']:
            entry['name'] = _SPELLINGS.get(entry.get('name'), entry.get('name'))
        return content

    def check_federated(self) -> None:
        """The file must say which classes were looked for in a picture, and how rare each is.

        Raises:
            UserError: It does not.
        """
        remedy = 'give the annotations of LVIS, or evaluate with CocoMetric'
        for key in ('neg_category_ids', 'not_exhaustive_category_ids'):
            refuse(self.file, ((image_name(image), f'{key} {image.get(key)!r}')
                               for image in self.dataset['images']
                               if not isinstance(image.get(key), list)),
                   'a list of category ids', remedy)
        refuse(self.file, ((f'category {entry["name"]!r}', f'frequency {entry.get("frequency")!r}')
                           for entry in self.dataset['categories']
                           if entry.get('frequency') not in _FREQUENCIES),
               "'r', 'c' or 'f'", remedy)


@DATASETS.register_module(name='LVISV1Dataset', force=True)
class MendedLVISV1Dataset(LVISV1Dataset):
    """mmdet's LVIS v1, read by :class:`MendedLVIS` and without the package ``lvis``."""

    COCOAPI = property(lambda dataset: partial(MendedLVIS, dataset=dataset))

    def load_data_list(self) -> list[dict[str, Any]]:
        """As :class:`CocoDataset`; labels follow ``metainfo['classes']``."""
        return CocoDataset.load_data_list(self)


def load_results(truth: MendedLVIS, file: str) -> Any:
    """Read detections, of which the 300 with the highest scores of a picture count.

    Args:
        truth: Annotations that they are of.
        file: JSON file with a list of results in COCO's format.

    Returns:
        The results as COCO's evaluator takes them.

    Raises:
        IndexError: It holds none.
    """
    with open(file, encoding='utf-8') as stream:
        results = json.load(stream)
    if not results:
        raise IndexError('no results')
    pictures = defaultdict(list)
    for result in results:
        if 'segmentation' in result:
            result.pop('bbox', None)  # so that the size is the mask's
        pictures[result['image_id']].append(result)
    return truth.loadRes([result for found in pictures.values() for result in
                          sorted(found, key=lambda result: -result['score'])[:_MOST]])


class LVISEval(OrderedCOCOeval):
    """COCO's evaluator with the rules of LVIS.

    Args:
        truth: Annotations; classes are those of the data set.
        results: What :func:`load_results` returns.
        iou_type: ``bbox`` or ``segm``.
    """

    def __init__(self, truth: MendedLVIS, results: Any, iou_type: str) -> None:
        super().__init__(truth, results, iou_type)
        self.params.maxDets = [_MOST]
        self.params.catIds = list(truth.class_ids)
        self._unseen = {image['id']: set(image['neg_category_ids'])
                        for image in truth.dataset['images']}
        self._partial = {image['id']: set(image['not_exhaustive_category_ids'])
                         for image in truth.dataset['images']}
        self._results: dict[str, float] = {}

    def _prepare(self) -> None:
        super()._prepare()
        self._gts, self._dts = (
            defaultdict(list, {key: [entry for entry in found if entry['area'] > 0]
                               for key, found in entries.items()})
            for entries in (self._gts, self._dts))
        if self.params.useCats:
            # Of other classes nobody knows whether the picture holds them.
            self._dts = defaultdict(list, {
                key: found for key, found in self._dts.items()
                if self._gts.get(key) or key[1] in self._unseen[key[0]]})

    def evaluateImg(self, imgId: int, catId: int, aRng: list[float],  # noqa: N802, N803
                    maxDet: int) -> dict[str, Any] | None:  # noqa: N803
        """As COCO's; where not all objects are annotated, nothing is found wrongly."""
        found = super().evaluateImg(imgId, catId, aRng, maxDet)
        if found is not None and catId in self._partial[imgId]:
            found['dtIgnore'] = np.logical_or(found['dtIgnore'], found['dtMatches'] == 0)
        return found

    def summarize(self) -> None:
        """Average precisions (AP) and recalls (AR): of all, by size, and by frequency of class."""
        precision, recall = self.eval['precision'], self.eval['recall']
        thresholds = self.params.iouThrs
        self._results = {'AP': _mean(precision[:, :, :, 0, -1])}
        for name, threshold in (('AP50', 0.5), ('AP75', 0.75)):
            self._results[name] = _mean(precision[np.isclose(thresholds, threshold), :, :, 0, -1])
        for area, name in enumerate('sml', 1):
            self._results[f'AP{name}'] = _mean(precision[:, :, :, area, -1])
        if self.params.useCats:
            kinds = np.array([self.cocoGt.cats[key]['frequency'] for key in self.params.catIds])
            for kind in _FREQUENCIES:
                self._results[f'AP{kind}'] = _mean(precision[:, :, kinds == kind, 0, -1])
        for place, most in enumerate(self.params.maxDets):
            for area, name in enumerate(('', 's', 'm', 'l')):
                self._results[f'AR{name}@{most}'] = _mean(recall[:, :, area, place])

    def get_results(self) -> dict[str, float]:
        """What :meth:`summarize` found; -1 where there is nothing to find."""
        return self._results

    def print_results(self) -> None:
        """Log them."""
        print_log(', '.join(f'{name} {value:.3f}' for name, value in self._results.items()),
                  logger='current')


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


@METRICS.register_module(name='LVISMetric', force=True)
class MendedLVISMetric(LVISMetric, MendedCocoMetric):
    """mmdet's metric of LVIS, which looks at its annotation file before the run.

    Args:
        ann_file: Annotations of LVIS.
        options: As mmdet's.

    Raises:
        UserError: There is no such file, or it is not LVIS's.
    """

    def __init__(self, ann_file: str | None = None, **options: Any) -> None:
        if ann_file is None:
            raise UserError('LVISMetric.ann_file', 'got None', 'the annotations that the data set '
                            'reads', 'they say which classes were looked for in a picture')
        super().__init__(ann_file, **options)
        self._lvis_api.check_federated()
        self._coco_api = self._lvis_api

    def compute_metrics(self, results: list[tuple[dict, dict]]) -> dict[str, float]:
        """As mmdet's, of the classes of the data set."""
        self.cat_ids = self._lvis_api.class_ids
        return super().compute_metrics(results)


def install() -> None:
    """Have mmdet's metric of LVIS read and evaluate as this module does."""
    lvis_metric.lvis = lvis_metric.lvis or True  # else it refuses to be built
    lvis_metric.LVIS, lvis_metric.LVISEval = MendedLVIS, LVISEval
    lvis_metric.LVISResults = load_results
