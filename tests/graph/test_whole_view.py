from __future__ import annotations

import numpy as np
import pytest
from body_models import IF, LOOP, NESTED, SCAN, named
from onnx_text import model

from quantcli.graph.view import GraphView
from quantcli.graph.whole_view import whole_view


def whole(text: str) -> GraphView:
    return whole_view(named(text))


def test_nodes_of_bodies_stand_in_front_of_their_owner() -> None:
    view = whole(IF)
    assert [node.name for node in view.nodes] == [
        "stem", "choice/then_branch/lin", "act", "choice/else_branch/lin", "own", "choice",
    ]  # fmt: skip
    assert [node.scope for node in view.nodes] == [
        "", "choice/then_branch", "choice/then_branch", "choice/else_branch", "choice/else_branch", "",
    ]  # fmt: skip


def test_values_of_two_branches_with_one_name_get_names_of_their_own() -> None:
    view = whole(IF)
    first, second = (node for node in view.nodes if node.op_type == "MatMul")
    assert first.outputs != second.outputs
    assert view.tensors[second.outputs[0]].scope == "choice/else_branch"


def test_what_a_body_captures_is_read_by_its_nodes() -> None:
    view = whole(IF)
    assert [(use.node.op_type, use.index) for use in view.uses("h")] == [("MatMul", 0)]
    assert [use.scope for use in view.uses("w")] == ["choice/then_branch", "choice/else_branch"]
    assert not view.node_by_name["choice"].captures


def test_an_owner_reads_what_its_bodies_yield_behind_its_own_inputs() -> None:
    view = whole(IF)
    owner = view.node_by_name["choice"]
    assert owner.inputs == ("c",)
    (use,) = view.uses("a")
    assert (use.node, use.index, use.scope) == (owner, 1, "choice/then_branch")
    assert [found.output for found in owner.yields] == [0, 0]


def test_the_yields_of_a_loop_say_what_is_carried_and_what_becomes_which_output() -> None:
    owner = whole(LOOP).node_by_name["loop"]
    assert [(found.value, found.output, found.carried) for found in owner.yields] == [
        ("c2", -1, False), ("next", 0, True), ("out", 1, False),
    ]  # fmt: skip


def test_the_yields_of_a_scan_say_what_is_carried_and_what_becomes_which_output() -> None:
    owner = whole(SCAN).node_by_name["scan"]
    assert [(found.output, found.carried) for found in owner.yields] == [(0, True), (1, False)]


def test_inputs_of_bodies_are_received_and_are_no_inputs_of_the_graph() -> None:
    view = whole(LOOP)
    assert view.received == ("i", "c", "state")
    assert view.inputs == ("n", "go", "x")
    assert not view.tensors["state"].is_input
    assert not view.tensors["next"].is_output
    assert view.values[:6] == ("n", "go", "x", "i", "c", "state")


def test_bodies_in_bodies_lie_open_too() -> None:
    view = whole(NESTED)
    assert view.node_by_name["lin1"].scope == "choice/then_branch"
    assert view.node_by_name["choice"].scope == "loop/body"
    assert [use.scope for use in view.uses("x")] == ["choice/else_branch", ""]


def test_constants_of_bodies_can_be_read() -> None:
    found = named(
        """g (bool c, float[1,4] x) => (float[1,4] y) {
            [choice] y = If (c) <
                then_branch = t () => (float[1,4] a) <float[4] b = {1,2,3,4}> { [add] a = Add(x, b) },
                else_branch = e () => (float[1,4] a) { [neg] a = Neg(x) }
            >
        }"""
    )
    view = whole_view(found)
    assert view.is_constant("b")
    assert view.constant("b").tolist() == [1, 2, 3, 4]


def test_a_model_without_bodies_has_the_plain_view() -> None:
    found = model("g (float[1,4] x) => (float[1,4] y) { [n] y = Relu(x) }")
    assert whole_view(found).nodes == found.view().nodes


def test_graphs_that_share_names_are_refused() -> None:
    with pytest.raises(ValueError, match="two graphs have"):
        whole_view(model(IF, w=np.eye(4, dtype=np.float32)))


def test_paths_name_all_bodies_around_a_node() -> None:
    view = whole(NESTED)
    assert view.node_by_name["lin1"].path == "loop/body/choice/then_branch/lin1"
    assert view.node_by_name["choice"].path == "loop/body/choice"
    assert view.node_by_name["loop"].path == ""
    assert whole(IF).node_by_name["choice/then_branch/lin"].path == "choice/then_branch/lin"
