"""The page of a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from quantcli.report import format as fmt
from quantcli.report.file_tables import file_tables
from quantcli.report.html import cost_charts, error_charts, quality_charts, size_charts
from quantcli.report.html.figure import Figure
from quantcli.report.html.layers import layer_table
from quantcli.report.html.page import Card, Page, Section
from quantcli.report.inside_tables import inside_tables, suspect_table
from quantcli.report.output_tables import gate_table, output_tables
from quantcli.report.schema import OutputFidelity, Report
from quantcli.report.tables import Table

_WORDS = {"pass": "Pass", "fail": "Fail", "undecided": "Undecided", "no-gates": "No gates"}


def comparison_page(report: Report) -> Page:
    """Everything of the report, in the order in which a reader asks for it."""
    status = report.verdict.status
    models = f"{fmt.name(report.original.name)} → {fmt.name(report.quantized.name)}"
    return Page(
        title=f"{_WORDS[status]}: {models}",
        kind="Comparison",
        subject=(("original", fmt.name(report.original.name)), ("quantized", fmt.name(report.quantized.name))),
        status=status,
        word=_WORDS[status],
        headline=fmt.name(fmt.headline(report), 600),
        detail=fmt.name(fmt.tally(report), 300),
        warning=fmt.SYNTHETIC if report.synthetic else "",
        cards=tuple(_cards(report)),
        sections=tuple(section for section in _sections(report) if not section.empty),
        facts=tuple(_facts(report)),
        notes=tuple(fmt.name(note, 500) for note in report.notes),
    )


def _cards(report: Report) -> Iterator[Card]:
    sizes = f"{fmt.size(report.original.bytes)} → {fmt.size(report.quantized.bytes)}"
    yield Card(label="Size", value=f"{report.size.ratio:.3f} ×", detail=sizes)
    worst = _worst(report.outputs)
    if worst is not None:
        which = (
            fmt.name(worst.name, 40) if len(report.outputs) == 1 else f"worst output: {fmt.name(worst.name, 30)}"
        )
        yield Card(label="SQNR", value=fmt.decibel(worst.sqnr), detail=which)
    if report.accuracy is not None:
        acc = report.accuracy
        both = f"{fmt.percent(acc.original.value)} → {fmt.percent(acc.quantized.value)}"
        yield Card(label="Accuracy", value=fmt.points(-acc.drop), detail=both)
    elif worst is not None and worst.top1 is not None:
        rate = worst.top1
        yield Card(
            label="Top-1 agreement",
            value=fmt.percent(rate.value),
            detail=f"{100 * rate.low:.2f} … {100 * rate.high:.2f} %",
        )
    for item in report.metrics[:2]:
        loss = f"loss {fmt.number(item.drop, 3)}"
        if item.drop_low is not None:
            loss += f", {fmt.interval(item.drop_low, item.drop_high, 3)}"
        yield Card(label=fmt.name(item.name, 30), value=fmt.number(item.quantized), detail=loss)
    if report.latency is not None:
        lat = report.latency
        yield Card(
            label="Time",
            value=f"{lat.ratio:.3f} ×",
            detail=f"{lat.original_ms:.3g} ms → {lat.quantized_ms:.3g} ms",
            tone="good" if lat.high < 1 else "bad" if lat.low > 1 else "",
        )
    if report.memory is not None:
        mem = report.memory
        peaks = f"{fmt.size(mem.original_bytes)} → {fmt.size(mem.quantized_bytes)}"
        yield Card(label="Peak memory", value=f"{mem.ratio:.3f} ×", detail=peaks)
    if report.structure is not None:
        facts = report.structure.quantized
        total = facts.compute_quantized + facts.compute_weight_only + facts.compute_float
        yield Card(
            label="Compute in integers",
            value=f"{facts.compute_quantized} of {total}",
            detail=f"{fmt.plural(facts.compute_float, 'node')} in float",
        )


def _worst(outputs: Iterable[OutputFidelity]) -> OutputFidelity | None:
    measured = [out for out in outputs if out.sqnr is not None]
    return min(measured, key=lambda out: math.inf if out.sqnr is None else out.sqnr, default=None)


def _sections(report: Report) -> Iterator[Section]:
    tables = {item.key: item for item in (*output_tables(report), *inside_tables(report), *file_tables(report))}

    def chosen(*keys: str) -> tuple[Table, ...]:
        return tuple(tables[key] for key in keys if key in tables)

    yield Section(key="gates", title="Gates", tables=(gate_table(report), *chosen("baseline")))
    yield Section(
        key="error",
        title="Where the error is",
        text=_error_text(report),
        figures=(*_some(error_charts.error_along_graph(report)), *error_charts.histograms(report)),
        tables=(suspect_table(report),),
    )
    yield Section(
        key="outputs",
        title="Outputs",
        figures=_some(quality_charts.metric_intervals(report), quality_charts.attribution(report)),
        tables=chosen("outputs", "accuracy", "metrics", "classes", "topk", "attribution", "fusion"),
    )
    yield Section(
        key="cost",
        title="Size, time and memory",
        figures=_some(
            size_charts.sizes(report),
            cost_charts.memory(report),
            *cost_charts.latency(report),
            size_charts.weight_map(report),
        ),
        tables=chosen("time"),
    )
    yield Section(key="layers", title="Layers", tables=(layer_table(report),), text=_layer_text(report))
    yield Section(
        key="graph",
        title="Graph and kernels",
        tables=chosen(
            "coverage",
            "reasons",
            "kernels",
            "float-kernels",
            "unfused",
            "left-in-float",
            "operators",
            "initializers",
        ),
    )
    yield Section(
        key="processors",
        title="Processors without VNNI",
        text=_saturation_text(report),
        tables=chosen("saturation", "emulated"),
    )


def _some(*figures: Figure | None) -> tuple[Figure, ...]:
    return tuple(figure for figure in figures if figure is not None)


def _error_text(report: Report) -> str:
    found = report.tensors
    if found is None:
        return ""
    parts = [f"{found.matched} of {found.activations} activations were found in both models"]
    parts[0] += f", over {fmt.plural(found.samples, 'sample')}"
    if found.notes:
        parts[0] += f" ({'; '.join(fmt.name(note, 200) for note in found.notes)})"
    if found.first_divergence is not None:
        parts.append(f"The models part first at {fmt.name(found.first_divergence)}")
    if not found.suspects:
        parts.append("No layer makes more error than quantization explains")
    return ". ".join(parts) + "."


def _layer_text(report: Report) -> str:
    found = report.weights
    if found is None:
        return ""
    text = f"{found.matched} of {found.weights} weights are quantized, {found.kept_float} stay in float"
    return f"{text}, {found.not_found} were not found." if found.not_found else f"{text}."


def _saturation_text(report: Report) -> str:
    """What to say where no layer can saturate; else the table says it."""
    if report.saturation is None or report.saturation.risks:
        return ""
    layers = fmt.plural(report.saturation.layers, "layer")
    return f"Of {layers} with 8-bit operands none can saturate: the weights prove it. Results are the same there."


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    if report.command is not None:
        yield "Command", fmt.name(report.command, 2000)
    if report.data is not None:
        data = report.data
        stamp = " (SYNTHETIC)" if data.synthetic else ""
        yield "Samples", f"{fmt.name(data.name)}, {fmt.plural(data.samples, 'sample')}{stamp}"
        for note in data.notes:
            yield "Samples", fmt.name(note, 400)
        if data.fingerprint is not None:
            yield "Samples, digest", fmt.name(data.fingerprint)
    for label, facts in (("Original", report.original), ("Quantized", report.quantized)):
        yield (
            f"{label}, sha256",
            f"{fmt.name(facts.sha256)} ({fmt.name(facts.name)}, opset {facts.opset}, IR {facts.ir_version})",
        )
    if report.threads is not None:
        yield "Threads", str(report.threads)
    if report.tools:
        yield "Versions", ", ".join(f"{fmt.name(t)} {fmt.name(v)}" for t, v in sorted(report.tools.items()))
