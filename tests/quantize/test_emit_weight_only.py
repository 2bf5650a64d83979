"""Weight-only graphs against numpy: the dequantized weight in float64, rounded by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from small_graphs import graph
from weight_graphs import blocked, grid, product_error, stored

from quantcli.core.dtypes import INT2, INT4, INT8, INT16, QType
from quantcli.runtime.kernels import optimized_view
from quantcli.runtime.session import Session, SessionSettings

RNG = np.random.default_rng(5)
K, N = 96, 48
WEIGHT = (RNG.normal(0, 0.1, (K, N)) + 0.02).astype(np.float32)
BIAS = RNG.normal(0, 1, N).astype(np.float32)
X = RNG.normal(0.2, 1, (3, K)).astype(np.float32)

MATMUL = "g (float[M,96] x) => (float[M,48] y) { y = MatMul(x, w) }"
GEMM = "g (float[M,96] x) => (float[M,48] y) { y = Gemm(x, w, b) }"
GEMM_TRANSPOSED = "g (float[M,96] x) => (float[M,48] y) { y = Gemm <transB = 1> (x, w, b) }"


def kernels(found) -> Counter[str]:
    return Counter(node.op_type for node in optimized_view(found.model.to_bytes(), SessionSettings()).nodes)


def close(found: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | float = 0.0) -> bool:
    """Whether a product is right up to the rounding of float32 sums."""
    return np.allclose(found, x.astype(np.float64) @ weight + bias, rtol=1e-6, atol=product_error(x, weight))


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("dtype", "block"), [(INT8, 32), (INT4, 16), (INT4, 64), (INT2, 32)])
def test_blocks_of_a_product_are_rounded_to_grids_of_their_own(form, symmetric, dtype, block) -> None:
    made = stored(graph(MATMUL, w=WEIGHT), form, weight_dtype=dtype, block=block, weight_symmetric=symmetric)
    weight = blocked(WEIGHT, 0, block, dtype.bits, symmetric=symmetric)
    assert close(made.run({"x": X})["y"], X, weight)
    assert kernels(made) == {"MatMulNBits": 1}


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize(("dtype", "per_channel"), [(INT8, True), (INT4, True), (INT8, False), (INT4, False)])
def test_a_scale_per_column_or_for_all_becomes_the_same_kernel(form, dtype, per_channel) -> None:
    made = stored(graph(MATMUL, w=WEIGHT), form, weight_dtype=dtype, per_channel=per_channel)
    whole = grid(WEIGHT, dtype.bits, symmetric=True)
    weight = blocked(WEIGHT, 0, K, dtype.bits, symmetric=True) if per_channel else whole
    assert close(made.run({"x": X})["y"], X, weight)
    assert kernels(made) == {"MatMulNBits": 1}


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("text", [GEMM, GEMM_TRANSPOSED])
def test_a_gemm_is_fused_with_its_bias_whichever_way_its_weight_lies(form, text) -> None:
    own = WEIGHT.T.copy() if text is GEMM_TRANSPOSED else WEIGHT
    made = stored(graph(text, w=own, b=BIAS), form, weight_dtype=INT4, block=32, weight_symmetric=False)
    weight = blocked(WEIGHT, 0, 32, 4, symmetric=False)
    assert close(made.run({"x": X})["y"], X, weight, BIAS)
    assert kernels(made) == {"MatMulNBits": 1}


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("attributes", ["alpha = 0.5", "beta = 0.5", "transA = 1"])
def test_a_gemm_that_does_more_is_stored_and_computes_in_float(form, attributes) -> None:
    x = X.T.copy() if "transA" in attributes else X
    text = f"g (float[P,Q] x) => (float[M,48] y) {{ y = Gemm <{attributes}> (x, w, b) }}"
    made = stored(graph(text, w=WEIGHT, b=BIAS), form, weight_dtype=INT8)
    weight, bias = blocked(WEIGHT, 0, K, 8, symmetric=True), BIAS
    weight = weight * (0.5 if "alpha" in attributes else 1)
    bias = bias * (0.5 if "beta" in attributes else 1)
    assert close(made.run({"x": x})["y"], X, weight, bias)
    assert kernels(made) == {"Gemm": 1}  # what makes floats of the integers was folded


def test_two_bits_are_stored_where_the_runtime_would_compute_wrongly() -> None:
    made = stored(
        graph("g (float[M,96] x) => (float[M,5] y) { y = MatMul(x, w) }", w=WEIGHT[:, :5].copy()),
        weight_dtype=INT2,
        block=32,
    )
    assert close(made.run({"x": X})["y"], X, blocked(WEIGHT[:, :5], 0, 32, 2, symmetric=True))
    assert kernels(made) == {"MatMul": 1}


@pytest.mark.parametrize("dtype", [INT16, INT8, INT4, INT2])
@pytest.mark.parametrize("block", [0, 16])
def test_the_weight_of_a_convolution_is_made_float_when_the_model_is_loaded(dtype: QType, block) -> None:
    weight = RNG.normal(0, 1, (12, 32, 3, 3)).astype(np.float32)
    text = "g (float[1,32,6,6] x) => (float[1,12,4,4] y) { y = Conv(x, w) }"
    made = stored(graph(text, w=weight), weight_dtype=dtype, block=block)
    x = RNG.normal(0, 1, (1, 32, 6, 6)).astype(np.float32)
    columns = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3), axis=(1, 2)).transpose(1, 2, 0, 3, 4)
    if block:
        seen = blocked(weight, 1, block, dtype.bits, symmetric=True)
    else:
        seen = blocked(weight.reshape(12, -1), 1, 288, dtype.bits, symmetric=True).reshape(weight.shape)
    expected = (columns.reshape(16, -1).astype(np.float64) @ seen.reshape(12, -1).T).T.reshape(1, 12, 4, 4)
    bound = product_error(columns.reshape(16, -1), seen.reshape(12, -1).T)
    assert np.allclose(made.run({"x": x})["y"], expected, rtol=1e-6, atol=bound)
    assert set(kernels(made)) <= {"Conv", "ReorderInput", "ReorderOutput"}


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("block", [0, 32])
def test_recurrent_weights_have_a_scale_per_row_of_each_direction(op, block) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    w = RNG.normal(0, 0.3, (2, gates * 32, 64)).astype(np.float32)
    w[1] *= 10  # with one scale for a row of both directions, the first would lose three bits
    r = RNG.normal(0, 0.3, (2, gates * 32, 32)).astype(np.float32)
    text = f"""g (float[T,1,64] x) => (float[T,2,1,32] y)
        {{ y = {op} <hidden_size = 32, direction = "bidirectional"> (x, w, r) }}"""
    made = stored(graph(text, opset=14, w=w, r=r), weight_dtype=INT8, block=block)
    x = RNG.normal(0, 1, (4, 1, 64)).astype(np.float32)
    seen = [blocked(part, 2, block or 64, 8, symmetric=True).astype(np.float32) for part in (w, r)]
    exact = graph(text, opset=14, w=seen[0], r=seen[1])
    found = Session(exact.to_bytes(), SessionSettings(optimization="disabled")).run({"x": x})["y"]
    assert np.allclose(made.run({"x": x})["y"], found, rtol=0, atol=1e-6)
    assert op in kernels(made)
    assert not {"Cast", "Mul", "Reshape", "DequantizeLinear"} & set(kernels(made))


def test_stacked_matrices_have_scales_of_their_own() -> None:
    weight = RNG.normal(0, 1, (3, 64, 16)).astype(np.float32)
    weight[1] *= 100
    text = "g (float[3,M,64] x) => (float[3,M,16] y) { y = MatMul(x, w) }"
    made = stored(graph(text, w=weight), weight_dtype=INT8)
    x = RNG.normal(0, 1, (3, 2, 64)).astype(np.float32)
    for part in range(3):
        seen = blocked(weight[part], 0, 64, 8, symmetric=True)
        assert close(made.run({"x": x})["y"][part], x[part], seen)


TIED = "g (int64[T] i) => (float[T,64] y) { g = Gather(t, i) e = Relu(g) y = MatMul(e, w) }"
TABLE = RNG.normal(0, 1, (64, 96)).astype(np.float32)


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize(("dtype", "block"), [(INT8, 0), (INT8, 32), (INT4, 32), (INT2, 16), (INT4, 64)])
def test_a_table_that_is_the_weight_of_a_product_too_is_stored_once(form, dtype, block) -> None:
    made = stored(graph(TIED, t=TABLE, w=TABLE.T.copy()), form, weight_dtype=dtype, block=block)
    sizes = [np.prod(shape) for kind, shape in made.constants().values() if kind != "float32"]
    packed = 8 if any("packed" in name for name in made.constants()) else dtype.bits
    assert sum(sizes) * packed <= TABLE.size * dtype.bits
    floats = sum(np.prod(shape) for kind, shape in made.constants().values() if kind == "float32")
    assert floats <= TABLE.size / 16
    even = math.gcd(block, 96) or 96  # blocks of 64 do not divide rows of 96, those of 32 do
    seen = blocked(TABLE, 1, even, dtype.bits, symmetric=True)
    i = np.array([5, 0, 63])
    rows = np.maximum(seen[i], 0).astype(np.float32)
    assert close(made.run({"i": i})["y"], rows, seen.T)


def test_a_product_of_a_tied_table_still_runs_as_a_kernel() -> None:
    model = graph(TIED, t=TABLE, w=TABLE.T.copy())
    assert kernels(stored(model, weight_dtype=INT4, block=32))["MatMulNBits"] == 1
    assert kernels(stored(model, "qoperator", weight_dtype=INT4, block=32)) == {
        "GatherBlockQuantized": 1,
        "Relu": 1,
        "MatMulNBits": 1,
    }


def test_a_weight_of_several_products_is_stored_once() -> None:
    text = "g (float[M,96] x) => (float[M,48] y, float[M,48] z) { y = MatMul(x, w) n = Neg(x) z = MatMul(n, w) }"
    for form in ("qdq", "qoperator"):
        made = stored(graph(text, w=WEIGHT), form, weight_dtype=INT8)
        assert sum(kind != "float32" for kind, _ in made.constants().values()) == 1
        found = made.run({"x": X})
        assert np.allclose(found["y"], -found["z"], rtol=0, atol=1e-6)


def test_a_weight_that_readers_want_in_different_forms_is_stored_for_all_of_them() -> None:
    square = RNG.normal(0, 1, (64, 64)).astype(np.float32)
    text = "g (float[M,64] x) => (float[M,64] y, float[M,64] z) { y = MatMul(x, w) z = Gemm <transB = 1> (x, w) }"
    made = stored(graph(text, w=square), weight_dtype=INT8)
    x = RNG.normal(0, 1, (2, 64)).astype(np.float32)
    seen = blocked(square, 0, 64, 8, symmetric=True)
    assert close(made.run({"x": x})["y"], x, seen)
    assert close(made.run({"x": x})["z"], x, seen.T)


def test_targets_without_the_kernel_get_dequantize_linear() -> None:
    made = stored(graph(MATMUL, w=WEIGHT), target="generic", weight_dtype=INT8, block=32)
    assert [node.op_type for node in made.model.view().nodes] == ["DequantizeLinear", "MatMul"]
    assert made.model.opset == 21


def test_the_opset_is_raised_only_as_far_as_needed() -> None:
    model = graph(MATMUL, w=WEIGHT)
    assert stored(model, weight_dtype=INT8).model.opset == 13
    assert stored(model, weight_dtype=INT8, block=32).model.opset == 21
    assert stored(model, weight_dtype=INT2, block=32).model.opset == 25
    assert stored(model, "qoperator", weight_dtype=INT2, block=32).model.opset == 13


def test_the_accuracy_level_stands_in_the_node_and_the_plan() -> None:
    made = stored(graph(MATMUL, w=WEIGHT), "qoperator", weight_dtype=INT4, block=32, accuracy_level=1)
    (node,) = made.model.view().nodes
    assert (node.attributes["accuracy_level"], made.plan.accuracy_level) == (1, 1)
