"""Values that gates are held against, as far as they are proportions or metrics of tasks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from quantcli.core.intervals import normal_quantile, proportion_trials_to_decide
from quantcli.evaluate.metric_names import top_k
from quantcli.report.schema import OutputFidelity, Rate, Report, TaskMetric


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A value that a gate can be held against.

    Attributes:
        value: None where it was not measured.
        low: Lower bound of its interval, None without one.
        high: Upper bound.
        output: Where it belongs to an output.
        missing: Why there is no value.
        skippable: The metric has no meaning for this output, so others decide.
        count: What decides an undecided gate: "samples" or "pairs", and how many there were.
        decide: Number of those that would exclude a limit.
        note: Where the value was found, or what it consists of.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    output: str | None = None
    missing: str = ""
    skippable: bool = False
    count: tuple[int, str] = (0, "samples")
    decide: Callable[[float], int | None] | None = None
    note: str = ""


def of_rate(rate: Rate, output: str | None) -> Measured:
    """A proportion with its interval."""

    def decide(limit: float) -> int | None:
        trials = proportion_trials_to_decide(rate.value, limit, rate.confidence)
        return None if trials is None else samples_for(trials, rate.samples, rate.effective_trials)

    return Measured(
        value=rate.value,
        low=rate.low,
        high=rate.high,
        output=output,
        count=(rate.samples, "samples"),
        decide=decide,
    )


def samples_for(trials: int, samples: int, effective: float) -> int:
    """Samples that hold so many effective trials, at as many per sample as were found."""
    return math.ceil(trials * samples / effective - 1e-9)


def of_interval(
    value: float, low: float | None, high: float | None, count: int, unit: str = "samples"
) -> Measured:
    """A value whose interval shrinks with the root of the number of samples (or pairs).

    The interval of a drop of nothing is that of an event that was never seen, D·z²/(n + z²) by Wilson, and shrinks
    faster.
    """

    def decide(limit: float) -> int | None:
        distance = abs(value - limit)
        if distance == 0 or low is None or high is None:
            return None
        half = value - low if limit < value else high - value
        if value == 0 and low == -high:
            square = normal_quantile() ** 2
            return max(count + 1, math.floor((count + square) * half / distance - square) + 1)
        return max(count + 1, math.ceil(count * (half / distance) ** 2))

    return Measured(value=value, low=low, high=high, count=(count, unit), decide=decide)


def of_top_k(metric: str, out: OutputFidelity) -> Measured:
    """Top-k agreement of an output."""
    wanted = top_k(metric)
    for found in out.topk:
        if found.k == wanted:
            return of_rate(found.agreement, out.name)
    return Measured(
        value=None, output=out.name, missing=f"it has no {wanted} classes to choose from", skippable=True
    )


def of_task(metric: str, report: Report) -> Measured:
    """A task metric of the quantized model, or its drop; top-k accuracy is one, too."""
    base = metric.removesuffix("_drop")
    known = (*report.metrics, *(report.accuracy.topk if report.accuracy is not None else ()))
    for found in known:
        if found.name == base:
            return _of_metric(found, drop=metric != base)
    missing = "there are no real samples with labels" if top_k(metric) is not None else "it was not asked for"
    if top_k(metric) is not None and report.accuracy is not None:
        missing = f"the output has no {top_k(metric)} classes to choose from"
    return Measured(value=None, missing=missing)


def _of_metric(found: TaskMetric, *, drop: bool) -> Measured:
    if drop:
        return of_interval(found.drop, found.drop_low, found.drop_high, found.samples)
    return of_interval(found.quantized, found.quantized_low, found.quantized_high, found.samples)
