"""An analysis as GitHub-flavoured Markdown, of at most 64 kB; escaped as reports are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantcli.report import analysis_lines as lines
from quantcli.report import format as fmt
from quantcli.report.analysis import Analysis
from quantcli.report.markdown import LIMIT, escape

_ROWS = (400, 100, 30, 10)


def render_analysis_markdown(analysis: Analysis) -> str:
    """Markdown text of at most ``LIMIT`` bytes in UTF-8."""
    text = ""
    for rows in _ROWS:
        text = "\n".join(_sections(analysis, rows)) + "\n"
        if len(text.encode()) <= LIMIT:
            return text
    return text.encode()[:LIMIT].decode(errors="ignore").rpartition("\n")[0] + "\n"


def _sections(analysis: Analysis, rows: int) -> Iterable[str]:
    yield f"# {escape(fmt.name(analysis.model.name))}: where quantization makes its error\n"
    if analysis.data.synthetic:
        yield f"> **{fmt.SYNTHETIC}**\n"
    outputs = ", ".join(escape(fmt.name(name)) for name in analysis.outputs)
    yield f"Output {outputs}: {escape(lines.summary(analysis))}.\n"
    samples = fmt.plural(analysis.data.samples, "sample")
    yield f"Data: {escape(fmt.name(analysis.data.name))}, {samples}.\n"
    yield "## Layers\n"
    shown = analysis.layers[:rows]
    yield from _table(lines.HEAD, [lines.cells(layer, 80) for layer in shown])
    if len(shown) < len(analysis.layers):
        yield f"\n… and {len(analysis.layers) - len(shown)} more layers."
    yield "\n## What to do\n"
    yield from _table(lines.REMEDY_HEAD, [lines.remedy_cells(layer) for layer in shown[:20]])
    yield "\n## Worth leaving in float\n"
    if analysis.exclude:
        yield from _table(lines.STEP_HEAD, lines.step_cells(analysis))
        yield "\n" + "\n".join(f"    {line}" for line in lines.block(analysis))
    else:
        yield "No layer is worth it by itself."
    if analysis.notes:
        yield "\n## Notes\n"
        yield "\n".join(f"- {escape(fmt.name(note, 400))}" for note in analysis.notes[:rows])
    yield "\n## How to reproduce\n"
    if analysis.command:
        yield f"    {fmt.name(analysis.command, 2000)}\n"
    yield ", ".join(f"{escape(tool)} {escape(version)}" for tool, version in sorted(analysis.tools.items()))


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> Iterable[str]:
    if body:
        yield _row(head)
        yield _row(["---"] * len(head))
        yield from (_row([escape(cell) for cell in row]) for row in body)


def _row(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"
