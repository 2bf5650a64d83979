"""Why a layer's quantization makes an error, from statistics and parameters; and what would help.

* *outlier channels*: one channel reaches many times as far as the median one, so the others get few steps.
* *clipping*: values beyond the range make more squared error than rounding inside it, Δ²/12 per value (Widrow and
  Kollár, "Quantization Noise", 2008, chapter 5), both by the calibration's histogram.
* *weights*: the integers of the weight make more of the error than the activations do.
* *bias*: most of the error is the same for all samples.
* *rounding*: none of these; eight bits are too few for this place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from quantcli.core.affine import representable_range
from quantcli.core.spec import QuantParams
from quantcli.core.stats import TensorStats

Cause = Literal["outlier channels", "clipping", "rounding", "weights", "bias"]

OUTLIER_RATIO = 6.0
"""Largest over median amplitude of channels from which on channels count as outliers; 2 to 4 are usual."""

CONSTANT_SHARE = 0.6
"""Share of the error that must be the same for all samples to be called a matter of the bias."""

_CHANNELS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippingEnergy:
    """Squared error of an activation by its calibration.

    Attributes:
        share: Of the values that lie beyond the range.
        clipped: Σ (x − bound)² of these.
        rounding: Δ²/12 for every value inside that is not 0.
    """

    share: float
    clipped: float
    rounding: float

    @property
    def part(self) -> float:
        """Share of clipping in the squared error."""
        total = self.clipped + self.rounding
        return self.clipped / total if total > 0 else 0.0


def clipping_energy(stats: TensorStats, params: QuantParams) -> ClippingEnergy:
    """Squared errors of the values that a histogram counts."""
    low, high = representable_range(params)
    centers = np.clip(stats.histogram.centers, stats.minimum, stats.maximum)
    counts = stats.histogram.counts.astype(np.float64)
    beyond = np.maximum(centers - high, 0.0) + np.maximum(low - centers, 0.0)
    outside = beyond > float(params.scale) / 2
    total = max(float(counts.sum()), 1.0)
    inside = float(counts[~outside].sum()) - stats.histogram.zeros
    return ClippingEnergy(
        share=float(counts[outside].sum()) / total,
        clipped=float((counts * np.square(beyond))[outside].sum()),
        rounding=max(inside, 0.0) * float(params.scale) ** 2 / 12,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierChannel:
    """The channel that reaches farthest: its index, its amplitude, and the median one."""

    channel: int
    amplitude: float
    median: float

    @property
    def ratio(self) -> float:
        """How many times as far as the median channel it reaches."""
        return self.amplitude / self.median if self.median > 0 else 1.0


def farthest_channel(low: np.ndarray, high: np.ndarray) -> OutlierChannel | None:
    """Of extremes (channels,); None for a few channels, or where the median one is 0."""
    reach = np.maximum(np.abs(low.astype(np.float64)), np.abs(high.astype(np.float64)))
    live = reach[np.isfinite(reach) & (reach > 0)]
    if live.size < _CHANNELS:
        return None
    channel = int(np.nanargmax(np.where(np.isfinite(reach), reach, -1.0)))
    return OutlierChannel(channel=channel, amplitude=float(reach[channel]), median=float(np.median(live)))
