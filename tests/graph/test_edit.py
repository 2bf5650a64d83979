from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_text import model, run

from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)

CHAIN = """g (float[2,3] x) => (float[2,3] y) {
    a = Relu(x)
    b = Neg(a)
    y = Abs(b)
}"""

BRANCH = """g (bool c, float[2,3] x) => (float[2,3] y) {
    a = Relu(x)
    b = Neg(a)
    z = If (c) <
        then_branch = t () => (float[2,3] o) { o = Abs(b) },
        else_branch = e () => (float[2,3] p) { p = Add(a, b) }
    >
    y = Neg(z)
}"""


def quantize_input(editor: GraphEditor, value: str, node: str, index: int = 0) -> None:
    """Q and DQ before one input, the nodes added in the wrong order."""
    scale = editor.add_initializer(f"{value}_scale", np.float32(0.01))
    zero = editor.add_initializer(f"{value}_zero_point", np.uint8(100))
    q, dq = editor.new_value_name(f"{value}_q"), editor.new_value_name(f"{value}_dq")
    editor.add_node("DequantizeLinear", [q, scale, zero], [dq], name=f"{value}_DequantizeLinear")
    editor.add_node("QuantizeLinear", [value, scale, zero], [q], name=f"{value}_QuantizeLinear")
    editor.replace_uses(value, dq, uses=[(node, index)])


def ops(edited: OnnxModel) -> list[str]:
    return [node.op_type for node in edited.view().nodes]


def test_nodes_may_be_added_in_any_order_and_come_out_sorted() -> None:
    edited = model(CHAIN)
    editor = GraphEditor(edited)
    quantize_input(editor, "a", "Neg_1")
    editor.finish()
    written = [node.op_type for node in onnx.ModelProto.FromString(edited.to_bytes()).graph.node]
    assert written == ["Relu", "QuantizeLinear", "DequantizeLinear", "Neg", "Abs"]


def test_added_quantization_computes_what_its_formula_says() -> None:
    edited = model(CHAIN)
    editor = GraphEditor(edited)
    quantize_input(editor, "a", "Neg_1")
    editor.finish()
    relu = np.maximum(X, 0)
    expected = np.clip(np.rint(relu / np.float32(0.01)), -100, 155) * np.float32(0.01)
    np.testing.assert_allclose(run(edited, {"x": X})[0], np.abs(expected), rtol=2**-22)


def test_added_quantization_passes_on_types_and_shapes() -> None:
    edited = model(CHAIN)
    editor = GraphEditor(edited)
    quantize_input(editor, "x", "Relu_0")
    editor.finish()
    tensors = edited.view().tensors
    assert (tensors["x_q"].dtype, tensors["x_q"].shape) == ("uint8", (2, 3))
    assert (tensors["x_dq"].dtype, tensors["x_dq"].shape) == ("float32", (2, 3))


def test_an_initializer_gets_another_array_for_all_its_readers() -> None:
    source = model("g (float[2,3] x) => (float[2,3] y) { a = Add(x, c) y = Mul(a, c) }", c=np.float32([2]))
    edited = source.clone()
    editor = GraphEditor(edited)
    editor.set_initializer("c", np.float32([1, 2, 3]))
    editor.finish()
    (result,) = run(edited, {"x": X})
    np.testing.assert_array_equal(result, (X + np.float32([1, 2, 3])) * np.float32([1, 2, 3]))
    assert edited.view().tensors["c"].shape == (3,)
    np.testing.assert_array_equal(source.view().constant("c"), [2])


@pytest.mark.parametrize("name", ["x", "a", ""])
def test_only_initializers_get_another_array(name: str) -> None:
    editor = GraphEditor(model(CHAIN))
    with pytest.raises(ValueError, match="is no initializer"):
        editor.set_initializer(name, np.float32(1))


def test_only_the_named_uses_are_replaced() -> None:
    edited = model("g (float[2,3] x) => (float[2,3] y) { a = Relu(x)  y = Add(a, a) }")
    editor = GraphEditor(edited)
    b = editor.new_value_name("b")
    editor.add_node("Neg", ["a"], [b], name="negate")
    editor.replace_uses("a", b, uses=[("Add_1", 1)])
    editor.finish()
    assert edited.view().node_by_name["Add_1"].inputs == ("a", "b")
    np.testing.assert_array_equal(run(edited, {"x": X})[0], np.zeros_like(X))


def test_replacing_a_use_that_does_not_exist_is_an_error() -> None:
    editor = GraphEditor(model(CHAIN))
    with pytest.raises(ValueError, match="input 0 of node 'Abs_2' does not read 'a'"):
        editor.replace_uses("a", "x", uses=[("Abs_2", 0)])


def test_readers_of_a_graph_output_leave_the_output_alone() -> None:
    edited = model("g (float[2,3] x) => (float[2,3] a, float[2,3] y) { a = Relu(x)  y = Neg(a) }")
    editor = GraphEditor(edited)
    quantize_input(editor, "a", "Neg_1")
    editor.finish()
    assert edited.view().outputs == ("a", "y")
    assert edited.view().producer("a").op_type == "Relu"  # type: ignore[union-attr]


def test_new_names_avoid_those_of_the_graph_and_of_bodies() -> None:
    editor = GraphEditor(model(BRANCH))
    assert editor.new_value_name("a") == "a_1"
    assert editor.new_value_name("a") == "a_2"
    assert editor.add_initializer("o", np.float32(1)) == "o_1"
    output = editor.new_value_name("fresh")
    assert output == "fresh"
    assert editor.add_node("Neg", ["x"], [output], name="If_2") == "If_2_1"


def test_a_cast_of_a_packed_constant_gives_the_integers_that_went_in() -> None:
    edited = model("g (float[3] x) => (float[3] y) { y = Add (x, w) }", opset=21, w=np.zeros(3, np.float32))
    editor = GraphEditor(edited)
    packed = editor.add_initializer("p", np.array([-7, 0, 7], np.int8), dtype="int4")
    editor.add_cast(packed, "float32", editor.new_value_name("c"), name="cast")
    editor.set_input("Add_0", 1, "c")
    editor.finish()
    assert edited.view().tensors["p"].dtype == "int4"
    (found,) = ReferenceEvaluator(ir.to_proto(edited.ir)).run(None, {"x": np.zeros(3, np.float32)})
    assert found.tolist() == [-7, 0, 7]


def test_bodies_keep_reading_the_value_whose_other_readers_were_rewired() -> None:
    edited = model(BRANCH)
    editor = GraphEditor(edited)
    quantize_input(editor, "a", "Neg_1")
    editor.finish()
    assert edited.view().node_by_name["If_2"].captures == ("b", "a")


def test_a_bypassed_node_is_read_around_inside_bodies_too() -> None:
    edited = model(BRANCH)
    editor = GraphEditor(edited)
    editor.bypass_node("Neg_1")
    editor.finish()
    assert ops(edited) == ["Relu", "If", "Neg"]
    assert edited.view().node_by_name["If_2"].captures == ("a",)
    relu = np.maximum(X, 0)
    np.testing.assert_array_equal(run(edited, {"c": np.array(False), "x": X})[0], -2 * relu)
    np.testing.assert_array_equal(run(edited, {"c": np.array(True), "x": X})[0], -relu)


def test_a_bypassed_clip_takes_its_bounds_along() -> None:
    edited = model("g (float[2,3] x) => (float[2,3] y) { a = Clip(x, low)  y = Neg(a) }", low=np.float32(-10))
    editor = GraphEditor(edited)
    editor.bypass_node("Clip_0")
    editor.finish()
    assert list(edited.view().tensors) == ["x", "y"]


def test_a_node_that_makes_a_graph_output_cannot_be_bypassed() -> None:
    with pytest.raises(ValueError, match="output 'y' of node 'Abs_2' is needed"):
        GraphEditor(model(CHAIN)).bypass_node("Abs_2")


def test_a_replaced_node_keeps_its_name_and_its_output() -> None:
    edited = model(CHAIN)
    editor = GraphEditor(edited)
    editor.replace_node("Neg_1", "LeakyRelu", ["x"], attributes={"alpha": 0.5})
    editor.finish()
    node = edited.view().node_by_name["Neg_1"]
    assert (node.op_type, node.inputs, node.outputs, node.attributes) == (
        "LeakyRelu",
        ("x",),
        ("b",),
        {"alpha": 0.5},
    )
    assert ops(edited) == ["LeakyRelu", "Abs"]  # Relu lost its only reader


def test_a_value_may_get_another_producer() -> None:
    edited = model(CHAIN)
    editor = GraphEditor(edited)
    editor.remove_node("Abs_2")
    half = editor.new_value_name("half")
    two = editor.add_initializer("two", np.float32(2))
    editor.add_node("Neg", [half], ["y"], name="Abs_2")
    editor.add_node("Div", ["b", two], [half], name="halve")
    editor.finish()
    np.testing.assert_array_equal(run(edited, {"x": X})[0], np.maximum(X, 0) / 2)
    assert edited.view().tensors["y"].is_output


def test_a_value_that_bodies_read_may_get_another_producer() -> None:
    edited = model(BRANCH)
    editor = GraphEditor(edited)
    editor.remove_node("Neg_1")
    editor.add_node("Abs", ["a"], ["b"], name="Abs")
    editor.finish()
    relu = np.maximum(X, 0)
    np.testing.assert_array_equal(run(edited, {"c": np.array(False), "x": X})[0], -2 * relu)


def test_a_removed_node_whose_value_is_read_is_reported() -> None:
    editor = GraphEditor(model(CHAIN))
    editor.remove_node("Neg_1")
    with pytest.raises(ValueError, match="value 'b' is read but nothing produces it"):
        editor.finish()


def test_two_producers_of_a_value_are_refused() -> None:
    with pytest.raises(ValueError, match="value 'b' has a producer already"):
        GraphEditor(model(CHAIN)).add_node("Neg", ["x"], ["b"], name="n")


@pytest.mark.parametrize("name", ["nothing", "o"])
def test_values_that_do_not_exist_cannot_be_read(name: str) -> None:
    with pytest.raises(ValueError, match=f"there is no value '{name}'"):
        GraphEditor(model(BRANCH)).set_input("Neg_3", 0, name)


def test_a_cycle_is_an_error() -> None:
    editor = GraphEditor(model(CHAIN))
    editor.set_input("Relu_0", 0, "b")
    with pytest.raises(ValueError, match="cycle"):
        editor.finish()


def test_set_input_fills_gaps_with_absent_inputs() -> None:
    edited = model("g (float[2,3] x) => (float[2,3] y) { y = Clip(x) }")
    editor = GraphEditor(edited)
    editor.set_input("Clip_0", 2, editor.add_initializer("high", np.float32(0.5)))
    editor.finish()
    assert edited.view().node_by_name["Clip_0"].inputs == ("x", "", "high")
    np.testing.assert_array_equal(run(edited, {"x": X})[0], np.minimum(X, np.float32(0.5)))


def test_set_input_can_take_an_input_away() -> None:
    edited = model("g (float[2,3] x) => (float[2,3] y) { y = Clip(x, low) }", low=np.float32(0))
    editor = GraphEditor(edited)
    editor.set_input("Clip_0", 1, "")
    editor.finish()
    assert list(edited.view().tensors) == ["x", "y"]
    np.testing.assert_array_equal(run(edited, {"x": X})[0], X)


def test_constants_without_readers_are_dropped_only_if_the_edits_orphaned_them() -> None:
    edited = model(
        "g (float[2,3] x) => (float[2,3] y) { y = Mul(x, w) }",
        w=np.float32(2),
        never_used=np.float32(3),
    )
    editor = GraphEditor(edited)
    editor.set_input("Mul_0", 1, editor.add_initializer("w", np.float32(4)))
    editor.add_initializer("spare", np.float32(5))
    editor.finish()
    constants = [name for name, info in edited.view().tensors.items() if info.is_constant]
    assert sorted(constants) == ["never_used", "w_1"]


def test_a_constant_that_only_a_body_reads_stays() -> None:
    edited = model(
        """g (bool c, float[2,3] x) => (float[2,3] y) {
            a = Mul(x, w)
            y = If (c) <
                then_branch = t () => (float[2,3] o) { o = Mul(a, w) },
                else_branch = e () => (float[2,3] p) { p = Neg(a) }
            >
        }""",
        w=np.float32(2),
    )
    editor = GraphEditor(edited)
    editor.set_input("Mul_0", 1, editor.add_initializer("w", np.float32(4)))
    editor.finish()
    np.testing.assert_array_equal(run(edited, {"c": np.array(True), "x": X})[0], 8 * X)


def test_an_initializer_that_is_also_an_input_stays() -> None:
    edited = model("g (float[2,3] x, float w) => (float[2,3] y) { y = Mul(x, w) }", w=np.float32(2))
    editor = GraphEditor(edited)
    editor.set_input("Mul_0", 1, editor.add_initializer("v", np.float32(4)))
    editor.finish()
    assert edited.view().is_constant("w")


def test_nodes_that_fed_only_what_was_removed_go_with_their_constants() -> None:
    edited = model(
        """g (float[2,3] x) => (float[2,3] y) {
            t = Transpose(w)
            y = Add(x, t)
        }""",
        w=np.ones((3, 2), np.float32),
    )
    editor = GraphEditor(edited)
    editor.set_input("Add_1", 1, editor.add_initializer("w_transposed", np.ones((2, 3), np.float32)))
    editor.finish()
    assert ops(edited) == ["Add"]
    assert not edited.view().is_constant("w")


def test_removing_a_node_with_bodies_frees_what_they_captured() -> None:
    edited = model(BRANCH)
    editor = GraphEditor(edited)
    editor.replace_node("If_2", "Identity", ["a"])
    editor.finish()
    assert ops(edited) == ["Relu", "Identity", "Neg"]


def test_an_optional_output_may_be_absent() -> None:
    edited = model(CHAIN)
    editor = GraphEditor(edited)
    scale = editor.add_initializer("s", np.ones(3, np.float32))
    output = editor.new_value_name("n")
    editor.add_node("LayerNormalization", ["a", scale], [output, "", ""], name="norm", attributes={"axis": -1})
    editor.replace_uses("a", output, uses=[("Neg_1", 0)])
    editor.finish()
    assert run(edited, {"x": X})[0].shape == (2, 3)


def test_attributes_of_every_kind_are_written() -> None:
    edited = model(CHAIN)
    editor = GraphEditor(edited)
    output = editor.new_value_name("out")
    attributes = {
        "an_int": 3,
        "a_float": 0.5,
        "a_string": "text",
        "ints": (1, 2),
        "floats": (1.0, 2.5),
        "strings": ("a", "b"),
        "tensor": np.arange(3, dtype=np.int8),
    }
    editor.add_node("Custom", ["b"], [output], name="custom", domain="some.where", attributes=attributes)
    editor.replace_uses("b", output, uses=[("Abs_2", 0)])
    editor.set_domain_version("some.where", 4)
    editor.finish()
    view = edited.view()
    found = dict(view.node_by_name["custom"].attributes)
    np.testing.assert_array_equal(found.pop("tensor"), np.arange(3))
    assert found == {key: value for key, value in attributes.items() if key != "tensor"}
    assert view.node_by_name["custom"].op == "some.where.Custom"
    assert view.opsets["some.where"] == 4


def test_a_list_of_mixed_types_is_no_attribute() -> None:
    editor = GraphEditor(model(CHAIN))
    with pytest.raises(TypeError, match="mixes types"):
        editor.add_node("Neg", ["x"], [], name="n", attributes={"odd": (1, "a")})  # type: ignore[dict-item]


def test_value_types_can_be_stated_by_numpy_name() -> None:
    edited = model(CHAIN)
    editor = GraphEditor(edited)
    editor.set_value_type("a", "bfloat16", (2, None, "n"))
    assert edited.view().tensors["a"].dtype == "bfloat16"
    assert edited.view().tensors["a"].shape == (2, None, "n")
    with pytest.raises(ValueError, match="no ONNX type is called 'float33'"):
        editor.set_value_type("a", "float33")


def test_edits_of_a_clone_do_not_show_in_the_original() -> None:
    original = model(BRANCH)
    before = original.to_bytes()
    edited = original.clone()
    editor = GraphEditor(edited)
    quantize_input(editor, "a", "Neg_1")
    editor.set_value_type("x", "float16")
    editor.bypass_node("Neg_1")
    editor.set_domain_version("", 20)
    editor.finish()
    edited.metadata["key"] = "value"
    assert original.to_bytes() == before
    assert edited.to_bytes() != before


def test_names_that_do_not_tell_nodes_apart_are_refused() -> None:
    unnamed = model(CHAIN)
    for node in unnamed.ir.graph:
        node.name = ""
    with pytest.raises(ValueError, match="missing or not unique"):
        GraphEditor(unnamed)


def test_thousands_of_inserted_nodes_take_little_time() -> None:
    count = 3000
    lines = "\n".join(f"v{i + 1} = Neg(v{i})" for i in range(count))
    edited = model(f"g (float[2] v0) => (float[2] v{count}) {{ {lines} }}")
    editor = GraphEditor(edited)
    for i in range(count):
        quantize_input(editor, f"v{i}", f"Neg_{i}")
    editor.finish()
    assert len(edited.view().nodes) == 3 * count
    ort.InferenceSession(edited.to_bytes(), providers=["CPUExecutionProvider"])
