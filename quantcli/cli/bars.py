"""Progress as a bar with count, rate and time left; imported only for terminals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from quantcli.cli.console import make_console
from quantcli.cli.progress import pace
from quantcli.cli.settings import Settings


class BarProgress:
    """One bar; the stage that runs."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def start(self, stage: str, total: int | None) -> None:
        """Show the bar of ``stage`` in place of the last one."""
        self.finish()
        self._task = self._bars.add_task(stage, total=total)

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.advance(self._task, steps)

    def finish(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


class _Pace(ProgressColumn):
    """Steps done, and how many per second."""

    def render(self, task: Task) -> Text:
        if not task.completed:
            return Text("")
        total = "" if task.total is None else f" of {task.total:.0f}"
        speed = "" if not task.speed else f"  {pace(task.speed)}"
        return Text(f"{task.completed:.0f}{total}{speed}")


@contextmanager
def make_bars(settings: Settings) -> Iterator[BarProgress]:
    """A bar on standard error until the block ends; then nothing of it is left."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        _Pace(),
        TimeRemainingColumn(compact=True),
    )
    console = make_console(settings, stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bars:
        yield BarProgress(bars)
