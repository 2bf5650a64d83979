"""The page of an analysis: which layers cost how much fidelity, why, and what to leave in float."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from quantcli.report import format as fmt
from quantcli.report import tables as cell
from quantcli.report.analysis import Analysis
from quantcli.report.html import svg
from quantcli.report.html.figure import Figure, colours, finite
from quantcli.report.html.page import Card, Page, Section
from quantcli.report.html.render import render_page
from quantcli.report.tables import Cell, Column, Table, table

_BARS = 30
_PARTS = ("activations", "weights")


def render_analysis_html(analysis: Analysis) -> str:
    """The analysis as the text of an HTML file."""
    return render_page(analysis_page(analysis))


def analysis_page(analysis: Analysis) -> Page:
    """Ranked layers, the exclude block, and how to reproduce both."""
    name = fmt.name(analysis.model.name)
    first = analysis.layers[0] if analysis.layers else None
    headline = "no layer makes any error"
    if first is not None:
        headline = f"{fmt.name(first.node)} ({fmt.name(first.op)}) makes {100 * first.share:.3g} % of the noise: "
        headline += f"{fmt.name(first.cause)}; {fmt.name(first.evidence, 300)}"
    sections = (
        Section(
            key="ranking",
            title="Where the noise comes from",
            figures=tuple(_noise(analysis)),
            text="Noise adds up over layers. Each bar is the share that goes away when one layer stays in float.",
        ),
        Section(
            key="exclude",
            title="What to leave in float",
            figures=tuple(_steps(analysis)),
            code=_block(analysis),
            tables=(_exclude(analysis),),
        ),
        Section(key="layers", title="Layers", tables=(_layers(analysis),)),
    )
    return Page(
        title=f"Analysis: {name}",
        kind="Analysis",
        subject=(("model", name), ("outputs", ", ".join(fmt.name(item, 40) for item in analysis.outputs[:8]))),
        status="info",
        word=fmt.decibel(analysis.sqnr),
        headline=headline,
        warning=fmt.SYNTHETIC if analysis.data.synthetic else "",
        cards=tuple(_cards(analysis)),
        sections=tuple(section for section in sections if section.figures or any(t.rows for t in section.tables)),
        facts=tuple(_facts(analysis)),
        notes=tuple(fmt.name(note, 500) for note in analysis.notes),
    )


def _cards(analysis: Analysis) -> Iterator[Card]:
    yield Card(
        label="SQNR, everything quantized", value=fmt.decibel(analysis.sqnr), detail="worst output, measured"
    )
    yield Card(label="Predicted", value=fmt.decibel(analysis.sqnr_predicted), detail="from the sum of the parts")
    if analysis.checks is not None:
        yield Card(
            label="Prediction off by", value=fmt.decibel(analysis.checks), detail="at most, against real runs"
        )
    yield Card(label="Layers", value=str(len(analysis.layers)), detail=_half(analysis))


def _half(analysis: Analysis) -> str:
    """How few layers make half of the noise."""
    total = 0.0
    for count, item in enumerate(analysis.layers, 1):
        total += item.share
        if total >= 0.5:
            return f"{count} of them {'makes' if count == 1 else 'make'} half of the noise"
    return ""


def _noise(analysis: Analysis) -> Iterator[Figure]:
    rows: list[dict[str, Any]] = []
    for place, item in enumerate(analysis.layers[:_BARS]):
        label = f"{place + 1}. {fmt.name(item.node, 46)}"
        both = item.activation_noise + item.weight_noise
        for part, noise in zip(_PARTS, (item.activation_noise, item.weight_noise), strict=True):
            share = 100 * item.share * (noise / both if both > 0 else 0.5)
            told = (
                f"{fmt.name(item.node)} ({fmt.name(item.op)}): {100 * item.share:.3g} % of the noise, {item.cause}"
            )
            if finite(share) is not None:
                rows.append({"layer": label, "part": part, "v": share, "told": told})
    if not rows:
        return
    specification = {
        "width": 760,
        "height": {"step": 20},
        "data": {"values": rows},
        "mark": {"type": "bar", "cornerRadius": 2, "height": 13},
        "encoding": {
            "y": {"field": "layer", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 300}},
            "x": {"field": "v", "type": "quantitative", "title": "share of the noise (%)", "stack": "zero"},
            "color": {"field": "part", "type": "nominal", "sort": list(_PARTS),
                      **colours(_PARTS, (svg.QUANTIZED, svg.ACCENT))},
            "description": {"field": "told", "type": "nominal"},
        },
    }  # fmt: skip
    yield Figure(
        title="Most sensitive layers",
        caption=f"The {min(_BARS, len(analysis.layers))} layers with the largest share, by what makes it.",
        markup=svg.draw_lite(specification, "Share of the noise by layer"),
        size="wide",
    )


def _steps(analysis: Analysis) -> Iterator[Figure]:
    kinds = ("predicted", "measured")
    rows: list[dict[str, Any]] = [{"n": 0, "kind": kinds[1], "v": analysis.sqnr, "told": "nothing left out"}]
    rows.append({"n": 0, "kind": kinds[0], "v": analysis.sqnr_predicted, "told": "nothing left out"})
    for place, item in enumerate(analysis.exclude, 1):
        for kind, value in zip(kinds, (item.predicted, item.measured), strict=True):
            told = f"{place}. {fmt.name(item.selector)}: {kind} {fmt.decibel(value)}"
            rows.append({"n": place, "kind": kind, "v": value, "told": told})
    rows = [row for row in rows if finite(row["v"]) is not None]
    if not analysis.exclude or not rows:
        return
    x = {"field": "n", "type": "quantitative", "title": "layers left in float", "axis": {"tickMinStep": 1}}
    y = {"field": "v", "type": "quantitative", "title": "SQNR (dB)", "scale": {"zero": False}}
    paint = colours(kinds, (svg.ORIGINAL, svg.QUANTIZED))
    colour = {"field": "kind", "type": "nominal", "sort": list(kinds), **paint}
    specification = {
        "width": 760,
        "height": 200,
        "data": {"values": rows},
        "layer": [
            {
                "mark": {"type": "line", "strokeWidth": 2, "aria": False},
                "encoding": {"x": x, "y": y, "color": colour},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                "encoding": {"x": x, "y": y, "color": colour, "description": {"field": "told", "type": "nominal"}},
            },
        ],
    }  # fmt: skip
    yield Figure(
        title="What leaving out gains",
        caption="SQNR of the worst output with the first lines of the block, predicted and measured.",
        markup=svg.draw_lite(specification, "SQNR by number of layers left in float"),
        size="wide",
    )


def _block(analysis: Analysis) -> str:
    """The options for a shell; names are quoted, and control characters in them never reach it."""
    words = [f"--exclude {shlex.quote(fmt.name(item.selector, 10_000))}" for item in analysis.exclude]
    return " \\\n".join(words)


def _exclude(analysis: Analysis) -> Table:
    return table(
        "exclude",
        "Exclude block",
        ["--exclude|", "Predicted", "Measured", "Time", "Bytes"],
        [
            [
                cell.name(item.selector, 120),
                cell.decibel(item.predicted),
                cell.decibel(item.measured),
                _milliseconds(item.cost_ms),
                Cell(text=fmt.size(item.cost_bytes), value=item.cost_bytes),
            ]
            for item in analysis.exclude
        ],
        "Lines add up, in order; time and bytes are what each line costs alone.",
    )


def _layers(analysis: Analysis) -> Table:
    return table(
        "layers",
        "Layers",
        [
            "Node|",
            "Operator|",
            Column(label="#", hint="position in the graph"),
            Column(label="Share", hint="of the whole noise"),
            Column(label="Gain", hint="of SQNR when only this layer stays in float"),
            Column(label="SQNR", hint="with only this layer quantized"),
            "Activations",
            "Weights",
            "Cause|",
            "Evidence|",
            "Remedy|",
            "Time",
            "Bytes",
        ],
        [
            [
                cell.name(item.node, 120),
                cell.name(item.op),
                cell.count(item.position),
                cell.percent(item.share),
                cell.decibel(item.gain),
                cell.decibel(item.sqnr),
                cell.number(item.activation_noise, 3),
                cell.number(item.weight_noise, 3),
                cell.name(item.cause),
                cell.name(item.evidence, 300),
                cell.name(item.remedy, 300),
                _milliseconds(item.cost_ms),
                Cell(text=fmt.size(item.cost_bytes), value=item.cost_bytes),
            ]
            for item in analysis.layers
        ],
    )


def _milliseconds(value: float | None) -> Cell:
    return Cell(text=fmt.MISSING if value is None else f"{value:+.3g} ms", value=value)


def _facts(analysis: Analysis) -> Iterator[tuple[str, str]]:
    if analysis.command is not None:
        yield "Command", fmt.name(analysis.command, 2000)
    stamp = " (SYNTHETIC)" if analysis.data.synthetic else ""
    yield "Samples", f"{fmt.name(analysis.data.name)}, {fmt.plural(analysis.data.samples, 'sample')}{stamp}"
    yield "Model, sha256", f"{fmt.name(analysis.model.sha256)} ({fmt.name(analysis.model.name)})"
    yield "Threads", str(analysis.threads)
    if analysis.tools:
        yield "Versions", ", ".join(f"{fmt.name(t)} {fmt.name(v)}" for t, v in sorted(analysis.tools.items()))
