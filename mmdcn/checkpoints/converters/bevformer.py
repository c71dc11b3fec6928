"""BEVFormer v2 of mmdet3d 0.17 -> mmdet3d 1.x.

Names stay. The box code changes with the coordinates: length and width swap, and
yaw' = -yaw - pi/2 makes sin' = -cos and cos' = -sin. So rows 2 and 3 of each last regression
layer swap, and rows 6 and 7 swap with the other sign; doing it twice undoes it.
"""
from __future__ import annotations

import re

from mmdcn.checkpoints.converters.base import Conversion, Converter, Options, State
from mmdcn.checkpoints.loading import CheckpointError

_CODE = re.compile(r'pts_bbox_head\.reg_branches\.\d+\.4\.(weight|bias)')
_ROWS = (0, 1, 3, 2, 4, 5, 7, 6, 8, 9)
_SIGNS = (1, 1, 1, 1, 1, 1, -1, -1, 1, 1)


def _change_boxes(state: State, options: Options) -> Conversion:
    result = Conversion()
    for key, value in state.items():
        if key.startswith('ema_'):
            result.dropped.append(key)
            continue
        result.put(key, value, key)
        if _CODE.fullmatch(key):
            if len(value) != len(_ROWS):
                raise CheckpointError(key, f'got {len(value)} rows',
                                      f'{len(_ROWS)} of the box code', 'choose another family')
            signs = value.new_tensor(_SIGNS).view(-1, *[1] * (value.ndim - 1))
            result.replace(key, value[list(_ROWS)] * signs)
            result.edited.append(key)
    if not result.edited:
        raise CheckpointError('checkpoint', 'no pts_bbox_head.reg_branches.*.4', 'a BEVFormer v2',
                              'choose another family')
    return result


FAMILIES = (
    Converter('bevformer-v2', 'BEVFormer v2 of mmdet3d 0.17 -> 1.x (rows of the box code)',
              _change_boxes, invert=_change_boxes, once=True,
              marks=(r'^pts_bbox_head\.transformer\.', r'^pts_bbox_head\.reg_branches\.0\.4\.')),
)
