"""LSTM with integer weights: com.microsoft.DynamicQuantizeLSTM.

The operator of onnxruntime (contrib operators, ``DynamicQuantizeLSTM``) computes what LSTM of ai.onnx does, with

    W_q int8 (directions, inputs, 4·hidden),   R_q int8 (directions, hidden, 4·hidden),

the weights of LSTM with their last two axes exchanged, and a scale per direction, (directions), or per direction
and column, (directions, 4·hidden). Inputs and states are rounded to uint8 when it runs, as DynamicQuantizeLinear
does it: the input of all time steps at once, the state of every step by itself. Biases, peepholes and the
elementwise part stay in float.

Measured on onnxruntime 1.32 (x86 with VNNI, one thread), as its time over that of LSTM, one direction, for as many
inputs as hidden units, and sequences of T steps:

    hidden   weights   T = 1    16    128
    16          2048    1.11  1.23   1.39
    32          8192    0.96  1.06   1.03
    64         32768    1.07  0.78   0.65
    128       131072    0.80  0.57   0.52
    256       524288    0.51  0.39   0.35
"""

from __future__ import annotations

import numpy as np

from quantcli.core.affine import params_from_range, quantize
from quantcli.core.dtypes import QType
from quantcli.core.saturation import ROWS
from quantcli.core.spec import QuantSpec
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.ops.reasons import Reason
from quantcli.quantize.plan import RecurrentPlan
from quantcli.quantize.unsaturated import keep_apart
from quantcli.quantize.weights import weight_range

SMALLEST_LSTM = 32768
"""Weights of an LSTM, over all directions, below which it stays in float: integers would be no faster."""

LSTM_INPUTS = 8
"""Inputs of LSTM: X, W, R, B, sequence_lens, initial_h, initial_c, P."""


def find_lstm(
    view: GraphView, node: NodeInfo, dtype: QType, *, per_channel: bool, saturates: bool = False
) -> RecurrentPlan | Reason:
    """How the LSTM ``node`` gets integer weights, or why it has none; ``saturates`` as of ``Target``."""
    weight, recurrence = node.input(1), node.input(2)
    for name in (weight, recurrence):
        if not view.is_constant(name):
            return Reason(code="F301", sentence="LSTM: its weights are computed by the graph")
        if view.tensors[name].dtype != "float32":
            return Reason(code="F302", sentence=f"LSTM has weights of {view.tensors[name].dtype}, not float32")
        if view.tensors[name].rank != 3 or 0 in (view.tensors[name].shape or ()):
            return Reason(code="F304", sentence="LSTM: a weight is empty, or has no three axes")
    if node.attributes.get("layout", 0):
        return Reason(code="F303", sentence="LSTM with the batch as first axis (layout 1)")
    spec = QuantSpec(dtype=dtype, symmetric=True, axis=1 if per_channel else None, narrow=True)
    pairs = ROWS if saturates else ""  # as the weights stand in LSTM of ai.onnx
    return RecurrentPlan(node=node.name, weight=weight, recurrence=recurrence, spec=spec, pairs=pairs)


def quantize_gates(weight: np.ndarray, spec: QuantSpec, pairs: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Integers and scales of one weight of an LSTM, in the form that the operator takes.

    Args:
        weight: float32 (directions, 4·hidden, inputs), finite.
        spec: int8, symmetric; axis 1 for one scale per direction and row.
        pairs: As of ``LayerRules``: no pair of the integers may saturate.

    Returns:
        Integers, int8 (directions, inputs, 4·hidden), and scales, float32 (directions, 4·hidden) or (directions).

    Raises:
        ValueError: A weight is not finite.
    """
    if not np.isfinite(weight).all():
        raise ValueError("a weight is not finite")
    rows = QuantSpec(dtype=spec.dtype, symmetric=True, axis=None if spec.axis is None else 0, narrow=spec.narrow)
    integers, scales = [], []
    for matrix in weight:
        bound = weight_range(matrix, rows)
        params = keep_apart(matrix, params_from_range(-bound, bound, rows), pairs)
        integers.append(quantize(matrix, params).T)
        scales.append(params.scale)
    return np.ascontiguousarray(np.stack(integers)), np.stack(scales)
