"""Channel axes, checked against what the operators do to a tensor whose channels are marked by their values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import graph

from quantcli.algorithms.channels import channel_axes, reshaped_axis


def axes(text: str, *, opset: int = 17, **constants: np.ndarray) -> dict[str, int]:
    return channel_axes(graph(text, opset=opset, **constants).view())


def test_a_convolution_counts_channels_on_axis_one():
    found = axes(
        "g (float[n,3,8,8] x) => (float[n,4,8,8] y) { y = Conv<kernel_shape = [1, 1]>(x, w) }",
        w=np.ones((4, 3, 1, 1), np.float32),
    )
    assert found == {"x": 1, "y": 1}


def test_a_matrix_product_counts_channels_on_the_last_axis_and_elementwise_operators_carry_it():
    found = axes(
        "g (float[n,5,6] x) => (float[n,5,8] y) { a = MatMul(x, w) b = Add(a, c) y = Relu(b) }",
        w=np.ones((6, 8), np.float32),
        c=np.ones(8, np.float32),
    )
    assert found == {"x": 2, "a": 2, "b": 2, "y": 2}


def test_integers_and_constants_have_no_channels():
    found = axes(
        "g (int64[n,5] i) => (float[n,5,8] y) { e = Gather(t, i) y = MatMul(e, w) }",
        t=np.ones((9, 8), np.float32),
        w=np.ones((8, 8), np.float32),
    )
    assert found == {"e": 2, "y": 2}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Transpose<perm = [0, 2, 3, 1]>(a)", 3),
        ("y = Flatten(a)", 1),
        ("y = ReduceMean<axes = [2, 3], keepdims = 0>(a)", 1),
        ("b = Transpose<perm = [2, 3, 0, 1]>(a) y = ReduceMax<axes = [0, 1], keepdims = 0>(b)", 1),
        ("y = MaxPool<kernel_shape = [2, 2]>(a)", 1),
        ("y = Concat<axis = 1>(a, a)", 1),
        ("y = Concat<axis = 2>(a, a)", 1),
        ("b = Squeeze(a, three) y = Unsqueeze(b, one)", 2),
        ("y = Gather<axis = 2>(a, zero)", 1),
        ("y = Sigmoid(a)", 1),
    ],
)
def test_the_axis_is_carried_through(body, expected):
    """The producer writes c into channel c, so the axis along which the result changes is the channel axis."""
    model = graph(
        "g (float[2,3,4,1] x) => (y) { a = Conv<kernel_shape = [1, 1]>(x, w) " + body + " }",
        w=np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
        zero=np.array(0),
        one=np.array([1]),
        three=np.array([3]),
    )
    assert channel_axes(model.view())["y"] == expected


def test_an_axis_is_found_from_the_readers_where_the_producer_knows_none():
    found = axes(
        "g (float[n,3,4] x) => (float[n,5] y) { a = Sigmoid(x) b = ReduceMean<axes = [1], keepdims = 0>(a) "
        "y = Gemm(b, w) }",
        w=np.ones((4, 5), np.float32),
    )
    assert found == {"x": 2, "a": 2, "b": 1, "y": 1}


def test_an_operand_that_is_repeated_over_the_channels_has_none():
    found = axes(
        "g (float[n,3,8,8] x, float[n,1,8,8] m) => (float[n,3,8,8] y) "
        "{ a = Conv<kernel_shape = [1, 1]>(x, w) y = Mul(a, m) }",
        w=np.ones((3, 3, 1, 1), np.float32),
    )
    assert "m" not in found


def test_an_unknown_rank_leaves_a_matrix_product_without_channels():
    found = axes("g (x) => (y) { a = Relu(x) y = MatMul(a, w) }", w=np.ones((6, 8), np.float32))
    assert found == {}


def test_a_concat_carries_the_axis_without_shapes():
    model = graph(
        "g (float[n,3,8,8] x, int64[4] s) => (float y) "
        "{ a = Reshape(x, s) b = Concat<axis = 1>(a, a) y = Conv<kernel_shape = [1, 1]>(b, w) }",
        w=np.ones((4, 6, 1, 1), np.float32),
    )
    assert channel_axes(model.view())["b"] == 1


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.data())
def test_reshaping_repeats_each_channel(shape, data):
    """Oracle: the index of the channel of every element, reshaped by numpy."""
    axis = data.draw(st.integers(0, len(shape) - 1))
    merged = data.draw(st.integers(axis + 1, len(shape)))
    target = [int(np.prod(shape[:axis])), int(np.prod(shape[axis:merged])), *shape[merged:]]
    found = reshaped_axis(shape, target, axis)
    if shape[axis] == 1:
        return
    assert found is not None
    channels = shape[axis]
    index = np.broadcast_to(
        np.arange(channels).reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape
    )
    moved = np.moveaxis(index.reshape(target), found, -1)
    expected = np.repeat(np.arange(channels), target[found] // channels)
    assert np.array_equal(moved, np.broadcast_to(expected, moved.shape))


def test_channels_split_over_two_axes_have_no_axis():
    assert reshaped_axis(("n", 5, 12), ("n", 5, 3, 4), 2) is None


def test_unknown_dimensions_in_front_do_not_matter():
    assert reshaped_axis((None, 8, 2, 2), (None, 32), 1) == 1
    assert reshaped_axis(("n", "t", 8), (None, 8), 2) == 1
