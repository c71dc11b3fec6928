"""BEVFormer v2: its boxes change coordinates, once."""
from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mmdcn.checkpoints import CheckpointError
from mmdcn.checkpoints.converters import convert, detect


def bevformer_state():
    state = {'pts_bbox_head.transformer.level_embeds': torch.randn(4, 8),
             'img_backbone.conv1.weight': torch.randn(2, 2)}
    for layer in range(6):
        for index in (0, 2, 4):
            rows = 10 if index == 4 else 8
            state[f'pts_bbox_head.reg_branches.{layer}.{index}.weight'] = torch.randn(rows, 8)
            state[f'pts_bbox_head.reg_branches.{layer}.{index}.bias'] = torch.randn(rows)
    return state


def test_bevformer_boxes_change_coordinates():
    state = bevformer_state()
    assert detect(state)[0].name == 'bevformer-v2'
    result = convert({'state_dict': state}, 'bevformer-v2')
    assert len(result.edited) == 12
    assert not result.renamed
    name = 'pts_bbox_head.reg_branches.5.4'
    x = torch.randn(50, 8)
    old, new = (nn.functional.linear(x, s[f'{name}.weight'], s[f'{name}.bias']).T
                for s in (state, result.state_dict))
    torch.testing.assert_close(new[2:4], old[[3, 2]])
    torch.testing.assert_close(new[[0, 1, 4, 5, 8, 9]], old[[0, 1, 4, 5, 8, 9]])
    turn = torch.atan2(new[6], new[7]) - (-torch.atan2(old[6], old[7]) - math.pi / 2)
    torch.testing.assert_close(turn.cos(), torch.ones(50))
    again = convert({'state_dict': result.state_dict, 'meta': {'converted_by': 'bevformer-v2'}},
                    'bevformer-v2', inverse=True)
    assert all(torch.equal(again.state_dict[key], value) for key, value in state.items())


def test_bevformer_is_converted_once():
    done = {'state_dict': bevformer_state(), 'meta': {'converted_by': 'bevformer-v2'}}
    with pytest.raises(CheckpointError, match='was converted by bevformer-v2 before'):
        convert(done, 'bevformer-v2')
    with pytest.raises(CheckpointError, match='was not converted by bevformer-v2 before'):
        convert({'state_dict': bevformer_state()}, 'bevformer-v2', inverse=True)
