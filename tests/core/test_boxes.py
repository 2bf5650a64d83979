import numpy as np
import pytest

from quantcli.core.boxes import FORMATS, overlaps, suppress, to_corners

BOX = {"xyxy": (10, 20, 40, 60), "yxyx": (20, 10, 60, 40), "xywh": (10, 20, 30, 40), "cxcywh": (25, 40, 30, 40)}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_the_same_box(form):
    assert to_corners(np.array([BOX[form]], np.float32), form).tolist() == [[10, 20, 40, 60]]


def test_overlap_is_the_share_of_pixels_on_a_grid():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 20, size=(12, 2))
    boxes = np.hstack([low, low + rng.integers(1, 15, size=(12, 2))]).astype(float)
    grid = np.zeros((12, 40, 40), bool)
    for mask, (x1, y1, x2, y2) in zip(grid, boxes.astype(int), strict=True):
        mask[x1:x2, y1:y2] = True
    found = overlaps(boxes, boxes)
    for i in range(12):
        for j in range(12):
            assert found[i, j] == pytest.approx((grid[i] & grid[j]).sum() / (grid[i] | grid[j]).sum())


def test_a_crowd_is_overlapped_as_far_as_the_box_is_inside():
    box, region = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 100, 100]])
    assert overlaps(box, region, np.array([True])).item() == 0.5


def test_boxes_without_area_overlap_nothing():
    assert overlaps(np.array([[1.0, 1, 1, 1]]), np.array([[1.0, 1, 1, 1]])).item() == 0
    assert overlaps(np.array([[4.0, 4, 2, 2]]), np.array([[0.0, 0, 9, 9]])).item() == 0


def test_the_worse_of_two_boxes_of_a_class_goes():
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [50, 50, 60, 60]])
    kept = suppress(boxes, np.array([0.8, 0.9, 0.7, 0.1]), np.array([0, 0, 1, 0]), 0.5)
    assert kept.tolist() == [1, 2, 3]


def test_a_box_that_was_suppressed_suppresses_nothing():
    boxes = np.array([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])  # neighbours overlap by 3/7
    assert suppress(boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, int), 0.4).tolist() == [0, 2]


def test_nothing_stays_of_nothing():
    assert suppress(np.empty((0, 4)), np.empty(0), np.empty(0, int), 0.5).tolist() == []
