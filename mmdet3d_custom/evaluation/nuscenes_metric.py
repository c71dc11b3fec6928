"""The official nuScenes metric on any split of a version, and read without unpickling objects."""
from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import mmengine
from mmdet3d.evaluation import NuScenesMetric
from mmdet3d.registry import METRICS
from nuscenes import NuScenes
from nuscenes.eval.detection.evaluate import NuScenesEval

from mmdcn.errors import UserError
from mmdet3d_custom.datasets.info_file import check_info, read_info

# What mmdet3d evaluates, and what else can be: splits of the devkit, by version.
_SPLITS = {'v1.0-mini': ('mini_val', 'mini_train'), 'v1.0-trainval': ('val', 'train')}


@METRICS.register_module()
class NuScenesSplitMetric(NuScenesMetric):
    """mmdet3d's nuScenes metric, whose splits are fixed, on the split that is named.

    Args:
        args: As mmdet3d's class.
        eval_set: Split of the devkit, ``'train'`` or ``'mini_train'`` for training samples; by
            default that of validation.
        kwargs: As mmdet3d's class.
    """

    def __init__(self, *args: Any, eval_set: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.eval_set = eval_set

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Metrics of all results by mmdet3d's names.

        Raises:
            UserError: The info file cannot be read, the version of the data set has no such split,
                or no box was predicted at all, on which the devkit cannot tell the kind of result.
        """
        self.version = self.dataset_meta['version']
        splits = _SPLITS.get(self.version, ())
        if not splits or self.eval_set not in (None, *splits):
            raise UserError('eval_set', f'got {self.eval_set!r} of version {self.version!r}',
                            f'one of {splits or [name for s in _SPLITS.values() for name in s]}')
        if not self.format_only and not any(
                len(result['pred_instances_3d']['scores_3d']) for result in results):
            raise UserError('predictions', 'there is no box in any sample',
                            'at least one, which the official evaluation asks for',
                            'train longer, or widen the range of the head')
        content = read_info(self.ann_file)
        check_info(content, self.ann_file)
        self.data_infos = content['data_list']
        classes = self.dataset_meta['classes']
        files, folder = self.format_results(results, classes, self.jsonfile_prefix)
        try:
            return {} if self.format_only else self.nus_evaluate(files, classes=classes)
        finally:
            if folder is not None:
                folder.cleanup()

    def _evaluate_single(self, result_path: str, classes: Sequence[str] = (),
                         result_name: str = 'pred_instances_3d') -> dict[str, float]:
        """Metrics of a file of results, under mmdet3d's names."""
        folder = os.path.dirname(result_path)
        NuScenesEval(
            NuScenes(version=self.version, dataroot=self.data_root, verbose=False),
            config=self.eval_detection_configs, result_path=result_path,
            eval_set=self.eval_set or _SPLITS[self.version][0], output_dir=folder,
            verbose=False).main(render_curves=False)
        found = mmengine.load(os.path.join(folder, 'metrics_summary.json'))
        values = {}
        for name in classes:
            values |= {f'{name}_AP_dist_{distance}': round(value, 4)
                       for distance, value in found['label_aps'][name].items()}
            values |= {f'{name}_{error}': round(value, 4)
                       for error, value in found['label_tp_errors'][name].items()}
        values |= {self.ErrNameMapping[error]: round(value, 4)
                   for error, value in found['tp_errors'].items()}
        values |= {'NDS': found['nd_score'], 'mAP': found['mean_ap']}
        return {f'{result_name}_NuScenes/{name}': value for name, value in values.items()}
