"""Weights of 4 bits: packed in the file, int8 in the runtime, the same kernels as with 8 bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from small_graphs import graph, plan_of, quantize_graph

from quantcli.core.affine import dequantize
from quantcli.core.dtypes import INT4, INT8
from quantcli.quantize.plan import plan_from_json
from quantcli.runtime.kernels import kernel_report, optimized_view
from quantcli.runtime.session import SessionSettings

RNG = np.random.default_rng(9)
OPSET = 21


def weight(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.2, shape).astype(np.float32)


LAYERS = {
    "convolution": (
        "g (float[1,8,6,6] x) => (float[1,8,6,6] y) { a = Conv <pads = [1,1,1,1]> (x, w) r = Relu(a) y = Erf(r) }",
        weight(8, 8, 3, 3),
        (1, 8, 6, 6),
    ),
    "depthwise convolution": (
        """g (float[1,64,6,6] x) => (float[1,64,6,6] y) {
            a = Conv <pads = [1,1,1,1], group = 64> (x, w) r = Relu(a) y = Erf(r) }""",
        weight(64, 1, 3, 3),
        (1, 64, 6, 6),
    ),
    "Gemm": (
        "g (float[2,33] x) => (float[2,17] y) { y = Gemm <transB = 1> (x, w, b) }",
        weight(17, 33),  # an odd number of weights
        (2, 33),
    ),
    "product": ("g (float[2,32] x) => (float[2,17] y) { y = MatMul(x, w) }", weight(32, 17), (2, 32)),
    "product and bias": (
        "g (float[2,32] x) => (float[2,17] y) { a = MatMul(x, w) c = Add(a, b) y = Erf(c) }",
        weight(32, 17),
        (2, 32),
    ),
}
"""Name → graph, weight, shape of x; b is a bias where it is read."""


def layer(name: str, **recipe: object):
    text, w, shape = LAYERS[name]
    constants = {"w": w} | ({"b": weight(17)} if "b)" in text else {})
    feeds = {"x": RNG.normal(0, 1, shape).astype(np.float32)}
    return graph(text, opset=OPSET, **constants), feeds


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_every_layer_runs_on_integers_and_nothing_is_unpacked_at_a_run(name: str, form: str) -> None:
    model, feeds = layer(name)
    quantized = quantize_graph(model, feeds, form, weight_dtype=INT4)
    assert quantized.plan.layers[0].weight_spec.dtype is INT4
    report = kernel_report(quantized.model.to_bytes(), quantized.expected_kernels())
    assert report.unfused == {}
    assert "Cast" not in {
        node.op_type for node in optimized_view(quantized.model.to_bytes(), SessionSettings()).nodes
    }


@pytest.mark.parametrize("name", LAYERS)
def test_the_file_holds_half_a_byte_for_each_weight(name: str) -> None:
    model, feeds = layer(name)
    quantized = quantize_graph(model, feeds, weight_dtype=INT4)
    stored = ir.from_proto(ir.to_proto(quantized.model.ir)).graph.initializers["w_quantized"].const_value
    assert stored.dtype == ir.DataType.INT4
    assert len(stored.tobytes()) == -(-LAYERS[name][1].size // 2)
    assert np.array_equal(stored.numpy().astype(np.int8), quantized.solution.layers["n0"].weight)


@pytest.mark.parametrize("name", LAYERS)
def test_the_onnx_reference_computes_the_same(name: str) -> None:
    model, feeds = layer(name)
    quantized = quantize_graph(model, feeds, target="generic", weight_dtype=INT4)
    (expected,) = ReferenceEvaluator(ir.to_proto(quantized.model.ir)).run(None, feeds)
    step = max((float(p.scale) for name, p in quantized.solution.tensors.items() if name != "x"), default=1e-5)
    # Integer and float sums may round a value that lies between two steps differently; Erf has a slope of 1.13.
    np.testing.assert_allclose(quantized.run(feeds)["y"], expected, atol=1.13 * step)


def test_a_layer_that_4_bits_hold_has_no_error() -> None:
    w = RNG.integers(-7, 8, (32, 17)).astype(np.float32)
    w[0] = 7  # so that every column has the scale 1
    model = graph("g (float[2,32] x) => (float[2,17] y) { y = MatMul(x, w) }", opset=OPSET, w=w)
    x = RNG.integers(0, 256, (2, 32)).astype(np.float32)
    x[0, :2] = 0, 255
    quantized = quantize_graph(model, {"x": x}, weight_dtype=INT4)
    assert np.array_equal(quantized.run({"x": x})["y"], x @ w)


def test_weights_are_within_half_a_step_of_a_seventh_of_the_largest() -> None:
    model, feeds = layer("product")
    quantized = quantize_graph(model, feeds, weight_dtype=INT4)
    found = quantized.solution.layers["n0"]
    w = LAYERS["product"][1]
    step = np.abs(w).max(axis=0) / 7
    assert np.abs(found.weight).max() == 7
    # The scale is rounded to float32, up to 7 of which make a value, and so is the product.
    assert (np.abs(dequantize(found.weight, found.weight_params) - w) <= step * (0.5 + 8 * 2.0**-23)).all()


def test_a_layer_too_small_to_save_anything_keeps_8_bits() -> None:
    text = "g (float[2,16] x) => (float[2,4] y) { a = MatMul(x, w0) r = Erf(a) y = MatMul(r, w1) }"
    plan = plan_of(graph(text, opset=OPSET, w0=weight(16, 128), w1=weight(128, 3)), weight_dtype=INT4)
    assert [item.weight_spec.dtype for item in plan.layers] == [INT4, INT8]


def test_a_plan_with_4_bits_reads_back_as_it_was() -> None:
    plan = plan_of(layer("product")[0], weight_dtype=INT4)
    assert plan_from_json(plan.to_json()) == plan
