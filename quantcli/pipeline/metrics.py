"""Metrics of a comparison, from the options of the command line."""

from __future__ import annotations

from pathlib import Path

from quantcli.errors import UsageError
from quantcli.evaluate.metric_options import MetricOptions, parse_range
from quantcli.evaluate.task_spec import parse_task
from quantcli.evaluate.user_metric import load_metric
from quantcli.pipeline.types import DataOptions, MetricRequest


def open_metrics(request: MetricRequest, data: DataOptions) -> MetricOptions:
    """What to measure; loads the user's code, but reads no truth.

    Raises:
        UsageError: G107 or G108, an option does not parse; U105, there is a truth, and the samples are shuffled.
        DataError: D103, D109 or G110, a metric does not load.
    """
    ranges: dict[str | None, float] = {}
    for text in request.ranges:
        name, length = parse_range(text)
        if name in ranges:
            raise UsageError(
                "G108", f"the range of {'all outputs' if name is None else repr(name)} is given twice"
            )
        ranges[name] = length
    tasks = tuple(parse_task(text) for text in request.tasks)
    if tasks and data.shuffle:
        raise UsageError(
            "U105", "the truth of a task is in order, but the samples are shuffled", hint="leave --shuffle out"
        )
    return MetricOptions(
        ranges=ranges,
        top_k=request.top_k,
        tasks=tasks,
        functions=tuple(load_metric(text) for text in request.functions),
        limited=data.samples is not None,
    )


def truth_files(request: MetricRequest) -> tuple[Path, ...]:
    """Files that tasks read, which no report may overwrite.

    Raises:
        UsageError: G107.
    """
    return tuple(parse_task(text).truth for text in request.tasks)
