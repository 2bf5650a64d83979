"""The figures of a report that another report can be held against, by metric and output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quantcli.core.two_estimates import Estimate
from quantcli.evaluate.gate_syntax import Gate
from quantcli.evaluate.gates import evaluate_gates
from quantcli.evaluate.metric_table import METRICS, Better, Metric, Needs
from quantcli.report.schema import Report, TaskMetric


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value.

    Attributes:
        metric: A key of ``METRICS``, or the name of a task metric.
        output: The output that it belongs to; None for the whole model.
        value: Of the quantized model; may be infinite or NaN.
        estimate: The value with its interval; None where it has none.
        paired: The value with the noise of its change against the original only, where that was measured: that is
            all the noise there is between two models that saw the same samples beside the same original.
        higher_is_better: Which way is better.
        of_samples: Whether it depends on the samples that were run.
    """

    metric: str
    output: str | None
    value: float
    estimate: Estimate | None
    paired: Estimate | None = None
    higher_is_better: bool
    of_samples: bool


Figures = Mapping[tuple[str, str | None], Figure]


def figures(report: Report) -> Figures:
    """Everything that ``report`` has measured, in the order of the table, metrics of tasks last."""
    return {(figure.metric, figure.output): figure for figure in _all(report)}


def _all(report: Report) -> Iterator[Figure]:
    for row in METRICS.values():
        names: tuple[str | None, ...] = (None,)
        if row.per_output:
            names = tuple(out.name for out in report.outputs)
        for name in names:
            found = _of_row(row, name, report)
            if found is not None:
                yield found
    for metric in task_metrics(report):
        if metric.name not in METRICS:
            yield _of_task(metric)


def task_metrics(report: Report) -> tuple[TaskMetric, ...]:
    """Metrics of tasks, accuracy by more than one class among them."""
    return (*report.metrics, *(() if report.accuracy is None else report.accuracy.topk))


def _of_row(row: Metric, output: str | None, report: Report) -> Figure | None:
    """The metric's value as gates see it; None where it was not measured."""
    higher = row.better is Better.HIGHER
    gate = Gate(expression=row.name, metric=row.name, output=output, op=">=" if higher else "<=", limit=0.0)
    (result,) = evaluate_gates((gate,), report)
    if result.value is None:
        return None
    return Figure(
        metric=row.name,
        output=output,
        value=result.value,
        estimate=_estimate(result.value, result.low, result.high),
        paired=_paired(row.name, report),
        higher_is_better=higher,
        of_samples=row.needs is not Needs.MODELS,
    )


def _of_task(metric: TaskMetric) -> Figure:
    return Figure(
        metric=metric.name,
        output=None,
        value=metric.quantized,
        estimate=_estimate(metric.quantized, metric.quantized_low, metric.quantized_high),
        paired=_of_change(metric),
        higher_is_better=metric.better == "higher",
        of_samples=True,
    )


def _paired(name: str, report: Report) -> Estimate | None:
    """A metric of the table with the noise of its change, where that was measured."""
    if name == "accuracy" and report.accuracy is not None:
        found = report.accuracy
        return _moved(found.quantized.value, found.drop, found.drop_low, found.drop_high, higher=True)
    return next((_of_change(metric) for metric in task_metrics(report) if metric.name == name), None)


def _of_change(metric: TaskMetric) -> Estimate | None:
    return _moved(
        metric.quantized, metric.drop, metric.drop_low, metric.drop_high, higher=metric.better == "higher"
    )


def _moved(value: float, drop: float, low: float | None, high: float | None, *, higher: bool) -> Estimate | None:
    """``value`` with the noise of ``drop``, which is a change for the worse."""
    if low is None or high is None:
        return None
    worse, better = high - drop, drop - low
    if higher:
        return Estimate(value=value, low=value - worse, high=value + better)
    return Estimate(value=value, low=value - better, high=value + worse)


def _estimate(value: float, low: float | None, high: float | None) -> Estimate | None:
    if low is None or high is None:
        return None
    return Estimate(value=value, low=low, high=high)
