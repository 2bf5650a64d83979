"""The report as GitHub-flavoured Markdown for step summaries and comments.

Everything that comes from a file (names of models, nodes, outputs) is escaped: it can neither break a table
nor bring in markup. The text never exceeds 64 kB: tables are shortened, and say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantcli.report import format as fmt
from quantcli.report.schema import Report

LIMIT = 65_536
"""Bytes in UTF-8: what GitHub takes in a comment."""

_SPECIAL = {char: "\\" + char for char in "\\`*_[]#~|!"} | {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "@": "&#64;",
}

_CUT = "\n*The rest was left out: the report is longer than Markdown may be here.*\n"


def escape(text: str) -> str:
    """Text without any meaning to Markdown, tables, HTML, or as a mention of a person."""
    return "".join(_SPECIAL.get(char, char) for char in text)


def _name(text: str) -> str:
    return escape(fmt.name(text))


def render_markdown(report: Report, limit: int = LIMIT) -> str:
    """Markdown text of at most ``limit`` bytes in UTF-8."""
    text = ""
    for rows in (200, 50, 15, 5):
        text = "\n".join(part for part in _sections(report, rows) if part) + "\n"
        if len(text.encode()) <= limit:
            return text
    kept = text.encode()[: limit - len(_CUT.encode())].decode(errors="ignore")
    return kept[: kept.rfind("\n")] + _CUT


def _sections(report: Report, rows: int) -> Iterable[str]:
    yield f"# {_name(report.original.name)} → {_name(report.quantized.name)}\n"
    if report.synthetic:
        yield f"> **{fmt.SYNTHETIC}**\n"
    yield f"**{report.verdict.status.upper()}**: {escape(report.verdict.sentence)}\n"
    yield _gates(report, rows)
    yield _overview(report)
    yield _outputs(report, rows)
    yield _coverage(report, rows)
    yield _kernels(report, rows)
    yield _structure(report, rows)
    yield _weights(report, rows)
    if report.notes:
        yield "## Notes\n\n" + "\n".join(f"- {escape(fmt.name(note, 400))}" for note in report.notes[:rows]) + "\n"
    yield _reproduce(report)


def _table(title: str, head: Sequence[str], body: Sequence[Sequence[str]], rows: int) -> str:
    """A section with a table; empty without rows. Cells are escaped already."""
    if not body:
        return ""
    lines = [f"## {title}\n", _row(head), _row(["---"] * len(head))]
    lines += [_row(cells) for cells in body[:rows]]
    if len(body) > rows:
        lines.append(f"\n*… and {len(body) - rows} more.*")
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _gates(report: Report, rows: int) -> str:
    body = [
        [
            _name(gate.expression) + (" (warn)" if gate.severity == "warn" else ""),
            f"**{fmt.MARKS[gate.status]}**",
            fmt.number(gate.value),
            fmt.MISSING if gate.low is None else f"{fmt.number(gate.low)} … {fmt.number(gate.high)}",
            fmt.number(gate.margin),
            escape(fmt.name(gate.sentence, 300)),
        ]
        for gate in report.gates
    ]
    return _table("Gates", ["Gate", "Result", "Value", "95 % interval", "Margin", ""], body, rows)


def _overview(report: Report) -> str:
    original, quantized = report.original, report.quantized
    body = [["Size", fmt.size(original.bytes), fmt.size(quantized.bytes), f"{report.size.ratio:.3f} ×"]]
    if report.size.gzip_ratio is not None:
        body.append(
            [
                "Size, gzip",
                fmt.size(original.gzip_bytes),
                fmt.size(quantized.gzip_bytes),
                f"{report.size.gzip_ratio:.3f} ×",
            ]
        )
    if report.structure is not None:
        a, b = report.structure.original, report.structure.quantized
        body.append(["Nodes", str(a.nodes), str(b.nodes), ""])
        body.append(["Compute nodes quantized", str(a.compute_quantized), str(b.compute_quantized), ""])
        body.append(["Compute nodes, weight only", str(a.compute_weight_only), str(b.compute_weight_only), ""])
        body.append(["Compute nodes in float", str(a.compute_float), str(b.compute_float), ""])
    if report.accuracy is not None:
        acc = report.accuracy
        change = fmt.accuracy_change(acc)
        body.append([f"Accuracy of {_name(acc.output)}", fmt.rate(acc.original), fmt.rate(acc.quantized), change])
    if report.latency is not None:
        lat = report.latency
        ratio = f"{lat.ratio:.3f} × [{lat.low:.3f}, {lat.high:.3f}]"
        body.append(
            [f"Latency, threads: {lat.threads}", f"{lat.original_ms:.3g} ms", f"{lat.quantized_ms:.3g} ms", ratio]
        )
    return _table("Overview", ["", "Original", "Quantized", "Change"], body, len(body))


def _outputs(report: Report, rows: int) -> str:
    stamp = " (SYNTHETIC)" if report.synthetic else ""
    body = [
        [
            _name(out.name),
            fmt.decibel(out.sqnr),
            fmt.cosine(out.cosine),
            fmt.cosine(out.cosine_min),
            fmt.number(out.rmse),
            fmt.number(out.max_abs),
            fmt.rate(out.top1),
            str(out.nonfinite_differ),
            str(out.shape_mismatches),
        ]
        for out in report.outputs
    ]
    head = [
        "Output", "SQNR", "Cosine", "Worst cosine", "RMSE", "Max abs", "Top-1 agreement",
        "Non-finite", "Other shape",
    ]  # fmt: skip
    return _table(f"Outputs{stamp}", head, body, rows)


def _coverage(report: Report, rows: int) -> str:
    if report.coverage is None:
        return ""
    by_op = [
        [escape(row.op), str(row.quantized), str(row.passthrough), str(row.float)] for row in report.coverage.rows
    ]
    reasons = [
        [reason.code, escape(reason.sentence), str(reason.nodes), ", ".join(_name(n) for n in reason.examples)]
        for reason in report.coverage.reasons
    ]
    return "\n".join(
        part
        for part in (
            _table("Coverage", ["Operator", "Quantized", "Passed through", "Float"], by_op, rows),
            _table("Why nodes are in float", ["Code", "Reason", "Nodes", "Examples"], reasons, rows),
        )
        if part
    )


def _kernels(report: Report, rows: int) -> str:
    if report.kernels is None:
        return ""
    counts = [[escape(item.op), str(item.count)] for item in report.kernels.integer]
    unfused = [
        [_name(node.name), escape(node.op), node.code, escape(node.sentence)] for node in report.kernels.unfused
    ]
    runtime = escape(report.kernels.runtime)
    return "\n".join(
        part
        for part in (
            _table(f"Integer kernels (onnxruntime {runtime})", ["Kernel", "Nodes"], counts, rows),
            _table("Quantized, but not fused", ["Node", "Operator", "Code", "Reason"], unfused, rows),
        )
        if part
    )


def _structure(report: Report, rows: int) -> str:
    if report.structure is None:
        return ""
    before = {item.op: item.count for item in report.structure.original.ops}
    after = {item.op: item.count for item in report.structure.quantized.ops}
    body = [[escape(op), str(before.get(op, 0)), str(after.get(op, 0))] for op in sorted(before | after)]
    left = [[_name(node.name), escape(node.op)] for node in report.structure.quantized.float_compute]
    return "\n".join(
        part
        for part in (
            _table("Operators", ["Operator", "Original", "Quantized"], body, rows),
            _table("Compute nodes left in float", ["Node", "Operator"], left, rows),
        )
        if part
    )


def _weights(report: Report, rows: int) -> str:
    if report.weights is None:
        return ""
    body = [
        [
            _name(layer.node),
            escape(layer.op),
            f"{layer.dtype} {layer.granularity}",
            fmt.decibel(layer.sqnr),
            fmt.number(layer.step_rmse, 3),
        ]
        for layer in report.weights.layers
    ]
    title = f"Weights ({report.weights.matched} of {report.weights.weights} matched, worst first)"
    return _table(title, ["Node", "Operator", "Type", "SQNR", "RMSE / scale"], body, rows)


def _reproduce(report: Report) -> str:
    lines = ["## How to reproduce\n"]
    if report.data is not None:
        stamp = " (SYNTHETIC)" if report.synthetic else ""
        count = fmt.plural(report.data.samples, "sample")
        lines.append(f"- Data: {_name(report.data.name)}, {count}{stamp}")
        lines += [f"- Data: {escape(fmt.name(note, 400))}" for note in report.data.notes]
    if report.command is not None:
        lines.append(f"- Command: <code>{escape(fmt.name(report.command, 2000))}</code>")
    for facts in (report.original, report.quantized):
        lines.append(f"- {_name(facts.name)}: sha256 {facts.sha256}")
    if report.threads is not None:
        lines.append(f"- Threads: {report.threads}")
    tools = ", ".join(f"{escape(tool)} {escape(version)}" for tool, version in sorted(report.tools.items()))
    if tools:
        lines.append(f"- Versions: {tools}")
    return "\n".join(lines) + "\n"
