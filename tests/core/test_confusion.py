import numpy as np
import pytest

from quantcli.core.confusion import ClassCounts, class_ious, count_classes, mean_iou, mean_of_defined


def test_iou_is_the_intersection_over_the_union_of_the_sets_of_pixels():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, size=(2, 500))
    found = class_ious(count_classes(truth, predicted, 5))
    for label in range(4):
        ours, theirs = set(np.flatnonzero(truth == label)), set(np.flatnonzero(predicted == label))
        assert found[label] == pytest.approx(len(ours & theirs) / len(ours | theirs))
    assert np.isnan(found[4])


def test_a_known_example():
    counts = count_classes(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 0]), 2)
    assert class_ious(counts).tolist() == [0.5, 0.5]
    assert mean_iou(counts) == 0.5


def test_a_class_that_only_the_prediction_has_is_no_class_of_the_mean():
    counts = count_classes(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 2]), 3)
    assert mean_iou(counts) == 0.75


def test_pixels_without_a_prediction_are_wrong():
    assert mean_iou(count_classes(np.array([0, 0]), np.array([0, -1]), 1)) == 0.5


def test_sums_run_over_images_before_the_division():
    images = [
        count_classes(np.zeros(n, int), np.r_[np.zeros(n - w, int), np.ones(w, int)], 2)
        for n, w in ((10, 5), (90, 0))
    ]
    total = ClassCounts(**{part: sum(getattr(i, part) for i in images) for part in ("both", "truth", "predicted")})
    assert mean_iou(total) == pytest.approx(0.95)


def test_the_mean_of_nothing_is_no_number():
    assert np.isnan(mean_of_defined(np.array([np.nan, np.nan])))
    assert mean_of_defined(np.array([[1.0, np.nan], [0.0, 1.0]])).tolist() == [1.0, 0.5]
