"""A tensor's histogram as the range methods look at it: for symmetric forms folded to |x|, zeros apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantcli.core.histogram import BINS
from quantcli.core.spec import QuantSpec
from quantcli.core.stats import TensorStats

MOST_PADDING = BINS
"""Empty bins that are added so that a profile reaches zero; values further away are no matter of clipping."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """Counts of values between edges, and the grid that they are to be quantized on.

    Attributes:
        edges: float64 (bins + 1,), increasing; multiples of the bin width. 0 is an edge, unless all values are
            far from it.
        counts: float64 (bins,), exact zeros not counted.
        zeros: How many values are exactly 0.
        minimum: Smallest value; of |x| where folded.
        maximum: Largest value.
        folded: Whether this is of |x|.
        steps: Number of quantization steps that a range is divided into; of a folded profile those from 0 to
            the threshold.
    """

    edges: np.ndarray
    counts: np.ndarray
    zeros: float
    minimum: float
    maximum: float
    folded: bool
    steps: int

    @classmethod
    def of(cls, stats: TensorStats, spec: QuantSpec) -> Profile:
        """The profile of ``stats``, folded where ``spec`` is symmetric."""
        histogram = stats.histogram
        counts = histogram.counts.astype(np.float64)
        bins = np.arange(histogram.first, histogram.first + counts.size)
        if histogram.zeros:
            counts[-histogram.first] -= histogram.zeros
        if spec.symmetric:  # bin i >= 0 holds |x| in bin i, bin i < 0 in bin −i − 1
            bins = np.where(bins < 0, -bins - 1, bins)
        first, last = (int(bins.min()), int(bins.max()) + 1) if bins.size else (0, 0)
        if -MOST_PADDING <= last < 0:
            last = 0
        if 0 < first <= MOST_PADDING:
            first = 0
        magnitudes = sorted((abs(stats.minimum), abs(stats.maximum)))
        if stats.minimum <= 0 <= stats.maximum:
            magnitudes[0] = 0.0
        # As core.affine.params_from_range: a symmetric unsigned type has its middle at zero, unless no value is
        # negative.
        halved = spec.symmetric and not spec.dtype.signed and stats.minimum < 0
        return cls(
            edges=np.ldexp(np.arange(first, last + 1, dtype=np.float64), histogram.exponent),
            counts=np.bincount(bins - first, weights=counts, minlength=last - first),
            zeros=float(histogram.zeros),
            minimum=magnitudes[0] if spec.symmetric else stats.minimum,
            maximum=magnitudes[1] if spec.symmetric else stats.maximum,
            folded=spec.symmetric,
            steps=(spec.qmax // 2 if halved else spec.qmax) if spec.symmetric else spec.qmax - spec.qmin,
        )

    @property
    def total(self) -> float:
        """Number of values, zeros included."""
        return float(self.counts.sum()) + self.zeros

    @property
    def width(self) -> float:
        """Width of a bin."""
        return float(self.edges[1] - self.edges[0]) if self.edges.size > 1 else 0.0

    @property
    def reaches_zero(self) -> bool:
        """Whether 0 is an edge."""
        return bool(self.edges[0] <= 0 <= self.edges[-1])

    @property
    def origin(self) -> int:
        """Index of the edge at 0, where there is one."""
        return int(np.searchsorted(self.edges, 0.0))

    @staticmethod
    def mirrored(threshold: float) -> tuple[float, float]:
        """The range of a threshold on |x|."""
        return -threshold, threshold

    def quantile(self, share: float) -> float:
        """The value that ``share`` of all values lie below, linear inside bins, inside the extremes."""
        cumulative = np.concatenate(([0.0], np.cumsum(self.counts)))
        if self.zeros:  # they fill the bin that begins at 0
            cumulative[self.origin + 1 :] += self.zeros
        if not cumulative[-1]:
            return self.minimum if share < 0.5 else self.maximum
        value = float(np.interp(share * cumulative[-1], cumulative, self.edges))
        return min(max(value, self.minimum), self.maximum)
