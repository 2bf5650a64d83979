"""Graphs whose values take a narrower float type."""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_text import model, run

from quantcli.graph.float_type import FloatTypeEdit, narrow, round_to
from quantcli.graph.model import OnnxModel
from quantcli.graph.passes.name_nodes import name_nodes
from quantcli.graph.round_values import round_values
from quantcli.graph.shapes import infer_shapes

RNG = np.random.default_rng(3)

CHAIN = """g (float[2,3] x) => (float[2,3] y) <float[3] c = {0.1, 2.5, -3.3}> {
    a = Add (x, c) b = Mul (a, c) y = Relu (b)
}"""


def edited(
    text: str, *nodes: str, dtype: str = "float16", opset: int = 17, **options: object
) -> tuple[OnnxModel, onnx.ModelProto]:
    """The model of ``text`` with ``nodes`` narrow, and its checked message."""
    found = model(text, opset=opset)
    infer_shapes(found)
    narrow(found, FloatTypeEdit(dtype=dtype, nodes=frozenset(nodes), **options))  # type: ignore[arg-type]
    proto = onnx.ModelProto.FromString(found.to_bytes())
    onnx.checker.check_model(proto, full_check=True)
    return found, proto


def casts(proto: onnx.ModelProto) -> int:
    return Counter(node.op_type for node in proto.graph.node)["Cast"]


def test_elementwise_arithmetic_is_that_of_numpys_float16() -> None:
    found, _ = edited(CHAIN, "Add_0", "Mul_1", "Relu_2", constants={"c": None})
    x = RNG.normal(0, 3, (2, 3)).astype(np.float32)
    c = np.array([0.1, 2.5, -3.3], np.float16)
    expected = np.maximum((x.astype(np.float16) + c) * c, np.float16(0))
    np.testing.assert_array_equal(run(round_values(found), {"x": x})[0], expected.astype(np.float32))


def test_the_reference_evaluator_agrees_with_onnxruntime() -> None:
    found, proto = edited(CHAIN, "Add_0", "Mul_1", "Relu_2", constants={"c": None})
    x = RNG.normal(0, 3, (2, 3)).astype(np.float32)
    expected = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    np.testing.assert_array_equal(run(round_values(found), {"x": x})[0], expected)


def test_kept_interfaces_take_one_cast_at_each_border() -> None:
    _, proto = edited(CHAIN, "Add_0", "Mul_1", "Relu_2", constants={"c": None})
    assert casts(proto) == 2
    assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert proto.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert proto.graph.output[0].name == "y"


def test_converted_interfaces_take_none() -> None:
    _, proto = edited(CHAIN, "Add_0", "Mul_1", "Relu_2", constants={"c": None}, convert_io=True)
    assert casts(proto) == 0
    assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert proto.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16


def test_readers_that_want_the_other_type_share_one_cast() -> None:
    text = """g (float[2] x) => (float[2] y, float[2] z) {
        a = Relu (x) b = Exp (a) c = Neg (a) y = Add (b, c) z = Sqrt (a)
    }"""
    _, proto = edited(text, "Relu_0")
    assert casts(proto) == 2  # x in front of Relu, and its result for Exp, Neg and Sqrt together


def test_a_body_goes_on_reading_float32() -> None:
    text = """g (float[2] x, bool c) => (float[2] y) {
        a = Relu (x)
        y = If (c) <then_branch = t () => (float[2] p) { p = Exp (a) },
                    else_branch = e () => (float[2] q) { q = Neg (a) }>
    }"""
    found, _ = edited(text, "Relu_0")
    x = np.array([0.1, -2.0], np.float32)
    expected = np.exp(np.maximum(x.astype(np.float16), 0).astype(np.float32))
    np.testing.assert_allclose(run(round_values(found), {"x": x, "c": np.array(True)})[0], expected, rtol=2**-22)


def test_constants_of_nodes_in_float32_are_stored_narrow_and_widened() -> None:
    found, proto = edited(CHAIN, constants={"c": None})
    assert proto.graph.initializer[0].data_type == onnx.TensorProto.FLOAT16
    x = RNG.normal(0, 3, (2, 3)).astype(np.float32)
    c = np.array([0.1, 2.5, -3.3], np.float16).astype(np.float32)
    np.testing.assert_array_equal(run(found, {"x": x})[0], np.maximum((x + c) * c, 0))


def test_bfloat16_constants_are_rounded_like_those_of_ml_dtypes() -> None:
    _, proto = edited(CHAIN, constants={"c": None}, dtype="bfloat16")
    stored = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    np.testing.assert_array_equal(stored, np.array([0.1, 2.5, -3.3], np.float32).astype(ml_dtypes.bfloat16))


def test_a_copied_constant_stays_as_it_was_for_the_others() -> None:
    _, proto = edited(CHAIN, "Add_0", constants={"c": None}, copied=frozenset({"c"}))
    types = {constant.name: constant.data_type for constant in proto.graph.initializer}
    assert types == {"c": onnx.TensorProto.FLOAT, "c_float16": onnx.TensorProto.FLOAT16}


def test_inputs_whose_type_is_fixed_stay_float32() -> None:
    text = """g (float[1,1,2,2] x) => (float[1,1,4,4] y) <float[4] s = {1, 1, 2, 2}>
    { y = Resize <mode = "nearest"> (x, , s) }"""
    _, proto = edited(text, "Resize_0")
    assert {constant.data_type for constant in proto.graph.initializer} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(2049.0, 2048.0), (2051.0, 2052.0), (65519.0, 65504.0), (6e-8, 2**-24), (-0.0, -0.0)],
)
def test_rounding_is_to_nearest_and_ties_go_to_even(value: float, rounded: float) -> None:
    assert float(round_to(np.array([value], np.float32), "float16")[0]) == rounded


def test_a_limit_cuts_off_what_is_beyond() -> None:
    values = np.array([-3.4e38, 1.0, np.inf], np.float32)
    np.testing.assert_array_equal(round_to(values, "float16", 32752.0), np.array([-32752, 1, 32752], np.float16))


def test_nodes_of_bodies_compute_narrow_behind_float32_borders() -> None:
    text = """g (float[2] x, bool c) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] p) { a = Add (x, x) p = Mul (a, x) },
                    else_branch = e () => (float[2] q) { q = Neg (x) }>
    }"""
    found = model(text)
    name_nodes(found.ir)
    infer_shapes(found)
    inner = [node.name for node in found.ir.graph[0].attributes["then_branch"].as_graph()]
    narrow(found, FloatTypeEdit(dtype="float16", nodes=frozenset(map(str, inner))))
    onnx.checker.check_model(found.to_bytes(), full_check=True)
    x = np.array([0.1, -2.3], np.float32)
    h = x.astype(np.float16)
    taken, other = (run(round_values(found), {"x": x, "c": np.array(c)})[0] for c in (True, False))
    np.testing.assert_array_equal(taken, ((h + h) * h).astype(np.float32))
    np.testing.assert_array_equal(other, -x)
