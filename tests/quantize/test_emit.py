"""Emitted graphs: exact answers where they exist, nothing left over, formats that agree."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from small_graphs import graph, plan_of, quantize_graph

from quantcli.errors import ModelError
from quantcli.quantize.solve import solve


def operators(quantized) -> list[str]:
    return [node.op_type for node in quantized.model.ir.graph]


def exact_layer():
    """Weights, inputs and sums that 8 bits hold exactly: scales are powers of two."""
    weight = np.array([[127, -64, 3], [1, 127, 0], [-127, 5, 127], [2, -8, 64]], np.float32)
    model = graph(
        "g (float[2,4] x) => (float[2,3] y) { y = Gemm (x, w, b) }", w=weight, b=np.array([5, -7, 100], np.float32)
    )
    feeds = {"x": np.array([[0, 255, 1, 2], [3, 100, 254, 7]], np.float32)}
    return model, feeds


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_a_layer_that_8_bits_hold_has_no_error(form: str) -> None:
    model, feeds = exact_layer()
    quantized = quantize_graph(model, feeds, form)
    assert np.array_equal(quantized.run(feeds)["y"], quantized.run_float(feeds)["y"])


@pytest.mark.parametrize("target", ["ort-cpu", "generic"])
def test_qdq_means_the_same_to_the_onnx_reference(target: str) -> None:
    rng = np.random.default_rng(0)
    model = graph(
        "g (float[1,3,6,6] x) => (float[1,4,1,1] y) { a = Conv <pads = [1,1,1,1]> (x, w0, b0) b = Relu(a) "
        "c = Conv(b, w1) y = GlobalAveragePool(c) }",
        opset=19,  # the oldest whose DequantizeLinear the reference implements
        w0=rng.normal(0, 1, (4, 3, 3, 3)).astype(np.float32),
        b0=rng.normal(0, 1, 4).astype(np.float32),
        w1=rng.normal(0, 1, (4, 4, 1, 1)).astype(np.float32),
    )
    feeds = {"x": rng.normal(0, 1, (1, 3, 6, 6)).astype(np.float32)}
    quantized = quantize_graph(model, feeds, target=target)
    (expected,) = ReferenceEvaluator(ir.to_proto(quantized.model.ir)).run(None, feeds)
    step = float(quantized.solution.tensors["c"].scale)
    # Integer and float sums may round a value that lies between two steps differently.
    np.testing.assert_allclose(quantized.run(feeds)["y"], expected, atol=step)


def test_constant_zero_single_value_and_negative_tensors_are_exact() -> None:
    for value in (0.0, 3.5, -2.25):
        model = graph("g (float[2,3] x) => (float[2,2] y) { y = MatMul (x, w) }", w=np.eye(3, 2, dtype=np.float32))
        feeds = {"x": np.full((2, 3), value, np.float32)}
        quantized = quantize_graph(model, feeds)
        # One rounding of the scale to float32, one of the sum.
        np.testing.assert_allclose(quantized.run(feeds)["y"], quantized.run_float(feeds)["y"], rtol=2**-22)


def test_redundant_activations_disappear_and_others_stay() -> None:
    rng = np.random.default_rng(1)
    text = """g (float[1,4,6,6] x) => (float[1,4,1,1] y) {
        a = Conv (x, w0) b = Clip (a, lo, hi) c = Conv (b, w1) y = GlobalAveragePool(c) }"""
    weights = {name: rng.normal(0, 1, (4, 4, 1, 1)).astype(np.float32) for name in ("w0", "w1")}
    feeds = {"x": rng.normal(0, 1, (1, 4, 6, 6)).astype(np.float32)}
    dropped = quantize_graph(graph(text, lo=np.float32(0), hi=np.float32(6), **weights), feeds)
    assert "Clip" not in operators(dropped)
    kept = quantize_graph(graph(text, lo=np.float32(0.5), hi=np.float32(1), **weights), feeds)
    assert "Clip" in operators(kept)
    assert kept.solution.kept == ("n1",)


def test_a_weight_read_twice_is_stored_once() -> None:
    rng = np.random.default_rng(1)
    model = graph(
        "g (float[2,4] x) => (float[2,4] y) { a = MatMul (x, w) t = Tanh(a) y = MatMul (t, w) }",
        w=rng.normal(0, 1, (4, 4)).astype(np.float32),
    )
    quantized = quantize_graph(model, {"x": rng.normal(0, 1, (2, 4)).astype(np.float32)})
    stored = [name for name in quantized.model.ir.graph.initializers if name.startswith("w")]
    assert sorted(stored) == ["w_quantized", "w_scale"]


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("target", ["ort-cpu", "generic"])
def test_results_are_valid_onnx(form: str, target: str) -> None:
    model, feeds = exact_layer()
    quantized = quantize_graph(model, feeds, form, target=target)
    onnx.checker.check_model(ir.to_proto(quantized.model.ir), full_check=True)


def test_generic_models_have_standard_operators_only() -> None:
    rng = np.random.default_rng(1)
    model = graph(
        "g (float[1,4,6,6] x) => (float[1,4,1,1] y) { a = Conv (x, w) b = Add (a, a) c = Sigmoid (b) "
        "d = Conv (c, w) y = GlobalAveragePool (d) }",
        w=rng.normal(0, 1, (4, 4, 1, 1)).astype(np.float32),
    )
    feeds = {"x": rng.normal(0, 1, (1, 4, 6, 6)).astype(np.float32)}
    for form in ("qdq", "qoperator"):
        quantized = quantize_graph(model, feeds, form, target="generic")
        assert {node.domain for node in quantized.model.ir.graph} == {""}


def test_symmetric_activations_have_a_fixed_zero_point_and_still_fuse() -> None:
    rng = np.random.default_rng(1)
    model = graph(
        "g (float[1,4,6,6] x) => (float[1,4,1,1] y) { a = Conv (x, w) b = Relu (a) c = Conv (b, w) "
        "y = GlobalAveragePool (c) }",
        w=rng.normal(0, 1, (4, 4, 1, 1)).astype(np.float32),
    )
    quantized = quantize_graph(model, {"x": rng.normal(0, 1, (1, 4, 6, 6)).astype(np.float32)}, symmetric=True)
    points = {name: int(params.zero_point) for name, params in quantized.solution.tensors.items()}
    assert points == {"x": 128, "b": 0, "c": 128}
    assert quantized.solution.kept == ()


def test_the_same_graph_gives_the_same_bytes() -> None:
    model, feeds = exact_layer()
    first = quantize_graph(model, feeds).model.to_bytes()
    again = quantize_graph(exact_layer()[0], feeds).model.to_bytes()
    assert first == again


def test_a_weight_that_is_not_finite_is_named() -> None:
    model, _ = exact_layer()
    view = model.view()
    plan = plan_of(model)
    broken = dataclasses.replace(view, read_constant=lambda name: view.constant(name) * np.float32(np.nan))
    with pytest.raises(ModelError, match="'w'") as caught:
        solve(plan, broken, lambda _name, _spec: (0.0, 1.0))
    assert caught.value.code == "M301"
