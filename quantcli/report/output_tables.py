"""Tables of a report about outputs: gates, fidelity, accuracy and task metrics, latency and memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from quantcli.report import format as fmt
from quantcli.report import tables as cell
from quantcli.report.schema import ClassValue, Report, TaskMetric
from quantcli.report.tables import Cell, Table, table

GATE_TONES = {"pass": "good", "fail": "bad", "undecided": "warn", "not-measured": "bad"}
"""Colour of a gate by its status."""


def gate_table(report: Report) -> Table:
    """Each gate with its value, interval and margin."""
    rows = [
        [
            cell.name(gate.expression + (" (warn)" if gate.severity == "warn" else "")),
            cell.text(fmt.MARKS[gate.status], GATE_TONES[gate.status]),
            cell.number(gate.value),
            cell.interval(gate.low, gate.high),
            cell.number(gate.limit),
            cell.number(gate.margin),
            cell.name(gate.sentence, 400),
            cell.text(gate.origin),
        ]
        for gate in report.gates
    ]
    head = ["Gate|", "Result|", "Value", "Interval", "Limit", "Margin", "In words|", "Origin|"]
    return table("gates", "Gates", head, rows)


def output_tables(report: Report) -> Iterator[Table]:
    """What outputs, labels, metrics, clocks and memory say."""
    stamp = " (SYNTHETIC)" if report.synthetic else ""
    yield _outputs(report, stamp)
    yield _top_classes(report, stamp)
    yield _accuracy(report)
    metrics = (*(() if report.accuracy is None else report.accuracy.topk), *report.metrics)
    yield table(
        "metrics",
        f"Task metrics{stamp}",
        ["Metric|", "Original", "Interval", "Quantized", "Interval", "Loss", "Interval", "Samples", "Definition|"],
        [_metric(item) for item in metrics],
    )
    yield _classes(report)
    yield _time_and_memory(report)
    yield _baseline(report)


def _outputs(report: Report, stamp: str) -> Table:
    return table(
        "outputs",
        f"Outputs{stamp}",
        ["Output|", "SQNR", "Cosine", "Worst", "Global", "RMSE", "Max abs", "PSNR", "Non-finite", "Other shape",
         "Elements"],
        [
            [
                cell.name(out.name),
                cell.decibel(out.sqnr),
                cell.cosine(out.cosine),
                cell.cosine(out.cosine_min),
                cell.cosine(out.cosine_global),
                cell.number(out.rmse),
                cell.number(out.max_abs),
                cell.decibel(out.psnr),
                Cell(
                    text=str(out.nonfinite_differ),
                    value=out.nonfinite_differ,
                    tone="bad" if out.nonfinite_differ else "",
                ),
                Cell(
                    text=str(out.shape_mismatches),
                    value=out.shape_mismatches,
                    tone="bad" if out.shape_mismatches else "",
                ),
                cell.count(out.elements),
            ]
            for out in report.outputs
        ],
    )  # fmt: skip


def _top_classes(report: Report, stamp: str) -> Table:
    """Agreement of the best classes, for one and for more."""
    rows = []
    for out in report.outputs:
        rates = [] if out.top1 is None else [(1, out.top1)]
        for k, rate in [*rates, *((item.k, item.agreement) for item in out.topk)]:
            rows.append(
                [
                    cell.name(out.name),
                    cell.count(k),
                    cell.percent(rate.value),
                    cell.interval(100 * rate.low, 100 * rate.high),
                    cell.count(rate.trials),
                ]
            )
    head = ["Output|", "k", "Agreement", "Interval, %", "Decisions"]
    note = "How often the original's best class is among the k best of the quantized model."
    return table("topk", f"Top-k agreement{stamp}", head, rows, note)


def _accuracy(report: Report) -> Table:
    rows = []
    note = ""
    if report.accuracy is not None:
        acc = report.accuracy
        rows = [
            [
                cell.name(acc.output),
                Cell(text=fmt.rate(acc.original), value=acc.original.value),
                Cell(text=fmt.rate(acc.quantized), value=acc.quantized.value),
                Cell(text=fmt.accuracy_change(acc), value=-acc.drop),
                cell.count(acc.broken),
                cell.count(acc.fixed),
                cell.number(acc.p_value, 3),
            ]
        ]
        note = "Broken: right in the original, wrong in the quantized model. Fixed: the reverse."
        if acc.ignored:
            note += f" {fmt.plural(acc.ignored, 'label')} below zero left out."
    head = ["Output|", "Original", "Quantized", "Change", "Broken", "Fixed", "McNemar p"]
    return table("accuracy", "Accuracy (top-1)", head, rows, note)


def _metric(item: TaskMetric) -> list[Cell]:
    return [
        cell.name(item.name),
        cell.number(item.original),
        cell.interval(item.original_low, item.original_high),
        cell.number(item.quantized),
        cell.interval(item.quantized_low, item.quantized_high),
        cell.number(item.drop),
        cell.interval(item.drop_low, item.drop_high),
        cell.count(item.samples),
        cell.name(_definition(item), 200),
    ]


def _definition(item: TaskMetric) -> str:
    better = f"{item.better} is better"
    if item.interval == "none" or item.confidence is None:
        return f"{item.sentence}; {better}"
    return f"{item.sentence}; {better}; {item.interval} intervals, {100 * item.confidence:g} %"


def _classes(report: Report) -> Table:
    groups: list[tuple[str, str, tuple[ClassValue, ...]]] = []
    if report.accuracy is not None:
        groups.append(("accuracy", "higher", report.accuracy.classes))
    groups += [(item.name, item.better, item.classes) for item in report.metrics]
    ranked = [pair for group in groups for pair in _class_rows(*group)]
    ranked.sort(key=lambda pair: pair[0])
    head = ["Class|", "Metric|", "Samples", "Original", "Quantized", "Change"]
    title = "By class, largest change for the worse first"
    return table("classes", title, head, [row for _, row in ranked])


def _class_rows(
    metric: str, better: str, classes: Iterable[ClassValue]
) -> Iterator[tuple[tuple[bool, float], list[Cell]]]:
    """(Rank, row) of each class."""
    for item in classes:
        unknown = item.original is None or item.quantized is None
        change = None if item.original is None or item.quantized is None else item.quantized - item.original
        gain = 0.0 if change is None else change if better == "higher" else -change
        yield (
            (unknown, gain),
            [
                cell.name(item.label),
                cell.name(metric),
                cell.count(item.samples),
                cell.number(item.original),
                cell.number(item.quantized),
                cell.number(change),
            ],
        )


def _time_and_memory(report: Report) -> Table:
    rows = []
    if report.latency is not None:
        lat = report.latency
        threads = fmt.plural(lat.threads, "thread")
        rows.append(
            [
                cell.text(f"Latency, {threads}, {lat.pairs} pairs of {lat.runs}, warm-up {lat.warmup}"),
                Cell(text=f"{lat.original_ms:.3g} ms", value=lat.original_ms),
                Cell(text=f"{lat.quantized_ms:.3g} ms", value=lat.quantized_ms),
                Cell(text=f"{lat.ratio:.3f} ×", value=lat.ratio),
                Cell(text=f"{lat.low:.3f} … {lat.high:.3f} ({100 * lat.confidence:.3g} %)", value=lat.low),
            ]
        )
    if report.memory is not None:
        mem = report.memory
        rows.append(
            [
                cell.text(
                    f"Peak memory, each in its own process ({fmt.size(mem.baseline_bytes)} without a model)"
                ),
                Cell(text=fmt.size(mem.original_bytes), value=mem.original_bytes),
                Cell(text=fmt.size(mem.quantized_bytes), value=mem.quantized_bytes),
                Cell(text=f"{mem.ratio:.3f} ×", value=mem.ratio),
                cell.text(fmt.MISSING),
            ]
        )
    head = ["|", "Original", "Quantized", "Ratio", "Interval"]
    return table("time", "Time and memory", head, rows)


def _baseline(report: Report) -> Table:
    rows = []
    if report.baseline is not None:
        base = report.baseline
        same = {True: "yes", False: "no", None: "not known"}[base.same_data]
        rows = [
            [cell.text("report"), cell.name(base.name)],
            [cell.text("its quantized model"), cell.name(base.quantized_sha256)],
            [cell.text("same samples"), cell.text(same)],
            *([cell.text("note"), cell.name(note, 300)] for note in base.notes),
        ]
    return table("baseline", "Baseline", ["|", "|"], rows)
