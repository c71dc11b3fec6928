"""Three pictures with boxes in the formats of LVIS, PASCAL VOC, CrowdHuman and OpenImages."""
from __future__ import annotations

import csv
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.registry import DefaultScope

from mmdcn.data.checks import build_dataset, check_dataset
from tests import tiny

WIDTH, HEIGHT = 64, 48
BOXES = ((5, 4, 25, 24), (30, 20, 60, 44))  # left, top, right, bottom; one of each class
OPEN_IMAGES = ('ImageID', 'Source', 'LabelName', 'Confidence', 'XMin', 'XMax', 'YMin', 'YMax',
               'IsOccluded', 'IsTruncated', 'IsGroupOf', 'IsDepiction', 'IsInside')


@dataclass
class Written:
    """A written set: the configs of its data set and its metric, and its number of classes."""

    dataset: dict[str, Any]
    metric: dict[str, Any]
    classes: int

    def build(self) -> Any:
        """Read the set through the entrance of the tools."""
        with DefaultScope.overwrite_default_scope('mmdet'):
            dataset = build_dataset(dict(self.dataset), 'data')
            check_dataset(dataset, 'data', False, lambda line: None)
        return dataset

    def config(self, folder: Path) -> Path:
        """A config that trains a small detector on it, and evaluates with its metric."""
        head, start, rest = tiny.DETECTOR.partition('train_pipeline')
        head = head.replace('mask_roi_extractor=dict(out_channels=16)', 'mask_roi_extractor=None')
        head = head[:head.index('mask_head=')] + 'mask_head=None),\n' + head[
            head.index('    test_cfg=dict(rpn'):]
        rest = rest.replace(', with_mask=True', '').replace("'scale_factor')", "'scale_factor'" + (
            ", 'instances', 'image_level_labels')" if 'OpenImages' in self.metric['type'] else ')'))
        last = f'''
data = dict(serialize_data=False, **{self.dataset!r})
train_dataloader['dataset'] = dict(data, pipeline=train_pipeline)
val_dataloader['dataset'] = dict(data, test_mode=True, pipeline=test_pipeline)
val_evaluator = test_evaluator = {self.metric!r}
'''
        path = folder / 'config.py'
        text = head.replace('num_classes=2', f'num_classes={self.classes}') + start + rest + last
        path.write_text(text.replace('{root}', folder.as_posix()))
        return path


def _pictures(folder: Path, names: tuple[str, ...]) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in names:
        picture = rng.integers(90, 160, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        for kind, (left, top, right, bottom) in enumerate(BOXES):
            picture[top:bottom, left:right] = (250, 20, 20) if kind else (20, 250, 20)
        cv2.imwrite(str(folder / f'{name}.jpg'), picture)


def lvis(folder: Path) -> Written:
    """Two of the 1203 classes; of the first nobody looked for more."""
    names = ('aerosol_can', 'speaker_(stero_equipment)')
    _pictures(folder / 'val2017', ('1', '2', '3'))
    images = [dict(id=i, coco_url=f'http://images.cocodataset.org/val2017/{i}.jpg', width=WIDTH,
                   height=HEIGHT, neg_category_ids=[], not_exhaustive_category_ids=[1])
              for i in (1, 2, 3)]
    annotations = [
        dict(id=10 * i + kind, image_id=i, category_id=(1, 655)[kind], area=(r - x) * (b - y),
             bbox=[x, y, r - x, b - y], segmentation=[[x, y, r, y, r, b, x, b]])
        for i in (1, 2, 3) for kind, (x, y, r, b) in enumerate(BOXES)]
    categories = [dict(id=i, name=name, frequency='f')
                  for i, name in zip((1, 655), names, strict=True)]
    (folder / 'lvis.json').write_text(json.dumps(dict(
        images=images, annotations=annotations, categories=categories)))
    return Written(
        dict(type='LVISV1Dataset', data_root=str(folder), ann_file='lvis.json',
             data_prefix=dict(img=''),
             metainfo=dict(classes=('aerosol_can', 'speaker_(stereo_equipment)'))),
        dict(type='LVISMetric', ann_file=str(folder / 'lvis.json'), metric=['bbox']), 2)


def voc(folder: Path) -> Written:
    """Cats and dogs, as ``VOC2007``."""
    root = folder / 'VOC2007'
    _pictures(root / 'JPEGImages', ('a', 'b', 'c'))
    (root / 'Annotations').mkdir()
    (root / 'list.txt').write_text('a\nb\nc\n')
    for name in 'abc':
        objects = ''.join(
            f'<object><name>{kind}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin>'
            f'<ymin>{y + 1}</ymin><xmax>{r + 1}</xmax><ymax>{b + 1}</ymax></bndbox></object>'
            for kind, (x, y, r, b) in zip(('cat', 'dog'), BOXES, strict=True))
        (root / f'Annotations/{name}.xml').write_text(
            f'<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>{objects}'
            '</annotation>')
    return Written(
        dict(type='VOCDataset', data_root=str(folder), ann_file='VOC2007/list.txt',
             data_prefix=dict(sub_data_root='VOC2007/')),
        dict(type='VOCMetric', metric='mAP', eval_mode='11points'), 20)


def crowdhuman(folder: Path) -> Written:
    """A person and what is to be ignored in every picture."""
    _pictures(folder / 'Images', ('1,a', '2,b', '3,c'))
    lines = []
    for name in ('1,a', '2,b', '3,c'):
        boxes = [[x, y, r - x, b - y] for x, y, r, b in BOXES]
        lines.append(json.dumps(dict(ID=name, gtboxes=[
            dict(tag=tag, fbox=box, hbox=box, vbox=box, extra=dict(ignore=int(tag == 'mask')),
                 head_attr={})
            for tag, box in zip(('person', 'mask'), boxes, strict=True)])))
    (folder / 'annotation_train.odgt').write_text('\n'.join(lines) + '\n')
    return Written(
        dict(type='CrowdHumanDataset', data_root=str(folder), ann_file='annotation_train.odgt',
             data_prefix=dict(img='Images/')),
        dict(type='CrowdHumanMetric', ann_file=str(folder / 'annotation_train.odgt'),
             metric=['AP', 'MR', 'JI'], num_ji_process=1), 1)


def openimages(folder: Path) -> Written:
    """Cats and dogs, which are animals."""
    _pictures(folder / 'val', ('a', 'b', 'c'))
    (folder / 'classes.csv').write_text('/m/1,Cat\n/m/2,Dog\n/m/3,Animal\n')
    (folder / 'hierarchy.json').write_text(json.dumps(dict(LabelName='/m/0', Subcategory=[
        dict(LabelName='/m/3', Subcategory=[dict(LabelName='/m/1'), dict(LabelName='/m/2')])])))
    with open(folder / 'boxes.csv', 'w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow(OPEN_IMAGES)
        for name in 'abc':
            for kind, (x, y, r, b) in enumerate(BOXES, 1):
                writer.writerow([name, 'xclick', f'/m/{kind}', 1, x / WIDTH, r / WIDTH,
                                 y / HEIGHT, b / HEIGHT, 0, 0, 0, 0, 0])
    (folder / 'labels.csv').write_text('ImageID,Source,LabelName,Confidence\n' + ''.join(
        f'{name},verification,/m/{kind},1\n' for name in 'abc' for kind in (1, 2, 3)))
    (folder / 'sizes.pkl').write_bytes(pickle.dumps(
        [dict(filename=f'val/{name}.jpg', ori_shape=(HEIGHT, WIDTH, 3)) for name in 'abc']))
    return Written(
        dict(type='OpenImagesDataset', data_root=str(folder), ann_file='boxes.csv',
             data_prefix=dict(img='val/'), label_file='classes.csv',
             hierarchy_file='hierarchy.json', meta_file='sizes.pkl',
             image_level_ann_file='labels.csv'),
        dict(type='OpenImagesMetric', iou_thrs=0.5, ioa_thrs=0.5, use_group_of=True,
             get_supercategory=True), 3)


SETS = dict(lvis=lvis, voc=voc, crowdhuman=crowdhuman, openimages=openimages)
