"""The facts of a report in one line each, for a screen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from quantcli.report import format as fmt
from quantcli.report.schema import OutputFidelity, Report

_METRICS_SHOWN = 3


def screen_facts(report: Report, outputs: int | None) -> Iterable[tuple[str, str]]:
    """(Label, text) of each line; at most so many outputs, the worst ones."""
    yield from _files(report)
    yield from _outputs(report, outputs)
    yield from _inside(report)
    yield from _tasks(report, None if outputs is None else _METRICS_SHOWN)
    if report.latency is not None:
        yield "latency", fmt.latency(report.latency)
    if report.memory is not None:
        yield "memory", fmt.memory(report.memory)
    if report.baseline is not None:
        same = {True: "the same samples", False: "other samples", None: "samples not known"}
        yield "baseline", f"{fmt.name(report.baseline.name)}, {same[report.baseline.same_data]}"
        for note in report.baseline.notes[:outputs]:
            yield "", fmt.name(note, 300)
    if report.data is not None:
        stamp = ", SYNTHETIC" if report.synthetic else ""
        yield "data", f"{fmt.name(report.data.name)}, {fmt.plural(report.data.samples, 'sample')}{stamp}"
        for note in report.data.notes[:outputs]:
            yield "", fmt.name(note, 300)


def _files(report: Report) -> Iterator[tuple[str, str]]:
    size = report.size
    text = f"{fmt.size(report.original.bytes)} → {fmt.size(report.quantized.bytes)} ({size.ratio:.3f} ×)"
    yield "size", text if size.gzip_ratio is None else f"{text}, gzip {size.gzip_ratio:.3f} ×"
    if report.structure is not None:
        yield "structure", structure_line(report)
    if report.coverage is not None:
        yield "coverage", _coverage_line(report)
    if report.kernels is not None:
        counts = ", ".join(f"{item.count} {fmt.name(item.op)}" for item in report.kernels.integer[:6]) or "none"
        left = fmt.plural(len(report.kernels.unfused), "quantized node")
        yield "kernels", f"{counts}; {left} not fused"
        if report.kernels.note:
            yield "", report.kernels.note
    if report.weights is not None and report.weights.layers:
        worst = report.weights.layers[0]
        matched = f"{report.weights.matched} of {report.weights.weights} matched"
        yield "weights", f"{matched}, worst {fmt.decibel(worst.sqnr)} ({fmt.name(worst.node, 40)})"


def _outputs(report: Report, limit: int | None) -> Iterator[tuple[str, str]]:
    shown = list(report.outputs)
    if limit is not None and len(shown) > limit:
        shown = sorted(shown, key=lambda out: math.inf if out.sqnr is None else out.sqnr)[:limit]
    for out in shown:
        yield "output", _output_line(out)
    if len(shown) < len(report.outputs):
        yield "", f"… and {len(report.outputs) - len(shown)} better outputs (-v shows them)"


def _output_line(out: OutputFidelity) -> str:
    parts = [
        f"SQNR {fmt.decibel(out.sqnr)}",
        f"cosine {fmt.cosine(out.cosine)}",
        f"max abs {fmt.number(out.max_abs, 3)}",
    ]
    if out.psnr is not None:
        parts.append(f"PSNR {fmt.decibel(out.psnr)}")
    if out.top1 is not None:
        parts.append(f"top-1 agreement {fmt.rate(out.top1)}")
    if out.nonfinite_differ:
        parts.append(f"{fmt.plural(out.nonfinite_differ, 'non-finite value')} differ")
    if out.shape_mismatches:
        parts.append(f"{fmt.plural(out.shape_mismatches, 'sample')} of another shape")
    return f"{fmt.name(out.name, 40)}: {', '.join(parts)}"


def _inside(report: Report) -> Iterator[tuple[str, str]]:
    found = report.tensors
    if found is not None:
        first = (
            "" if found.first_divergence is None else f"; diverges first at {fmt.name(found.first_divergence, 40)}"
        )
        yield "tensors", f"{found.matched} of {found.activations} matched{first}"
    if report.attribution:
        worst = min(report.attribution, key=lambda item: math.inf if item.both is None else item.both)
        shares = f"weights {fmt.decibel(worst.weights_only)}, activations {fmt.decibel(worst.activations_only)}"
        yield "error of", f"{shares}, both {fmt.decibel(worst.both)} ({fmt.name(worst.output, 40)})"
    if report.fusion:
        most = max(report.fusion, key=lambda item: item.steps)
        word = ", more than rounding alone" if most.flagged else ""
        yield (
            "fusion",
            f"the runtime's optimizations change {fmt.name(most.output, 40)} by {most.steps:.3g} steps{word}",
        )
    if report.saturation is not None:
        facts = report.saturation
        text = f"{facts.safe} of {facts.layers} layers proven safe from saturation"
        if facts.outputs:
            low = min(facts.outputs, key=lambda item: math.inf if item.sqnr is None else item.sqnr)
            exact = fmt.decibel(low.sqnr_exact)
            text += f"; {fmt.name(low.output, 40)} has {fmt.decibel(low.sqnr)} there instead of {exact}"
        yield "no VNNI", text


def _tasks(report: Report, limit: int | None) -> Iterator[tuple[str, str]]:
    if report.accuracy is not None:
        acc = report.accuracy
        both = f"{fmt.rate(acc.original)} → {fmt.rate(acc.quantized)}"
        yield "accuracy", f"{both}, change {fmt.accuracy_change(acc)}"
    for item in report.metrics[:limit]:
        yield "metric", f"{fmt.name(item.name, 40)} {fmt.metric(item)}"
    if limit is not None and len(report.metrics) > limit:
        yield "", f"… and {len(report.metrics) - limit} more metrics (-v shows them)"


def structure_line(report: Report) -> str:
    """How many compute nodes of the quantized model are quantized."""
    assert report.structure is not None
    facts = report.structure.quantized
    total = facts.compute_quantized + facts.compute_weight_only + facts.compute_float
    parts = [f"{facts.compute_quantized} of {total} compute nodes quantized"]
    if facts.compute_weight_only:
        parts.append(f"{facts.compute_weight_only} weight only")
    parts.append(f"{facts.compute_float} in float")
    parts.append(f"{facts.quantize_nodes} Q, {facts.dequantize_nodes} DQ")
    return ", ".join(parts)


def _coverage_line(report: Report) -> str:
    assert report.coverage is not None
    facts = report.coverage
    text = f"{facts.quantized} nodes quantized, {facts.passthrough} passed through, {facts.float} in float"
    if facts.narrow:
        text = f"{facts.narrow} nodes in a narrower float type, {facts.float} as they were"
    top = ", ".join(f"{reason.nodes} × {fmt.name(reason.code)}" for reason in facts.reasons[:3])
    return f"{text} ({top})" if top else text
