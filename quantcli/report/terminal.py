"""The report on a terminal: one screen, tables with ``verbose``.

The console decides about colour and width (off a TTY and with NO_COLOR rich writes no escape codes). Texts
are ``rich.text.Text`` or plain cells with markup off, so that a name like "[red]" shows as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quantcli.report import format as fmt
from quantcli.report.schema import GateResult, OutputFidelity, Report

_STYLES = {
    "pass": "bold green",
    "fail": "bold red",
    "undecided": "bold yellow",
    "not-measured": "bold red",
    "no-gates": "bold",
}

_ASCII = str.maketrans({"→": "->", "…": "...", "×": "x", "–": "-", "−": "-", "√": "sqrt", "Σ": "sum"})

_GATES_SHOWN = 8
_OUTPUTS_SHOWN = 4


def render_terminal(report: Report, console: Console, *, verbose: bool = False) -> None:
    """Write the report to ``console``: about 20 lines, every table with ``verbose``."""
    screen = _Screen(console)
    screen.line((f"{fmt.name(report.original.name)} → {fmt.name(report.quantized.name)}", "bold"))
    if report.synthetic:
        screen.line((fmt.SYNTHETIC, "bold red reverse"))
    screen.line(
        (report.verdict.status.upper(), _STYLES[report.verdict.status]), (f"  {report.verdict.sentence}", "")
    )
    _gates(report.gates, screen, None if verbose else _GATES_SHOWN)
    for label, text in _facts(report, None if verbose else _OUTPUTS_SHOWN):
        screen.line((f"{label:<10}", "dim"), (text, ""))
    for note in report.notes:
        screen.line(("note      ", "dim"), (fmt.name(note, 300), ""))
    if verbose:
        for title, head, body in _tables(report):
            screen.table(title, head, body)


class _Screen:
    """Writes lines and tables, in ASCII where the console has nothing else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ascii = console.options.ascii_only

    def _plain(self, text: str) -> str:
        if not self._ascii:
            return text
        return text.translate(_ASCII).encode("ascii", "replace").decode()

    def line(self, *parts: tuple[str, str]) -> None:
        text = Text.assemble(*((self._plain(content), style) for content, style in parts))
        self._console.print(text, soft_wrap=True)

    def table(self, title: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
        if not body:
            return
        table = Table(box=None, pad_edge=False)
        for position, label in enumerate(head):
            table.add_column(
                Text(self._plain(label)), overflow="fold", justify="left" if position == 0 else "right"
            )
        for cells in body:
            table.add_row(*(Text(self._plain(cell)) for cell in cells))
        self._console.print()
        self.line((title, "bold"))
        self._console.print(table)


def _gates(gates: Sequence[GateResult], screen: _Screen, limit: int | None) -> None:
    """Gates that need attention first; those that passed are cut before others."""
    order = {"fail": 0, "not-measured": 1, "undecided": 2, "pass": 3}
    ranked = sorted(gates, key=lambda gate: order[gate.status])
    shown = ranked if limit is None else ranked[:limit]
    for gate in shown:
        mark = fmt.MARKS[gate.status] + (" (warn)" if gate.severity == "warn" else "")
        screen.line((f"  {mark:<12} ", _STYLES[gate.status]), (fmt.name(gate.sentence, 300), ""))
    if len(shown) < len(ranked):
        screen.line((f"  … and {len(ranked) - len(shown)} more gates (-v shows them)", "dim"))


def _facts(report: Report, outputs: int | None) -> Iterable[tuple[str, str]]:
    size = report.size
    text = f"{fmt.size(report.original.bytes)} → {fmt.size(report.quantized.bytes)} ({size.ratio:.3f} ×)"
    yield "size", text if size.gzip_ratio is None else f"{text}, gzip {size.gzip_ratio:.3f} ×"
    if report.structure is not None:
        yield "structure", _structure_line(report)
    if report.coverage is not None:
        yield "coverage", _coverage_line(report)
    if report.kernels is not None:
        counts = ", ".join(f"{item.count} {item.op}" for item in report.kernels.integer[:6]) or "none"
        yield "kernels", f"{counts}; {len(report.kernels.unfused)} quantized nodes not fused"
    if report.weights is not None and report.weights.layers:
        worst = report.weights.layers[0]
        matched = f"{report.weights.matched} of {report.weights.weights} matched"
        yield "weights", f"{matched}, worst {fmt.decibel(worst.sqnr)} ({fmt.name(worst.node, 40)})"
    for out in report.outputs[:outputs]:
        yield "output", _output_line(out)
    if outputs is not None and len(report.outputs) > outputs:
        yield "", f"… and {len(report.outputs) - outputs} more outputs (-v shows them)"
    if report.accuracy is not None:
        acc = report.accuracy
        both = f"{fmt.rate(acc.original)} → {fmt.rate(acc.quantized)}"
        yield "accuracy", f"{both}, change {fmt.accuracy_change(acc)}"
    if report.latency is not None:
        yield "latency", fmt.latency(report.latency)
    if report.data is not None:
        stamp = ", SYNTHETIC" if report.synthetic else ""
        yield "data", f"{fmt.name(report.data.name)}, {fmt.plural(report.data.samples, 'sample')}{stamp}"


def _structure_line(report: Report) -> str:
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
    top = ", ".join(f"{reason.nodes} × {reason.code}" for reason in facts.reasons[:3])
    return f"{text} ({top})" if top else text


def _output_line(out: OutputFidelity) -> str:
    parts = [
        f"SQNR {fmt.decibel(out.sqnr)}",
        f"cosine {fmt.cosine(out.cosine)}",
        f"max abs {fmt.number(out.max_abs, 3)}",
    ]
    if out.top1 is not None:
        parts.append(f"top-1 agreement {fmt.rate(out.top1)}")
    if out.nonfinite_differ:
        parts.append(f"{fmt.plural(out.nonfinite_differ, 'non-finite value')} differ")
    if out.shape_mismatches:
        parts.append(f"{fmt.plural(out.shape_mismatches, 'sample')} of another shape")
    return f"{fmt.name(out.name, 40)}: {', '.join(parts)}"


def _tables(report: Report) -> Iterable[tuple[str, Sequence[str], list[Sequence[str]]]]:
    yield (
        "Outputs" + (" (SYNTHETIC)" if report.synthetic else ""),
        ["output", "SQNR", "cosine", "worst", "global", "RMSE", "max abs", "elements"],
        [
            [
                fmt.name(out.name),
                fmt.decibel(out.sqnr),
                fmt.cosine(out.cosine),
                fmt.cosine(out.cosine_min),
                fmt.cosine(out.cosine_global),
                fmt.number(out.rmse),
                fmt.number(out.max_abs),
                str(out.elements),
            ]
            for out in report.outputs
        ],
    )
    if report.structure is not None:
        before = {item.op: item.count for item in report.structure.original.ops}
        after = {item.op: item.count for item in report.structure.quantized.ops}
        yield (
            "Operators",
            ["operator", "original", "quantized"],
            [[op, str(before.get(op, 0)), str(after.get(op, 0))] for op in sorted(before | after)],
        )
        left = report.structure.quantized.float_compute
        yield "Compute nodes left in float", ["node", "operator"], [[fmt.name(n.name), n.op] for n in left]
    if report.coverage is not None:
        yield (
            "Why nodes are in float",
            ["code", "nodes", "reason"],
            [[reason.code, str(reason.nodes), reason.sentence] for reason in report.coverage.reasons],
        )
    if report.kernels is not None:
        yield (
            "Quantized, but not fused",
            ["node", "operator", "code", "reason"],
            [[fmt.name(node.name), node.op, node.code, node.sentence] for node in report.kernels.unfused],
        )
    if report.weights is not None:
        yield (
            "Weights, worst first",
            ["node", "operator", "type", "SQNR", "RMSE/scale"],
            [
                [
                    fmt.name(layer.node),
                    layer.op,
                    f"{layer.dtype} {layer.granularity}",
                    fmt.decibel(layer.sqnr),
                    fmt.number(layer.step_rmse, 3),
                ]
                for layer in report.weights.layers
            ],
        )
    yield "Versions", ["tool", "version"], [[tool, version] for tool, version in sorted(report.tools.items())]
