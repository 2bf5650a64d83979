"""Charts of what a run costs: time and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantcli.report import format as fmt
from quantcli.report.html import svg
from quantcli.report.html.figure import MODELS, Figure, by_model
from quantcli.report.schema import Latency, Report


def latency(report: Report) -> list[Figure]:
    """Median times, and the ratio with its interval beside 1."""
    if report.latency is None:
        return []
    lat = report.latency
    times = _two_bars(lat.original_ms, lat.quantized_ms, "ms", lambda value: f"{value:.3g} ms")
    told = f"{lat.ratio:.3f} ×, {100 * lat.confidence:.3g} % interval {lat.low:.3f} to {lat.high:.3f}"
    threads = fmt.plural(lat.threads, "thread")
    return [
        Figure(
            title="Median time of one run",
            caption=f"{threads}, {lat.pairs} pairs of {lat.runs} runs in turns after {lat.warmup} to warm up, "
            f"onnxruntime {fmt.name(lat.runtime)}",
            markup=svg.draw_lite(times, "Median time of both models"),
        ),
        Figure(
            title="Ratio of times",
            caption=f"Median over pairs with its {100 * lat.confidence:.3g} % interval; left of the line the "
            "quantized model is faster.",
            markup=svg.draw_lite(_ratio(lat, told), f"Ratio of times: {told}"),
        ),
    ]


def _ratio(lat: Latency, told: str) -> dict[str, Any]:
    """A point with its interval, on an axis from 0 on which 1 is marked."""
    tone = svg.GOOD if lat.high < 1 else svg.BAD if lat.low > 1 else svg.WARN
    row = {
        "low": lat.low,
        "ratio": lat.ratio,
        "high": lat.high,
        "one": 1,
        "told": told,
        "words": f"{lat.ratio:.3f} ×",
    }
    scale = {"domain": [0, max(1.15, lat.high * 1.05)], "nice": False}

    def at(field: str) -> dict[str, Any]:
        return {"field": field, "type": "quantitative", "title": "quantized / original", "scale": scale}

    shown = {"description": {"field": "told", "type": "nominal"}}
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "rule", "color": svg.MUTED, "strokeDash": [3, 3]}, "encoding": {"x": at("one")}},
        {
            "mark": {
                "type": "text",
                "text": "equally fast",
                "color": svg.MUTED,
                "align": "right",
                "dx": -6,
                "y": 8,
            },
            "encoding": {"x": at("one")},
        },
        {
            "mark": {"type": "bar", "color": tone, "height": 12, "opacity": 0.3, "cornerRadius": 3, "y": 42},
            "encoding": {"x": at("low"), "x2": {"field": "high"}, **shown},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 120, "color": tone, "opacity": 1, "y": 42},
            "encoding": {"x": at("ratio"), **shown},
        },
        {
            "mark": {"type": "text", "dy": 22, "fontWeight": "bold", "y": 42},
            "encoding": {"x": at("ratio"), "text": {"field": "words"}},
        },
    ]
    return {"width": 500, "height": 84, "data": {"values": [row]}, "layer": layers}


def memory(report: Report) -> Figure | None:
    """Peak memory of both models."""
    if report.memory is None:
        return None
    mem = report.memory
    bars = _two_bars(mem.original_bytes / 1e6, mem.quantized_bytes / 1e6, "MB", lambda v: fmt.size(round(v * 1e6)))
    base = {
        "data": {"values": [{}]},
        "mark": {"type": "rule", "color": svg.MUTED, "strokeDash": [3, 3]},
        "encoding": {"x": {"datum": mem.baseline_bytes / 1e6, "type": "quantitative"}},
    }
    return Figure(
        title="Peak memory",
        caption=f"Each model in a process of its own; {fmt.size(mem.baseline_bytes)} (the line) are needed "
        "without a model.",
        markup=svg.draw_lite({**bars, "layer": [*bars["layer"], base]}, "Peak memory of both models"),
    )


def _two_bars(original: float, quantized: float, unit: str, words: Callable[[float], str]) -> dict[str, Any]:
    """One bar for each model, with its figure behind it."""
    rows = [
        {"model": model, "value": value, "words": words(value), "told": f"{model}: {words(value)}"}
        for model, value in zip(MODELS, (original, quantized), strict=True)
    ]
    y = {"field": "model", "type": "nominal", "title": None, "sort": None}
    x = {
        "field": "value", "type": "quantitative", "title": unit, "axis": {"tickCount": 5},
        "scale": {"domain": [0, 1.18 * max(original, quantized)], "nice": False},
    }  # fmt: skip
    colour = {"field": "model", "type": "nominal", "legend": None, **by_model()}
    return {
        "width": 440,
        "height": 84,
        "data": {"values": rows},
        "layer": [
            {
                "mark": {"type": "bar", "height": 26, "cornerRadius": 2},
                "encoding": {
                    "y": y, "x": x, "color": colour, "description": {"field": "told", "type": "nominal"},
                },
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 6, "color": svg.INK},
                "encoding": {"y": y, "x": x, "text": {"field": "words"}},
            },
        ],
    }  # fmt: skip
