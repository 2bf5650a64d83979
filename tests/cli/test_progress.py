"""Progress: lines where nobody watches, nothing when asked for silence."""

from __future__ import annotations

import sys

import pytest

from quantcli.cli.progress import LineProgress, duration, pace, show_progress
from quantcli.cli.settings import Settings
from quantcli.progress import SilentProgress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def told():
    lines: list[str] = []
    clock = Clock()
    return LineProgress(write=lines.append, clock=clock), lines, clock


def test_a_short_stage_is_told_at_its_start_and_end(told):
    progress, lines, clock = told
    progress.start("calibrate", 8)
    for _ in range(4):
        progress.advance(2)
    clock.now += 2.0
    progress.finish()
    assert lines == ["calibrate: 8 to do", "calibrate: 8 of 8 in 2 s (4/s)"]


def test_a_long_stage_is_told_every_ten_seconds_with_rate_and_time_left(told):
    progress, lines, clock = told
    progress.start("calibrate", 100)
    for _ in range(25):
        clock.now += 1.0
        progress.advance()
    assert lines[1:] == [
        "calibrate: 10 of 100 (1/s, 1 min 30 s left)",
        "calibrate: 20 of 100 (1/s, 1 min 20 s left)",
    ]


def test_an_unknown_total_gives_no_time_left(told):
    progress, lines, clock = told
    progress.start("calibrate", None)
    clock.now += 10.0
    progress.advance(5)
    progress.finish()
    assert lines == ["calibrate ...", "calibrate: 5 (0.5/s)", "calibrate: 5 in 10 s (0.5/s)"]


def test_a_stage_without_steps_has_one_line(told):
    progress, lines, _ = told
    progress.start("verify", None)
    progress.finish()
    assert lines == ["verify ..."]


def test_quiet_shows_nothing():
    with show_progress(Settings(quiet=True)) as progress:
        assert isinstance(progress, SilentProgress)


def test_off_a_terminal_there_is_no_bar(capsys):
    with show_progress(Settings()) as progress:
        assert isinstance(progress, LineProgress)
        progress.start("calibrate", 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "calibrate: 2 to do\n"


def test_on_a_terminal_the_bar_is_gone_at_the_end(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with show_progress(Settings(no_color=True)) as progress:
        for stage in ("calibrate", "verify"):
            progress.start(stage, 3)
            progress.advance(2)
            progress.finish()
        progress.advance()
        progress.finish()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "\x1b[3" not in captured.err


def test_a_dumb_terminal_gets_lines(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    with show_progress(Settings()) as progress:
        assert isinstance(progress, LineProgress)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4213, "0.42 s"), (9.94, "9.9 s"), (38.4, "38 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(0.4213, "0.421/s"), (99.94, "99.9/s"), (160.4, "160/s"), (1090, "1,090/s")]
)
def test_rates_read_well(rate, text):
    assert pace(rate) == text
