"""The range with the least Kullback-Leibler divergence between the values and the quantized values.

Migacz 2017, "8-bit inference with TensorRT" (GTC): for every candidate window of bins

* P, the reference, is the histogram inside the window, with what lies outside added to the outermost bins;
* Q is the histogram inside the window merged into as many levels as the type has, each level's count spread
  evenly over those of its bins that P fills;

and the window with the least KL(P ‖ Q) = Σ p·log(p/q) of the normalised distributions wins. Here windows may be
cut on both sides (0 stays inside) when the form is asymmetric. Since all bins of a level share one q,

    Σ p·log(p/q) = Σ_bins p·log p − Σ_levels P_level·log(S_level / n_level)

with S the level's count in the histogram and n its number of filled bins: sums that differences of cumulative
sums give, so that a candidate costs as many operations as it has levels. Exact zeros are left out: they have
no error in any range.

A window must have at least ``BINS_PER_LEVEL`` bins per level: merging one bin loses nothing, so that narrower
windows would look free. (onnxruntime's own calibrator has as many bins as levels by default, and so one
candidate, the whole range.) Where Q has no mass in a level but P has, from outside, Q gets ``SMOOTHING`` of one
observation, as in MXNet's version of the algorithm.
"""

from __future__ import annotations

import numpy as np

from quantcli.calibration.profile import Profile
from quantcli.calibration.window_search import cheapest_window

BINS_PER_LEVEL = 2
SMOOTHING = 1e-4

_GRID = 17


def entropy_range(profile: Profile) -> tuple[float, float]:
    """Lower and upper bound: bin edges, or the extremes where nothing is to be gained."""
    low, high = 0, profile.counts.size
    if profile.reaches_zero and profile.counts.any() and high > (profile.steps + 1) * BINS_PER_LEVEL:
        lows = np.zeros(1, dtype=np.int64) if profile.folded else np.arange(profile.origin, -1, -1)
        highs = np.arange(profile.origin, high + 1)
        low, high = cheapest_window(_Divergence(profile), lows, highs, grid=_GRID)
    top = float(profile.edges[high]) if high < profile.counts.size else profile.maximum
    if profile.folded:
        return profile.mirrored(top)
    return (float(profile.edges[low]) if low else profile.minimum), top


class _Divergence:
    """KL divergence of windows of bins."""

    def __init__(self, profile: Profile) -> None:
        counts = profile.counts
        self._levels = profile.steps + 1
        self._counts = counts
        self._total = float(counts.sum())
        self._smooth = SMOOTHING * float(counts[counts > 0].min())
        self._sums = np.concatenate(([0.0], np.cumsum(counts)))
        self._filled = np.concatenate(([0], np.cumsum(counts > 0)))
        self._entropy = np.concatenate(([0.0], np.cumsum(_xlogx(counts))))

    def __call__(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Divergence of windows [low, high), int64 that broadcast; inf for those that are too narrow."""
        low, high = np.broadcast_arrays(low, high)
        found = np.full(low.shape, np.inf)
        wide = high - low >= self._levels * BINS_PER_LEVEL
        wide &= self._sums[high] > self._sums[low]
        found[wide] = self._of(low[wide], high[wide])
        return found

    def _of(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        total = self._total
        inside = self._sums[high] - self._sums[low]
        first, last = self._counts[low], self._counts[high - 1]
        below, above = self._sums[low], total - self._sums[high]
        # Σ p·log p, with the two outer bins taken out and put back with what lies outside.
        negative = self._entropy[high] - self._entropy[low] - _xlogx(first) - _xlogx(last)
        negative += _xlogx(first + below) + _xlogx(last + above)
        edges = low[:, None] + np.arange(self._levels + 1) * (high - low)[:, None] // self._levels
        sums = np.diff(self._sums[edges], axis=1)
        filled = np.diff(self._filled[edges], axis=1).astype(np.float64)
        filled[:, 0] += (first == 0) & (below > 0)
        filled[:, -1] += (last == 0) & (above > 0)
        reference = sums.copy()
        reference[:, 0] += below
        reference[:, -1] += above
        mass = np.where(sums > 0, sums, self._smooth) / np.maximum(filled, 1)
        per_level = reference * np.log(mass)
        return np.asarray((negative - per_level.sum(axis=1)) / total + np.log(inside / total))


def _xlogx(counts: np.ndarray) -> np.ndarray:
    return np.asarray(counts * np.log(np.where(counts > 0, counts, 1.0)))
