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
from itertools import permutations
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Median of the ratios of paired times, with its interval.

    Attributes:
        ratio: Below 1 is faster.
        low: Lower bound.
        high: Upper bound.
        confidence: Really held by the interval, at least 95 %.
    """

    ratio: float
    low: float
    high: float
    confidence: float = CONFIDENCE


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
    rounds = Rounds((a, b), feeds, warmup=warmup, clock=clock)
    while rounds.count < repeats or rounds.measured < min_seconds:
        rounds.measure()
        if tick is not None:
            tick()
    found = rounds.ratio(1, 0)
    return LatencyReport(
        pairs=rounds.count,
        runs=rounds.runs,
        warmup=rounds.warmup,
        a_seconds=rounds.seconds(0),
        b_seconds=rounds.seconds(1),
        ratio=found.ratio,
        low=found.low,
        high=found.high,
        confidence=found.confidence,
    )


class Rounds:
    """Two or more sessions timed in turn: each round runs every one of them, in all orders one after another.

    Attributes:
        runs: Runs within one measurement.
        warmup: Runs of each session before anything is timed.
        measured: Seconds spent in measurements.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        feeds: Sequence[Feed],
        *,
        warmup: int = 3,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not feeds:
            raise DataError("D106", "there is no sample to time the models on")
        self._sessions, self._feeds, self._clock = tuple(sessions), tuple(feeds), clock
        self._orders = tuple(permutations(range(len(self._sessions))))
        self._times: tuple[list[float], ...] = tuple([] for _ in self._sessions)
        self.warmup = max(1, warmup)
        first = [_warm(session, feeds[0], self.warmup, clock) for session in self._sessions]
        self.runs = max(1, round(_MEASUREMENT_S / max(min(first), 1e-9)))
        self.measured = 0.0

    @property
    def count(self) -> int:
        """Rounds so far."""
        return len(self._times[0])

    def measure(self) -> None:
        """One more round; all sessions run on the same feed."""
        feed = self._feeds[self.count % len(self._feeds)]
        for side in self._orders[self.count % len(self._orders)]:
            elapsed = _timed(self._sessions[side], feed, self.runs, self._clock)
            self._times[side].append(elapsed / self.runs)
            self.measured += elapsed

    def seconds(self, index: int) -> float:
        """Median time of one run of session ``index``."""
        return median(self._times[index])

    def ratio(self, of: int, to: int) -> Ratio:
        """Time of session ``of`` relative to session ``to``; needs ``MIN_PAIRS`` rounds."""
        ratios = [a / b for a, b in zip(self._times[of], self._times[to], strict=True)]
        interval = median_interval(ratios)
        assert interval is not None
        return Ratio(ratio=median(ratios), low=interval[0], high=interval[1], confidence=interval[2])


def _warm(session: Session, feed: Feed, warmup: int, clock: Callable[[], float]) -> float:
    """Run without counting; seconds of the fastest run."""
    return min(_timed(session, feed, 1, clock) for _ in range(warmup))


def _timed(session: Session, feed: Feed, runs: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(runs):
        session.run(feed)
    return max(clock() - start, 1e-9)
