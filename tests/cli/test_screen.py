"""Standard output: aligned, wrapped, and readable by every stream."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from quantcli.cli.screen import Screen
from quantcli.cli.settings import Settings


def shown(width: int, *, encoding: str = "utf-8", **table) -> list[str]:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding)
    screen = Screen(Settings())
    screen._console = Console(file=stream, width=width, markup=False, highlight=False, emoji=False)
    screen.table(**table)
    stream.flush()
    return buffer.getvalue().decode(encoding).splitlines()


def test_columns_are_aligned_without_trailing_spaces():
    rows = [("a", "bb", "c"), ("aaa", "b", "c")]
    assert shown(80, rows=rows, indent=2) == ["  a    bb  c", "  aaa  b   c"]


def test_the_last_column_is_wrapped_under_itself():
    assert shown(36, rows=[("code", "one two three four five six seven")]) == [
        "code  one two three four five six",
        "      seven",
    ]


def test_shared_columns_are_wrapped_each_in_its_place():
    long = "aaaa bbbb cccc dddd eeee ffff gggg"
    assert shown(56, rows=[("x", long, long)], shared=True) == [
        "x  aaaa bbbb cccc dddd eeee   aaaa bbbb cccc dddd eeee",
        "   ffff gggg                  ffff gggg",
    ]


def test_a_name_that_is_too_long_is_broken_not_lost():
    lines = shown(30, rows=[("x", "n" * 60)])
    assert "".join(line[3:] for line in lines) == "n" * 60


def test_markup_in_names_is_shown_as_it_is():
    assert shown(80, rows=[("[red]x[/red]", ":smile:")]) == ["[red]x[/red]  :smile:"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_other_encodings_get_something_readable(encoding):
    line = shown(80, encoding=encoding, rows=[("4 kB → 1 kB", "0.25 ×")])[0]
    assert line.startswith("4 kB -> 1 kB  0.25")


def test_an_empty_table_writes_nothing():
    assert shown(80, rows=[]) == []
