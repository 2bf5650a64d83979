"""Progress on standard error: a bar on a terminal, a line now and then elsewhere, nothing with ``-q``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from quantcli.cli.screen import write_error
from quantcli.cli.settings import Settings
from quantcli.progress import Progress, SilentProgress

LINE_EVERY_S = 10.0
"""Seconds between two lines where there is no terminal."""


@contextmanager
def show_progress(settings: Settings) -> Iterator[Progress]:
    """The observer to hand to a use case; what it shows is gone when the block ends."""
    if settings.quiet:
        yield SilentProgress()
    elif _animated():
        from quantcli.cli.bars import make_bars

        with make_bars(settings) as bars:
            yield bars
    else:
        yield LineProgress()


def _animated() -> bool:
    """Whether standard error is a terminal that can redraw a line."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


class LineProgress:
    """One line when a stage with countable steps begins, every ten seconds, and at its end."""

    def __init__(
        self, write: Callable[[str], None] = write_error, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._stage = ""
        self._total: int | None = None
        self._done = 0
        self._began = 0.0
        self._told = 0.0

    def start(self, stage: str, total: int | None) -> None:
        """Tell that ``stage`` begins."""
        self._stage, self._total, self._done = stage, total, 0
        self._began = self._told = self._clock()
        self._write(f"{stage} ..." if total is None else f"{stage}: {total} to do")

    def advance(self, steps: int = 1) -> None:
        """Count, and tell if the last line is old."""
        self._done += steps
        now = self._clock()
        if now - self._told >= LINE_EVERY_S:
            self._told = now
            self._write(f"{self._stage}: {self._count()}{self._pace(now)}")

    def finish(self) -> None:
        """Tell how long it took, where there was something to count or wait for."""
        elapsed = self._clock() - self._began
        if self._done or elapsed >= LINE_EVERY_S:
            rate = f" ({pace(self._done / elapsed)})" if self._done and elapsed > 0 else ""
            count = f"{self._count()} " if self._done else ""
            self._write(f"{self._stage}: {count}in {duration(elapsed)}{rate}")

    def _count(self) -> str:
        return str(self._done) if self._total is None else f"{self._done} of {self._total}"

    def _pace(self, now: float) -> str:
        elapsed = now - self._began
        if not self._done or elapsed <= 0:
            return ""
        rate = self._done / elapsed
        left = "" if self._total is None else f", {duration(max(0, self._total - self._done) / rate)} left"
        return f" ({pace(rate)}{left})"


class NamedProgress:
    """Puts a name before every stage, where several jobs share one observer."""

    def __init__(self, inner: Progress, name: str) -> None:
        self._inner = inner
        self._name = name
        self.advance = inner.advance
        self.finish = inner.finish

    def start(self, stage: str, total: int | None) -> None:
        """Tell that ``stage`` begins."""
        self._inner.start(f"{self._name}: {stage}", total)


def pace(rate: float) -> str:
    """Steps per second: "0.42/s", "160/s", "1,090/s"."""
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s"


def duration(seconds: float) -> str:
    """A time as people say it: "0.42 s", "38 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
