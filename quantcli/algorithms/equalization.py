"""Equalization: channels that use little of their tensor's range are enlarged, without changing the function.

A tensor t that is quantized per tensor has one step for all channels, so a channel whose values are small gets
few of the 255 steps. Storing t_c / s_c with s_c ≤ 1 instead, and multiplying column c of the next layer's weight
by s_c, leaves the function as it is and the tensor's range, too, as long as s_c ≥ ρ_c with

    ρ_c = max(hi_c / HI, lo_c / LO)        hi, lo: extremes of the channel; HI ≥ 0 ≥ LO: those of the tensor;

the noise of channel c then reaches the output times s_c: N ≈ step²/12 · Σ_c s_c² g_c. Variables are joined over
the graph (``channel_rules``); with ρ the largest over all quantized tensors of a variable,

    s = min(1, max(ρ, floor))^alpha.

No range grows, because s ≥ ρ. (Members of a sharing group have one range: HI and LO are the group's.) With scaled
channels Clip(t, 0, u) clips at u·s_c, so s_c ≥ hi_c/u is kept, and nothing that was seen is clipped. Cross-layer
equalization after Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
with scales from the activations alone, because weights have a scale per channel anyway.

Where that does not reach, ``smoothing`` adds explicit multiplications.

Weights are computed in float64 and rounded to float32 once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from quantcli.algorithms.channel_flow import Flow, Rewrite
from quantcli.algorithms.channel_rules import walk
from quantcli.algorithms.channels import channel_axes
from quantcli.algorithms.extremes import ChannelExtremes, EqualizationOptions
from quantcli.algorithms.smoothing import Multiplication, absorb, smoothings
from quantcli.graph.view import GraphView
from quantcli.ops.spec import Trait
from quantcli.ops.table import lookup
from quantcli.quantize.plan import Plan

__all__ = [
    "ChannelExtremes", "Equalization", "EqualizationOptions", "EqualizationSummary", "Multiplication", "equalize",
    "imbalance",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualizationSummary:
    """Counts over the channels of all quantized tensors.

    Attributes:
        channels: All of them, as far as they are known.
        free: Those whose scale may differ from 1.
        scaled: Those whose scale does.
        smoothed: Those of tensors that got a multiplication, not counted in ``free`` and ``scaled``.
        pinned: Reason → number of channels that have scale 1 for it, the largest number first.
    """

    channels: int
    free: int
    scaled: int
    smoothed: int
    pinned: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalization:
    """An equalization, as edits of a graph.

    Attributes:
        constants: (node, input index) → new float32 constant.
        multiplications: New nodes.
        scales: Value → s, float64 (C,), for every value with scales other than 1.
        summary: Counts.
    """

    constants: Mapping[tuple[str, int], np.ndarray]
    multiplications: tuple[Multiplication, ...]
    scales: Mapping[str, np.ndarray]
    summary: EqualizationSummary

    def __bool__(self) -> bool:
        """Whether anything is edited."""
        return bool(self.constants or self.multiplications)


def equalize(
    view: GraphView,
    extremes: Mapping[str, ChannelExtremes],
    plan: Plan,
    options: EqualizationOptions | None = None,
) -> Equalization:
    """Find scales for the channels of a prepared float graph.

    Args:
        view: The graph.
        extremes: Channel extremes along ``channel_axes(view)``; of the quantized tensors, except those that
            only move others, and of results of Clip. Where one is missing, its channels stay as they are.
        plan: What is quantized, and which readings are of integers.
        options: How much.
    """
    chosen = options or EqualizationOptions()
    flow = walk(view)
    known = _usable(flow, extremes)
    _pin_unknown(flow, plan, known)
    _pin_single_scales(flow, plan)
    scales = _scales(flow, plan, known, chosen)
    rewrites, multiplications = list(flow.rewrites), []
    if chosen.smoothing:
        for item in smoothings(flow, plan, known, scales, chosen):
            ids = flow.groups.fresh(len(item.factors))
            scales = np.concatenate([scales, 1.0 / item.factors.astype(np.float64)])
            rewrites = [absorb(rewrite, item, ids) for rewrite in rewrites]
            multiplications.append(item)
    return Equalization(
        constants=dict(_constants(view, rewrites, scales)),
        multiplications=tuple(multiplications),
        scales=_scales_of_values(flow, scales),
        summary=_summary(flow, plan, known, scales, multiplications),
    )


# Scales of variables --------------------------------------------------------------------------------


def _usable(flow: Flow, extremes: Mapping[str, ChannelExtremes]) -> dict[str, ChannelExtremes]:
    """Extremes that are finite and belong to the channels as the rules see them."""
    axes = channel_axes(flow.view)
    found = {}
    for name, given in extremes.items():
        channels = flow.get(name)
        if name not in axes or not (np.isfinite(given.low).all() and np.isfinite(given.high).all()):
            continue
        if channels is None or (channels.axis == axes[name] and len(channels.ids) == len(given.low)):
            found[name] = given
    return found


def _pin_unknown(flow: Flow, plan: Plan, known: Mapping[str, ChannelExtremes]) -> None:
    """Pin what has a range that is not known: quantized tensors, and Clips with an upper bound."""
    for name in plan.tensors:
        if name not in known and not _moved(flow.view, name):
            flow.pin_value(name, "extremes of channels not known")
    for bound in flow.bounds:
        if bound.value not in known:
            flow.pin_value(bound.value, "Clip of channels whose extremes are not known")


def _pin_single_scales(flow: Flow, plan: Plan) -> None:
    """Pin outputs of layers whose whole weight has one scale: a row that grows would coarsen all others."""
    for layer in plan.layers:
        if layer.weight_spec.axis is None:
            for name in flow.view.node_by_name[layer.node].outputs:
                flow.pin_value(name, "weight with one scale for all channels")


def _moved(view: GraphView, name: str) -> bool:
    """Whether ``name`` consists of elements of the tensor that it was made of (or of zeros)."""
    producer = view.producer(name)
    row = None if producer is None else lookup(producer.domain, producer.op_type)
    return row is not None and row.trait is Trait.PASSTHROUGH


def _scales(
    flow: Flow, plan: Plan, known: Mapping[str, ChannelExtremes], options: EqualizationOptions
) -> np.ndarray:
    """Scales of all variables, float64 (variables,)."""
    roots = flow.groups.roots()
    free = np.array([flow.groups.reason(root) is None for root in roots.tolist()])
    rho = np.full(len(roots), -1.0)
    bounds = _group_bounds(plan, known)
    for name, tensor in plan.tensors.items():
        channels = flow.get(name)
        if channels is not None and name in known:
            np.maximum.at(rho, roots[channels.ids], imbalance(known[name], *bounds[tensor.group]))
    normalized = flow.groups.normalized()
    floor = np.where(normalized, options.smoothing_floor, options.floor)
    alpha = np.where(normalized, options.smoothing_alpha, options.alpha)
    found = np.minimum(np.maximum(np.maximum(rho, floor), 0.0) ** alpha, 1.0)
    for bound in flow.bounds:
        channels = flow.get(bound.value)
        if channels is not None and bound.value in known:
            np.maximum.at(found, roots[channels.ids], np.minimum(known[bound.value].high / bound.upper, 1.0))
    found[rho < 0] = 1.0
    return np.where(free, found[roots], 1.0)


def _group_bounds(plan: Plan, known: Mapping[str, ChannelExtremes]) -> dict[str, tuple[float, float]]:
    """LO ≤ 0 ≤ HI of every sharing group."""
    found: dict[str, tuple[float, float]] = {}
    for name, tensor in plan.tensors.items():
        low, high = found.get(tensor.group, (0.0, 0.0))
        if name in known:
            low = min(low, float(known[name].low.min(initial=0.0)))
            high = max(high, float(known[name].high.max(initial=0.0)))
        found[tensor.group] = (low, high)
    return found


def imbalance(extremes: ChannelExtremes, low: float, high: float) -> np.ndarray:
    """ρ of every channel, float64 (C,) in [0, 1].

    Args:
        extremes: Of the channels.
        low: LO ≤ 0.
        high: HI ≥ 0.
    """
    upper = np.maximum(extremes.high, 0.0) / (high if high > 0 else 1.0)
    lower = np.minimum(extremes.low, 0.0) / (low if low < 0 else -1.0)
    return np.asarray(np.clip(np.maximum(upper, lower), 0.0, 1.0), dtype=np.float64)


# Results --------------------------------------------------------------------------------------------


def _constants(
    view: GraphView, rewrites: list[Rewrite], scales: np.ndarray
) -> Iterator[tuple[tuple[str, int], np.ndarray]]:
    """The constants that change."""
    for rewrite in rewrites:
        multiply = None if rewrite.multiply is None else rewrite.multiply.values(scales)
        divide = None if rewrite.divide is None else rewrite.divide.values(scales)
        if all(factor is None or bool(np.all(factor == 1)) for factor in (multiply, divide)):
            continue
        array = view.constant(rewrite.constant)
        if not array.any():
            continue  # zeros stay zeros, and keep their shape
        wide = array.astype(np.float64)
        if multiply is not None:
            wide = wide * multiply
        if divide is not None:
            wide = wide / divide
        yield (rewrite.node, rewrite.index), wide.astype(array.dtype)


def _scales_of_values(flow: Flow, scales: np.ndarray) -> dict[str, np.ndarray]:
    found = {name: scales[channels.ids] for name, channels in flow.channels.items()}
    return {name: values for name, values in found.items() if np.any(values != 1)}


def _summary(
    flow: Flow,
    plan: Plan,
    known: Mapping[str, ChannelExtremes],
    scales: np.ndarray,
    multiplications: list[Multiplication],
) -> EqualizationSummary:
    smoothed = {item.value: len(item.factors) for item in multiplications}
    pinned: Counter[str] = Counter()
    free = scaled = total = 0
    for name in plan.tensors:
        channels = flow.get(name)
        count = len(channels.ids) if channels is not None else len(known[name].low) if name in known else 0
        total += count
        if name in smoothed:
            continue
        if channels is None:
            pinned[flow.reason(name)] += count
            continue
        scaled += int(np.sum(scales[channels.ids] != 1))
        for variable in channels.ids.tolist():
            why = flow.groups.reason(variable)
            free += why is None
            if why is not None:
                pinned[why or flow.reason(name)] += 1
    ordered = sorted(pinned.items(), key=lambda item: (-item[1], item[0]))
    return EqualizationSummary(
        channels=total,
        free=free,
        scaled=scaled,
        smoothed=sum(smoothed.values()),
        pinned={reason: count for reason, count in ordered if count},
    )
