import numpy as np
import pytest

from quantcli.core import ranks
from quantcli.core.ranks import class_ranks


def test_the_rank_is_the_place_in_a_stable_sort_from_the_best():
    values = np.random.default_rng(0).integers(0, 5, size=(40, 9)).astype(np.float32)  # many ties
    places = np.argsort(np.argsort(-values, axis=1, kind="stable"), axis=1)
    for label in range(9):
        found = class_ranks(values, 1, np.full(40, label))
        assert found.tolist() == places[:, label].tolist()


def test_the_argmax_has_rank_zero_on_any_axis():
    values = np.random.default_rng(1).normal(size=(2, 5, 3, 4))
    assert not class_ranks(values, 1, values.argmax(1)).any()
    assert not class_ranks(values, 3, values.argmax(3)).any()


def test_positions_with_nan_and_classes_that_are_none_have_no_rank():
    values = np.array([[1.0, np.nan, 0.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    assert class_ranks(values, 1, np.array([0, -1, 3])).tolist() == [3, 3, 3]


def test_blocks_change_nothing(monkeypatch):
    values = np.random.default_rng(2).normal(size=(50, 11))
    classes = np.arange(50) % 11
    whole = class_ranks(values, 1, classes)
    monkeypatch.setattr(ranks, "_BLOCK", 40)
    assert class_ranks(values, 1, classes).tolist() == whole.tolist()


def test_infinite_values_are_ranked():
    assert class_ranks(np.array([[-np.inf, np.inf, 0.0]]), 1, np.array([0])) == pytest.approx([2])
