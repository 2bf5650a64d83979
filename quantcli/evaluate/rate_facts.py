"""Proportions as the report states them."""

from __future__ import annotations

from quantcli.core.intervals import CONFIDENCE
from quantcli.core.rates import PairedSums, RateSums
from quantcli.evaluate.scoring import Better
from quantcli.report.schema import Rate, TaskMetric


def rate(sums: RateSums) -> Rate | None:
    """The report's form of a proportion; None without trials."""
    value, interval = sums.rate, sums.interval()
    if value is None or interval is None:
        return None
    return Rate(
        value=value,
        low=interval[0],
        high=interval[1],
        confidence=CONFIDENCE,
        samples=sums.samples,
        trials=sums.trials,
        effective_trials=sums.effective_trials,
    )


def paired_metric(name: str, sentence: str, sums: PairedSums, better: Better = "higher") -> TaskMetric | None:
    """A proportion of both models on the same trials, as a metric; None without trials."""
    original, quantized, drop, bounds = rate(sums.first), rate(sums.second), sums.drop, sums.interval()
    if original is None or quantized is None or drop is None or bounds is None:
        return None
    low, high = bounds if better == "higher" else (-bounds[1], -bounds[0])
    return TaskMetric(
        name=name,
        sentence=sentence,
        better=better,
        samples=sums.first.samples,
        original=original.value,
        original_low=original.low,
        original_high=original.high,
        quantized=quantized.value,
        quantized_low=quantized.low,
        quantized_high=quantized.high,
        drop=drop if better == "higher" else 0.0 - drop,
        drop_low=low,
        drop_high=high,
        confidence=CONFIDENCE,
        interval="paired",
    )
