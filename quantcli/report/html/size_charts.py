"""Charts of sizes: both files by type of what they store, and quantized weights by layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from quantcli.report import format as fmt
from quantcli.report.html import svg
from quantcli.report.html.figure import Figure, colours
from quantcli.report.schema import LayerWeightError, Report, StructureFacts

_TILES = 80
_WIDTH, _HEIGHT = 1060, 240


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
    return Figure(
        title="Where the weights are",
        caption="Area: number of quantized weights; layers to look at are red.",
        markup=svg.draw_vega(_tree_map(rows), "Quantized weights by layer"),
        size="wide",
    )


def _tree_map(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A tree map in Vega's grammar, squarified (Bruls, Huizing, van Wijk 2000), with names where they fit."""
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
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
                        "round": True, "method": "squarify", "paddingInner": 2, "size": [_WIDTH, _HEIGHT],
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


def _tile(key: str, item: LayerWeightError, guilty: bool) -> dict[str, Any]:
    fill = svg.BAD if guilty else svg.QUANTIZED
    told = f"{fmt.name(item.node)} ({fmt.name(item.op)}): {item.elements} weights, {fmt.decibel(item.sqnr)}"
    return {
        "id": key, "parent": "all", "size": item.elements, "fill": fill, "name": _short(item.node), "told": told,
    }  # fmt: skip


def _short(node: str) -> str:
    """The end of a path-like name: what tells layers apart."""
    return fmt.name("/".join([part for part in node.split("/") if part][-2:]) or node, 28)
