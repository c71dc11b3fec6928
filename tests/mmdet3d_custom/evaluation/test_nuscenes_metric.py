"""The official metric on training scenes, and what it refuses."""
from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet3d_custom')

from mmdet3d.evaluation import NuScenesMetric

from mmdcn.errors import UserError
from mmdet3d_custom.evaluation import NuScenesSplitMetric
from tests.nuscenes_sets import INFOS, read_set

CAMERAS = {'use_camera': True, 'use_lidar': False}


def filled(metric: NuScenesMetric, root: Path, split: str, scale: float = 1.0) -> NuScenesMetric:
    """A metric with the ground truth of a split as predictions, its sizes scaled."""
    dataset = read_set(root, split, test_mode=True)
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        truth = info['eval_ann_info']
        boxes = truth['gt_bboxes_3d'].clone()
        boxes.tensor[:, 3:6] *= scale
        labels = torch.from_numpy(truth['gt_labels_3d'])
        metric.process({}, [{'sample_idx': info['sample_idx'], 'pred_instances': {},
                             'pred_instances_3d': {'bboxes_3d': boxes, 'labels_3d': labels,
                                                   'scores_3d': torch.ones(len(labels))}}])
    return metric


def made(root: Path, split: str, **options: str) -> NuScenesSplitMetric:
    return NuScenesSplitMetric(str(root), str(root / INFOS.format(split)), modality=CAMERAS,
                               **options)


def evaluated(metric: NuScenesMetric) -> dict[str, float]:
    with redirect_stdout(io.StringIO()):
        return metric.evaluate(len(metric.results))


def test_training_scenes_are_evaluated(nuscenes_root: Path) -> None:
    found = evaluated(filled(made(nuscenes_root, 'train', eval_set='mini_train'), nuscenes_root,
                             'train'))
    name = 'NuScenes metric/pred_instances_3d_NuScenes/'
    assert found[f'{name}NDS'] > 0.9999 and found[f'{name}mAP'] == pytest.approx(1, abs=1e-6)


def test_validation_gives_the_names_and_values_of_mmdet3d(nuscenes_root: Path) -> None:
    theirs = NuScenesMetric(str(nuscenes_root), str(nuscenes_root / INFOS.format('val')),
                            modality=CAMERAS)
    expected = evaluated(filled(theirs, nuscenes_root, 'val', scale=1.3))
    found = evaluated(filled(made(nuscenes_root, 'val'), nuscenes_root, 'val', scale=1.3))
    assert found == pytest.approx(expected, nan_ok=True)
    assert found['NuScenes metric/pred_instances_3d_NuScenes/mASE'] > 0.3


@pytest.mark.parametrize('eval_set', ['val', 'train_detect'])
def test_another_split_is_refused(nuscenes_root: Path, eval_set: str) -> None:
    metric = filled(made(nuscenes_root, 'val', eval_set=eval_set), nuscenes_root, 'val')
    with pytest.raises(UserError, match=f"eval_set.*got '{eval_set}' of version 'v1.0-mini'"):
        evaluated(metric)


def test_no_prediction_at_all_is_said(nuscenes_root: Path) -> None:
    metric = filled(made(nuscenes_root, 'val'), nuscenes_root, 'val')
    for result in metric.results:
        found = result['pred_instances_3d']
        result['pred_instances_3d'] = {name: value[:0] for name, value in found.items()}
    with pytest.raises(UserError, match='there is no box in any sample'):
        evaluated(metric)
