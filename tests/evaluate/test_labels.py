import numpy as np
import pytest

from quantcli.errors import DataError
from quantcli.evaluate.labels import LabelScorer, label_axis


@pytest.mark.parametrize(
    ("shape", "rows", "axis"),
    [
        ((1, 10), (), 1),
        ((1, 10, 1, 1), (), 1),
        ((1, 128, 50), (128,), 2),
        ((1, 50, 128), (128,), 1),
        ((1, 64, 48, 21), (64, 48), 3),
        ((1, 21, 64, 48), (64, 48), 1),
        ((1, 1), (), None),
        ((10,), (), None),
        ((1, 10), (5,), None),
        ((1, 64, 48, 21), (48, 64), None),
    ],
)
def test_the_class_axis_is_what_is_left_of_the_shape(shape, rows, axis):
    assert label_axis(shape, rows) == axis


def test_several_values_below_zero_are_no_marker() -> None:
    with pytest.raises(DataError, match="below zero"):
        LabelScorer(np.array([0, -1, -2]))
