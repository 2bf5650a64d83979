"""A histogram that is an exact function of what was observed: mergeable bit for bit, in any order.

The bin width is a power of two, w = 2^k, and bins are aligned to integer multiples of w: bin i holds the
values v with i·w <= v < (i+1)·w. k is not chosen freely. It is the smallest integer for which

* [minimum, maximum] of everything observed touches at most ``BINS`` bins, and
* k >= e − 24 and k >= ``MIN_EXPONENT``, where e is the smallest integer with max(|minimum|, |maximum|) < 2^e,
  so that bins are never finer than the 24 bits of a float32: a constant stays one bin, exactly.

Both conditions only tighten when more is observed, and floor(v / 2^(k+1)) = floor(floor(v / 2^k) / 2), so
coarsening by one adds up pairs of bins of integer counts. Hence ``merge(of(a), of(b)) == of(a and b)``
whatever the order, and there is no state that remembers it. Between ``BINS``/2 and ``BINS`` bins span the
observed range (unless float32 has fewer values there).

Counts are integers; an observation may stand for several (``weight``), when only every n-th value of a tensor
is looked at. Exact zeros are counted apart as well, because zero has no quantization error and activations
hold many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 4096
"""Most bins that the observed range may span."""

MIN_EXPONENT = -126
"""Exponent of the finest bin width: the smallest normal float32."""

_FLOAT32_BITS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts in bins of width 2^exponent.

    Attributes:
        exponent: k of the bin width w = 2^k.
        first: Integer i of the first bin, which starts at i·w and holds the observed minimum.
        counts: int64 (bins,), read-only; the last bin holds the observed maximum. Empty when nothing was
            observed; the outer bins may count 0, when the extremes are known but were not sampled.
        zeros: How many of the counted values are exactly 0.
    """

    exponent: int = MIN_EXPONENT
    first: int = 0
    counts: np.ndarray
    zeros: int = 0

    def __post_init__(self) -> None:
        counts = np.array(self.counts, dtype=np.int64)
        if counts.ndim != 1 or counts.size > BINS:
            raise ValueError(f"a histogram has one axis of at most {BINS} bins, not {counts.shape}")
        counts.setflags(write=False)
        object.__setattr__(self, "counts", counts)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Histogram)
            and (self.exponent, self.first, self.zeros) == (other.exponent, other.first, other.zeros)
            and np.array_equal(self.counts, other.counts)
        )

    def __hash__(self) -> int:
        return hash((self.exponent, self.first, self.zeros, self.counts.tobytes()))

    @property
    def width(self) -> float:
        """Bin width, in the unit of the values."""
        return float(np.ldexp(1.0, self.exponent))

    @property
    def total(self) -> int:
        """Number of values counted, with their weights."""
        return int(self.counts.sum())

    @property
    def edges(self) -> np.ndarray:
        """float64 (bins + 1,): where bins begin and end; exact."""
        return np.ldexp(np.arange(self.first, self.first + self.counts.size + 1, dtype=np.float64), self.exponent)

    @property
    def centers(self) -> np.ndarray:
        """float64 (bins,): middle of each bin."""
        bins = np.arange(self.first, self.first + self.counts.size, dtype=np.float64)
        return np.ldexp(bins + 0.5, self.exponent)

    def coarsened(self, exponent: int) -> Histogram:
        """The same observations in bins of width 2^exponent, which must not be finer; exact."""
        if exponent < self.exponent:
            raise ValueError(f"bins of width 2^{self.exponent} cannot be refined to 2^{exponent}")
        if exponent == self.exponent or not self.counts.size:
            return self
        bins = _shifted(np.arange(self.first, self.first + self.counts.size), exponent - self.exponent)
        starts = np.flatnonzero(np.diff(bins, prepend=bins[0] - 1))
        return Histogram(
            exponent=exponent,
            first=int(bins[0]),
            counts=np.add.reduceat(self.counts, starts),
            zeros=self.zeros,
        )


EMPTY = Histogram(counts=np.zeros(0, dtype=np.int64))
"""Of nothing; neutral in ``merge``."""


def of(
    values: np.ndarray, *, weight: int = 1, minimum: float | None = None, maximum: float | None = None
) -> Histogram:
    """The histogram of ``values``.

    Args:
        values: Finite, any shape; taken as float32.
        weight: What each value counts.
        minimum: Smallest value of what ``values`` were taken from, float32; theirs when not given.
        maximum: Largest value of the same.

    Raises:
        ValueError: A value is not finite or outside [minimum, maximum].
    """
    flat = np.asarray(values, dtype=np.float32).ravel().astype(np.float64)
    if minimum is None or maximum is None:
        if not flat.size:
            return EMPTY
        minimum, maximum = float(flat.min()), float(flat.max())
    exponent, first, last = scalar_span(minimum, maximum)
    bins = np.floor(np.ldexp(flat, -exponent)).astype(np.int64) - first
    if bins.size and not 0 <= bins.min() <= bins.max() <= last - first:
        raise ValueError("values lie outside the given minimum and maximum")
    counts = np.bincount(bins, minlength=last - first + 1) * weight
    return Histogram(exponent=exponent, first=first, counts=counts, zeros=int((flat == 0).sum()) * weight)


def merge(a: Histogram, b: Histogram) -> Histogram:
    """The histogram of everything that ``a`` and ``b`` observed; commutative and associative."""
    if not a.counts.size or not b.counts.size:
        return a if a.counts.size else b
    exponent = max(a.exponent, b.exponent)
    while True:
        a, b = a.coarsened(exponent), b.coarsened(exponent)
        first = min(a.first, b.first)
        size = max(a.first + a.counts.size, b.first + b.counts.size) - first
        if size <= BINS:
            break
        exponent += max(1, (size // BINS).bit_length() - 1)
    counts = np.zeros(size, dtype=np.int64)
    for part in (a, b):
        counts[part.first - first :][: part.counts.size] += part.counts
    return Histogram(exponent=exponent, first=first, counts=counts, zeros=a.zeros + b.zeros)


def span(minimum: np.ndarray, maximum: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exponent of the bin width, first and last bin of observed ranges.

    Args:
        minimum: float64 holding float32 values, any shape; finite.
        maximum: Same shape, nowhere below ``minimum``.

    Returns:
        Three int64 arrays of that shape.

    Raises:
        ValueError: A bound is not finite or a range is empty.
    """
    if not (np.isfinite(minimum).all() and np.isfinite(maximum).all() and (minimum <= maximum).all()):
        raise ValueError("a range must be finite and must not be empty")
    magnitude = np.maximum(np.abs(minimum), np.abs(maximum))
    floor = np.where(magnitude > 0, np.frexp(magnitude)[1] - _FLOAT32_BITS, MIN_EXPONENT)
    # A width in [2^(e-1), 2^e) needs e − 12 <= k <= e − 11; one less, for the rounding of the difference.
    width = maximum - minimum
    finest = np.where(width > 0, np.frexp(width)[1] - BINS.bit_length(), MIN_EXPONENT)
    exponent = np.maximum(np.maximum(floor, MIN_EXPONENT), finest)
    while True:
        first = np.floor(np.ldexp(minimum, -exponent)).astype(np.int64)
        last = np.floor(np.ldexp(maximum, -exponent)).astype(np.int64)
        wide = last - first >= BINS
        if not wide.any():
            return np.asarray(exponent, dtype=np.int64), first, last
        exponent = exponent + wide


def scalar_span(minimum: float, maximum: float) -> tuple[int, int, int]:
    """``span`` of one range."""
    exponent, first, last = span(np.asarray(minimum, np.float64), np.asarray(maximum, np.float64))
    return int(exponent), int(first), int(last)


def _shifted(bins: np.ndarray, by: int) -> np.ndarray:
    """``floor(bins / 2^by)`` of int64 bins."""
    return bins >> min(by, 62)
