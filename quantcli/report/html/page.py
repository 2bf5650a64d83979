"""What stands on a page: plain values that the template writes down."""

from __future__ import annotations

from dataclasses import dataclass

from quantcli.report.html.figure import Figure
from quantcli.report.tables import Table

ROWS_SHOWN = 1200
"""Rows of a table on a page; more would make it slow to open."""

HALF_WIDE = frozenset(
    [
        "emulated",
        "saturation",
        "initializers",
        "coverage",
        "kernels",
        "float-kernels",
        "left-in-float",
        "operators",
    ]
)
"""Keys of tables that are narrow enough for two beside each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A key figure.

    Attributes:
        label: What it is.
        value: The figure.
        detail: What stands behind it.
        tone: "good", "bad", "warn" or "".
    """

    label: str
    value: str
    detail: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        key: Anchor.
        title: Heading.
        figures: Charts, above the tables.
        tables: Those with rows.
        text: A paragraph under the heading.
        code: Something to copy, between charts and tables.
    """

    key: str
    title: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    text: str = ""
    code: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.figures or self.text or any(table.rows for table in self.tables))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole page.

    Attributes:
        title: Of the window.
        kind: "Comparison" or "Analysis".
        subject: What it is about, as (label, text).
        status: "pass", "fail", "undecided", "no-gates" or "info".
        word: The status as it is read.
        headline: The answer in one sentence.
        detail: More of it.
        warning: Stands above everything; "" for none.
        cards: Key figures.
        sections: The parts.
        facts: How to reproduce it, as (label, text).
        notes: What else the reader must know.
    """

    title: str
    kind: str
    subject: tuple[tuple[str, str], ...]
    status: str
    word: str
    headline: str
    detail: str = ""
    warning: str = ""
    cards: tuple[Card, ...] = ()
    sections: tuple[Section, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
