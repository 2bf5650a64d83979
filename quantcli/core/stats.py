"""What calibration keeps of one activation: mergeable, of fixed size, free of any choice of range method.

* Extremes are exact, over every element of every sample; where the operator that makes a tensor bounds it from
  below by 0 (Relu), 0 may stand for the minimum. Ranges contain 0 anyway.
* The histogram (see ``core.histogram``) counts a strided subsample, each value with the stride as its weight.
  Mean and standard deviation come from it: bins are at most 1/2048 of the observed range wide, so the
  variance is off by about width²/12 at worst, and integers merge without rounding.
* The moving average of per-sample extremes starts at zero and is corrected for that, as Adam's moments are
  (Kingma and Ba 2015, section 3): m_n = d·m_(n−1) + (1 − d)·x_n, estimate m_n / (1 − d^n). Starting at zero
  makes it mergeable: what was seen first counts d^n of what n samples more leave of it.

Invariant: ``merge(a, b)`` equals observing b's samples after a's: bit for bit in everything but the moving
average and the sum of amplitudes, which are equal up to the rounding of float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from quantcli.core import histogram
from quantcli.core.histogram import EMPTY, Histogram

DECAY = 0.99
"""What one more sample leaves of the moving average: a memory of about 100 samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingRange:
    """Exponential moving average of per-sample extremes.

    Attributes:
        samples: n, how many entered.
        low: Zero-initialised average of minima, not corrected.
        high: The same of maxima.
    """

    samples: int = 0
    low: float = 0.0
    high: float = 0.0

    @property
    def range(self) -> tuple[float, float]:
        """Averages of minimum and maximum, corrected for the start at zero; (0, 0) of no samples."""
        if not self.samples:
            return 0.0, 0.0
        weight = -math.expm1(self.samples * math.log(DECAY))
        return self.low / weight, self.high / weight

    def followed_by(self, later: MovingRange) -> MovingRange:
        """The average after ``later``'s samples came, too."""
        kept = DECAY**later.samples
        return MovingRange(
            samples=self.samples + later.samples,
            low=self.low * kept + later.low,
            high=self.high * kept + later.high,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorStats:
    """Statistics of one activation.

    Attributes:
        dtype: numpy name of its type in the model ("float32", "float16"); statistics are of float32 values.
        samples: Samples in which it had elements, all of them finite.
        nonfinite: Samples in which it held NaN or Inf; nothing else here knows of them.
        minimum: Smallest element, +inf of no samples.
        maximum: Largest element, −inf of no samples.
        histogram: Of a strided subsample, weighted; spans the extremes exactly.
        average: Moving average of per-sample extremes.
        amplitudes: Sum over the samples of max |x|; the mean amplitude is ``amplitudes / samples``.
        channel_axis: The axis of ``channel_minimum``; None where channels were not looked at.
        channel_minimum: float32 (channels,) smallest element of each channel, +inf of no samples; read-only.
        channel_maximum: float32 (channels,) largest element.
    """

    dtype: str = "float32"
    samples: int = 0
    nonfinite: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    histogram: Histogram = EMPTY
    average: MovingRange = field(default_factory=MovingRange)
    amplitudes: float = 0.0
    channel_axis: int | None = None
    channel_minimum: np.ndarray | None = None
    channel_maximum: np.ndarray | None = None

    def __post_init__(self) -> None:
        with_channels = self.channel_axis is not None
        if with_channels != (self.channel_minimum is not None) or with_channels != (
            self.channel_maximum is not None
        ):
            raise ValueError("channel axis and extremes of channels go together")
        for name in ("channel_minimum", "channel_maximum"):
            given = getattr(self, name)
            if given is not None:
                array = np.array(given, dtype=np.float32)
                array.setflags(write=False)
                object.__setattr__(self, name, array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TensorStats) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @property
    def count(self) -> int:
        """Elements that the histogram stands for."""
        return self.histogram.total

    @property
    def mean_amplitude(self) -> float:
        """Mean over the samples of max |x|; 0 of none."""
        return self.amplitudes / self.samples if self.samples else 0.0

    @property
    def mean(self) -> float:
        """Mean of the elements; 0 of none."""
        return self._moments()[0]

    @property
    def std(self) -> float:
        """Standard deviation of the elements (of the population); 0 of none."""
        return self._moments()[1]

    def _moments(self) -> tuple[float, float]:
        total = self.count
        if not total:
            return 0.0, 0.0
        # Exact zeros count as 0, all others as the middle of their bin, which never leaves the extremes.
        values = np.clip(self.histogram.centers, self.minimum, self.maximum)
        counts = self.histogram.counts.astype(np.float64)
        if self.histogram.zeros:
            counts[-self.histogram.first] -= self.histogram.zeros
        mean = math.fsum(counts * values) / total
        spread = math.fsum(counts * (values - mean) ** 2) + self.histogram.zeros * mean * mean
        return mean, math.sqrt(spread / total)

    def _key(self) -> tuple[object, ...]:
        channels = [None if c is None else c.tobytes() for c in (self.channel_minimum, self.channel_maximum)]
        return (
            *(self.dtype, self.samples, self.nonfinite, self.minimum, self.maximum),
            *(self.histogram, self.average, self.amplitudes, self.channel_axis, *channels),
        )


def merge(a: TensorStats, b: TensorStats) -> TensorStats:
    """Statistics of a's samples followed by b's; without channels where the two do not look at the same.

    Raises:
        ValueError: They are of tensors of different types.
    """
    if a.dtype != b.dtype:
        raise ValueError("statistics of different types do not merge")
    with_channels = same_channels(a, b)
    return TensorStats(
        dtype=a.dtype,
        samples=a.samples + b.samples,
        nonfinite=a.nonfinite + b.nonfinite,
        minimum=min(a.minimum, b.minimum),
        maximum=max(a.maximum, b.maximum),
        histogram=histogram.merge(a.histogram, b.histogram),
        average=a.average.followed_by(b.average),
        amplitudes=a.amplitudes + b.amplitudes,
        channel_axis=a.channel_axis if with_channels else None,
        channel_minimum=_joined(a.channel_minimum, b.channel_minimum, np.minimum) if with_channels else None,
        channel_maximum=_joined(a.channel_maximum, b.channel_maximum, np.maximum) if with_channels else None,
    )


def same_channels(a: TensorStats, b: TensorStats) -> bool:
    """Whether both have extremes of channels or neither has, on the same axis and of the same number."""
    sizes = [None if found.channel_minimum is None else found.channel_minimum.size for found in (a, b)]
    return a.channel_axis == b.channel_axis and sizes[0] == sizes[1]


def _joined(a: np.ndarray | None, b: np.ndarray | None, extreme: np.ufunc) -> np.ndarray | None:
    return None if a is None or b is None else np.asarray(extreme(a, b))
