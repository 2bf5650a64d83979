"""Nodes of a model that are quantized already."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import graph

from quantcli.quantize.already import already_quantized, is_quantized_form

W = np.ones((4, 4), np.float32)
S, Z = np.float32(0.1), np.uint8(0)
SCALES = {"s": np.array(S), "z": np.array(Z)}


def found(text: str, node: str, **constants: np.ndarray) -> str:
    view = graph(text, **constants).view()
    return already_quantized(view, view.node_by_name[node])


@pytest.mark.parametrize(
    ("domain", "op", "wanted"),
    [
        ("", "QLinearConv", True),
        ("com.microsoft", "QLinearConcat", True),
        ("com.microsoft", "QGemm", True),
        ("com.microsoft", "MatMulNBits", True),
        ("com.microsoft", "DequantizeLinear", True),
        ("com.microsoft", "QuickGelu", False),
        ("", "MatMul", False),
        ("other", "QLinearConcat", False),
    ],
)
def test_quantized_forms_are_known_by_name(domain: str, op: str, wanted: bool) -> None:
    assert is_quantized_form(domain, op) is wanted


def test_a_layer_between_quantizers_is_quantized() -> None:
    text = """g (uint8[1,4] x) => (uint8[1,4] y) {
        d = DequantizeLinear (x, s, z) m = MatMul (d, w) y = QuantizeLinear (m, s, z)
    }"""
    assert "between" in found(text, "n1", w=W, **SCALES)


def test_a_layer_with_integer_weights_is_quantized() -> None:
    text = "g (float[1,4] x) => (float[1,4] y) { d = DequantizeLinear (q, s, z) y = MatMul (x, d) }"
    assert "integers of the model" in found(text, "n1", q=np.ones((4, 4), np.uint8), **SCALES)


def test_a_float_layer_behind_a_dequantizer_is_not() -> None:
    text = "g (uint8[1,4] x) => (float[1,4] y) { d = DequantizeLinear (x, s, z) y = MatMul (d, w) }"
    assert not found(text, "n1", w=W, **SCALES)


def test_the_arithmetic_of_dynamic_quantization_is_left() -> None:
    text = """g (float[1,4] x) => (float[1,4] y) {
        q, t, p = DynamicQuantizeLinear (x) m = MatMulInteger (q, i, p) f = Cast <to = 1> (m) u = Mul (t, s)
        y = Mul (f, u)
    }"""
    for node in ("n0", "n1", "n2", "n3", "n4"):
        assert found(text, node, i=np.ones((4, 4), np.uint8), s=np.array(S))
