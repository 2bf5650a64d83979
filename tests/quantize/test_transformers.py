"""Blocks of transformers: products are integer kernels with their biases, what is between them stays in float."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import actions, graph, plan_of, quantize_graph, reason

from quantcli.quantize.plan import Action
from quantcli.runtime.kernels import kernel_report

RNG = np.random.default_rng(3)
WIDTH = 16
X = {"x": RNG.normal(0, 1, (1, 6, WIDTH)).astype(np.float32)}


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.3, shape).astype(np.float32)


def layers(names: str, *, width: int = WIDTH, hidden: int = WIDTH) -> dict[str, np.ndarray]:
    """Weights w… and biases b… of square layers; those of the hidden layers 1 and 2 are wide and tall."""
    shapes = {"1": (width, hidden), "2": (hidden, width)}
    weights = {f"w{name}": normal(*shapes.get(name, (width, width))) for name in names}
    return weights | {f"b{name}": normal(shapes.get(name, (width, width))[1]) for name in names}


NORM = {"g": normal(WIDTH) + 1, "h": normal(WIDTH)}


def check(text: str, constants: dict[str, np.ndarray], products: int, *, opset: int, floor_db: float = 25) -> None:
    """Every product is one fused kernel, its bias in it; the result is close."""
    model = graph(text, opset=opset, **constants)
    quantized = quantize_graph(model, X)
    report = kernel_report(quantized.model.to_bytes(), quantized.expected_kernels())
    assert not report.unfused
    assert report.fused == products
    fused = [node for node in quantized.plan.nodes if node.action is Action.FUSE]
    assert {node.op_type for node in fused} <= {"Add", "Relu"}
    (want,), (got,) = quantized.run_float(X).values(), quantized.run(X).values()
    assert 10 * np.log10(np.sum(want**2) / np.sum((got - want) ** 2)) > floor_db


@pytest.mark.parametrize("opset", [23, 24])
def test_the_attention_of_onnx_stays_in_float_between_quantized_projections(opset: int) -> None:
    text = """g (float[1, 6, 16] x) => (float[1, 6, 16] y) {
        n = LayerNormalization(x, g, h)
        qm = MatMul(n, wq) q = Add(qm, bq)  km = MatMul(n, wk) k = Add(km, bk)  vm = MatMul(n, wv) v = Add(vm, bv)
        a = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v)
        om = MatMul(a, wo) o = Add(om, bo)  y = Add(x, o) }"""
    constants = layers("qkvo") | NORM
    check(text, constants, 4, opset=opset)
    quantized = quantize_graph(graph(text, opset=opset, **constants), X)
    assert reason(quantized.plan, "n7") == "F201"
    makers = [node.op_type for node in quantized.plan.nodes if node.action is Action.QUANTIZE]
    assert makers == ["MatMul"] * 4
    read_as_integers = {name for name, _ in quantized.plan.integer_inputs}
    assert "n7" not in read_as_integers


PRE_NORM = """g (float[1, 6, 16] x) => (float[1, 6, 16] y) {
    n = LayerNormalization(x, g, h)
    am = MatMul(n, w1) a = %s  e = Gelu(a)
    om = MatMul(e, w2) o = %s  r = Add(%s)
    z = LayerNormalization(r, g, h)
    pm = MatMul(z, wp) p = Add(pm, bp)  y = Add(r, p) }"""


@pytest.mark.parametrize("first", ["Add(am, b1)", "Add(b1, am)"])
@pytest.mark.parametrize("sum_order", ["x, o", "o, x"])
def test_a_pre_norm_block_has_one_kernel_for_each_linear_layer(first: str, sum_order: str) -> None:
    text = PRE_NORM % (first, first.replace("am", "om").replace("b1", "b2"), sum_order)
    check(text, layers("12p", hidden=32) | NORM, 3, opset=20)


def test_a_linear_layer_in_front_of_a_normalization_gives_float() -> None:
    text = PRE_NORM % ("Add(am, b1)", "Add(om, b2)", "x, o")
    quantized = quantize_graph(graph(text, opset=20, **(layers("12p", hidden=32) | NORM)), X)
    assert "o" not in quantized.plan.tensors
    assert "p" not in quantized.plan.tensors


def test_linear_layers_as_gemm_between_reshapes_are_quantized() -> None:
    """What exporters write for a Linear layer on three axes."""
    text = """g (float[1, 6, 16] x) => (float[1, 6, 16] y) {
        n = LayerNormalization(x, g, h)  f = Reshape(n, flat)
        a = Gemm<transB = 1>(f, w1, b1)  t = Reshape(a, wide)  e = Gelu(t)  u = Reshape(e, flat2)
        o = Gemm<transB = 1>(u, w2, b2)  s = Reshape(o, back)  y = Add(x, s) }"""
    constants = {
        "w1": normal(32, 16), "b1": normal(32), "w2": normal(16, 32), "b2": normal(16), **NORM,
        "flat": np.array([6, 16]), "wide": np.array([1, 6, 32]), "flat2": np.array([6, 32]),
        "back": np.array([1, 6, 16]),
    }  # fmt: skip
    check(text, constants, 2, opset=20)


def test_a_product_with_a_weight_of_three_axes_has_one_scale() -> None:
    text = "g (float[1, 6, 16] x) => (float[1, 6, 8] y) { m = MatMul(x, w) y = Add(m, b) }"
    constants = {"w": normal(1, 16, 8), "b": normal(8)}
    quantized = quantize_graph(graph(text, opset=20, **constants), X)
    assert actions(quantized.plan)["n0"] is Action.QUANTIZE
    assert quantized.plan.layers[0].weight_spec.axis is None
    (want,), (got,) = quantized.run_float(X).values(), quantized.run(X).values()
    assert 10 * np.log10(np.sum(want**2) / np.sum((got - want) ** 2)) > 25


def test_products_of_activations_stay_in_float_where_they_are_not_integers_anyway() -> None:
    text = """g (float[1, 6, 16] x) => (float[1, 6, 16] y) {
        n = LayerNormalization(x, g, h)  t = Transpose<perm = [0, 2, 1]>(n)
        s = MatMul(n, t)  p = Softmax(s)  y = MatMul(p, n) }"""
    model = graph(text, opset=20, **NORM)
    plan = plan_of(model)
    assert [reason(plan, name) for name in ("n2", "n4")] == ["F204", "F204"]
    assert reason(plan, "n3") == "F202"


@pytest.mark.parametrize(
    "text",
    [
        "r = com.microsoft.MultiHeadAttention<num_heads = 2>(a, b, c)",
        "r = com.microsoft.QuickGelu(a)",
        "r = com.microsoft.FastGelu(a)",
        "r = com.microsoft.SkipLayerNormalization(a, b, g, h)",
        "t = com.microsoft.FusedMatMul<transB = 1, alpha = 0.5>(a, b) u = Softmax(t) r = MatMul(u, c)",
        "r = SimplifiedLayerNormalization<axis = -1>(a, g)",
        "r = com.microsoft.SkipSimplifiedLayerNormalization(a, b, g)",
    ],
)
def test_the_layers_around_an_operator_of_the_runtime_are_quantized(text: str) -> None:
    model = graph(
        f"""g (float[1, 6, 16] x) => (float[1, 6, 16] z)
        <float[1, 6, 16] r, float[1, 6, 6] t> {{
        am = MatMul(x, wq) a = Add(am, bq)  b = MatMul(x, wk)  c = MatMul(x, wv)  {text}
        s = Add(r, b)  y = Add(s, c)  om = MatMul(y, wo) z = Add(om, bo) }}""",
        opset=20,
        **layers("qkvo"),
        **NORM,
    )
    quantized = quantize_graph(model, X)
    report = kernel_report(quantized.model.to_bytes(), quantized.expected_kernels())
    assert not report.unfused
    assert report.fused == 4
    assert "F205" not in {node.reason.code for node in quantized.plan.nodes if node.reason}
    (want,), (got,) = quantized.run_float(X).values(), quantized.run(X).values()
    assert 10 * np.log10(np.sum(want**2) / np.sum((got - want) ** 2)) > 25
