"""Charts of quality: task metrics with their intervals, and whose error it is."""

from __future__ import annotations

import math
from typing import Any

from quantcli.report import format as fmt
from quantcli.report.html import svg
from quantcli.report.html.figure import MODELS, Figure, by_model, colours, finite
from quantcli.report.schema import Report, TaskMetric

_OUTPUTS_SHOWN = 12
_METRICS_SHOWN = 12


def metric_intervals(report: Report) -> Figure | None:
    """Metrics between 0 and 1 of both models, with their intervals."""
    rows: list[dict[str, Any]] = []
    named: list[tuple[str, list[tuple[float, float | None, float | None]]]] = []
    if report.accuracy is not None:
        both = (report.accuracy.original, report.accuracy.quantized)
        named.append(("accuracy", [(rate.value, rate.low, rate.high) for rate in both]))
        named += [(item.name, _pair(item)) for item in report.accuracy.topk]
    named += [(item.name, _pair(item)) for item in report.metrics]
    for name, pair in named[:_METRICS_SHOWN]:
        if all(0 <= value <= 1 for value, _, _ in pair):
            for model, (value, low, high) in zip(MODELS, pair, strict=True):
                told = f"{fmt.name(name)}, {model}: {fmt.number(value)} ({fmt.interval(low, high)})"
                a, b = value if low is None else low, value if high is None else high
                rows.append(
                    {"metric": fmt.name(name, 40), "model": model, "v": value, "a": a, "b": b, "told": told}
                )
    if not rows:
        return None
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    y = {"field": "metric", "type": "nominal", "title": None, "sort": metrics, "scale": {"padding": 0.35}}
    offset = {"field": "model", "type": "nominal", "sort": list(MODELS)}
    x = {"type": "quantitative", "title": None, "scale": {"zero": False}, "axis": {"grid": True, "tickCount": 6}}
    colour = {"field": "model", "type": "nominal", "sort": list(MODELS), **by_model()}
    specification = {
        "width": 440,
        "height": 44 * len(metrics),
        "data": {"values": rows},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.6, "aria": False},
                "encoding": {"y": y, "yOffset": offset, "x": {**x, "field": "a"}, "x2": {"field": "b"},
                             "color": colour},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {"y": y, "yOffset": offset, "x": {**x, "field": "v"}, "color": colour,
                             "description": {"field": "told", "type": "nominal"}},
            },
        ],
    }  # fmt: skip
    markup = svg.draw_lite(specification, "Task metrics of both models with their intervals")
    caption = "Both models on the same samples, with the interval of each."
    return Figure(title="Accuracy and task metrics", caption=caption, markup=markup)


def _pair(item: TaskMetric) -> list[tuple[float, float | None, float | None]]:
    return [
        (item.original, item.original_low, item.original_high),
        (item.quantized, item.quantized_low, item.quantized_high),
    ]


def attribution(report: Report) -> Figure | None:
    """SQNR with only weights, only activations, and both quantized."""
    parts = ("weights only", "activations only", "both")
    ranked = sorted(report.attribution, key=lambda item: math.inf if item.both is None else item.both)
    rows = [
        {
            "output": fmt.name(item.output, 40), "part": part, "v": value,
            "told": f"{fmt.name(item.output)}, {part}: {fmt.decibel(value)}",
        }
        for item in ranked[:_OUTPUTS_SHOWN]
        for part, value in zip(parts, (item.weights_only, item.activations_only, item.both), strict=True)
        if finite(value) is not None
    ]  # fmt: skip
    if not rows:
        return None
    specification = {
        "width": 440,
        "height": max(60, 54 * len({row["output"] for row in rows})),
        "data": {"values": rows},
        "mark": {"type": "bar", "cornerRadius": 2},
        "encoding": {
            "y": {"field": "output", "type": "nominal", "title": None, "sort": None},
            "yOffset": {"field": "part", "type": "nominal", "sort": list(parts)},
            "x": {"field": "v", "type": "quantitative", "title": "SQNR (dB)", "axis": {"tickCount": 6}},
            "color": {"field": "part", "type": "nominal", "sort": list(parts),
                      **colours(parts, (svg.ORIGINAL, svg.ACCENT, svg.QUANTIZED))},
            "description": {"field": "told", "type": "nominal"},
        },
    }  # fmt: skip
    caption = "Only one of them quantized: the shorter bar is the greater culprit."
    markup = svg.draw_lite(specification, "SQNR by what is quantized")
    return Figure(title="Whose error it is", caption=caption, markup=markup)
