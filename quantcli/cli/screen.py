"""Standard output and standard error as quantcli uses them.

Standard output carries only what was asked for: a table, a summary, or JSON. Notes and progress go to
standard error. Texts are never read as markup, control characters in names from files are neutralised, and
everything degrades to ASCII where the stream knows nothing else.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import click

from quantcli.cli.settings import Settings, settings_of
from quantcli.errors import OutputError
from quantcli.report.format import name as printable

if TYPE_CHECKING:
    from rich.console import Console

_ASCII = str.maketrans({"→": "->", "…": "...", "×": "x", "·": "*", "–": "-", "−": "-", "√": "sqrt", "≥": ">="})
_TEXT_WIDTH = 2000
_NARROWEST = 24

Row = Sequence[str]


class Screen:
    """Writes for one command."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """The console on standard output."""
        if self._console is None:
            from quantcli.cli.console import make_console

            self._console = make_console(self.settings, stderr=False)
        return self._console

    def emit(self, text: str) -> None:
        """Write text of a file format (JSON) to standard output, in UTF-8 whatever the locale says."""
        click.echo(text.encode(), nl=False)

    def line(self, *parts: str | tuple[str, str]) -> None:
        """Write a line to standard output; a part is text, or text and its style."""
        from rich.text import Text

        pairs = [(part, "") if isinstance(part, str) else part for part in parts]
        text = Text.assemble(*((self._plain(content), style) for content, style in pairs))
        text.rstrip()
        self.console.print(text, soft_wrap=True)

    def fact(self, label: str, text: str) -> None:
        """Write a labelled line to standard output."""
        self.line((f"{label:<10}", "dim"), text)

    def table(self, rows: Sequence[Row], *, head: Row = (), indent: int = 0, shared: bool = False) -> None:
        """Write aligned columns to standard output.

        Where the console is too narrow the last column is wrapped; with ``shared``, all but the first have an
        equal share of the room and are wrapped in it.
        """
        everything = [tuple(self._plain(cell) for cell in row) for row in ([head, *rows] if head else rows)]
        if not everything:
            return
        widths = [max(len(row[column]) for row in everything) for column in range(len(everything[0]))]
        gaps = indent + 2 * (len(widths) - 1)
        if shared and len(widths) > 1:
            share = max(_NARROWEST, (self.console.width - gaps - widths[0]) // (len(widths) - 1))
            widths = [widths[0], *(min(width, share) for width in widths[1:])]
        else:
            widths[-1] = max(_NARROWEST, self.console.width - gaps - sum(widths[:-1]))
        for position, row in enumerate(everything):
            style = "bold" if head and position == 0 else ""
            wrapped = [_wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
            for parts in zip_longest(*wrapped, fillvalue=""):
                cells = (part.ljust(width) for part, width in zip(parts, widths, strict=True))
                self.line((" " * indent + "  ".join(cells), style))

    def note(self, text: str) -> None:
        """Write a note to standard error, unless ``-q``."""
        if not self.settings.quiet:
            write_error(f"note: {printable(text, _TEXT_WIDTH)}")

    def _plain(self, text: str) -> str:
        clean = printable(text, _TEXT_WIDTH) if text.strip() else text
        if not self.console.options.ascii_only:
            return clean
        return clean.translate(_ASCII).encode("ascii", "replace").decode()


def screen_of(context: click.Context) -> Screen:
    """The screen of the running command."""
    return Screen(settings_of(context))


def write_error(text: str) -> None:
    """Write a line to standard error; a standard error that nobody reads is no reason to fail."""
    try:
        click.echo(text, err=True)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EBADF, errno.ENOSPC):
            raise


def flush_output() -> None:
    """Send what standard output still holds; the last moment at which a failure can be told.

    Raises:
        OutputError: O103, it cannot be written. A closed pipe stays a BrokenPipeError.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError("O103", f"cannot write to the standard output: {error.strerror}") from error


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` characters, broken at spaces where there are any."""
    import textwrap

    return textwrap.wrap(text, width, break_long_words=True, break_on_hyphens=False) or [""]
