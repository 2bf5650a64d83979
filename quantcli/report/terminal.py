"""The report on a terminal: one screen, tables with ``verbose``.

The console decides about colour and width (off a TTY and with NO_COLOR rich writes no escape codes). Texts
are ``rich.text.Text`` or plain cells with markup off, so that a name like "[red]" shows as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from quantcli.report import format as fmt
from quantcli.report.file_tables import file_tables, version_table
from quantcli.report.inside_tables import inside_tables, suspect_table
from quantcli.report.output_tables import output_tables
from quantcli.report.schema import GateResult, Report
from quantcli.report.screen_facts import screen_facts
from quantcli.report.tables import Cell, Column, Table
from quantcli.report.tables import table as make_table

_STYLES = {
    "pass": "bold green",
    "fail": "bold red",
    "undecided": "bold yellow",
    "not-measured": "bold red",
    "no-gates": "bold",
}
_TONES = {"good": "green", "bad": "red", "warn": "yellow", "": ""}

_ASCII = str.maketrans({"→": "->", "…": "...", "×": "x", "–": "-", "−": "-", "√": "sqrt", "Σ": "sum"})

_GATES_SHOWN = 8
_OUTPUTS_SHOWN = 3
_SUSPECTS_SHOWN = 3


def render_terminal(report: Report, console: Console, *, verbose: bool = False) -> None:
    """Write the report to ``console``: about 25 lines, every table with ``verbose``.

    The first line holds the verdict and, where it failed or is undecided, why.
    """
    screen = TerminalLines(console)
    status = report.verdict.status
    models = f"{fmt.name(report.original.name)} → {fmt.name(report.quantized.name)}"
    screen.line(
        (status.upper(), _STYLES[status]),
        (f"  {models}", "bold"),
        (f": {fmt.name(fmt.headline(report), 400)}", ""),
    )
    if report.synthetic:
        screen.line((fmt.SYNTHETIC, "bold red reverse"))
    if fmt.tally(report):
        screen.line((f"  {fmt.name(fmt.tally(report), 300)}", "dim"))
    _gates(report.gates, screen, None if verbose else _GATES_SHOWN)
    if not verbose:
        _suspects(report, screen)
    for label, text in screen_facts(report, None if verbose else _OUTPUTS_SHOWN):
        screen.line((f"{label:<10}", "dim"), (text, ""))
    for note in report.notes:
        screen.line(("note      ", "dim"), (fmt.name(note, 300), ""))
    if verbose:
        for table in _tables(report):
            screen.draw(table)


class TerminalLines:
    """Writes lines and tables, in ASCII where the console has nothing else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ascii = console.options.ascii_only

    def _plain(self, text: str) -> str:
        if not self._ascii:
            return text
        return text.translate(_ASCII).encode("ascii", "replace").decode()

    def line(self, *parts: tuple[str, str]) -> None:
        """A line of texts, each with its style."""
        text = Text.assemble(*((self._plain(content), style) for content, style in parts))
        self._console.print(text, soft_wrap=True)

    def table(self, title: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
        """A table of texts, the first column to the left and the others to the right; nothing without rows."""
        columns = [Column(label=label, number=place > 0) for place, label in enumerate(head)]
        self.draw(make_table("", title, columns, [[Cell(text=text) for text in row] for row in body]))

    def draw(self, table: Table) -> None:
        """A table; nothing without rows."""
        if not table.rows:
            return
        drawn = RichTable(box=None, pad_edge=False)
        for column in table.columns:
            drawn.add_column(
                Text(self._plain(column.label)), overflow="fold", justify="right" if column.number else "left"
            )
        for row in table.rows:
            drawn.add_row(*(Text(self._plain(cell.text), style=_TONES[cell.tone]) for cell in row))
        self._console.print()
        self.line((table.title, "bold"))
        if table.note:
            self.line((fmt.name(table.note, 400), "dim"))
        self._console.print(drawn)


def _gates(gates: Sequence[GateResult], screen: TerminalLines, limit: int | None) -> None:
    """Gates that need attention first; those that passed are cut before others."""
    order = {"fail": 0, "not-measured": 1, "undecided": 2, "pass": 3}
    ranked = sorted(gates, key=lambda gate: order[gate.status])
    shown = ranked if limit is None else ranked[:limit]
    for gate in shown:
        mark = fmt.MARKS[gate.status] + (" (warn)" if gate.severity == "warn" else "")
        screen.line((f"  {mark:<16} ", _STYLES[gate.status]), (fmt.name(gate.sentence, 300), ""))
    if len(shown) < len(ranked):
        screen.line((f"  … and {len(ranked) - len(shown)} more gates (-v shows them)", "dim"))


def _suspects(report: Report, screen: TerminalLines) -> None:
    """The layers to look at first."""
    found = () if report.tensors is None else report.tensors.suspects
    for item in found[:_SUSPECTS_SHOWN]:
        screen.line(
            ("look at   ", "bold yellow"),
            (f"{fmt.name(item.node, 60)} ({fmt.name(item.op, 40)}): {fmt.name(item.sentence, 300)}", ""),
        )
    if len(found) > _SUSPECTS_SHOWN:
        screen.line((f"          … and {len(found) - _SUSPECTS_SHOWN} more suspects (-v shows them)", "dim"))


def _tables(report: Report) -> Iterable[Table]:
    yield suspect_table(report)
    yield from output_tables(report)
    yield from inside_tables(report)
    yield from file_tables(report)
    yield version_table(report)
