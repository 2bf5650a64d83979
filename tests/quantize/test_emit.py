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
from quantcli.runtime.kernels import kernel_report


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
    narrow = graph(text, lo=np.float32(0.5), hi=np.float32(1), **weights)
    kept = quantize_graph(narrow, feeds, target="generic")
    assert "Clip" in operators(kept)
    assert kept.solution.kept == ("n1",)
    # No range can make it redundant, so onnxruntime would not fuse it: it stays apart and the kernel fuses.
    apart = quantize_graph(narrow, feeds)
    assert "Clip" in operators(apart)
    assert not kernel_report(apart.model.to_bytes(), apart.expected_kernels()).unfused


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


BODY = """z = If (c) <
    then_branch = t () => (float[1,4,8,8] p) { p = Neg (r) },
    else_branch = e () => (float[1,4,8,8] q) { q = Abs (r) }
>"""


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("target", ["ort-cpu", "generic"])
@pytest.mark.parametrize(
    "before", ["h = Conv (x, w) r = Relu (h)", "h = Conv (x, w2) m, r = Split <axis = 1> (h, s)"]
)
def test_a_body_reads_the_float_value_behind_a_kernel(before: str, target: str, form: str) -> None:
    rng = np.random.default_rng(2)
    other = "m" if "Split" in before else "r"
    model = graph(
        f"g (float[1,4,8,8] x, bool c) => (float[1,4,8,8] z, float[1,4,8,8] y) {{ {before} {BODY} "
        f"k = Conv ({other}, w) y = Sigmoid (k) }}",
        w=rng.normal(0, 1, (4, 4, 1, 1)).astype(np.float32),
        w2=rng.normal(0, 1, (8, 4, 1, 1)).astype(np.float32),
        s=np.array([4, 4], np.int64),
    )
    feeds = {"x": rng.normal(0, 1, (1, 4, 8, 8)).astype(np.float32), "c": np.array(True)}
    quantized = quantize_graph(model, feeds, form, target=target)
    expected = quantized.run_float(feeds)["z"]
    # A few steps of 8 bits; a body that sees the value before the Relu is off by its whole range.
    assert np.abs(quantized.run(feeds)["z"] - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_the_rank_of_a_result_never_changes(form: str) -> None:
    rng = np.random.default_rng(2)
    model = graph(
        "g (float[16] x) => (float[1,12] y) { h = MatMul (x, w) y = Add (h, b) }",
        w=rng.normal(0, 1, (16, 12)).astype(np.float32),
        b=rng.normal(0, 1, (1, 12)).astype(np.float32),
    )
    feeds = {"x": rng.normal(0, 1, 16).astype(np.float32)}
    assert quantize_graph(model, feeds, form).run(feeds)["y"].shape == (1, 12)


def test_a_biased_product_that_is_an_output_and_read_as_well_is_not_planned_as_integers() -> None:
    """onnxruntime would run it as a float Gemm on weights that it dequantizes at every run."""
    rng = np.random.default_rng(2)
    model = graph(
        "g (float[4,16] x) => (float[4,8] y, float[4,12] a) { h = MatMul (x, w) a = Add (h, b) r = Relu (a) "
        "y = MatMul (r, v) }",
        w=rng.normal(0, 1, (16, 12)).astype(np.float32),
        b=rng.normal(0, 1, 12).astype(np.float32),
        v=rng.normal(0, 1, (12, 8)).astype(np.float32),
    )
    quantized = quantize_graph(model, {"x": rng.normal(0, 1, (4, 16)).astype(np.float32)})
    assert list(quantized.expected_kernels()) == ["n3"]
    assert not kernel_report(quantized.model.to_bytes(), quantized.expected_kernels()).unfused


def test_a_concat_of_integers_counts_as_fused() -> None:
    rng = np.random.default_rng(2)
    model = graph(
        "g (float[1,4,8,8] x) => (float[1,4,1,1] y) { h = Conv (x, w) a = Conv (h, w) b = Conv (h, u) "
        "c = Concat <axis = 1> (a, b) d = Conv (c, v) y = GlobalAveragePool (d) }",
        w=rng.normal(0, 1, (4, 4, 1, 1)).astype(np.float32),
        u=rng.normal(0, 1, (4, 4, 1, 1)).astype(np.float32),
        v=rng.normal(0, 1, (4, 8, 1, 1)).astype(np.float32),
    )
    feeds = {"x": rng.normal(0, 1, (1, 4, 8, 8)).astype(np.float32)}
    for form in ("qdq", "qoperator"):
        quantized = quantize_graph(model, feeds, form)
        assert not kernel_report(quantized.model.to_bytes(), quantized.expected_kernels()).unfused
