from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx_text import model, proto

from quantcli.errors import ModelError
from quantcli.graph.build_view import view as build_view
from quantcli.graph.edit import GraphEditor
from quantcli.graph.model_io import load_model_bytes


def test_values_have_numpy_types_shapes_and_roles() -> None:
    view = model(
        """g (float[N,3] x, int64[?] i) => (float y) {
            a = Relu(x)
            y = ReduceMean<keepdims=0>(a)
            z = Mul(i, w)
        }""",
        w=np.arange(4),
    ).view()
    x, y, w, a = (view.tensors[name] for name in "xywa")
    assert (x.dtype, x.shape, x.is_input, x.is_constant) == ("float32", ("N", 3), True, False)
    assert view.tensors["i"].shape == (None,)
    assert (y.dtype, y.shape, y.is_output) == ("float32", (), True)
    assert (w.dtype, w.shape, w.is_constant, w.nbytes) == ("int64", (4,), True, 32)
    assert (a.dtype, a.shape, a.rank) == (None, None, None)
    assert (view.inputs, view.outputs, view.opset, view.ir_version) == (("x", "i"), ("y",), 17, 8)


@pytest.mark.parametrize(
    ("onnx_type", "name"),
    [
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.BFLOAT16, "bfloat16"),
        (TensorProto.DOUBLE, "float64"),
        (TensorProto.BOOL, "bool"),
        (TensorProto.STRING, "str"),
        (TensorProto.INT4, "int4"),
        (TensorProto.UINT4, "uint4"),
        (TensorProto.UINT2, "uint2"),
        (TensorProto.FLOAT8E4M3FN, "float8_e4m3fn"),
    ],
)
def test_element_types_have_the_names_that_numpy_and_ml_dtypes_give(onnx_type: int, name: str) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"], name="n")],
        "g",
        [helper.make_tensor_value_info("x", onnx_type, [2])],
        [helper.make_tensor_value_info("y", onnx_type, [2])],
    )
    message = helper.make_model(graph, ir_version=13, opset_imports=[helper.make_opsetid("", 25)])
    assert load_model_bytes(message.SerializeToString()).view().tensors["x"].dtype == name


def test_types_that_are_not_dense_tensors_have_no_element_type() -> None:
    view = model("g (seq(float[2]) s, optional(float[2]) o) => (int64 n) { n = SequenceLength(s) }").view()
    assert [(view.tensors[name].dtype, view.tensors[name].shape) for name in "so"] == [(None, None)] * 2


def test_constants_of_sub_byte_types_are_unpacked() -> None:
    text = "g (float[4] x) => (float[4] y) { w = DequantizeLinear(q, s)  y = Add(x, w) }"
    values = np.array([-8, -1, 0, 7], dtype=ml_dtypes.int4)
    view = model(text, opset=21, ir_version=10, q=values, s=np.float32(1)).view()
    assert view.tensors["q"].dtype == "int4"
    assert view.tensors["q"].nbytes == 2
    np.testing.assert_array_equal(view.constant("q").astype(np.int8), [-8, -1, 0, 7])


def test_constants_cannot_be_written_to() -> None:
    view = model("g (float[2] x) => (float[2] y) { y = Mul(x, w) }", w=np.ones(2, np.float32)).view()
    with pytest.raises(ValueError, match="read-only"):
        view.constant("w")[0] = 5


def test_what_is_no_constant_has_no_array() -> None:
    view = model("g (float[2] x) => (float[2] y) { y = Neg(x) }").view()
    with pytest.raises(KeyError):
        view.constant("x")


def test_initializers_listed_as_inputs_are_constants_and_not_inputs() -> None:
    view = model("g (float[2] x, float[2] w) => (float[2] y) { y = Mul(x, w) }", w=np.ones(2, "f")).view()
    assert view.inputs == ("x",)
    assert (view.tensors["w"].is_constant, view.tensors["w"].is_input) == (True, False)


def test_every_constant_is_listed_even_if_nothing_reads_it() -> None:
    view = model("g (float[2] x) => (float[2] y) { y = Neg(x) }", w=np.ones(2, "f")).view()
    assert view.is_constant("w")


def test_captures_of_nested_bodies_are_found_once_each() -> None:
    view = model(
        """g (bool c, float[2] x) => (float[2] y) {
            a = Relu(x)
            b = Neg(x)
            y = If (c) <
                then_branch = t () => (float[2] o) {
                    local = Abs(b)
                    o = If (c) <
                        then_branch = tt () => (float[2] p) { p = Add(a, local) },
                        else_branch = te () => (float[2] q) { q = Add(b, w) }
                    >
                },
                else_branch = e () => (float[2] r) { r = Identity(a) }
            >
        }""",
        w=np.ones(2, "f"),
    ).view()
    assert view.nodes[-1].captures == ("b", "c", "a", "w")
    assert [(use.node.name, use.index) for use in view.uses("a")] == [("If_2", -1)]
    assert "local" not in view.tensors


def test_nodes_come_in_topological_order_and_the_model_stays_as_it_is() -> None:
    message = proto("g (float[2] x) => (float[2] y) { a = Relu(x)  y = Neg(a) }")
    first, second = (onnx.NodeProto.FromString(node.SerializeToString()) for node in message.graph.node)
    first.name, second.name = "first", "second"
    del message.graph.node[:]
    message.graph.node.extend([second, first])
    unsorted = ir.serde.deserialize_model(message)
    assert [node.name for node in build_view(unsorted).nodes] == ["first", "second"]
    assert [node.name for node in unsorted.graph] == ["second", "first"]


def test_a_body_that_captures_a_value_comes_after_its_producer() -> None:
    message = proto(
        """g (bool c, float[2] x) => (float[2] y) {
            y = If (c) <
                then_branch = t () => (float[2] o) { o = Neg(a) },
                else_branch = e () => (float[2] p) { p = Abs(a) }
            >
            a = Relu(x)
        }"""
    )
    message.graph.node[0].name, message.graph.node[1].name = "if", "relu"
    view = load_model_bytes(message.SerializeToString()).view()
    assert [node.name for node in view.nodes] == ["relu", "if"]


def test_attributes_are_plain_values_without_bodies() -> None:
    text = """g (float[1,1,4,4] x) => (float[1,1,2,2] y, float[2] k) {
        y = MaxPool<kernel_shape=[2,2], strides=[2,2], auto_pad="VALID">(x)
        k = Constant<value = float[2] {1.0, 2.0}>()
    }"""
    pool, constant = model(text).view().nodes
    assert dict(pool.attributes) == {"auto_pad": "VALID", "kernel_shape": (2, 2), "strides": (2, 2)}
    np.testing.assert_array_equal(constant.attributes["value"], [1, 2])


def test_absent_inputs_and_outputs_are_empty_names() -> None:
    message = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Clip", ["x", "", "high"], ["y"], name="clip"),
                helper.make_node("TopK", ["x", "k"], ["", "i"], name="top"),
            ],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
            [helper.make_tensor_value_info(name, kind, None) for name, kind in (("y", 1), ("i", 7))],
            [helper.make_tensor("high", 1, [], [1.0]), helper.make_tensor("k", 7, [1], [2])],
        ),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
    )
    clip, top = load_model_bytes(message.SerializeToString()).view().nodes
    assert clip.inputs == ("x", "", "high")
    assert top.outputs == ("", "i")


def test_absorbed_names_are_read_from_the_metadata_of_nodes() -> None:
    loaded = model("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    next(iter(loaded.ir.graph)).metadata_props["quantcli.absorbed"] = "bn 1\nrelu"
    assert loaded.view().nodes[0].absorbed == ("bn 1", "relu")


@pytest.mark.parametrize(
    ("names", "match"), [(["", "b"], "nodes without a name"), (["a", "a"], "the name 'a' is used twice")]
)
def test_nodes_that_cannot_be_told_apart_are_refused(names: list[str], match: str) -> None:
    loaded = model("g (float[2] x) => (float[2] y) { a = Neg(x)  y = Neg(a) }")
    for node, name in zip(loaded.ir.graph, names, strict=True):
        node.name = name
    with pytest.raises(ModelError, match=match) as caught:
        loaded.view()
    assert caught.value.code == "M107"


def test_a_view_does_not_see_later_edits() -> None:
    loaded = model("g (float[2] x) => (float[2] y) { y = Mul(x, w) }", w=np.ones(2, "f"))
    before = loaded.view()
    editor = GraphEditor(loaded)
    editor.set_input("Mul_0", 1, editor.add_initializer("v", np.zeros(2, "f")))
    editor.finish()
    np.testing.assert_array_equal(before.constant("w"), [1, 1])
    assert before.nodes[0].inputs == ("x", "w")
