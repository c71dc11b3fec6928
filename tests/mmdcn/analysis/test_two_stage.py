"""Counting detectors with regions of interest against sums by hand."""
from __future__ import annotations

import pytest
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope

from mmdcn.analysis.complexity import build_on_meta, count
from mmdcn.analysis.two_stage import MASKS, PROPOSALS, is_two_stage, two_stage_pass

BOX_HEAD = 256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * (81 + 320)
CASCADE_HEAD = 256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * (81 + 4)
MASK_HEAD = 4 * 14 * 14 * 256 * 256 * 9 + 14 * 14 * 256 * 256 * 4 + 28 * 28 * 256 * 80


@pytest.mark.parametrize(('config', 'box', 'stages'), [
    ('mask-rcnn_r50_fpn', BOX_HEAD, 1), ('cascade-mask-rcnn_r50_fpn', CASCADE_HEAD, 3)])
def test_heads_run_on_a_fixed_number_of_regions(config: str, box: int, stages: int) -> None:
    cfg = get_config(f'mmdet::_base_/models/{config}.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = build_on_meta(lambda: MODELS.build(cfg.model))
    assert is_two_stage(model)
    counted = count(model, (1, 3, 64, 64), two_stage_pass(model)).by_module
    parts = {part: counted[part] for part in ('backbone', 'neck', 'rpn_head')}
    heads = stages * (PROPOSALS * box + MASKS * MASK_HEAD)
    assert all(parts.values())
    assert counted[''] == sum(parts.values()) + heads


def test_detectors_without_regions_are_told() -> None:
    cfg = get_config('mmdet::_base_/models/retinanet_r50_fpn.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert not is_two_stage(build_on_meta(lambda: MODELS.build(cfg.model)))
