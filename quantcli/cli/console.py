"""Rich consoles on the standard streams; imported only where something is drawn."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from rich.console import Console

from quantcli.cli.settings import Settings

_WIDTH_OFF_TTY = 160


class QuietPipeConsole(Console):
    """A console that leaves a closed pipe to its caller; rich would exit with 1, which means a failed gate."""

    def on_broken_pipe(self) -> NoReturn:
        """Let the error pass."""
        raise BrokenPipeError


def make_console(settings: Settings, *, stderr: bool) -> Console:
    """A console that reads no markup; wide where nobody looks, so that no name is cut in a log."""
    stream = sys.stderr if stderr else sys.stdout
    terminal = stream is not None and stream.isatty()
    width = None if terminal or "COLUMNS" in os.environ else _WIDTH_OFF_TTY
    return QuietPipeConsole(
        stderr=stderr,
        no_color=True if settings.colorless else None,
        highlight=False,
        markup=False,
        emoji=False,
        width=width,
    )
