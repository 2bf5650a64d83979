import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.data.base import InputSpec
from quantcli.data.batching import batches, can_batch


def spec(*shape, name="x"):
    return InputSpec(name=name, dtype="float32", shape=shape)


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        ([spec("N", 3)], True),
        ([spec(None, 3)], True),
        ([spec("N", 3), spec("N", 4)], True),
        ([spec("N", 3), spec(None, 4)], True),
        ([spec("N", 3), spec("M", 4)], False),
        ([spec(1, 3)], False),
        ([spec("N", 3), spec(2, 4)], False),
        ([spec("N", 3), spec()], False),
        ([InputSpec(name="x", dtype="float32", shape=None)], False),
        ([], False),
    ],
)
def test_batches_need_one_dynamic_first_axis(inputs, wanted):
    assert can_batch(inputs) is wanted


@settings(deadline=None, derandomize=True)
@given(
    shapes=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2)), max_size=12),
    size=st.integers(1, 5),
)
def test_batches_keep_every_row_in_order_and_join_only_what_agrees(shapes, size):
    start = 0
    samples = []
    for rows, columns in shapes:
        count = rows * columns
        samples.append({"x": np.arange(start, start + count, dtype=np.float32).reshape(rows, columns)})
        start += count
    joined = list(batches(samples, size, batchable=True))
    flat = np.concatenate([batch["x"].ravel() for batch in joined]) if joined else np.zeros(0)
    np.testing.assert_array_equal(flat, np.arange(start))
    taken = 0
    for batch in joined:  # each batch is the longest run of at most `size` samples of equal width
        run = 0
        while taken + run < len(shapes) and run < size and shapes[taken + run][1] == shapes[taken][1]:
            run += 1
        assert batch["x"].shape == (sum(rows for rows, _ in shapes[taken : taken + run]), shapes[taken][1])
        taken += run
    assert taken == len(shapes)


def test_without_leave_samples_go_one_by_one():
    samples = [{"x": np.ones((1, 2))}] * 3
    assert all(a is b for a, b in zip(batches(samples, 4, batchable=False), samples, strict=True))


def test_all_inputs_are_joined_together():
    samples = [{"x": np.full((1, 2), i), "y": np.full((1,), i)} for i in range(3)]
    first, last = batches(samples, 2, batchable=True)
    assert first["x"].tolist() == [[0, 0], [1, 1]]
    assert first["y"].tolist() == [0, 1]
    assert last["y"].tolist() == [2]


def test_samples_of_other_types_are_not_joined():
    samples = [{"x": np.ones((1, 2), np.float32)}, {"x": np.ones((1, 2), np.float64)}]
    assert len(list(batches(samples, 2, batchable=True))) == 2


def test_a_batch_holds_at_least_one_sample():
    with pytest.raises(ValueError, match="at least one"):
        list(batches([], 0, batchable=True))
