"""Operators that onnxruntime fused, written plainly again: the same numbers, names kept, products in sight."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from onnx_text import model, run

from quantcli.graph.prepare import Prepared, prepare
from quantcli.graph.view import GraphView
from quantcli.runtime.session import Session, SessionSettings

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def evaluate(data: bytes, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return Session(data, SessionSettings(optimization="disabled")).run(feeds)


def prepared(text: str, feeds: Mapping[str, np.ndarray], *, opset: int = 20, **constants: np.ndarray) -> Prepared:
    """The prepared model, checked to compute what the fused operators of onnxruntime compute."""
    subject = model(text, opset=opset, **constants)
    result = prepare(subject, evaluate=evaluate)
    for got, want in zip(run(result.model, feeds), run(subject, feeds), strict=True):
        # The sums have some 20 terms of size 1 and may have another order.
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    return result


def operators(view: GraphView) -> list[str]:
    return [node.op for node in view.nodes]


MATRIX = {"x": normal(3, 2, 8)}


@pytest.mark.parametrize("form", ["", "<transB = 1>", "<alpha = 0.3>", "<transB = 1, alpha = 2.0>"])
def test_a_fused_product_with_a_constant_becomes_matmul(form: str) -> None:
    w = normal(6, 8) if "transB" in form else normal(8, 6)
    text = f"g (float[3, 2, 8] x) => (float[3, 2, 6] y) {{ y = com.microsoft.FusedMatMul{form}(x, w) }}"
    result = prepared(text, MATRIX, w=w)
    assert operators(result.model.view()) == ["MatMul"]
    assert any("had fused" in note for note in result.notes)


@pytest.mark.parametrize("form", ["<transA = 1>", "<transBatchA = 1>"])
def test_a_product_of_transposed_activations_stays(form: str) -> None:
    text = f"g (float[2, 2, 2] x) => (float[2, 2, 3] y) {{ y = com.microsoft.FusedMatMul{form}(x, w) }}"
    result = prepared(text, {"x": normal(2, 2, 2)}, w=normal(2, 2, 3))
    assert operators(result.model.view()) == ["com.microsoft.FusedMatMul"]


def test_a_weight_that_two_products_read_stays_as_it_is_for_the_other() -> None:
    text = """g (float[3, 8] x) => (float[3, 8] y, float[3, 8] z) {
        y = com.microsoft.FusedMatMul<transB = 1>(x, w)  z = MatMul(x, w) }"""
    assert operators(prepared(text, {"x": normal(3, 8)}, w=normal(8, 8)).model.view()) == ["MatMul", "MatMul"]


@pytest.mark.parametrize(
    ("activation", "op"),
    [
        ('"Relu"', "Relu"),
        ('"LeakyRelu", activation_alpha = 0.2', "LeakyRelu"),
        ('"HardSigmoid", activation_alpha = 0.3, activation_beta = 0.4', "HardSigmoid"),
    ],
)
def test_a_fused_gemm_becomes_gemm_and_activation(activation: str, op: str) -> None:
    text = f"""g (float[3, 8] x) => (float[3, 6] y) {{
        y = com.microsoft.FusedGemm<activation = {activation}, transB = 1>(x, w, b) }}"""
    view = prepared(text, {"x": normal(3, 8)}, w=normal(6, 8), b=normal(6)).model.view()
    assert operators(view) == ["Gemm", op]
    assert view.nodes[0].attributes["transB"] == 1
    assert view.nodes[1].name == "FusedGemm_0"
    assert view.nodes[0].absorbed == ("FusedGemm_0",)


@pytest.mark.parametrize(
    ("activation", "op"), [('"Relu"', "Relu"), ('"LeakyRelu", activation_params = [0.2]', "LeakyRelu")]
)
def test_a_fused_convolution_becomes_conv_sum_and_activation(activation: str, op: str) -> None:
    text = f"""g (float[1, 4, 5, 5] x) => (float[1, 4, 5, 5] y) {{
        y = com.microsoft.FusedConv<activation = {activation}, pads = [1, 1, 1, 1]>(x, w, b, x) }}"""
    view = prepared(text, {"x": normal(1, 4, 5, 5)}, w=normal(4, 4, 3, 3), b=normal(4)).model.view()
    assert operators(view) == ["Conv", "Add", op]


def test_an_activation_that_is_no_operator_leaves_the_layer() -> None:
    text = """g (float[3, 8] x) => (float[3, 6] y) {
        y = com.microsoft.FusedGemm<activation = "Elu", activation_alpha = 1.0>(x, w, b) }"""
    view = prepared(text, {"x": normal(3, 8)}, w=normal(8, 6), b=normal(6)).model.view()
    assert operators(view) == ["com.microsoft.FusedGemm"]


@pytest.mark.parametrize(("opset", "gelu"), [(20, "Gelu"), (17, "com.microsoft.Gelu")])
def test_the_bias_of_a_gelu_is_the_products_again(opset: int, gelu: str) -> None:
    text = "g (float[3, 2, 8] x) => (float[3, 2, 6] y) { m = MatMul(x, w) y = com.microsoft.BiasGelu(m, b) }"
    view = prepared(text, MATRIX, opset=opset, w=normal(8, 6), b=normal(6)).model.view()
    assert operators(view) == ["MatMul", "Add", gelu]


def test_the_bias_of_a_fast_gelu_is_the_products_again() -> None:
    text = "g (float[3, 2, 8] x) => (float[3, 2, 6] y) { m = MatMul(x, w) y = com.microsoft.FastGelu(m, b) }"
    view = prepared(text, MATRIX, w=normal(8, 6), b=normal(6)).model.view()
    assert operators(view) == ["MatMul", "Add", "com.microsoft.FastGelu"]


NORM = {"gamma": normal(8) + 1, "beta": normal(8), "w": normal(8, 8)}


@pytest.mark.parametrize("operands", ["m, x", "x, m"])
def test_a_skip_normalization_is_sum_and_normalization_with_the_bias_at_the_product(operands: str) -> None:
    text = f"""g (float[3, 2, 8] x) => (float[3, 2, 8] y) {{
        m = MatMul(x, w)
        y = com.microsoft.SkipLayerNormalization<epsilon = 1.0e-6>({operands}, gamma, beta, b) }}"""
    view = prepared(text, MATRIX, b=normal(8), **NORM).model.view()
    assert operators(view) == ["MatMul", "Add", "Add", "LayerNormalization"]
    assert view.nodes[1].inputs == ("m", "b")


def test_the_sum_of_a_skip_normalization_is_read_from_the_sum() -> None:
    text = """g (float[3, 2, 8] x) => (float[3, 2, 8] y, float[3, 2, 8] z) {
        m = MatMul(x, w)  n, , , s = com.microsoft.SkipLayerNormalization(m, x, gamma, beta)
        y = Add(n, s)  z, , , t = com.microsoft.SkipLayerNormalization(y, s, gamma, beta) }"""
    view = prepared(text, MATRIX, **NORM).model.view()
    assert operators(view).count("LayerNormalization") == 2


def test_a_sum_that_is_an_output_keeps_its_name() -> None:
    text = """g (float[3, 2, 8] x) => (float[3, 2, 8] y, float[3, 2, 8] s) {
        m = MatMul(x, w)  y, , , s = com.microsoft.SkipLayerNormalization(m, x, gamma, beta) }"""
    view = prepared(text, MATRIX, **NORM).model.view()
    assert view.outputs == ("y", "s")
    assert "LayerNormalization" in operators(view)


@pytest.mark.parametrize("opset", [13, 16])
def test_without_an_operator_for_it_a_skip_normalization_stays(opset: int) -> None:
    text = """g (float[3, 2, 8] x) => (float[3, 2, 8] y) {
        m = MatMul(x, w)  y = com.microsoft.SkipLayerNormalization(m, x, gamma, beta) }"""
    view = prepared(text, MATRIX, opset=opset, **NORM).model.view()
    assert operators(view) == ["MatMul", "com.microsoft.SkipLayerNormalization"]


@pytest.mark.parametrize("extra", ["", ", unidirectional = 1", ", scale = 0.3", ", qkv_hidden_sizes = [8, 8, 8]"])
@pytest.mark.parametrize("mask", [False, True])
def test_the_projections_of_attention_become_a_product(mask: bool, extra: str) -> None:
    text = f"""g (float[2, 4, 8] x{", int32[2, 4] m" if mask else ""}) => (float[2, 4, 8] y) {{
        y = com.microsoft.Attention<num_heads = 2{extra}>(x, w, b{", m" if mask else ""}) }}"""
    feeds = {"x": normal(2, 4, 8)}
    if mask:
        feeds["m"] = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)
    view = prepared(text, feeds, w=normal(8, 24), b=normal(24)).model.view()
    assert operators(view) == ["MatMul", "Add", "Split", "com.microsoft.MultiHeadAttention"]
    assert view.nodes[-1].name == "Attention_0"


@pytest.mark.parametrize(
    ("inputs", "arguments"),
    [(", int32[2] m", "x, w, b, m"), (", float[2, 2, 2, 1, 4] p", "x, w, b, , p")],
)
def test_attention_with_a_past_or_another_mask_stays(inputs: str, arguments: str) -> None:
    outputs = ", float[2, 2, 2, 5, 4] z" if "p" in arguments else ""
    made = "y, z" if outputs else "y"
    text = f"""g (float[2, 4, 8] x{inputs}) => (float[2, 4, 8] y{outputs}) {{
        {made} = com.microsoft.Attention<num_heads = 2>({arguments}) }}"""
    feeds = {"x": normal(2, 4, 8)}
    feeds |= {"p": normal(2, 2, 2, 1, 4)} if outputs else {"m": np.array([3, 4], np.int32)}
    view = prepared(text, feeds, w=normal(8, 24), b=normal(24)).model.view()
    assert operators(view) == ["com.microsoft.Attention"]
