"""COCO's reader and evaluator as mmdet's data sets and metric use them, on mended annotations."""
from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from functools import partial
from itertools import filterfalse
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset, Objects365V1Dataset, Objects365V2Dataset
from mmdet.datasets.api_wrappers import COCO, COCOeval, COCOevalMP
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.metrics import coco_metric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger, print_log

from mmdcn.writing import whole_file
from mmdet_custom.datasets import coco_annotations as annotations
from mmdet_custom.datasets.coco_masks import mend_flat_polygons, mend_masks
from mmdet_custom.datasets.picture_sizes import (
    Sized,
    compare_sizes,
    has_size,
    loads_as_stored,
    mend_sizes,
    transforms,
)

_told: set[tuple[str, str, str]] = set()


class MendedCOCO(COCO):
    """Annotations of one file, mended in memory; what was mended is told once in a run.

    Args:
        annotation_file: Local file; without one it holds nothing, as results do.
        dataset: Data set that reads it; without one, pictures are not looked at.

    Attributes:
        class_ids: Category ids of the classes of the data set, in their order, once it is known.

    Raises:
        UserError: An annotation cannot be mended, or classes of the data set are not in the file.
    """

    def __init__(self, annotation_file: str | None = None, dataset: Any = None) -> None:
        super().__init__()
        if annotation_file is None:
            return
        self.file = str(dataset.ann_file if dataset is not None else annotation_file)
        notes = annotations.Notes(self.file)
        content = self._read(annotation_file, notes)
        folder = None if dataset is None else dataset.data_prefix.get('img') or ''
        annotations.mend_images(content, notes, folder)
        if folder is not None:
            mend_sizes(content['images'], folder, loads_as_stored(dataset), notes)
        for image in filterfalse(has_size, content['images']):  # the metric learns it later
            image.update(width=None, height=None)
        annotations.check_references(content, self.file)
        mend_flat_polygons(content, notes)
        boxes = annotations.mend_boxes(content, notes)
        _refuse_outside(content, annotations.check_within(content, boxes, notes), dataset, notes)
        annotations.mend_areas_and_crowds(content, boxes, notes)
        self.dataset = content
        if dataset is not None:
            masks = any(getattr(step, 'with_mask', False)
                        for step in transforms(dataset.pipeline))
            self._select(dataset.metainfo['classes'], masks, notes)
            dataset.categories_checked = True
        annotations.mend_ids(content, notes)
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs
        _tell(notes)

    def _read(self, path: str, notes: annotations.Notes) -> dict[str, Any]:
        """Content of the file, in COCO's own words."""
        return annotations.read_annotations(path, notes)

    def get_cat_ids(self, cat_names: Sequence[str] = (), sup_names: Sequence[str] = (),
                    cat_ids: Sequence[Any] = ()) -> list[Any]:
        """Ids of categories; those of names in the order of the names, unlike pycocotools.

        Raises:
            UserError: A name is not in the file.
        """
        if len(cat_names) and not len(sup_names) and not len(cat_ids):
            return annotations.category_ids(self.dataset, cat_names, annotations.Notes(self.file))
        return super().get_cat_ids(cat_names, sup_names, cat_ids)

    def select(self, classes: Sequence[str], masks: bool) -> None:
        """Check that the file holds some classes, and their masks where they are needed.

        Raises:
            UserError: It does not.
        """
        notes = annotations.Notes(self.file)
        self._select(classes, masks, notes)
        _tell(notes)

    def _select(self, classes: Sequence[str], masks: bool, notes: annotations.Notes) -> None:
        self.class_ids = annotations.category_ids(self.dataset, classes, notes)
        if masks:
            mend_masks(self.dataset, set(self.class_ids), notes)


def _refuse_outside(content: dict[str, Any], outside: list[int], dataset: Any,
                    notes: annotations.Notes) -> None:
    """Refuse boxes outside their pictures; the size of a picture may be what is wrong."""
    if not outside:
        return
    images = {image['id']: image for image in content['images']}
    faulty = [content['annotations'][i] for i in outside]
    image = images[faulty[0]['image_id']]
    size = image['width'], image['height']
    if dataset is not None:
        path = os.path.join(dataset.data_prefix.get('img') or '', image['file_name'])
        compare_sizes([Sized(annotations.image_name(image), path, size)],
                      loads_as_stored(dataset), notes.file)
    annotations.refuse(
        notes.file, ((annotations.annotation_name(entry), f'bbox {entry["bbox"]}')
                     for entry in faulty),
        f'a box within its picture of {size[0]} x {size[1]} pixels',
        'a bbox is [left, top, width, height] in pixels: correct it, or remove the annotation')


def _tell(notes: annotations.Notes) -> None:
    """Log what was mended, once in a run: data set and metric read the same file."""
    for line in notes.lines:
        # The logger of a run has a name of its own.
        key = MMLogger.get_current_instance().instance_name, notes.file, line
        if key not in _told:
            _told.add(key)
            print_log(f'{notes.file}: {line}', logger='current', level=logging.WARNING)


class _ClassesInOrder:
    """Evaluator whose results per class come in the order of ``params.catIds``.

    COCO's sorts the ids, while mmdet's table of classes takes them as it gave them.
    """

    def evaluate(self) -> None:
        """As COCO's."""
        self._order = list(self.params.catIds)
        super().evaluate()

    def accumulate(self, p: Any = None) -> None:
        """As COCO's, then in the order that was asked for."""
        super().accumulate(p)
        if self.params.useCats:
            axis = np.searchsorted(np.sort(self._order), self._order)
            for key, dimension in (('precision', 2), ('recall', 1), ('scores', 2)):
                self.eval[key] = np.take(self.eval[key], axis, axis=dimension)


class OrderedCOCOeval(_ClassesInOrder, COCOeval):
    """COCO's evaluator with classes in the order that was asked for."""


class OrderedCOCOevalMP(_ClassesInOrder, COCOevalMP):
    """The evaluator in many processes with classes in the order that was asked for."""


@METRICS.register_module(name='CocoMetric', force=True)
class MendedCocoMetric(CocoMetric):
    """mmdet's metric, which looks at its annotation file before the run.

    Args:
        out_file: Where the predictions go in COCO's result format, boxes and masks in one list;
            the score is that of the mask where a detector has one of its own.
        *args, **kwargs: As mmdet's.
    """

    def __init__(self, *args: Any, out_file: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.out_file = out_file

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """Meta information of the data set; its classes must be in the annotation file."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict[str, Any]) -> None:
        self._dataset_meta = dataset_meta
        if isinstance(self._coco_api, MendedCOCO) and 'classes' in (dataset_meta or {}):
            self._coco_api.select(dataset_meta['classes'], 'segm' in self.metrics)

    def compute_metrics(self, results: list[tuple[dict, dict]]) -> dict[str, float]:
        """As mmdet's; sizes that the annotation file lacks are those of the loaded pictures."""
        images = {} if self._coco_api is None else self._coco_api.imgs
        sizes = {truth['img_id']: (truth['width'], truth['height']) for truth, _ in results}
        for image in filterfalse(has_size, images.values()):
            # With the masks of a picture that was skipped nothing is compared.
            image['width'], image['height'] = sizes.get(image['id'], (1, 1))
        return super().compute_metrics(results)

    def results2json(self, results: Sequence[dict[str, Any]], outfile_prefix: str,
                     ) -> dict[str, str]:
        """As mmdet's; the file with most in it becomes ``out_file``, too."""
        files = super().results2json(results, outfile_prefix)
        if self.out_file is not None:
            with whole_file(self.out_file) as part:
                shutil.copyfile(files.get('segm', files['bbox']), part)
        return files


def install() -> None:
    """Have mmdet's data sets and metric of COCO's format read and evaluate as this module does."""
    reader = property(lambda dataset: partial(MendedCOCO, dataset=dataset))
    for kind in (CocoDataset, Objects365V1Dataset, Objects365V2Dataset):
        kind.COCOAPI = reader
    coco_metric.COCO = MendedCOCO
    coco_metric.COCOeval = OrderedCOCOeval
    coco_metric.COCOevalMP = OrderedCOCOevalMP
