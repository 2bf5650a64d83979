"""Weights of recurrent layers in the table of weight errors: both of them, in every form that holds them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantcli.evaluate.weights import compare_weights
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.view import GraphView

INPUTS, HIDDEN, DIRECTIONS = 5, 4, 2
HEAD = (
    '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]> net (float[T,N,5] x) => (float[T,2,N,4] y) {'
)
PLAIN = HEAD + ' [net] y = %s <hidden_size = 4, direction = "bidirectional"> (x, w, r) }'
DYNAMIC = HEAD + (
    " [net] y = com.microsoft.DynamicQuantizeLSTM"
    ' <hidden_size = 4, direction = "bidirectional"> (x, qw, qr, , , , , , sw, zw, sr, zr) }'
)
STORED = HEAD + (
    " [a] v = DequantizeLinear<axis = 1>(qw, sw) [b] u = DequantizeLinear<axis = 1>(qr, sr)"
    ' [net] y = %s <hidden_size = 4, direction = "bidirectional"> (x, v, u) }'
)
RNG = np.random.default_rng(11)


def view(text: str, **constants: np.ndarray) -> GraphView:
    model = onnx.parser.parse_model(text)
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return load_model_bytes(model.SerializeToString()).view()


def codes(gates: int, width: int) -> np.ndarray:
    return RNG.integers(-127, 128, (DIRECTIONS, gates * HIDDEN, width)).astype(np.int8)


def scales(*shape: int) -> np.ndarray:
    return (2.0 ** RNG.integers(-9, -5, shape)).astype(np.float32)


def dynamic_pair(*, columns: bool) -> tuple[GraphView, dict[str, np.ndarray]]:
    """An LSTM whose weights are exact multiples of its scales, and the constants of the integer operator."""
    w, r = codes(4, INPUTS), codes(4, HIDDEN)
    shape = (DIRECTIONS, 4 * HIDDEN) if columns else (DIRECTIONS,)
    sw, sr = scales(*shape), scales(*shape)
    original = view(
        PLAIN % "LSTM", w=w * sw.reshape(DIRECTIONS, -1, 1), r=(r - np.float32(3)) * sr.reshape(DIRECTIONS, -1, 1)
    )
    zeros = {"zw": np.zeros(shape, np.int8), "zr": np.full(shape, 3, np.int8)}
    turned = {"qw": w.transpose(0, 2, 1).copy(), "qr": r.transpose(0, 2, 1).copy()}
    return original, {**turned, "sw": sw, "sr": sr, **zeros}


@pytest.mark.parametrize("columns", [False, True])
def test_integers_of_an_lstm_are_compared_in_its_own_layout(columns: bool) -> None:
    original, constants = dynamic_pair(columns=columns)
    found = compare_weights(original, view(DYNAMIC, **constants))
    assert (found.weights, found.matched, found.kept_float, found.not_found) == (1, 1, 0, 0)
    (layer,) = found.layers
    assert (layer.dtype, layer.granularity) == ("int8", "per-channel" if columns else "per-tensor")
    assert layer.elements == DIRECTIONS * 4 * HIDDEN * (INPUTS + HIDDEN)
    assert layer.sqnr == np.inf


def test_a_damaged_recurrent_weight_shows() -> None:
    original, constants = dynamic_pair(columns=True)
    # Zero recurrent weights make an error as large as they are: SQNR = (|W|² + |R|²)/|R|².
    constants["qr"][:] = 3
    (layer,) = compare_weights(original, view(DYNAMIC, **constants)).layers
    w, r = (np.sum(original.constant(name).astype(np.float64) ** 2) for name in "wr")
    assert layer.sqnr == pytest.approx(10 * np.log10((w + r) / r))


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_stored_integers_of_recurrent_layers_are_compared_both(operator: str, gates: int) -> None:
    w, r = codes(gates, INPUTS), codes(gates, HIDDEN)
    sw, sr = scales(gates * HIDDEN), scales(gates * HIDDEN)
    original = view(PLAIN % operator, w=w * sw[None, :, None], r=r * sr[None, :, None])
    constants = {"qw": w, "qr": r, "sw": sw, "sr": sr}
    (exact,) = compare_weights(original, view(STORED % operator, **constants)).layers
    assert exact.sqnr == np.inf
    constants["qr"] = r[:, ::-1].copy()
    (damaged,) = compare_weights(original, view(STORED % operator, **constants)).layers
    assert damaged.sqnr < 10


def test_a_recurrent_layer_in_float_is_counted_apart() -> None:
    arrays = {"w": codes(4, INPUTS).astype(np.float32), "r": codes(4, HIDDEN).astype(np.float32)}
    found = compare_weights(view(PLAIN % "LSTM", **arrays), view(PLAIN % "LSTM", **arrays))
    assert (found.matched, found.kept_float) == (0, 1)
