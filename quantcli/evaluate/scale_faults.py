"""Scales of weights that nothing explains: neither the bias of the layer nor the layers around it.

With s of a layer's input known (``channel_scales``), its ρ is absolute and 1/ρ is s of its output. That is
equalization if somebody undoes it; so

* a whole layer is off by F where b̂ = ρ·b/F for all channels: the bias does not know of the factor. A bias that
  was corrected (Nagel et al. 2019) does not tell, nor one whose scale is that of the weight (QLinearConv). Then F
  is what all channels have in common, because equalization never scales all of them (the largest s is 1);
* one channel is off where a layer that reads it has another β than s, or where an operator reads it that does not
  commute with scales, so that s has to be 1. The layer to blame is the one whose bias does not know of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from quantcli.evaluate.channel_scales import (
    ONE,
    THROUGH,
    TURNS,
    ChannelScales,
    Scales,
    absolute_rows,
    input_factor,
)
from quantcli.evaluate.layer_fit import LayerFit
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.report.schema import Suspect

FACTOR = math.sqrt(2)
"""A scale that is off by more was set wrong: half way to 2 on a logarithmic scale."""

_BIAS_TELLS = 0.98
"""Cosine of b̂ and ρ·b from which the bias was not corrected by much, so that its factor can be trusted."""

_CHANNELS_TELL = 3
"""Channels from which on a cosine says something."""

_CARRY = THROUGH | frozenset(
    {
        "Add",
        "Sum",
        "Sub",
        "Concat",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "Gather",
        "Pad",
    }
)
"""Operators that do not ask for s = 1 themselves."""


def find_scale_faults(view: GraphView, fits: Sequence[LayerFit], scales: ChannelScales) -> list[Suspect]:
    """Layers whose scales are wrong, in the original's order.

    Args:
        view: The original.
        fits: Its layers.
        scales: Those of its values; outputs of layers are put into it.
    """
    by_node = {fit.node.name: fit for fit in fits}
    deviations: dict[str, np.ndarray] = {}
    found: list[Suspect] = []
    for fit in fits:
        source = scales.of(fit.source)
        rows = absolute_rows(fit, source) if fit.scaled else None
        if rows is None:
            if fit.scaled and _first_factor(fit) is not None:
                found.append(_whole(fit, _first_factor(fit) or 1.0))
            _put(scales, fit, None)
            continue
        found += _channels(view, fit, source, by_node, deviations)
        factor = _factor(fit, rows)
        if abs(math.log(factor)) > math.log(FACTOR):
            found.append(_whole(fit, factor))
            rows = rows / factor
        deviations[fit.node.name] = _by_bias(fit, rows)
        _put(scales, fit, 1 / rows)
    return found + list(_rigid(view, scales, by_node, deviations))


def _put(scales: ChannelScales, fit: LayerFit, found: Scales) -> None:
    """Set s of what a layer makes, before and behind its bias."""
    scales.put(fit.output, found)
    scales.put(fit.node.outputs[0], found)


def _factor(fit: LayerFit, rows: np.ndarray) -> float:
    """F of the whole layer."""
    ratios = _by_bias(fit, rows)
    known = ratios[np.isfinite(ratios)]
    by_bias = float(np.median(known)) if known.size else 1.0
    return by_bias if abs(math.log(by_bias)) > math.log(FACTOR) else _common(rows)


def _common(rows: np.ndarray) -> float:
    """The factor that all channels have at least: 1 where some are above 1 and some below."""
    known = rows[np.isfinite(rows)]
    if not known.size:
        return 1.0
    low, high = float(known.min()), float(known.max())
    return low if low > 1 else high if high < 1 else 1.0


def _first_factor(fit: LayerFit) -> float | None:
    """F of a layer whose input's scales are not known; None where something explains it."""
    rows = fit.rows[fit.rows_known]
    tops = (1.0, float(fit.columns[fit.columns_known].max(initial=1.0)))
    factors = [_common(rows * top) for top in tops]
    ratios = [_by_bias(fit, np.where(fit.rows_known, fit.rows * top, np.nan)) for top in tops]
    factors += [float(np.nanmedian(item)) for item in ratios if np.isfinite(item).any()]
    nearest = min(factors, key=lambda factor: abs(math.log(factor)))
    return nearest if abs(math.log(nearest)) > math.log(FACTOR) else None


def _by_bias(fit: LayerFit, rows: np.ndarray) -> np.ndarray:
    """ρ·b / b̂ for channels whose bias counts, NaN for the others and where the bias does not tell."""
    nothing = np.full(fit.rows.size, np.nan)
    if fit.bias is None or fit.found_bias is None:
        return nothing
    expected = np.where(np.isfinite(rows), rows, 0.0) * fit.bias
    norms = float(np.linalg.norm(expected) * np.linalg.norm(fit.found_bias))
    if norms == 0 or float(expected @ fit.found_bias) / norms < _BIAS_TELLS:
        return nothing
    counts = (np.abs(expected) > 0.1 * np.abs(expected).max()) & (expected * fit.found_bias > 0)
    if counts.sum() < _CHANNELS_TELL:
        return nothing
    nothing[counts] = expected[counts] / fit.found_bias[counts]
    return nothing


def _channels(
    view: GraphView,
    fit: LayerFit,
    source: Scales,
    by_node: dict[str, LayerFit],
    deviations: dict[str, np.ndarray],
) -> Iterator[Suspect]:
    """A channel of what ``fit`` reads that it does not undo as it does the others."""
    factor = input_factor(fit, source)
    if factor is None or fit.smoothing is not None or source is None or fit.groups > 1:
        return
    off = np.where(fit.columns_known, source / np.where(fit.columns_known, fit.columns * factor, 1.0), np.nan)
    yield from _blame(view, fit.source, off, by_node, deviations)


def _rigid(
    view: GraphView, scales: ChannelScales, by_node: dict[str, LayerFit], deviations: dict[str, np.ndarray]
) -> Iterator[Suspect]:
    """Channels with a scale where an operator (or the user) reads them that cannot undo it."""
    asked: set[str] = set()
    for node in view.nodes:
        if node.name not in by_node and node.op not in _CARRY:
            asked.update(node.inputs)
    asked.update(view.outputs)
    for value in sorted(asked):
        if value not in view.tensors or view.is_constant(value):
            continue
        found = scales.of(value)
        if found is not None and found is not ONE:
            yield from _blame(view, value, found, by_node, deviations)


def _blame(
    view: GraphView,
    value: str,
    off: np.ndarray,
    by_node: dict[str, LayerFit],
    deviations: dict[str, np.ndarray],
) -> Iterator[Suspect]:
    """The layer that gave the worst channel of ``value`` its scale; ``off`` is 1 where nothing is wrong."""
    logs = np.where(np.isfinite(off) & (off > 0), np.abs(np.log2(np.where(off > 0, off, 1.0))), 0.0)
    channel = int(np.argmax(logs))
    if logs[channel] <= math.log2(FACTOR):
        return
    makers = list(_makers(view, value, channel, by_node))
    if not makers:
        return
    guilty, own_channel = max(makers, key=lambda maker: _own_deviation(maker[0], maker[1], deviations))
    yield Suspect(
        node=guilty.node.name,
        op=guilty.node.op,
        tensor=guilty.weight,
        finding="scale",
        severity=1 + 4 * float(logs[channel]),
        sentence=f"the weight of its output channel {own_channel} is {1 / off[channel]:.3g} times what those who "
        "read it expect: check the scale of this channel",
    )


def _own_deviation(fit: LayerFit, channel: int, deviations: dict[str, np.ndarray]) -> float:
    """How far a channel's scale is from what the layer's own bias says, or from 1, in powers of 2."""
    known = deviations.get(fit.node.name)
    ratio = math.nan if known is None else float(known[channel])
    if math.isfinite(ratio):
        return abs(math.log2(ratio))
    row = float(fit.rows[channel])
    return abs(math.log2(row)) if row > 0 else 0.0


def _makers(
    view: GraphView, value: str, channel: int, by_node: dict[str, LayerFit]
) -> Iterator[tuple[LayerFit, int]]:
    """Layers that gave a channel of ``value`` its scale, with its number there, through depthwise ones."""
    by_output = {name: fit for fit in by_node.values() for name in (fit.node.outputs[0], fit.output)}
    pending, seen = [(value, channel)], {value}
    while pending:
        name, place = pending.pop()
        fit, node = by_output.get(name), view.producer(name)
        sources: list[tuple[str, int]] = []
        if fit is not None:
            if place < fit.rows.size:
                yield fit, place
            sources = [(fit.source, place)] if fit.depthwise else []
        elif node is not None and node.op in THROUGH | TURNS | {"Reshape"}:
            sources = [(node.input(0), place)]
        elif node is not None and node.op in ("Add", "Sum", "Sub"):
            sources = [(source, place) for source in node.inputs]
        elif node is not None and node.op == "Concat":
            sources = _part(view, node, place)
        for source, number in sources:
            if source and source not in seen:
                seen.add(source)
                pending.append((source, number))


def _part(view: GraphView, node: NodeInfo, channel: int) -> list[tuple[str, int]]:
    """The input of a Concat of channels that holds ``channel``, and its number there."""
    for name in node.inputs:
        shape = view.tensors[name].shape
        size = None if shape is None or len(shape) < 2 else shape[1]
        if node.attributes.get("axis") != 1 or not isinstance(size, int):
            return []
        if channel < size:
            return [(name, channel)]
        channel -= size
    return []


def _whole(fit: LayerFit, factor: float) -> Suspect:
    return Suspect(
        node=fit.node.name,
        op=fit.node.op,
        tensor=fit.weight,
        finding="scale",
        severity=1 + 4 * abs(math.log2(factor)),
        sentence=f"its weight is {factor:.3g} times the original's and nothing undoes it: check its scale",
    )
