"""Were there enough samples? Looks at how much the observed ranges still grew near the end.

While samples stream by, the ranges so far are noted at evenly spaced points (at most ``MARKS`` of them: when
there are more, every second is dropped). In the end the ranges after three quarters of the samples are
compared with the final ones: a tensor *moved* by 1 − (width then) / (width now), where the width is that of
the range with 0 included, as quantization uses it. Extremes of single tensors keep growing slowly for any
amount of data, so the verdict is about the mean over all tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

MARKS = 64
LIMIT = 0.005
"""Mean movement below which ranges count as converged."""

FEWEST = 16
"""Samples below which nothing is said: the last quarter must be some samples at least."""

WORST = 5


class Verdict(StrEnum):
    """What is known about the ranges."""

    CONVERGED = "converged"
    MOVING = "moving"
    TOO_FEW = "too few samples"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RangeHistory:
    """Ranges of T tensors after some of the samples; the last mark is after all of them.

    Attributes:
        samples: int64 (marks,), increasing: how many samples had been seen.
        minimum: float32 (marks, T), +inf where a tensor had not been seen.
        maximum: float32 (marks, T), −inf likewise.
    """

    samples: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in (("samples", np.int64), ("minimum", np.float32), ("maximum", np.float32)):
            array = np.array(getattr(self, name), dtype=dtype)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        marks = self.samples.size
        if self.minimum.shape != self.maximum.shape or self.minimum.ndim != 2 or len(self.minimum) != marks:
            raise ValueError("a history has one range per mark and tensor")
        if not marks or (np.diff(self.samples) <= 0).any():
            raise ValueError("a history has at least one mark, in order")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeHistory) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("samples", "minimum", "maximum")
        )

    def __hash__(self) -> int:
        return hash((self.samples.tobytes(), self.minimum.tobytes(), self.maximum.tobytes()))

    def followed_by(self, later: RangeHistory) -> RangeHistory:
        """The history of seeing ``later``'s samples after these, of the same tensors."""
        samples = np.concatenate([self.samples, later.samples + self.samples[-1]])
        minimum = np.concatenate([self.minimum, np.minimum(later.minimum, self.minimum[-1])])
        maximum = np.concatenate([self.maximum, np.maximum(later.maximum, self.maximum[-1])])
        while samples.size > MARKS:
            kept = np.arange(samples.size)[::-2][::-1]  # every second, the last among them
            samples, minimum, maximum = samples[kept], minimum[kept], maximum[kept]
        return RangeHistory(samples=samples, minimum=minimum, maximum=maximum)


class HistoryRecorder:
    """Notes ranges while samples stream by; ``tensors`` is T."""

    def __init__(self, tensors: int) -> None:
        self._low = np.full(tensors, np.inf, dtype=np.float32)
        self._high = np.full(tensors, -np.inf, dtype=np.float32)
        self._step = 1
        self._samples = 0
        self._marks: list[tuple[int, np.ndarray, np.ndarray]] = []

    def add(self, minima: np.ndarray, maxima: np.ndarray) -> None:
        """See samples: float32 (samples, T); NaN, and +inf with −inf, stand for tensors not seen."""
        for low, high in zip(minima, maxima, strict=True):
            np.fmin(self._low, low, out=self._low)
            np.fmax(self._high, high, out=self._high)
            self._samples += 1
            if self._samples % self._step == 0:
                self._mark()

    def history(self) -> RangeHistory:
        """What was noted, and the state now; there must have been a sample."""
        if not self._marks or self._marks[-1][0] != self._samples:
            self._mark()
        samples, minima, maxima = zip(*self._marks, strict=True)
        return RangeHistory(samples=np.array(samples), minimum=np.stack(minima), maximum=np.stack(maxima))

    def _mark(self) -> None:
        self._marks.append((self._samples, self._low.copy(), self._high.copy()))
        if len(self._marks) > MARKS:
            self._step *= 2
            self._marks = [mark for mark in self._marks if mark[0] % self._step == 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """Whether ranges still moved.

    Attributes:
        verdict: What follows.
        samples: All samples.
        compared: Samples after which the earlier ranges were noted; about three quarters of all.
        moved: Mean over tensors of their movement in [0, 1].
        worst: Tensors that moved most, with their movement, largest first; only those above ``LIMIT``.
    """

    verdict: Verdict
    samples: int
    compared: int
    moved: float
    worst: tuple[tuple[str, float], ...]

    def sentence(self) -> str:
        """For people."""
        if self.verdict is Verdict.TOO_FEW:
            return f"{self.samples} samples are too few to tell whether the ranges have settled"
        share = f"moved by {self.moved:.2%} on average over the last {self.samples - self.compared}"
        if self.verdict is Verdict.CONVERGED:
            return f"ranges have settled: they {share} of {self.samples} samples"
        return f"more samples are needed: ranges {share} of {self.samples} samples"


def assess(history: RangeHistory, names: Sequence[str]) -> Convergence:
    """Judge the ranges of the tensors ``names``, in the order of the history's columns."""
    total = int(history.samples[-1])
    earlier = np.flatnonzero(history.samples <= 0.75 * total)
    if total < FEWEST or not earlier.size:
        return Convergence(verdict=Verdict.TOO_FEW, samples=total, compared=total, moved=0.0, worst=())
    at = int(earlier[-1])
    then, now = (_width(history.minimum[i], history.maximum[i]) for i in (at, -1))
    moved = np.where(now > 0, 1 - then / np.where(now > 0, now, 1), 0.0)
    mean = float(moved.mean()) if moved.size else 0.0
    order = sorted(range(len(names)), key=lambda index: (-moved[index], names[index]))[:WORST]
    return Convergence(
        verdict=Verdict.CONVERGED if mean < LIMIT else Verdict.MOVING,
        samples=total,
        compared=int(history.samples[at]),
        moved=mean,
        worst=tuple((names[index], float(moved[index])) for index in order if moved[index] > LIMIT),
    )


def _width(minimum: np.ndarray, maximum: np.ndarray) -> np.ndarray:
    """Width of ranges with 0 included; 0 where nothing was seen."""
    high, low = (np.asarray(extreme, dtype=np.float64) for extreme in (maximum, minimum))
    return np.asarray(np.maximum(high, 0) - np.minimum(low, 0))
