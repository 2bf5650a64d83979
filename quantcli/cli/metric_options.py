"""Options that say what to measure of the outputs: ranges, top-k, tasks, metrics of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from quantcli.cli.command import option
from quantcli.cli.options import Decorator, stacked

if TYPE_CHECKING:
    from quantcli.pipeline.types import MetricRequest

METRICS = "Metrics"
METRIC_NAMES = ("output_range", "top_k", "task", "metric")
"""Parameters of ``metric_options``."""


def metric_options() -> Decorator:
    """What to measure of the outputs."""
    return stacked(
        option(
            "--output-range",
            multiple=True,
            metavar="[OUTPUT=]LENGTH|LOW:HIGH",
            section=METRICS,
            help="Range of an output's values, such as 255 or 0:1, for PSNR. Repeatable.",
        ),
        option(
            "--top-k",
            type=click.IntRange(min=2),
            multiple=True,
            metavar="K",
            section=METRICS,
            help="Agreement, and with labels accuracy, of the K best classes. Repeatable.  [default: 5 where "
            "there are more than 10 classes]",
        ),
        option(
            "--task",
            multiple=True,
            metavar="NAME?OPT=VAL&...",
            section=METRICS,
            help="A task with its truth: 'segmentation?truth=maps.npy' for mIoU, "
            "'detection?truth=boxes.npy&boxes=xyxy' for mean average precision. Options: quantcli explain "
            "task:detection. Repeatable.",
        ),
        option(
            "--metric",
            multiple=True,
            metavar="[NAME=]FILE.py:FUNCTION",
            section=METRICS,
            help="A metric of your own, or MODULE:FUNCTION: a function of a sample's outputs that returns a "
            "number, or a class with update(outputs) and result(). Runs that code. Repeatable.",
        ),
    )


def metric_request(shared: Mapping[str, Any]) -> MetricRequest:
    """The request's metrics from the values of ``metric_options``."""
    from quantcli.pipeline.types import MetricRequest

    return MetricRequest(
        ranges=shared["output_range"],
        top_k=shared["top_k"],
        tasks=shared["task"],
        functions=shared["metric"],
    )
