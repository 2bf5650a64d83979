"""Tables of a report as plain values: the terminal, Markdown and HTML show the same ones.

A cell has the text that is read and the value that it is sorted by. Texts are not escaped: that is for each
rendering to do, in its own way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from quantcli.report import format as fmt


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        text: What is read; names are made fit for one line.
        value: What a number is sorted by; None for texts, and for what was not measured.
        tone: "good", "bad" or "warn" where the cell deserves a colour.
    """

    text: str
    value: float | None = None
    tone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: its heading, whether it holds numbers, and what the heading means."""

    label: str
    number: bool = True
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with its title.

    Attributes:
        key: Short name, unique in a report.
        title: Heading.
        columns: One for each cell of a row.
        rows: May be empty: then there is nothing to show.
        note: What the reader must know of it.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


_NOTHING = ("", fmt.MISSING)

Head: TypeAlias = str | Column
"""A column, or its heading; a heading that ends in "|" is one of texts, which are aligned to the left."""


def table(key: str, title: str, columns: Sequence[Head], rows: Iterable[Sequence[Cell]], note: str = "") -> Table:
    """A table, without the columns in which nothing was measured."""
    heads = [
        head if isinstance(head, Column) else Column(label=head.removesuffix("|"), number=not head.endswith("|"))
        for head in columns
    ]
    filled = tuple(tuple(row) for row in rows)
    used = [place for place in range(len(heads)) if any(row[place].text not in _NOTHING for row in filled)]
    return Table(
        key=key,
        title=title,
        columns=tuple(heads[place] for place in used),
        rows=tuple(tuple(row[place] for place in used) for row in filled),
        note=note,
    )


def text(value: str, tone: str = "") -> Cell:
    """A text of ours."""
    return Cell(text=value, tone=tone)


def name(value: str, width: int = 80) -> Cell:
    """A name from a file, fit for one line."""
    return Cell(text=fmt.name(value, width))


def count(value: int | None) -> Cell:
    """A number of things."""
    return Cell(text=fmt.MISSING if value is None else str(value), value=value)


def number(value: float | None, digits: int = 4, tone: str = "") -> Cell:
    """A number with so many significant digits."""
    return Cell(text=fmt.number(value, digits), value=value, tone=tone)


def decibel(value: float | None, tone: str = "") -> Cell:
    """An SQNR."""
    return Cell(text=fmt.decibel(value), value=value, tone=tone)


def cosine(value: float | None) -> Cell:
    """A cosine similarity."""
    return Cell(text=fmt.cosine(value), value=value)


def percent(value: float | None, tone: str = "") -> Cell:
    """A fraction in percent."""
    return Cell(text=fmt.percent(value), value=value, tone=tone)


def interval(low: float | None, high: float | None) -> Cell:
    """Both ends of an interval; sorted by the lower one."""
    return Cell(text=fmt.interval(low, high), value=low)
