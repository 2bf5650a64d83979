"""Faults of activations: integers that are read for other numbers than were meant, ranges that do not fit.

Without data: a reader of integers with another scale or zero point than their writer has (``codecs``); a scale
that the biases of its readers contradict (``bias_scales``); a Relu that was dropped although the integers reach
below zero.

With data, from what the *original* computes, so that no fault upstream shows again downstream:

* clipping: more than half of the samples have values outside the range, and what is lost there is more than all
  rounding would be with a range that holds everything;
* resolution: the range is never half used, and that by far more than the samples vary: the extremes of every
  sample stay so many standard deviations away, on a linear and on a logarithmic scale (activations are often
  log-normal).

Values that share scale and zero point share a range, and are looked at together.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.core.intervals import wilson
from quantcli.core.tensor_sums import RangeSums
from quantcli.evaluate.bias_scales import BiasScale, changed_activations, changed_weights, judged
from quantcli.evaluate.codecs import Codec, Codecs
from quantcli.evaluate.quantized_weights import constant_value
from quantcli.evaluate.tensor_matching import Match, logical_name
from quantcli.evaluate.tensor_run import Measured
from quantcli.graph.view import GraphView
from quantcli.report.schema import Finding, Suspect

OFTEN = 0.5
"""Share of samples that a range chosen from other samples does not clip; chance alone gives one in their number.
"""

SOMETIMES = 0.1
"""The same where the loss is large: what the share is at least, by Wilson's interval."""

LOSS = 6.0
"""Error over that of a range that holds everything, from which clipping is no trade; good models reach 5."""

LARGE_LOSS = 12.0

HALF_USED = 0.55
"""Use of a range below which its scale is twice what is needed, with a tenth for other samples.

A range that a dozen samples half use is well used by hundreds, so values below it are looked at again in all
samples."""

_MANY = 100
"""Samples below which nothing is said of a wide range: the first dozens of a data set may be of one kind."""

_FAR = (3.0, 2.5)
"""Standard deviations between their extremes and the end of the range, and between the logarithms of both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeUse:
    """How well a range fits.

    Attributes:
        clipping: Share of samples with values outside.
        clipping_low: Lower end of its interval.
        loss: Error over that of a range that holds everything.
        used: Observed length over the range's.
        far: Standard deviations of free room, linear.
        far_log: The same of logarithms.
        samples: How many there were.
    """

    clipping: float
    clipping_low: float
    loss: float
    used: float
    far: float
    far_log: float
    samples: int

    @property
    def wasted(self) -> bool:
        """Whether half of the range is never needed."""
        far, far_log = _FAR
        return self.samples >= _MANY and self.used < HALF_USED and self.far > far and self.far_log > far_log


def range_use(codec: Codec, sums: Sequence[RangeSums]) -> RangeUse | None:
    """Use of one range by all values that share it; None where nothing was measured."""
    sums = [item for item in sums if item.count and item.lows]
    if not sums:
        return None
    count = min(len(item.lows) for item in sums)
    lows = np.min([item.lows[:count] for item in sums], axis=0)
    highs = np.max([item.highs[:count] for item in sums], axis=0)
    low, high = min(float(lows.min()), 0.0), max(float(highs.max()), 0.0)
    span = codec.high - codec.low
    whole = (high - low) / (codec.levels[1] - codec.levels[0])
    losses = [item.error_energy / item.count / (whole**2 / 12) for item in sums] if whole > 0 else [0.0]
    above = float(np.mean(highs > codec.high + codec.scale / 2))
    below = float(np.mean(lows < codec.low - codec.scale / 2))
    rooms = [
        _room(values, end) for values, end in ((highs, codec.high), (-lows, -codec.low)) if end > codec.scale / 2
    ]
    return RangeUse(
        clipping=max(above, below),
        clipping_low=wilson(max(above, below) * count, count)[0],
        loss=max(losses),
        used=max(0.0, min(high, codec.high) - max(low, codec.low)) / span,
        far=min((room[0] for room in rooms), default=0.0),
        far_log=min((room[1] for room in rooms), default=0.0),
        samples=count,
    )


def _room(values: np.ndarray, end: float) -> tuple[float, float]:
    """Distance of ``end`` from the samples' extremes in their standard deviations, linear and logarithmic."""
    if len(values) < 2:
        return 0.0, 0.0
    linear = (end - float(values.mean())) / (float(values.std(ddof=1)) + 1e-3 * end)
    logs = np.log(np.maximum(values, 1e-9 * end))
    return linear, (math.log(end) - float(logs.mean())) / (float(logs.std(ddof=1)) + 0.02)


def wasted(measured: Sequence[Measured]) -> list[Measured]:
    """Values whose range seems to be half used, to be looked at over more samples."""
    found: list[Measured] = []
    for codec, members in _by_codec(measured).items():
        use = range_use(codec, [item.range for item in members])
        if use is not None and use.used < HALF_USED:
            found += members
    return found


def _by_codec(measured: Sequence[Measured]) -> dict[Codec, list[Measured]]:
    """Values that share scale and zero point."""
    groups: dict[Codec, list[Measured]] = {}
    for item in measured:
        if item.match.codec is not None and item.total is not None:
            groups.setdefault(item.match.codec, []).append(item)
    return groups


def find_range_faults(measured: Sequence[Measured]) -> Iterator[Suspect]:
    """Ranges that clip or waste, one suspect for each range: the first value that shows it."""
    for codec, members in _by_codec(measured).items():
        for item in members:  # clipping shows in each value by itself
            use = range_use(codec, [item.range])
            if use is not None and (
                (use.clipping > OFTEN and use.loss > LOSS)
                or (use.clipping_low > SOMETIMES and use.loss > LARGE_LOSS)
            ):
                share = item.range.clipped / item.range.count
                yield activation_suspect(
                    item.match,
                    "clipping",
                    1 + math.log2(use.loss / LOSS) / 2 if use.loss > LOSS else 1.0,
                    f"its range [{codec.low:.3g}, {codec.high:.3g}] clips {100 * share:.2g} % of the values, in "
                    f"{100 * use.clipping:.0f} % of the samples; the error is {use.loss:.3g} times that of a "
                    "range that holds them all: check its scale",
                )
                break
        else:
            use = range_use(codec, [item.range for item in members])
            if use is not None and use.wasted:
                yield activation_suspect(
                    members[0].match,
                    "resolution",
                    1 + 0.5 * (HALF_USED - use.used),
                    f"only {100 * use.used:.0f} % of its range [{codec.low:.3g}, {codec.high:.3g}] is ever used: "
                    "its scale is too large by that",
                )


def find_bias_faults(
    quantized: GraphView, codecs: Codecs, matches: Mapping[str, Match], accused: Collection[str]
) -> Iterator[Suspect]:
    """Scales that biases contradict, no data needed; ``accused`` nodes have a wrong weight."""

    def own(layer: BiasScale) -> Match | None:
        return matches.get(logical_name(layer.node.outputs[0]))

    layers = judged(quantized, codecs)
    for layer in changed_weights(layers):
        match, channel = own(layer), layer.broken[0]
        if match is None or {layer.node.name, match.node} & set(accused):
            continue
        factor = 1 / float(layer.ratios[channel])
        yield activation_suspect(
            match,
            "scale",
            1 + abs(math.log2(factor)),
            f"the scale of channel {channel} of its weight is {factor:.3g} times that for which its bias was made",
        )
    for layer in changed_activations(layers):
        match = own(layer)
        if layer.ratio is None or {layer.node.name, match.node if match is not None else ""} & set(accused):
            continue
        match = matches.get(logical_name(layer.integers)) or _holding(layer.integers, quantized, matches)
        if match is None:
            continue
        yield activation_suspect(
            match,
            "scale" if layer.ratio > 1 else "resolution",
            1 + abs(math.log2(layer.ratio)),
            f"its scale is {1 / layer.ratio:.3g} times that for which the bias of '{layer.node.name}' was made",
        )


def find_codec_faults(
    original: GraphView, quantized: GraphView, codecs: Codecs, matches: Mapping[str, Match]
) -> Iterator[Suspect]:
    """Faults in how integers are read, no data needed."""
    for item in codecs.disagreements():
        match = matches.get(logical_name(item.value)) or _holding(item.value, quantized, matches)
        if match is None or not match.node:
            continue
        zero = item.read.zero_point - item.written.zero_point
        factor = item.read.scale / item.written.scale
        if zero:
            what = f"with the zero point {item.read.zero_point} and not {item.written.zero_point}"
        else:
            what = f"with a scale {factor:.3g} times that of their writer"
        yield activation_suspect(
            match,
            "zero_point" if zero else "scale",
            2 + 4 * abs(math.log2(factor)) + abs(zero),
            f"'{item.reader.name}' reads its integers {what}",
        )
    for match in matches.values():
        bound = _lower_bound(original, match)
        if bound is None or match.codec is None or match.node in quantized.node_by_name:
            continue
        below = (bound - match.codec.low) / match.codec.scale
        if below > 0.5:
            yield activation_suspect(
                match,
                "zero_point",
                1 + below,
                f"{match.op} was left to the range of the integers, but they reach {below:.2g} steps below "
                f"{bound:.3g}: check the zero point",
            )


def _holding(value: str, quantized: GraphView, matches: Mapping[str, Match]) -> Match | None:
    """The match that is read from the integers ``value``."""
    for match in matches.values():
        maker = quantized.producer(match.read)
        if match.read == value or (maker is not None and value in maker.inputs):
            return match
    return None


def _lower_bound(view: GraphView, match: Match) -> float | None:
    """What Relu and Clip let nothing below of."""
    if match.op == "Relu":
        return 0.0
    if match.op != "Clip":
        return None
    node = view.node_by_name[match.node]
    low = constant_value(view, node.input(1)) if node.input(1) else node.attributes.get("min")
    return None if low is None else float(np.asarray(low).reshape(-1)[0])


def activation_suspect(match: Match, finding: Finding, severity: float, sentence: str) -> Suspect:
    """A suspect whose fault shows in a value."""
    return Suspect(
        node=match.node or match.name,
        op=match.op,
        tensor=match.name,
        finding=finding,
        severity=severity,
        sentence=sentence,
    )
