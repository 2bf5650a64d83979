"""The report as GitHub-flavoured Markdown for step summaries and comments.

Everything that comes from a file (names of models, nodes, outputs) is escaped: it can neither break a table
nor bring in markup. The text never exceeds 64 kB: tables are shortened, and say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantcli.report import format as fmt
from quantcli.report.file_tables import file_tables
from quantcli.report.inside_tables import inside_tables, suspect_table
from quantcli.report.output_tables import gate_table, output_tables
from quantcli.report.schema import Report
from quantcli.report.tables import Cell, Table

LIMIT = 65_536
"""Bytes in UTF-8: what GitHub takes in a comment."""

_SPECIAL = {char: "\\" + char for char in "\\`*_[]#~|!"} | {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "@": "&#64;",
}

_CUT = "\n*The rest was left out: the report is longer than Markdown may be here.*\n"

_BEFORE_OVERVIEW = 2
"""Gates and suspects come first."""

_IN_OVERVIEW = ("accuracy", "time")
"""Tables with few figures, all of which are in the overview."""


def escape(text: str) -> str:
    """Text without any meaning to Markdown, tables, HTML, or as a mention of a person."""
    return "".join(_SPECIAL.get(char, char) for char in text)


def _name(text: str, width: int = 80) -> str:
    return escape(fmt.name(text, width))


def render_markdown(report: Report, limit: int = LIMIT) -> str:
    """Markdown text of at most ``limit`` bytes in UTF-8.

    The first line holds the verdict and, where it failed or is undecided, why.
    """
    text = ""
    tables = [gate_table(report), suspect_table(report)]
    tables += [*output_tables(report), *inside_tables(report), *file_tables(report)]
    for rows in (200, 50, 15, 5):
        text = "\n".join(part for part in _sections(report, tables, rows) if part) + "\n"
        if len(text.encode()) <= limit:
            return text
    kept = text.encode()[: limit - len(_CUT.encode())].decode(errors="ignore")
    return kept[: kept.rfind("\n")] + _CUT


def _sections(report: Report, tables: Sequence[Table], rows: int) -> Iterable[str]:
    models = f"{_name(report.original.name)} → {_name(report.quantized.name)}"
    yield f"# {report.verdict.status.upper()}: {models}: {_name(fmt.headline(report), 400)}\n"
    if report.synthetic:
        yield f"> **{fmt.SYNTHETIC}**\n"
    if fmt.tally(report):
        yield f"{_name(fmt.tally(report), 300)}\n"
    first, rest = tables[:_BEFORE_OVERVIEW], tables[_BEFORE_OVERVIEW:]
    yield from (markdown_table(table, rows) for table in first)
    yield _overview(report)
    yield from (markdown_table(table, rows) for table in rest if table.key not in _IN_OVERVIEW)
    if report.notes:
        yield "## Notes\n\n" + "\n".join(f"- {_name(note, 400)}" for note in report.notes[:rows]) + "\n"
    yield _reproduce(report)


def markdown_table(table: Table, rows: int) -> str:
    """A section with a table of at most so many rows; empty without rows."""
    body = [[_cell(cell) for cell in row] for row in table.rows[:rows]]
    if not body:
        return ""
    lines = [f"## {escape(table.title)}\n"]
    if table.note:
        lines.append(f"{_name(table.note, 400)}\n")
    marks = ["---:" if column.number else "---" for column in table.columns]
    lines += [_row([escape(column.label) for column in table.columns]), _row(marks)]
    lines += [_row(cells) for cells in body]
    if len(table.rows) > rows:
        lines.append(f"\n*… and {len(table.rows) - rows} more.*")
    return "\n".join(lines) + "\n"


def _cell(cell: Cell) -> str:
    text = escape(fmt.name(cell.text, 400))
    return f"**{text}**" if text and cell.tone else text


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


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
        change = f"{fmt.accuracy_change(acc)}, {acc.broken} broken, {acc.fixed} fixed"
        if acc.p_value is not None:
            change += f", McNemar p {fmt.number(acc.p_value, 3)}"
        body.append([f"Accuracy of {_name(acc.output)}", fmt.rate(acc.original), fmt.rate(acc.quantized), change])
    if report.latency is not None:
        lat = report.latency
        ratio = f"{lat.ratio:.3f} × [{lat.low:.3f}, {lat.high:.3f}]"
        body.append(
            [f"Latency, threads: {lat.threads}", f"{lat.original_ms:.3g} ms", f"{lat.quantized_ms:.3g} ms", ratio]
        )
    if report.memory is not None:
        mem = report.memory
        peaks = [fmt.size(mem.original_bytes), fmt.size(mem.quantized_bytes)]
        without = f"{mem.ratio:.3f} × (without a model: {fmt.size(mem.baseline_bytes)})"
        body.append(["Peak memory", *peaks, without])
    lines = ["## Overview\n", _row(["", "Original", "Quantized", "Change"]), _row(["---"] * 4)]
    return "\n".join([*lines, *(_row(cells) for cells in body)]) + "\n"


def _reproduce(report: Report) -> str:
    lines = ["## How to reproduce\n"]
    if report.data is not None:
        stamp = " (SYNTHETIC)" if report.synthetic else ""
        count = fmt.plural(report.data.samples, "sample")
        lines.append(f"- Data: {_name(report.data.name)}, {count}{stamp}")
        lines += [f"- Data: {_name(note, 400)}" for note in report.data.notes]
    if report.command is not None:
        lines.append(f"- Command: <code>{_name(report.command, 2000)}</code>")
    for facts in (report.original, report.quantized):
        lines.append(f"- {_name(facts.name)}: sha256 {_name(facts.sha256)}")
    if report.threads is not None:
        lines.append(f"- Threads: {report.threads}")
    tools = ", ".join(f"{_name(tool)} {_name(version)}" for tool, version in sorted(report.tools.items()))
    if tools:
        lines.append(f"- Versions: {tools}")
    return "\n".join(lines) + "\n"
