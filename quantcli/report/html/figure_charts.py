"""Specifications of the charts of figures: sizes, times, memory, metrics and attribution."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from quantcli.report import format as fmt
from quantcli.report.html import svg
from quantcli.report.html.charts import Figure, colours, finite
from quantcli.report.schema import LayerWeightError, Report, StructureFacts

_OUTPUTS_SHOWN = 12
_METRICS_SHOWN = 12
_TILES = 80
_MODELS = ("original", "quantized")
_BY_MODEL = colours(_MODELS, (svg.ORIGINAL, svg.QUANTIZED))


def sizes(report: Report) -> Figure:
    """Bytes of both files by type of what they store."""
    facts = report.structure
    rows = [
        *_stored("original", report.original.bytes, None if facts is None else facts.original),
        *_stored("quantized", report.quantized.bytes, None if facts is None else facts.quantized),
    ]
    kinds = [kind for kind in ("float", "integer", "other") if any(row["kind"] == kind for row in rows)]
    paint = {"float": svg.ORIGINAL, "integer": svg.QUANTIZED, "other": svg.FAINT}
    specification = {
        "width": 440,
        "height": 84,
        "data": {"values": rows},
        "mark": {"type": "bar", "height": 26, "cornerRadius": 2},
        "encoding": {
            "y": {"field": "model", "type": "nominal", "title": None, "sort": None},
            "x": {
                "field": "mega", "type": "quantitative", "title": "MB", "stack": "zero", "axis": {"tickCount": 5},
            },
            "color": {"field": "kind", "type": "nominal", "sort": kinds,
                      **colours(kinds, [paint[kind] for kind in kinds])},
            "order": {"field": "rank"},
            "description": {"field": "told", "type": "nominal"},
        },
    }  # fmt: skip
    return Figure(
        title="Size",
        caption=f"{fmt.size(report.original.bytes)} → {fmt.size(report.quantized.bytes)}: stored values by type; "
        "the rest is the graph.",
        markup=svg.draw_lite(specification, "Size of both files by type of stored values"),
    )


def _stored(model: str, total: int, facts: StructureFacts | None) -> Iterable[dict[str, Any]]:
    left = total
    for item in () if facts is None else facts.initializers:
        kind = "float" if "float" in item.dtype else "integer"
        left -= item.bytes
        told = f"{model}: {fmt.plural(item.tensors, 'tensor')} of {fmt.name(item.dtype)}, {fmt.size(item.bytes)}"
        rank = 0 if kind == "float" else 1
        yield {"model": model, "kind": kind, "rank": rank, "mega": item.bytes / 1e6, "told": told}
    if left > 0:
        told = f"{model}: graph and the rest, {fmt.size(left)}"
        yield {"model": model, "kind": "other", "rank": 2, "mega": left / 1e6, "told": told}


def weight_map(report: Report) -> Figure | None:
    """Quantized weights as tiles: area by number of weights, suspects marked.

    The SQNR of a weight is no colour here: it is low in every model whose channels were balanced.
    """
    layers = () if report.weights is None else report.weights.layers
    if len(layers) < 2:
        return None
    ranked = sorted(layers, key=lambda item: (-item.elements, item.node))
    rows: list[dict[str, Any]] = [{"id": "all", "parent": None}]
    guilty = set() if report.tensors is None else {item.node for item in report.tensors.suspects}
    rows += [_tile(f"w{place}", item, item.node in guilty) for place, item in enumerate(ranked[:_TILES])]
    rest = ranked[_TILES:]
    if rest:
        total = sum(item.elements for item in rest)
        told = f"{len(rest)} smaller layers, {total} weights"
        rows.append(
            {"id": "rest", "parent": "all", "size": total, "fill": svg.FAINT, "name": "others", "told": told}
        )
    width, height = 1060, 240
    specification = {
        "width": width,
        "height": height,
        "padding": 0,
        "autosize": "none",
        "data": [
            {
                "name": "tree",
                "values": rows,
                "transform": [
                    {"type": "stratify", "key": "id", "parentKey": "parent"},
                    {
                        "type": "treemap", "field": "size", "sort": {"field": "value", "order": "descending"},
                        "round": True, "method": "squarify", "paddingInner": 2, "size": [width, height],
                    },
                ],
            },
            {"name": "tiles", "source": "tree", "transform": [{"type": "filter", "expr": "datum.parent != null"}]},
        ],
        "marks": [
            {
                "type": "rect",
                "from": {"data": "tiles"},
                "encode": {
                    "enter": {
                        "x": {"field": "x0"}, "y": {"field": "y0"}, "x2": {"field": "x1"}, "y2": {"field": "y1"},
                        "fill": {"field": "fill"}, "cornerRadius": {"value": 2},
                        "description": {"field": "told"},
                    }
                },
            },
            {
                "type": "text",
                "from": {"data": "tiles"},
                "encode": {
                    "enter": {
                        "x": {"signal": "datum.x0 + 7"}, "y": {"signal": "datum.y0 + 7"},
                        "align": {"value": "left"}, "baseline": {"value": "top"},
                        "fill": {"value": svg.PAPER}, "fontSize": {"value": 12},
                        "text": {"field": "name"}, "limit": {"signal": "0.8 * (datum.x1 - datum.x0 - 14)"},
                        "opacity": {"signal": "datum.x1 - datum.x0 > 56 && datum.y1 - datum.y0 > 24 ? 1 : 0"},
                    }
                },
            },
        ],
    }  # fmt: skip
    return Figure(
        title="Where the weights are",
        caption="Area: number of quantized weights; layers to look at are red.",
        markup=svg.draw_vega(specification, "Quantized weights by layer"),
        size="wide",
    )


def _tile(key: str, item: LayerWeightError, guilty: bool) -> dict[str, Any]:
    fill = svg.BAD if guilty else svg.QUANTIZED
    told = f"{fmt.name(item.node)} ({fmt.name(item.op)}): {item.elements} weights, {fmt.decibel(item.sqnr)}"
    return {
        "id": key, "parent": "all", "size": item.elements, "fill": fill, "name": _short(item.node), "told": told,
    }  # fmt: skip


def _short(node: str) -> str:
    """The end of a path-like name: what tells layers apart."""
    return fmt.name("/".join([part for part in node.split("/") if part][-2:]) or node, 28)


def latency(report: Report) -> list[Figure]:
    """Median times, and the ratio with its interval beside 1."""
    if report.latency is None:
        return []
    lat = report.latency
    times = _two_bars(lat.original_ms, lat.quantized_ms, "ms", lambda value: f"{value:.3g} ms")
    tone = svg.GOOD if lat.high < 1 else svg.BAD if lat.low > 1 else svg.WARN
    top = max(1.15, lat.high * 1.05)
    told = f"{lat.ratio:.3f} ×, {100 * lat.confidence:.3g} % interval {lat.low:.3f} to {lat.high:.3f}"
    row = {
        "low": lat.low,
        "ratio": lat.ratio,
        "high": lat.high,
        "one": 1,
        "told": told,
        "words": f"{lat.ratio:.3f} ×",
    }
    scale = {"domain": [0, top], "nice": False}

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
    ratio = {"width": 500, "height": 84, "data": {"values": [row]}, "layer": layers}
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
            markup=svg.draw_lite(ratio, f"Ratio of times: {told}"),
        ),
    ]


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


def _two_bars(original: float, quantized: float, unit: str, words: Any) -> dict[str, Any]:
    """One bar for each model, with its figure behind it."""
    rows = [
        {"model": model, "value": value, "words": words(value), "told": f"{model}: {words(value)}"}
        for model, value in zip(_MODELS, (original, quantized), strict=True)
    ]
    y = {"field": "model", "type": "nominal", "title": None, "sort": None}
    x = {
        "field": "value", "type": "quantitative", "title": unit, "axis": {"tickCount": 5},
        "scale": {"domain": [0, 1.18 * max(original, quantized)], "nice": False},
    }  # fmt: skip
    colour = {"field": "model", "type": "nominal", "legend": None, **_BY_MODEL}
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
            for model, (value, low, high) in zip(_MODELS, pair, strict=True):
                told = f"{fmt.name(name)}, {model}: {fmt.number(value)} ({fmt.interval(low, high)})"
                a, b = value if low is None else low, value if high is None else high
                rows.append(
                    {"metric": fmt.name(name, 40), "model": model, "v": value, "a": a, "b": b, "told": told}
                )
    if not rows:
        return None
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    y = {"field": "metric", "type": "nominal", "title": None, "sort": metrics, "scale": {"padding": 0.35}}
    offset = {"field": "model", "type": "nominal", "sort": list(_MODELS)}
    x = {"type": "quantitative", "title": None, "scale": {"zero": False}, "axis": {"grid": True, "tickCount": 6}}
    colour = {"field": "model", "type": "nominal", "sort": list(_MODELS), **_BY_MODEL}
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


def _pair(item: Any) -> list[tuple[float, float | None, float | None]]:
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
