from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from quantcli.errors import ModelError
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.passes.inline_functions import inline_functions
from quantcli.runtime.session import Session, SessionSettings

X = np.array([[1.0, -2.0]], np.float32)


def load(graph: str, *functions: str, opset: int = 15, function_opset: int = 15) -> OnnxModel:
    text = f'<ir_version: 8, opset_import: ["" : {opset}, "l" : 1]>\n{graph}\n'
    for function in functions:
        text += f'<domain: "l", opset_import: ["" : {function_opset}, "l" : 1]>\n{function}\n'
    return load_model_bytes(onnx.parser.parse_model(text).SerializeToString())


def run(model: OnnxModel) -> list[np.ndarray]:
    session = Session(model.to_bytes(), SessionSettings(optimization="disabled"))
    return list(session.run({spec.name: X for spec in session.inputs}).values())


def names(model: OnnxModel) -> list[str | None]:
    return [node.name for node in model.ir.graph]


NEG_RELU = "f (u) => (v) { [neg] t = Neg (u) v = Relu (t) }"


def test_two_calls_become_nodes_named_after_call_and_node() -> None:
    model = load("g (float[1,2] x) => (float[1,2] y) { [one] a = l.f (x) [two] y = l.f (a) }", NEG_RELU)
    expected = run(model)
    notes = inline_functions(model.ir)
    assert names(model) == ["one/neg", "one/Relu", "two/neg", "two/Relu"]
    assert [node.absorbed for node in model.view().nodes] == [("one",), ("one",), ("two",), ("two",)]
    assert not model.ir.functions
    assert "'f'" in notes[0]
    np.testing.assert_array_equal(run(model), expected)


def test_a_call_without_a_name_is_named_after_its_function_and_result() -> None:
    model = load("g (float[1,2] x) => (float[1,2] y) { y = l.f (x) }", NEG_RELU)
    inline_functions(model.ir)
    assert names(model) == ["f_y/neg", "f_y/Relu"]


def test_functions_that_call_functions_are_inlined_to_the_bottom() -> None:
    model = load(
        "g (float[1,2] x) => (float[1,2] y) { [c] y = l.h (x) }",
        "h (p) => (q) { [inner] s = l.f (p) [abs] q = Abs (s) }",
        NEG_RELU,
    )
    expected = run(model)
    inline_functions(model.ir)
    assert names(model) == ["c/neg", "c/Relu", "c/abs"]
    np.testing.assert_array_equal(run(model), expected)


def test_attributes_of_the_call_and_defaults_of_the_function_arrive() -> None:
    model = load(
        "g (float[1,2] x) => (float[1,2] y) { a = l.f (x) y = l.f <alpha = 0.25> (a) }",
        "f <alpha: float = 0.5> (u) => (v) { v = LeakyRelu <alpha: float = @alpha> (u) }",
    )
    inline_functions(model.ir)
    np.testing.assert_array_equal(run(model)[0], np.array([[1, -0.25]], np.float32))


def test_bodies_inside_functions_and_calls_inside_bodies_compute_the_same() -> None:
    model = load(
        """g (float[1,2] x) => (float[1,2] y) { t = Relu (x) k = Constant <value = bool {1}> ()
        y = If (k) < then_branch = tb () => (p) { t1 = l.f (x) p = Add (t1, t) },
                     else_branch = eb () => (e) { e = Neg (x) } > }""",
        """f (u) => (v) { t = Neg (u) c = Constant <value = bool {1}> ()
        v = If (c) < then_branch = ftb () => (p) { q = Add (t, u) p = Relu (q) },
                     else_branch = feb () => (e) { e = Neg (t) } > }""",
    )
    expected = run(model)
    inline_functions(model.ir)
    np.testing.assert_array_equal(run(model), expected)


def test_an_output_that_is_an_input_leaves_the_names_of_the_model_alone() -> None:
    model = load("g (float[1,2] x) => (float[1,2] y) { a = l.f (x) y = Neg (a) }", "f (u) => (u) { v = Relu (u) }")
    inline_functions(model.ir)
    assert [value.name for value in model.ir.graph.inputs] == ["x"]
    np.testing.assert_array_equal(run(model)[0], -X)


def test_an_output_given_twice_becomes_two_values() -> None:
    model = load(
        "g (float[1,2] x) => (float[1,2] y, float[1,2] z) { y, z = l.f (x) }", "f (u) => (v, v) { v = Relu (u) }"
    )
    inline_functions(model.ir)
    assert [value.name for value in model.ir.graph.outputs] == ["y", "z"]
    np.testing.assert_array_equal(run(model), np.maximum([X, X], 0))


@pytest.mark.parametrize("drop", ["w", "v"])
def test_a_call_need_not_take_every_output(drop: str) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 15, "l" : 1]>
        g (float[1,2] x) => (float[1,2] y) { y, z = l.f (x) }
        <domain: "l", opset_import: ["" : 15]> f (u) => (v, w) { w = Neg (u) v = Abs (w) }"""
    )
    outputs = proto.graph.node[0].output
    outputs[:] = ["y"] if drop == "w" else ["", "y"]
    model = load_model_bytes(proto.SerializeToString())
    inline_functions(model.ir)
    np.testing.assert_array_equal(run(model)[0], np.abs(X) if drop == "w" else -X)


def test_an_absent_input_stays_absent() -> None:
    model = load(
        "g (float[1,2] x) => (float[1,2] y) { y = l.f (x) }", "f (u, low, high) => (v) { v = Clip (u, low, high) }"
    )
    inline_functions(model.ir)
    np.testing.assert_array_equal(run(model)[0], X)


def test_nodes_are_read_with_the_versions_of_the_model_as_the_runtime_does() -> None:
    softmax = "f (u) => (v) { v = Softmax <axis = 1> (u) }"
    model = load("g (float[1,2] x) => (float[1,2] y) { y = l.f (x) }", softmax, function_opset=11)
    expected = run(model)
    notes = inline_functions(model.ir)
    assert "version 11" in notes[1]
    assert model.opset == 15
    np.testing.assert_array_equal(run(model), expected)


def test_a_function_that_calls_itself_is_refused() -> None:
    model = load("g (float[1,2] x) => (float[1,2] y) { y = l.f (x) }", "f (u) => (v) { v = l.f (u) }")
    with pytest.raises(ModelError, match="l::f -> l::f"):
        inline_functions(model.ir)


def test_a_function_that_takes_a_graph_stays_a_call() -> None:
    model = load("g (float[1,2] x) => (float[1,2] y) { y = l.f (x) }", NEG_RELU)
    call = next(iter(model.ir.graph))
    body = ir.Graph([], [], nodes=[], name="body")
    call.attributes.add(ir.AttrGraph("body", body))
    notes = inline_functions(model.ir)
    assert [node.op_type for node in model.ir.graph] == ["f"]
    assert "takes a graph" in notes[0]
    assert not call.metadata_props


def test_functions_that_nobody_calls_disappear() -> None:
    model = load("g (float[1,2] x) => (float[1,2] y) { y = Neg (x) }", NEG_RELU)
    inline_functions(model.ir)
    assert not model.ir.functions


def test_the_result_does_not_depend_on_the_order_of_the_functions() -> None:
    graph = "g (float[1,2] x) => (float[1,2] y) { a = l.f (x) y = l.h (a) }"
    other = "h (u) => (v) { t = Abs (u) v = Neg (t) }"
    first, second = load(graph, NEG_RELU, other), load(graph, other, NEG_RELU)
    inline_functions(first.ir)
    inline_functions(second.ir)
    assert first.to_bytes() == second.to_bytes()
