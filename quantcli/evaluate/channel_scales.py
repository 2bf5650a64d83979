"""What a weight's scales mean for its neighbours: which channels of which values were equalized.

A value of the quantized model may hold t_c / s_c where the original holds t_c. A layer that reads it has β = s,
the layer that made it has ρ = 1/s. Walking the original in its own order, s is carried

* from a layer to its output, 1/ρ, once ρ is absolute (β of the layer is known up to a factor only; what s of its
  input is decides);
* through operators that leave channels where they are and commute with positive scales; an Add takes that of the
  operand that has one; a Concat of axis 1 strings them together;
* as 1 through everything else: no operator that does not commute can read or make equalized values.

The quantized model may also multiply explicitly in front of a layer (SmoothQuant): then β is the inverse of that
constant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quantcli.evaluate.layer_fit import LayerFit
from quantcli.graph.view import GraphView, NodeInfo

THROUGH = frozenset(
    {
        "Relu", "Clip", "LeakyRelu", "Identity", "Dropout", "MaxPool", "AveragePool", "GlobalAveragePool",
        "GlobalMaxPool", "Flatten", "Resize", "Upsample", "BatchNormalization",
    }
)  # fmt: skip
"""Operators that leave channels where they are and commute with positive scales (their parameters scaled along).
"""

TURNS = frozenset({"Transpose", "Squeeze", "Unsqueeze"})
"""Operators that may put channels on another axis, and leave them in their order."""

_MOVES = frozenset({"Reshape", "Slice", "Split", "Gather", "Pad"})

Scales = np.ndarray | None
"""s of each channel, float64 (channels,); (1,) for the same everywhere; None where it is not known."""

ONE = np.ones(1)


class ChannelScales:
    """s of the values of the original, filled in its own order."""

    def __init__(self, view: GraphView) -> None:
        self._view = view
        self._known: dict[str, Scales] = {}

    def of(self, value: str) -> Scales:
        """Give s of ``value``; it may ask for what comes before it."""
        pending = [value]
        while pending:
            name = pending[-1]
            if name in self._known:
                pending.pop()
                continue
            node = self._view.producer(name)
            asked = [] if node is None else _asked(node)
            waiting = [
                source for source in asked if source not in self._known and not self._view.is_constant(source)
            ]
            if waiting:
                pending += waiting
                continue
            self._known[name] = ONE if node is None else self._carried(node, asked)
            pending.pop()
        return self._known[value]

    def put(self, value: str, scales: Scales) -> None:
        """Set s of ``value``: a layer made it."""
        self._known[value] = scales

    def _carried(self, node: NodeInfo, asked: Sequence[str]) -> Scales:
        """Give s of what a node makes that is no layer."""
        found = [self._known.get(name, ONE) for name in asked]
        if node.op in THROUGH | TURNS:
            return found[0]
        if node.op in ("Add", "Sum", "Sub"):
            return max((item for item in found if item is not None), key=np.size, default=None)
        if node.op == "Concat":
            return self._joined(node, found)
        if node.op == "Reshape" and found[0] is not None and self._flattens(node, found[0].size):
            return found[0]
        if node.op == "Pad" and self._keeps_channels(node):
            return found[0]
        if node.op in _MOVES:
            return ONE if found[0] is not None and plain(found[0]) else None
        return ONE

    def _keeps_channels(self, node: NodeInfo) -> bool:
        """Whether a Pad, which adds zeros or values of its input, adds no channels."""
        before, after = ((self._view.tensors[n].shape or ())[1:2] for n in (node.inputs[0], node.outputs[0]))
        return before == after and len(before) == 1 and isinstance(before[0], int)

    def _flattens(self, node: NodeInfo, channels: int) -> bool:
        """Whether a Reshape makes rows of so many channels of maps of one pixel."""
        shape = self._view.tensors[node.outputs[0]].shape
        return shape is not None and len(shape) == 2 and shape[1] == channels

    def _joined(self, node: NodeInfo, found: Sequence[Scales]) -> Scales:
        if all(item is not None and plain(item) for item in found):
            return ONE
        parts = []
        for name, item in zip(node.inputs, found, strict=True):
            shape = self._view.tensors[name].shape
            channels = None if shape is None or len(shape) < 2 else shape[1]
            if item is None or node.attributes.get("axis") != 1:
                return None
            if item.size == 1:
                if not isinstance(channels, int):
                    return None
                item = np.full(channels, item[0])
            parts.append(item)
        return np.concatenate(parts)


def _asked(node: NodeInfo) -> list[str]:
    """The inputs of a node whose scales decide those of its output."""
    if node.op in ("Add", "Sum", "Sub", "Concat"):
        return [name for name in node.inputs if name]
    return [node.input(0)] if node.op in THROUGH | TURNS | _MOVES and node.input(0) else []


def plain(scales: np.ndarray) -> bool:
    """Whether nothing is scaled, as far as rounded weights can tell."""
    known = scales[np.isfinite(scales)]
    return bool(known.size == 0 or (np.abs(np.log(known)) < 0.1).all())  # nothing, within a tenth


def input_factor(layer: LayerFit, scales: Scales) -> float | None:
    """κ of β·κ = s: what makes a layer's column scales absolute; None where s is not known.

    The median over the columns that are known well, so that a wrong channel does not decide.
    """
    wanted = scales if layer.smoothing is None else 1 / layer.smoothing * (1.0 if scales is None else scales)
    if wanted is None or wanted.size not in (1, layer.columns.size) or layer.depthwise:
        return None
    known = layer.columns_known
    ratios = np.broadcast_to(wanted, layer.columns.shape)[known] / layer.columns[known]
    ratios = ratios[np.isfinite(ratios) & (ratios > 0)]
    return float(np.median(ratios)) if ratios.size else None


def absolute_rows(layer: LayerFit, scales: Scales) -> np.ndarray | None:
    """ρ with that of the input taken into account, so that s of the output is 1/ρ; NaN where it is not known."""
    rows = np.where(layer.rows_known, layer.rows, np.nan)
    if layer.depthwise:
        if scales is None or scales.size not in (1, rows.size):
            return None
        return rows / scales
    factor = input_factor(layer, scales)
    return None if factor is None else rows / factor
