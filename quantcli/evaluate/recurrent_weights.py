"""Weights of recurrent layers: W (input 1) and R (input 2), each (directions, gates · hidden, inputs or hidden).

com.microsoft.DynamicQuantizeLSTM holds both with the last two axes exchanged, with a scale and a zero point per
direction, (directions), or per direction and column, (directions, 4 · hidden).
"""

from __future__ import annotations

import numpy as np

from quantcli.evaluate.quantized_weights import FoundWeight, constant_value, find_constant, weight_slot
from quantcli.graph.view import GraphView, NodeInfo

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})

_DYNAMIC = "com.microsoft.DynamicQuantizeLSTM"
_PARAMETERS = {1: (8, 9), 2: (10, 11)}
"""Input with the weight → inputs with its scale and its zero point."""


def weight_slots(view: GraphView, node: NodeInfo) -> tuple[int, ...]:
    """Inputs of a float compute node that are constant weights: W and R of a recurrent layer, else one at most."""
    if node.op in RECURRENT:
        return tuple(slot for slot in _PARAMETERS if constant_value(view, node.input(slot)) is not None)
    slot = weight_slot(view, node)
    return () if slot is None else (slot,)


def find_recurrent(view: GraphView, node: NodeInfo, slot: int) -> FoundWeight | None:
    """The weight at input ``slot`` of what a recurrent layer became, in the layout of ai.onnx.

    Args:
        view: Graph of ``node``.
        node: A recurrent layer, or DynamicQuantizeLSTM.
        slot: 1 for W, 2 for R.
    """
    if node.op != _DYNAMIC:
        return find_constant(view, node.input(slot)) if node.op in RECURRENT else None
    codes = constant_value(view, node.input(slot))
    scale, zero = (constant_value(view, node.input(place)) for place in _PARAMETERS[slot])
    if codes is None or scale is None or codes.ndim != 3:
        return None
    step = _spread(scale, codes.shape)
    offset = np.zeros((1, 1, 1)) if zero is None else _spread(zero, codes.shape)
    if step is None or offset is None:
        return None
    return FoundWeight(
        values=((codes.astype(np.float64) - offset) * step).transpose(0, 2, 1),
        scale=step.transpose(0, 2, 1),
        dtype=str(codes.dtype),
        granularity="per-tensor" if scale.size == codes.shape[0] else "per-channel",
    )


def _spread(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Parameters of (directions, inputs, columns), float64 of that rank; None where they do not fit."""
    if values.size not in (1, shape[0], shape[0] * shape[2]):
        return None
    count = 1 if values.size == 1 else shape[0]
    return values.astype(np.float64).reshape(count, 1, -1)
