from __future__ import annotations

import numpy as np
from body_models import named
from onnx_text import run

from quantcli.graph.passes.share_constants import SMALLEST, share_constants
from quantcli.graph.whole_view import whole_view

TWO = """g (bool c, float[1,N] x) => (float[1,N] y) {
    [choice] y = If (c) <
        then_branch = t () => (float[1,N] a) { [one] a = MatMul(x, u) },
        else_branch = e () => (float[1,N] b) { [two] b = MatMul(x, v) }
    >
}"""
SIZE = 8
U = np.arange(SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)


def put(text: str, **constants: np.ndarray):
    """The model with ``constants`` in the bodies that read them."""
    found = named(text, **constants)
    for node in found.ir.graph.all_nodes():
        for value in node.inputs:
            if value is not None and value.name in constants and value.graph is not node.graph:
                del found.ir.graph.initializers[value.name]
                node.graph.register_initializer(value)
    return found


def test_equal_weights_of_two_branches_are_stored_once() -> None:
    found = put(TWO, u=U, v=U.copy())
    feeds = {"c": np.array(False), "x": np.ones((1, SIZE), np.float32)}
    before = run(found, feeds)[0]
    share_constants(found.ir)
    view = whole_view(found)
    assert [use.node.name for use in view.uses("u")] == ["one", "two"]
    assert (view.tensors["u"].scope, "v" in view.tensors) == ("", False)
    np.testing.assert_array_equal(run(found, feeds)[0], before)


def test_weights_that_differ_in_one_value_stay_apart() -> None:
    other = U.copy()
    other[0, 0] = 0.5
    found = put(TWO, u=U, v=other)
    share_constants(found.ir)
    view = whole_view(found)
    assert (view.tensors["u"].scope, view.tensors["v"].scope) == ("choice/then_branch", "choice/else_branch")


def test_small_constants_stay_where_they_are() -> None:
    small = np.ones((SMALLEST // 4 - 1, 1), np.float32)
    found = put(TWO, u=small, v=small.copy())
    share_constants(found.ir)
    assert whole_view(found).tensors["u"].scope == "choice/then_branch"


def test_copies_within_the_main_graph_are_left_alone() -> None:
    found = named("g (float[1,N] x) => (float[1,N] y) { [a] h = MatMul(x, u) [b] y = MatMul(h, v) }", u=U, v=U)
    share_constants(found.ir)
    assert {"u", "v"} <= set(found.view().tensors)
