"""Boxes to codes and back."""
from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip('mmdet3d_custom')
from mmdet3d.structures import LiDARInstance3DBoxes  # noqa: E402

from mmdet3d_custom.models.box_coding import (  # noqa: E402
    BoxSelector,
    decode_codes,
    encode_boxes,
    refer_codes,
)
from tests.mmdet3d_custom.pico import make_boxes  # noqa: E402


def test_decoding_undoes_encoding():
    boxes = make_boxes(50)
    again = decode_codes(encode_boxes(boxes))
    torch.testing.assert_close(again.tensor, boxes.tensor, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again.gravity_center, boxes.gravity_center, rtol=1e-5, atol=1e-5)


def test_the_code_is_that_of_the_release_in_new_coordinates():
    # One box: bottom at z = -1.5, length 4 along the heading, width 2, height 3.
    boxes = LiDARInstance3DBoxes(
        torch.tensor([[10, -20, -1.5, 4, 2, 3, math.pi / 6, 0.5, -0.25]]), box_dim=9)
    code = encode_boxes(boxes)[0]
    expected = [10, -20, math.log(4), math.log(2), 0, math.log(3), 0.5, math.sqrt(3) / 2, 0.5,
                -0.25]
    torch.testing.assert_close(code, torch.tensor(expected), rtol=0, atol=1e-5)


def test_half_the_height_is_taken_off_once():
    code = torch.zeros(1, 10)
    code[0, 4], code[0, 5], code[0, 7] = 1.0, math.log(3), 1.0
    boxes = decode_codes(code)
    assert math.isclose(float(boxes.tensor[0, 2]), 1 - 1.5, abs_tol=1e-6)
    assert math.isclose(float(boxes.gravity_center[0, 2]), 1, abs_tol=1e-6)
    assert math.isclose(float(boxes.bottom_center[0, 2]), -0.5, abs_tol=1e-6)


def test_no_boxes_and_boxes_without_velocity():
    assert encode_boxes(make_boxes(0)).shape == (0, 10)
    assert decode_codes(torch.zeros(0, 10)).tensor.shape == (0, 9)
    with pytest.raises(ValueError, match='bboxes_3d is not valid: got 7 columns, expected 9'):
        encode_boxes(LiDARInstance3DBoxes(torch.rand(2, 7)))


def test_a_raw_code_is_relative_to_its_reference():
    raw = torch.randn(3, 10)
    reference = torch.rand(3, 3)
    pc_range = (-8, -4, -5, 8, 4, 3)
    got = refer_codes(raw, reference, pc_range)
    for row in range(3):
        for entry, axis in ((0, 0), (1, 1), (4, 2)):
            logit = float(raw[row, entry]) + float(torch.logit(reference[row, axis]))
            share = 1 / (1 + math.exp(-logit))
            low, high = pc_range[axis], pc_range[axis + 3]
            assert math.isclose(float(got[row, entry]), low + share * (high - low), abs_tol=1e-4)
        assert torch.equal(got[row, [2, 3, 5, 6, 7, 8, 9]], raw[row, [2, 3, 5, 6, 7, 8, 9]])
    nothing = torch.zeros(3, 10)
    center = refer_codes(nothing, reference, pc_range)[:, [0, 1, 4]]
    torch.testing.assert_close((center + torch.tensor([8.0, 4, 5])) / torch.tensor([16.0, 8, 8]),
                               reference)


def test_the_best_pairs_of_query_and_class_are_selected():
    logits, codes = torch.randn(6, 3), encode_boxes(make_boxes(6))
    codes[1, 0] = 61.3  # outside
    got = BoxSelector((-61.2, -61.2, -10, 61.2, 61.2, 10), max_num=8)(logits, codes)
    pairs = sorted(((float(logits[q, c].sigmoid()), q, c) for q in range(6) for c in range(3)),
                   reverse=True)[:8]
    pairs = [pair for pair in pairs if pair[1] != 1]
    torch.testing.assert_close(got.scores_3d, torch.tensor([score for score, _, _ in pairs]))
    assert got.labels_3d.tolist() == [label for _, _, label in pairs]
    expected = decode_codes(codes[[query for _, query, _ in pairs]])
    torch.testing.assert_close(got.bboxes_3d.tensor, expected.tensor)
    assert got.bboxes_3d.tensor.shape[1] == 9


@pytest.mark.parametrize('axis', range(3))
@pytest.mark.parametrize('side', [-1, 1])
def test_centers_outside_of_the_range_are_dropped(axis, side):
    codes = torch.zeros(2, 10)
    codes[0, (0, 1, 4)[axis]] = side * 5.001
    codes[1, (0, 1, 4)[axis]] = side * 4.999
    got = BoxSelector((-5,) * 3 + (5,) * 3)(torch.zeros(2, 1), codes)
    assert got.bboxes_3d.gravity_center[:, axis].tolist() == [pytest.approx(side * 4.999)]


def test_queries_that_do_not_count_are_never_selected():
    logits, codes = torch.randn(6, 3), encode_boxes(make_boxes(6))
    valid = torch.tensor([True, False, True, True, False, True])
    select = BoxSelector((-61.2, -61.2, -10, 61.2, 61.2, 10))
    got, expected = select(logits, codes, valid), select(logits[valid], codes[valid])
    assert len(got) == 12 and torch.equal(got.scores_3d, expected.scores_3d)
    assert torch.equal(got.bboxes_3d.tensor, expected.bboxes_3d.tensor)
