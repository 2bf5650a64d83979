"""Graphs in float16 and bfloat16 that compute in float32 inside."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parents[1]))
from onnx_text import model, run

from quantcli.graph.model import OnnxModel
from quantcli.graph.passes.widen_floats import half_types, widen_floats
from quantcli.graph.prepare import prepare

RNG = np.random.default_rng(4)
C = RNG.normal(0, 1, 3).astype(np.float16)


def widened(text: str, **constants: np.ndarray) -> OnnxModel:
    found = model(text, **constants)
    assert widen_floats(found.ir)
    onnx.checker.check_model(found.to_bytes(), full_check=True)
    return found


def types(found: OnnxModel) -> tuple[set[int], set[int], set[int]]:
    """Element types of inputs, outputs and constants."""
    graph = onnx.ModelProto.FromString(found.to_bytes()).graph
    return (
        {value.type.tensor_type.elem_type for value in graph.input},
        {value.type.tensor_type.elem_type for value in graph.output},
        {constant.data_type for constant in graph.initializer},
    )


def test_interfaces_keep_their_types_and_constants_are_widened() -> None:
    found = widened("g (float16[3] x) => (float16[3] y) { a = Add (x, c) y = Relu (a) }", c=C)
    assert types(found) == ({onnx.TensorProto.FLOAT16}, {onnx.TensorProto.FLOAT16}, {onnx.TensorProto.FLOAT})


def test_the_inside_is_float32_arithmetic_with_one_rounding_at_the_end() -> None:
    found = widened("g (float16[3] x) => (float16[3] y) { a = Mul (x, c) y = Add (a, c) }", c=C)
    x = RNG.normal(0, 1, 3).astype(np.float16)
    wide = x.astype(np.float32) * C.astype(np.float32) + C.astype(np.float32)
    np.testing.assert_array_equal(run(found, {"x": x})[0], wide.astype(np.float16))


def test_bodies_and_types_in_attributes_are_widened() -> None:
    text = """g (float16[2] x, bool c) => (float16[2] y) {
        y = If (c) <then_branch = t () => (float16[2] p) { p = Exp (x) },
                    else_branch = e () => (float16[2] q) {
                        k = Constant <value = float16[1] {16384}> () q = Mul (x, k) }>
    }"""
    found = widened(text)
    x = np.array([0.5, -1.0], np.float16)
    np.testing.assert_array_equal(run(found, {"x": x, "c": np.array(False)})[0], x * np.float16(2))


def test_an_output_that_is_an_input_stays() -> None:
    found = widened("g (float16[2] x) => (float16[2] x, float16[2] y) { y = Neg (x) }")
    x = np.array([0.5, -1.0], np.float16)
    np.testing.assert_array_equal(run(found, {"x": x})[0], x)


def test_float32_models_are_left_alone() -> None:
    found = model("g (float[2] x) => (float[2] y) { y = Neg (x) }")
    assert half_types(found.ir) == ()
    assert widen_floats(found.ir) == ()


def test_casts_of_mixed_precision_disappear_in_preparation() -> None:
    text = """g (float[3] x) => (float[3] y) {
        h = Cast <to = 10> (x) a = Add (h, c) w = Cast <to = 1> (a) b = Exp (w) n = Cast <to = 10> (b) d = Neg (n)
        y = Cast <to = 1> (d)
    }"""
    done = prepare(model(text, c=C), evaluate=lambda *_: {})
    assert [node.op_type for node in done.model.view().nodes if node.op_type == "Cast"] == ["Cast"]
    assert "computes in float16" in done.notes[0]
