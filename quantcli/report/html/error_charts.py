"""Charts of where the error is. Names are texts in data, never parts of an expression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from quantcli.report import format as fmt
from quantcli.report.html import svg
from quantcli.report.html.figure import Figure, colours, finite
from quantcli.report.inside_tables import worst_first
from quantcli.report.schema import Report, TensorComparison, TensorError

HISTOGRAMS_SHOWN = 9
"""Histograms on a page."""

_BINS = 64
_DOTS = 1500
_LOWEST, _HIGHEST = -20.0, 80.0
"""SQNR in dB at which what is beyond is drawn: noise of ten times the signal, and better than 13 bits."""

_KINDS = ("accumulated", "own error", "suspect")


def error_along_graph(report: Report) -> Figure | None:
    """Accumulated and own SQNR by position, suspects marked."""
    found = report.tensors
    rows = [] if found is None else _points(found)
    if found is None or not rows:
        return None
    x = {"field": "p", "type": "quantitative", "title": "position in the graph", "scale": {"nice": False}}
    y = {"field": "y", "type": "quantitative", "title": "SQNR (dB)", "scale": {"zero": False}}
    colour = {
        "field": "kind",
        "type": "nominal",
        **colours(_KINDS, (svg.QUANTIZED, svg.ORIGINAL, svg.BAD)),
    }

    def points(kind: str, size: int, opacity: float) -> dict[str, Any]:
        return {
            "transform": [{"filter": {"field": "kind", "equal": kind}}],
            "mark": {"type": "point", "filled": True, "size": size, "opacity": opacity},
            "encoding": {"x": x, "y": y, "color": colour, "description": {"field": "told", "type": "nominal"}},
        }

    layers: list[dict[str, Any]] = [
        {
            "transform": [{"filter": {"field": "kind", "equal": _KINDS[0]}}],
            "mark": {"type": "line", "strokeWidth": 2, "interpolate": "monotone", "aria": False},
            "encoding": {"x": x, "y": y, "color": colour},
        },
        points(_KINDS[1], 26, 0.75),
        points(_KINDS[0], 14, 1.0),
        points(_KINDS[2], 110, 1.0),
    ]
    layers += _divergence(found.first_divergence, found.tensors)
    specification = {"width": 1020, "height": 300, "data": {"values": rows}, "layer": layers}
    caption = (
        "The line is the error that has come together up to each tensor; dots are the error that each layer makes "
        f"itself. Higher is better; {_HIGHEST:g} dB and more are drawn at {_HIGHEST:g}. A dot far below its "
        "neighbours is a layer to look at."
    )
    markup = svg.draw_lite(specification, "SQNR of tensors along the graph")
    return Figure(title="Error along the graph", caption=caption, markup=markup, size="wide")


def _points(found: TensorComparison) -> list[dict[str, Any]]:
    """One row for each mark, in the order of the graph; of very many tensors only the worst."""
    suspected = _suspected(found)
    rows: list[dict[str, Any]] = []
    for item in worst_first(found.tensors)[:_DOTS]:
        marked = item.name in suspected
        told = f"{fmt.name(item.node or item.name)} ({fmt.name(item.op)}), position {item.position}: accumulated "
        told += f"{fmt.decibel(item.sqnr)}, own {fmt.decibel(item.local_sqnr)}"
        own, total = _drawable(item.local_sqnr), _drawable(item.sqnr)
        if own is not None:
            rows.append({"p": item.position, "y": own, "kind": _KINDS[2 if marked else 1], "told": told})
        if total is not None:
            rows.append({"p": item.position, "y": total, "kind": _KINDS[0], "told": told})
            if marked and own is None:
                rows.append({"p": item.position, "y": total, "kind": _KINDS[2], "told": told})
    return sorted(rows, key=lambda row: (row["p"], row["kind"]))


def _suspected(found: TensorComparison) -> set[str]:
    """Tensors where suspects show; for those that show in a weight, the results of their node."""
    known = {item.name for item in found.tensors}
    nodes = {item.node for item in found.suspects if item.tensor not in known}
    return {item.tensor for item in found.suspects} | {item.name for item in found.tensors if item.node in nodes}


def _drawable(value: float | None) -> float | None:
    """An SQNR within the limits of the chart."""
    if value is None or math.isnan(value):
        return None
    return min(_HIGHEST, max(_LOWEST, value))


def _divergence(name: str | None, tensors: Sequence[TensorError]) -> list[dict[str, Any]]:
    """A line where the models part."""
    position = next((item.position for item in tensors if item.name == name), None)
    if position is None:
        return []
    here = {"x": {"datum": position, "type": "quantitative"}}
    once: dict[str, Any] = {"values": [{}]}
    text = {"type": "text", "align": "left", "dx": 5, "y": 8, "color": svg.MUTED, "text": "first divergence"}
    rule = {"type": "rule", "strokeDash": [3, 3], "color": svg.MUTED, "aria": False}
    return [{"data": once, "mark": rule, "encoding": here}, {"data": once, "mark": text, "encoding": here}]


def histograms(report: Report) -> list[Figure]:
    """Values of the worst tensors, with the range that the integers stand for."""
    found = report.tensors
    if found is None:
        return []
    suspected = _suspected(found)
    ranked = sorted(worst_first(found.tensors), key=lambda item: item.name not in suspected)
    usable = [item for item in ranked if item.histogram is not None and sum(item.histogram.counts) > 0]
    figures = [_histogram(item) for item in usable[:HISTOGRAMS_SHOWN]]
    return [figure for figure in figures if figure is not None]


def _histogram(item: TensorError) -> Figure | None:
    assert item.histogram is not None
    start, end = finite(item.histogram.low), finite(item.histogram.high)
    if start is None or end is None or end <= start:
        return None
    low, high = finite(item.low), finite(item.high)
    rows = _bins(item.histogram.counts, start, end, low, high)
    span = [min(start, end if low is None else low), max(end, start if high is None else high)]
    x = {
        "field": "a",
        "type": "quantitative",
        "title": None,
        "bin": "binned",
        "scale": {"domain": span, "nice": False, "zero": False},
        "axis": {"tickCount": 4},
    }
    y = {"field": "n", "type": "quantitative", "title": None, "scale": {"type": "sqrt"}, "axis": None}
    colour = {
        "field": "kind",
        "type": "nominal",
        "legend": None,
        **colours(("kept", "clipped"), (svg.QUANTIZED, svg.BAD)),
    }
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "bar", "binSpacing": 0.6, "minBandSize": 0.5},
            "encoding": {
                "x": x, "x2": {"field": "b"}, "y": y, "color": colour,
                "description": {"field": "told", "type": "nominal"},
            },
        }
    ]  # fmt: skip
    for edge in (low, high):
        if edge is not None:
            rule = {"type": "rule", "color": svg.INK, "strokeWidth": 1.5, "strokeDash": [4, 3], "aria": False}
            here = {"x": {"datum": edge, "type": "quantitative"}}
            layers.append({"data": {"values": [{}]}, "mark": rule, "encoding": here})
    specification = {"width": 300, "height": 110, "data": {"values": rows}, "layer": layers}
    parts = [f"own {fmt.decibel(item.local_sqnr)}", f"accumulated {fmt.decibel(item.sqnr)}"]
    if low is not None and high is not None:
        parts.append(f"range {fmt.number(low, 3)} … {fmt.number(high, 3)}")
    if item.clipped is not None:
        parts.append(f"clipped {fmt.percent(item.clipped)}")
    if item.range_used is not None:
        parts.append(f"range used {fmt.percent(item.range_used)}")
    name = fmt.name(item.name, 60)
    markup = svg.draw_lite(specification, f"Histogram of {name}")
    return Figure(title=name, caption=" · ".join(parts), markup=markup, size="tile")


def _bins(
    counts: Sequence[int], start: float, end: float, low: float | None, high: float | None
) -> list[dict[str, Any]]:
    """Bars of a histogram, at most ``_BINS``; those whose middle is outside of [low, high] are clipped."""
    group = -(-len(counts) // _BINS)
    width = (end - start) / len(counts)
    rows = []
    for first in range(0, len(counts), group):
        left = start + first * width
        right = min(end, left + group * width)
        middle = (left + right) / 2
        outside = (low is not None and middle < low) or (high is not None and middle > high)
        number = sum(counts[first : first + group])
        told = f"{fmt.number(left)} to {fmt.number(right)}: {number}" + (", clipped" if outside else "")
        rows.append({"a": left, "b": right, "n": number, "kind": "clipped" if outside else "kept", "told": told})
    return rows
