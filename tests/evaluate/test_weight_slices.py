from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

from quantcli.evaluate import weight_slices
from quantcli.evaluate.quantized_weights import find_weight
from quantcli.evaluate.weights import compare_weights
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.view import GraphView

HEAD = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>\n'
RNG = np.random.default_rng(0)
DEPTH, OUTPUTS = 64, 30
W = RNG.standard_normal((DEPTH, OUTPUTS)).astype(np.float32)
Q = RNG.integers(-7, 8, (DEPTH, OUTPUTS)).astype(np.int8)


def view(operator: str, maker: str = "", **constants: np.ndarray) -> GraphView:
    model = onnx.parser.parse_model(
        HEAD + f"g (float[2,64] x) => (float[2,30] y) {{ {maker and f'[d] v = {maker}'}  [fc] y = {operator} }}"
    )
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return load_model_bytes(model.SerializeToString()).view()


def scale(*shape: int) -> np.ndarray:
    return RNG.uniform(0.1, 0.3, shape).astype(np.float32)


PLAIN = view("MatMul(x, w)", w=W)
NBITS = "com.microsoft.MatMulNBits <K = 64, N = 30, bits = 4, block_size = 32>"
PACKED = RNG.integers(0, 256, (OUTPUTS, 2, 16), dtype=np.uint8)

FORMS = {
    "per-tensor": view("MatMul(x, v)", "DequantizeLinear(q, s)", q=Q, s=np.float32(0.2)),
    "per-channel": view("MatMul(x, v)", "DequantizeLinear <axis = 1> (q, s, z)", q=Q, s=scale(30), z=Q[0]),
    "per-row": view("MatMul(x, v)", "DequantizeLinear <axis = 0> (q, s)", q=Q, s=scale(64)),
    "per-block": view(
        "MatMul(x, v)", "DequantizeLinear <axis = 0, block_size = 16> (q, s, z)", q=Q, s=scale(4, 30), z=Q[:4]
    ),
    "transB": view("Gemm <transB = 1> (x, v)", "DequantizeLinear <axis = 0> (q, s)", q=Q.T, s=scale(30)),
    "transB of one": view("Gemm <transB = 1> (x, v)", "DequantizeLinear(q, s)", q=Q.T, s=np.float32(0.2)),
    "MatMulNBits": view(f"{NBITS} (x, q, s)", q=PACKED, s=scale(60)),
    "MatMulNBits with zero points": view(
        f"{NBITS} (x, q, s, z)", q=PACKED, s=scale(30, 2), z=RNG.integers(0, 256, 30, dtype=np.uint8)
    ),
    "MatMulInteger": view("MatMulInteger(x, w_quantized)", w_quantized=Q, w_scale=scale(30)),
    "MatMulInteger with one scale and zero points": view(
        "MatMulInteger(x, w_quantized, a, z)", w_quantized=Q, w_scale=np.float32(0.2), a=np.uint8(3), z=Q[0]
    ),
    "MatMulInteger of a turned table": view(
        "MatMulInteger(x, v)", "Transpose <perm = [1, 0]> (q)", q=Q.T.copy(), v_scale=scale(30)
    ),
}


def floats_of(quantized: GraphView) -> GraphView:
    """A float model whose weight lies around that of ``quantized``, within a step."""
    node = quantized.node_by_name["fc"]
    found = find_weight(quantized, node)
    assert found is not None
    assert found.scale is not None
    weight = (found.values + found.scale * RNG.uniform(-0.5, 0.5, found.values.shape)).astype(np.float32)
    turned = "Gemm <transB = 1> (x, w)" if node.attributes.get("transB") else "MatMul(x, w)"
    return view(turned, w=weight)


@pytest.mark.parametrize("form", FORMS)
def test_slices_of_a_weight_have_the_error_of_the_whole(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quantized = FORMS[form]
    original = floats_of(quantized)
    whole = compare_weights(original, quantized)
    monkeypatch.setattr(weight_slices, "SLICE_ELEMENTS", DEPTH * 7)
    found: list[int] = []
    real = find_weight

    def counted(*arguments: object) -> object:
        found.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(weight_slices, "find_weight", counted)
    sliced = compare_weights(original, quantized)
    assert len(found) == 5  # 7 + 7 + 7 + 7 + 2 channels
    assert (sliced.weights, sliced.matched, sliced.kept_float) == (whole.weights, whole.matched, whole.kept_float)
    (ours,), (theirs,) = sliced.layers, whole.layers
    assert (ours.dtype, ours.granularity, ours.elements) == (theirs.dtype, theirs.granularity, theirs.elements)
    assert ours.sqnr == pytest.approx(theirs.sqnr, rel=1e-12)
    assert ours.step_rmse == pytest.approx(theirs.step_rmse, rel=1e-12)


def test_a_large_weight_in_float_is_told_by_its_first_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_slices, "SLICE_ELEMENTS", DEPTH * 7)
    found = compare_weights(PLAIN, PLAIN)
    assert (found.matched, found.kept_float) == (0, 1)


def test_a_weight_whose_form_cannot_be_cut_is_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_slices, "SLICE_ELEMENTS", DEPTH * 7)
    turned = "DequantizeLinear(q, s)  [t] u = Transpose(v)"
    quantized = view("MatMul(x, u)", turned, q=Q.T.copy(), s=np.float32(0.2))
    (layer,) = compare_weights(PLAIN, quantized).layers
    assert layer.elements == W.size
