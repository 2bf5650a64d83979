"""Latency of one model relative to another, on a machine that is never quiet.

Milliseconds depend on who else is running; their ratio hardly does, if both are measured at the same moment. So
the two models are timed in turn, in one process, on the same feed: A B, B A, A B, … Each pair gives one ratio; the
result is the median of the ratios with a distribution-free interval (order statistics; see
``core.intervals.median_interval``). Runs that take microseconds are repeated within one measurement, so that
the clock's own cost does not show.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from quantcli.core.intervals import CONFIDENCE, median_interval
from quantcli.errors import DataError, UsageError
from quantcli.runtime.session import Session

MIN_PAIRS = 6
"""Fewer pairs have no 95 % interval."""

_MEASUREMENT_S = 0.002
"""A measurement takes at least this long, repeated runs included."""

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyReport:
    """What timing gave.

    Attributes:
        pairs: Pairs of measurements.
        runs: Runs within one measurement.
        warmup: Runs of each before the first measurement.
        a_seconds: Median time of one run of the first.
        b_seconds: Median time of one run of the second.
        ratio: Median over pairs of second / first.
        low: Lower bound of its interval.
        high: Upper bound.
        confidence: Really held by the interval, at least 95 %.
    """

    pairs: int
    runs: int
    warmup: int
    a_seconds: float
    b_seconds: float
    ratio: float
    low: float
    high: float
    confidence: float


def check_repeats(repeats: int) -> None:
    """Refuse a number of pairs that gives no interval.

    Raises:
        UsageError: G204.
    """
    if repeats < MIN_PAIRS:
        raise UsageError(
            "G204",
            f"{repeats} pairs of runs have no {CONFIDENCE:.0%} interval",
            hint=f"ask for {MIN_PAIRS} or more; 50 is a good number",
        )


def compare_latency(
    a: Session,
    b: Session,
    feeds: Sequence[Feed],
    *,
    repeats: int = 50,
    warmup: int = 3,
    min_seconds: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    tick: Callable[[], None] | None = None,
) -> LatencyReport:
    """Time two sessions against each other; both should have the same number of threads.

    Args:
        a: The reference.
        b: The one that is judged.
        feeds: Complete feeds for both; used in turn, the same one for both sides of a pair.
        repeats: Pairs, at least ``MIN_PAIRS``.
        warmup: Runs of each before anything is timed, at least 1.
        min_seconds: Go on beyond ``repeats`` until so much time was measured.
        clock: Seconds that only grow.
        tick: Called after each pair.

    Raises:
        UsageError: G204, ``repeats`` is too small.
        DataError: D106, there are no feeds.
        RuntimeFailure: R102, a session failed.
    """
    check_repeats(repeats)
    if not feeds:
        raise DataError("D106", "there is no sample to time the models on")
    warmup = max(1, warmup)
    first = [_warm(session, feeds[0], warmup, clock) for session in (a, b)]
    runs = max(1, round(_MEASUREMENT_S / max(min(first), 1e-9)))
    times: tuple[list[float], list[float]] = ([], [])
    measured = 0.0
    while len(times[0]) < repeats or measured < min_seconds:
        index = len(times[0])
        feed = feeds[index % len(feeds)]
        order = (0, 1) if index % 2 == 0 else (1, 0)
        for side in order:
            elapsed = _timed((a, b)[side], feed, runs, clock)
            times[side].append(elapsed / runs)
            measured += elapsed
        if tick is not None:
            tick()
    ratios = [second / first for first, second in zip(*times, strict=True)]
    interval = median_interval(ratios)
    assert interval is not None
    return LatencyReport(
        pairs=len(ratios),
        runs=runs,
        warmup=warmup,
        a_seconds=median(times[0]),
        b_seconds=median(times[1]),
        ratio=median(ratios),
        low=interval[0],
        high=interval[1],
        confidence=interval[2],
    )


def _warm(session: Session, feed: Feed, warmup: int, clock: Callable[[], float]) -> float:
    """Run without counting; seconds of the fastest run."""
    return min(_timed(session, feed, 1, clock) for _ in range(warmup))


def _timed(session: Session, feed: Feed, runs: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(runs):
        session.run(feed)
    return max(clock() - start, 1e-9)
