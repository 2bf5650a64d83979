"""What is kept of a layer once its arrays are gone: its scales, its bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantcli.core.scaling_fit import ScalingFit
from quantcli.evaluate.layer_pairs import LayerPair
from quantcli.graph.view import NodeInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFit:
    """A layer's scales.

    Attributes:
        node: In the original.
        partner: In the quantized graph.
        weight: Name of the weight in the original.
        source: Value of the original that it reads.
        output: Value of the original that holds the result.
        rows: ρ, float64 (outputs,).
        rows_known: Which of them are known.
        columns: β, float64 (inputs,); for several groups one after the other.
        columns_known: Which of them are known.
        groups: How many there are.
        depthwise: Each output channel reads one input channel.
        smoothing: Constant that the quantized graph multiplies the layer's input with; None without.
        bias: b, float64 (outputs,); None without one.
        found_bias: b̂; None where it was not found.
        scaled: Whether the scale of the weight is known.
    """

    node: NodeInfo
    partner: NodeInfo
    weight: str
    source: str
    output: str
    rows: np.ndarray
    rows_known: np.ndarray
    columns: np.ndarray
    columns_known: np.ndarray
    groups: int
    depthwise: bool
    smoothing: np.ndarray | None
    bias: np.ndarray | None
    found_bias: np.ndarray | None
    scaled: bool


def summarize(pair: LayerPair, fit: ScalingFit) -> LayerFit:
    """``pair`` without its weights."""
    return LayerFit(
        node=pair.node,
        partner=pair.partner,
        weight=pair.weight,
        source=pair.source,
        output=pair.output,
        rows=fit.rows.reshape(-1),
        rows_known=fit.rows_known.reshape(-1),
        columns=fit.columns.reshape(-1),
        columns_known=fit.columns_known.reshape(-1),
        groups=fit.columns.shape[0],
        depthwise=pair.depthwise,
        smoothing=pair.smoothing,
        bias=pair.bias,
        found_bias=pair.found_bias,
        scaled=pair.scaled,
    )
