from __future__ import annotations

import numpy as np
import pytest
from onnx_text import model, run

from quantcli.graph.model import OnnxModel
from quantcli.graph.passes.choose_branches import choose_branches
from quantcli.graph.whole_view import whole_view

X = np.array([1.0, -2.0], np.float32)


def chosen(text: str, **constants: np.ndarray) -> OnnxModel:
    found = model(text, **constants)
    before = run(found, {"x": X})
    choose_branches(found.ir)
    for left, right in zip(before, run(found, {"x": X}), strict=True):
        assert left.tolist() == right.tolist()
    return found


@pytest.mark.parametrize(("taken", "name"), [(True, "relu"), (False, "neg")])
def test_the_branch_that_is_taken_takes_the_place_of_the_if(taken: bool, name: str) -> None:
    found = chosen(
        """g (float[2] x) => (float[2] y) {
            [if] y = If (c) <
                then_branch = t () => (float[2] a) { [relu] a = Relu(x) },
                else_branch = e () => (float[2] b) { [neg] b = Neg(x) }
            >
        }""",
        c=np.array(taken),
    )
    (node,) = found.view().nodes
    assert (node.name, node.outputs, node.absorbed) == (name, ("y",), ("if",))


def test_constants_of_the_branch_come_along() -> None:
    found = chosen(
        """g (float[2] x) => (float[2] y) {
            [if] h = If (c) <
                then_branch = t () => (float[2] a) <float[2] k = {5, 6}> { [add] a = Add(x, k) },
                else_branch = e () => (float[2] b) { [neg] b = Neg(x) }
            >
            [last] y = Relu(h)
        }""",
        c=np.array([True]),
    )
    assert [node.name for node in found.view().nodes] == ["add", "last"]
    assert found.view().is_constant("k")


def test_a_value_that_two_outputs_get_has_an_identity_for_one_of_them() -> None:
    found = chosen(
        """g (float[2] x) => (float[2] y, float[2] z) {
            [r] r = Relu(x)
            [if] y, z = If (c) <
                then_branch = t () => (float[2] a, float[2] d) { [copy] a = Identity(r) [neg] d = Neg(a) },
                else_branch = e () => (float[2] b, float[2] f) { [n] b = Neg(x) [m] f = Neg(b) }
            >
        }""",
        c=np.array(True),
    )
    assert found.view().outputs == ("y", "z")


def test_an_if_in_a_body_is_opened_too_and_so_are_those_in_the_branch() -> None:
    found = chosen(
        """g (float[2] x) => (float[2] y) {
            [outer] y = If (c) <
                then_branch = t () => (float[2] a) {
                    [inner] a = If (c) <
                        then_branch = t2 () => (float[2] d) { [relu] d = Relu(x) },
                        else_branch = e2 () => (float[2] f) { [abs] f = Abs(x) }
                    >
                },
                else_branch = e () => (float[2] b) { [neg] b = Neg(x) }
            >
        }""",
        c=np.array(True),
    )
    (node,) = found.view().nodes
    assert (node.name, set(node.absorbed)) == ("relu", {"inner", "outer"})


def test_a_condition_that_is_computed_keeps_the_if() -> None:
    found = model(
        """g (bool c, float[2] x) => (float[2] y) {
            [if] y = If (c) <
                then_branch = t () => (float[2] a) { [relu] a = Relu(x) },
                else_branch = e () => (float[2] b) { [neg] b = Neg(x) }
            >
        }"""
    )
    choose_branches(found.ir)
    assert [node.name for node in whole_view(found).nodes] == ["relu", "neg", "if"]
