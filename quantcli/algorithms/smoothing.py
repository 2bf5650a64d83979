"""Explicit multiplications in front of layers, where no producer can absorb scales.

Where a tensor t comes from an operator that is not homogeneous (GELU, SiLU), or somebody else reads it as well (a
residual beside a LayerNormalization), the layers that read it quantized get t·(1/s) from a node of their own, and
their weights absorb s; everybody else reads t. After Xiao et al. 2023, "SmoothQuant: Accurate and Efficient
Post-Training Quantization for Large Language Models", with scales from the activations alone:

    ρ_c = max|t_c| / max|t|,    s_c = max(ρ_c, floor)^alpha.

Both sides of the range count as one here: the product is a new tensor, so its range may grow on the shorter side.
(With ρ per side, GELU would be left out: the minimum of every channel is −0.17. Measured on MiniLM, embedding
rounded to nearest: 18.4 dB without, 20.4 with ρ per side, 24.2 with this one.)

A multiplication is added only where the tensor is made in float, every quantized reader is a layer with constant
weights, and the imbalance is real: min s < 1/2, and the noise that reaches the layers, ∝ width²·Σ s², falls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from quantcli.algorithms.channel_flow import Factor, Flow, Rewrite
from quantcli.algorithms.channels import channel_axes
from quantcli.algorithms.extremes import ChannelExtremes, EqualizationOptions
from quantcli.quantize.plan import Plan

_REAL_IMBALANCE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiplication:
    """A new node ``value · factors`` that some readers of ``value`` read in its place.

    Attributes:
        value: Activation.
        factors: 1/s, float32 (C,).
        axis: Channel axis of the value.
        rank: Number of its axes.
        readers: (node, input index), sorted.
    """

    value: str
    factors: np.ndarray
    axis: int
    rank: int
    readers: tuple[tuple[str, int], ...]


def smoothings(
    flow: Flow,
    plan: Plan,
    known: Mapping[str, ChannelExtremes],
    scales: np.ndarray,
    options: EqualizationOptions,
) -> Iterator[Multiplication]:
    """The multiplications that are worth it.

    Args:
        flow: A graph that was walked.
        plan: What is quantized.
        known: Extremes along ``channel_axes``.
        scales: Scales of the variables; what has some other than 1 needs no multiplication.
        options: How much.
    """
    axes = channel_axes(flow.view)
    layers = {(item.node, 0): item for item in flow.rewrites if item.source}
    readings: dict[str, list[tuple[str, int]]] = {}
    for node, index in plan.integer_inputs:
        readings.setdefault(flow.view.node_by_name[node].inputs[index], []).append((node, index))
    for name, tensor in plan.tensors.items():
        channels, rank = flow.get(name), flow.rank(name)
        scaled = channels is not None and bool(np.any(scales[channels.ids] != 1))
        if scaled or tensor.integer_producer or rank is None or name not in known:
            continue
        readers = sorted(readings.get(name, ()))
        if not readers or not all(
            reader in layers and _absorbs(flow, layers[reader], axes[name], len(known[name].low), options)
            for reader in readers
        ):
            continue
        factors = _factors(known[name], options)
        if factors is not None:
            yield Multiplication(value=name, factors=factors, axis=axes[name], rank=rank, readers=tuple(readers))


def absorb(rewrite: Rewrite, multiplication: Multiplication, ids: np.ndarray) -> Rewrite:
    """``rewrite`` with the scales ``ids``, if it is the weight of a layer that reads the product."""
    if not rewrite.source or (rewrite.node, 0) not in multiplication.readers or rewrite.multiply is None:
        return rewrite
    return replace(rewrite, multiply=Factor(ids=ids, index=rewrite.multiply.index))


def _factors(extremes: ChannelExtremes, options: EqualizationOptions) -> np.ndarray | None:
    """1/s as float32 (C,); None where it is not worth it."""
    magnitude = np.maximum(np.abs(extremes.low), np.abs(extremes.high))
    rho = magnitude / max(float(magnitude.max(initial=0.0)), np.finfo(np.float64).tiny)
    scales = np.maximum(rho, options.smoothing_floor) ** options.smoothing_alpha
    noise = _width(extremes.low / scales, extremes.high / scales) ** 2 * float(np.mean(scales**2))
    if scales.min(initial=1.0) >= _REAL_IMBALANCE or noise >= _width(extremes.low, extremes.high) ** 2:
        return None
    return np.asarray(1.0 / scales, dtype=np.float32)


def _width(low: np.ndarray, high: np.ndarray) -> float:
    """Of the range with 0 in it."""
    return float(max(high.max(initial=0.0), 0.0) - min(low.min(initial=0.0), 0.0))


def _absorbs(flow: Flow, rewrite: Rewrite, axis: int, channels: int, options: EqualizationOptions) -> bool:
    """Whether the layer's weight can absorb scales on ``axis`` of its input."""
    operator = flow.view.node_by_name[rewrite.node].op_type
    if operator in ("Conv", "ConvTranspose") and not options.conv_smoothing:
        return False
    read = (flow.rank(rewrite.source) or 0) - 1 if operator == "MatMul" else 1
    return rewrite.multiply is not None and axis == read and len(rewrite.multiply.ids) == channels
