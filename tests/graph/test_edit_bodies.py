from __future__ import annotations

import numpy as np
import onnx
import pytest
from body_models import IF, LOOP, SCAN, named
from onnx_text import run

from quantcli.graph.edit import GraphEditor
from quantcli.graph.whole_view import whole_view

X = np.array([[1.0, -2.0, 3.0, -4.0]], np.float32)


def branch(data: bytes, name: str) -> onnx.GraphProto:
    (node,) = (node for node in onnx.ModelProto.FromString(data).graph.node if node.op_type == "If")
    return next(attribute.g for attribute in node.attribute if attribute.name == name)


def test_a_node_goes_into_the_body_that_is_named() -> None:
    found = named(IF)
    editor = GraphEditor(found, bodies=True)
    doubled = editor.new_value_name("doubled")
    editor.add_node("Add", ["h", "h"], [doubled], name="double", scope="choice/then_branch")
    editor.replace_uses("h", doubled, uses=[("choice/then_branch/lin", 0)])
    editor.finish()
    data = found.to_bytes()
    assert [node.op_type for node in branch(data, "then_branch").node] == ["Add", "MatMul", "Relu"]
    assert run(data, {"c": np.array(True), "x": X})[0].tolist() == [[2, 0, 6, 0]]


def test_a_node_goes_where_its_inputs_are() -> None:
    found = named(IF)
    editor = GraphEditor(found, bodies=True)
    inside, outside = editor.new_value_name("inside"), editor.new_value_name("outside")
    editor.add_node("Neg", ["p"], [inside], name="in")
    editor.add_node("Neg", ["h"], [outside], name="out")
    editor.replace_uses("p", inside, uses=[("act", 0)])
    editor.replace_uses("h", outside, uses=[("choice/then_branch/lin", 0)])
    editor.finish()
    view = whole_view(found)
    assert (view.node_by_name["in"].scope, view.node_by_name["out"].scope) == ("choice/then_branch", "")


def test_a_body_can_yield_another_value() -> None:
    found = named(LOOP)
    editor = GraphEditor(found, bodies=True)
    halved = editor.new_value_name("halved")
    half = editor.add_initializer("half", np.array(0.5, np.float32))
    editor.add_node("Mul", ["next", half], [halved], name="halve")
    editor.replace_uses("next", halved, uses=[("loop", 4)])
    editor.finish()
    result, every = run(found, {"n": np.array(3), "go": np.array(True), "x": X})
    assert result.tolist() == [[0.125, 0, 0.375, 0]]
    assert every.shape == (3, 1, 4)


def test_only_what_is_yielded_there_can_be_replaced() -> None:
    editor = GraphEditor(named(LOOP), bodies=True)
    with pytest.raises(ValueError, match="no body of node 'loop' gives 'p'"):
        editor.replace_uses("p", "next", uses=[("loop", 4)])


def test_a_node_whose_result_a_body_yields_can_be_bypassed() -> None:
    found = named(IF)
    editor = GraphEditor(found, bodies=True)
    editor.bypass_node("act")
    editor.finish()
    data = found.to_bytes()
    assert [node.op_type for node in branch(data, "then_branch").node] == ["MatMul"]
    assert run(data, {"c": np.array(True), "x": X})[0].tolist() == [[1, 0, 3, 0]]


def test_a_body_goes_on_reading_a_valid_value_when_the_node_outside_is_bypassed() -> None:
    found = named(IF)
    editor = GraphEditor(found, bodies=True)
    editor.bypass_node("stem")
    editor.finish()
    assert run(found, {"c": np.array(True), "x": -X})[0].tolist() == [[0, 2, 0, 4]]


def test_a_body_cannot_yield_what_is_made_outside_so_an_identity_stays() -> None:
    found = named(SCAN)
    editor = GraphEditor(found, bodies=True)
    editor.replace_node("out", "Relu", ["slice"])
    editor.bypass_node("out")
    editor.finish()
    assert whole_view(found).node_by_name["out"].op_type == "Identity"
    steps = np.stack([X, -X])
    assert run(found, {"first": X, "x": steps})[1].tolist() == steps.tolist()


def test_removing_an_owner_removes_what_only_its_bodies_read() -> None:
    found = named(IF)
    editor = GraphEditor(found, bodies=True)
    editor.replace_node("choice", "Identity", ["x"])
    editor.finish()
    assert [node.name for node in found.view().nodes] == ["choice"]
    assert "w" not in found.view().tensors


def test_a_node_that_cannot_see_what_it_reads_is_refused() -> None:
    editor = GraphEditor(named(IF), bodies=True)
    value = editor.new_value_name("v")
    editor.add_node("Neg", ["p"], [value], name="wrong", scope="")
    with pytest.raises(ValueError, match="node 'wrong' of graph '' cannot see 'p'"):
        editor.finish()


def test_added_quantizers_of_bodies_have_types() -> None:
    found = named(IF)
    editor = GraphEditor(found, bodies=True)
    scale = editor.add_initializer("s", np.array(1, np.float32))
    zero = editor.add_initializer("z", np.array(0, np.int8))
    quantized = editor.new_value_name("q")
    editor.add_node("QuantizeLinear", ["p", scale, zero], [quantized], name="Q")
    value = editor.new_value_name("d")
    editor.add_node("DequantizeLinear", [quantized, scale, zero], [value], name="DQ")
    editor.replace_uses("p", value, uses=[("act", 0)])
    editor.finish()
    view = whole_view(found)
    assert (view.tensors["q"].dtype, view.tensors["d"].dtype) == ("int8", "float32")
