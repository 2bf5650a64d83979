"""Faults that weights and biases prove, without data.

Rounding leaves errors of about half a step, whatever the method: 0.29 steps RMS for rounding to nearest, up to
one step where weights are rounded against data; their mean is near 0. Equalization gives channels other scales,
which the next layer undoes. What neither explains is a fault. After ``core.scaling_fit`` has taken the scales ρ
(outputs) and β (inputs) out, with e = (ŵ − ρ·w·β) / step:

* mean e of a layer or of an output channel far from 0: the zero point is wrong;
* an output channel that fits another one's weights and not its own: channels are swapped;
* an output channel that fits none: the weight is damaged;
* b̂ all zero where b is not: the bias was dropped;
* scales that the neighbours do not undo (``scale_faults``).

The limits lie between what the good models of the benchmark show and what the smallest fault makes: a mean error
of a layer reaches 0.04 steps in good models and 1 after a shifted zero point, that of one channel 0.33.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.core.scaling_fit import ScalingFit, fit_scaling
from quantcli.evaluate.channel_scales import ChannelScales
from quantcli.evaluate.layer_fit import LayerFit, summarize
from quantcli.evaluate.layer_pairs import LayerPair
from quantcli.evaluate.scale_faults import find_scale_faults
from quantcli.graph.view import GraphView
from quantcli.report.schema import Finding, Suspect

LAYER_MEAN = 0.2
"""Mean error of a layer, in steps; good models reach 0.04."""

CHANNEL_MEAN = 0.5
"""Mean error of an output channel, in steps; good models reach 0.33, in kernels of nine weights."""

CHANCE = 1.5
"""Over √n, what the mean of n rounding errors may be by chance: 5 of its standard deviations of 1/√12 steps."""

FOREIGN = 4.0
"""RMS error in steps from which a channel's weights may be another channel's."""

DAMAGED = 8.0
"""RMS error in steps that no rounding makes (with a cosine below ``_UNLIKE``); good models reach 5."""

_UNLIKE = 0.9
_ALIKE = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFindings:
    """What the weights say.

    Attributes:
        suspects: Layers, the most certain first.
        layers: Every layer that was looked at.
        scales: What equalization did to the values of the original.
    """

    suspects: tuple[Suspect, ...]
    layers: tuple[LayerFit, ...]
    scales: ChannelScales


def find_weight_faults(view: GraphView, pairs: Iterator[LayerPair]) -> WeightFindings:
    """Look at every layer, then at how the scales of neighbours fit each other.

    Args:
        view: The original.
        pairs: Its layers beside those of the quantized model; one is in memory at a time.
    """
    fits: list[LayerFit] = []
    suspects: list[Suspect] = []
    for pair in pairs:
        fit = fit_scaling(pair.reference, pair.found, pair.step)
        fits.append(summarize(pair, fit))
        suspects += list(_inside(pair, fit))[:1]
    scales = ChannelScales(view)
    suspects += find_scale_faults(view, fits, scales)
    return WeightFindings(suspects=rank(suspects), layers=tuple(fits), scales=scales)


def rank(suspects: Sequence[Suspect]) -> tuple[Suspect, ...]:
    """One for each node, by severity."""
    best: dict[str, Suspect] = {}
    for suspect in suspects:
        if suspect.node not in best or suspect.severity > best[suspect.node].severity:
            best[suspect.node] = suspect
    return tuple(sorted(best.values(), key=lambda suspect: -suspect.severity))


def _inside(pair: LayerPair, fit: ScalingFit) -> Iterator[Suspect]:
    """Faults of one layer by itself, the most certain first."""
    dropped = _dropped_bias(pair, fit)
    if dropped is not None:
        yield dropped
    if pair.step is None:
        return
    error = (pair.found - pair.reference * fit.rows[:, :, None, None] * fit.columns[:, None, :, None]) / pair.step
    rms = np.sqrt(np.mean(error**2, axis=(2, 3))).reshape(-1)
    yield from _foreign_channels(pair, fit, rms)
    yield from _shifted(pair, error)


def _shifted(pair: LayerPair, error: np.ndarray) -> Iterator[Suspect]:
    """Zero points that are off: a mean error that rounding does not make."""
    mean = float(error.mean())
    channels = error.mean(axis=(2, 3)).reshape(-1)
    worst = int(np.argmax(np.abs(channels)))
    layer_limit = LAYER_MEAN + CHANCE / math.sqrt(error.size)
    channel_limit = CHANNEL_MEAN + CHANCE / 2 / math.sqrt(error.shape[2] * error.shape[3])
    if abs(mean) > layer_limit:
        yield _suspect(
            pair,
            "zero_point",
            abs(mean) / layer_limit,
            f"its weight is {mean:+.2f} steps off on average, where rounding stays below {layer_limit:.2f}: check "
            "its zero point",
        )
    elif abs(channels[worst]) > channel_limit:
        yield _suspect(
            pair,
            "zero_point",
            abs(float(channels[worst])) / channel_limit,
            f"the weight of its output channel {worst} is {channels[worst]:+.2f} steps off on average, where "
            f"rounding stays below {channel_limit:.2f}: check its zero point",
        )


def _foreign_channels(pair: LayerPair, fit: ScalingFit, rms: np.ndarray) -> Iterator[Suspect]:
    """Output channels that hold another one's weights, or none of this layer."""
    groups, outputs = pair.reference.shape[:2]
    ours = (pair.reference * fit.columns[:, None, :, None]).reshape(groups * outputs, -1)
    theirs = pair.found.reshape(groups * outputs, -1)
    ours, theirs = _normed(ours), _normed(theirs)
    cosine = np.sum(ours * theirs, axis=1)
    for channel in np.flatnonzero((rms > FOREIGN) & (cosine < _UNLIKE)).tolist():
        alike = ours @ theirs[channel]
        other = int(np.argmax(alike))
        if other != channel and alike[other] > _ALIKE:
            yield _suspect(
                pair,
                "channels",
                float(rms[channel]) / FOREIGN,
                f"its output channel {channel} holds the weights of channel {other}: channels were swapped",
            )
            return
    damaged = np.flatnonzero((rms > DAMAGED) & (cosine < _UNLIKE))
    if damaged.size:
        worst = int(damaged[np.argmax(rms[damaged])])
        yield _suspect(
            pair,
            "weight",
            float(rms[worst]) / DAMAGED,
            f"the weight of its output channel {worst} is {rms[worst]:.3g} steps RMS off, with a cosine of "
            f"{cosine[worst]:.2f} to the original's: it is not the rounded original",
        )


def _normed(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


def _dropped_bias(pair: LayerPair, fit: ScalingFit) -> Suspect | None:
    """No bias, or none but zeros, where the original's is worth a step of the weight."""
    if pair.bias is None or not np.abs(pair.bias).max(initial=0.0) > 0:
        return None
    gone = pair.bias_absent if pair.found_bias is None else not np.any(pair.found_bias)
    if not gone:
        return None
    size = float(np.abs(fit.rows.reshape(-1) * pair.bias).max())
    step = float(np.max(pair.step)) if pair.step is not None else float(np.abs(pair.found).max()) / 127
    if pair.scaled and size < step:
        return None
    return _suspect(
        pair,
        "bias",
        max(2.0, size / step) if pair.scaled else 2.0,
        f"its bias is gone; the original's reaches {np.abs(pair.bias).max():.3g}",
    )


def _suspect(pair: LayerPair, finding: Finding, severity: float, sentence: str) -> Suspect:
    return Suspect(
        node=pair.node.name,
        op=pair.node.op,
        tensor=pair.weight,
        finding=finding,
        severity=severity,
        sentence=sentence,
    )
