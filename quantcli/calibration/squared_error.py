"""The range with the least expected squared error.

Rounding inside the range costs step²/12 per value (uniform error; Widrow, Kollar and Liu 1996, "Statistical
theory of quantization"), exact zeros cost nothing, and a value x outside costs its squared distance to the
nearest end (Banner et al. 2019, "Post training 4-bit quantization of convolutional networks", section 3, with
the histogram in the place of a fitted distribution). With values uniform inside bins, sums of counts, of
counts·x and of counts·x² up to each edge make every candidate a closed form.

Candidates are pairs of bin edges, 0 between them.
"""

from __future__ import annotations

import numpy as np

from quantcli.calibration.profile import Profile
from quantcli.calibration.window_search import cheapest_window

_GRID = 65


def squared_error_range(profile: Profile) -> tuple[float, float]:
    """Lower and upper bound, bin edges clipped to the extremes."""
    if not (profile.reaches_zero and profile.counts.any()):
        return profile.mirrored(profile.maximum) if profile.folded else (profile.minimum, profile.maximum)
    origin = profile.origin
    edges = np.clip(profile.edges, min(profile.minimum, 0.0), max(profile.maximum, 0.0))
    lows = np.arange(origin, -1, -1)
    highs = np.arange(origin, edges.size)
    if profile.folded:
        lows = lows[:1]
    low, high = cheapest_window(_Cost(profile, edges), lows, highs, grid=_GRID)
    bounds = float(edges[low]), float(edges[high])
    return profile.mirrored(bounds[1]) if profile.folded else bounds


class _Cost:
    """Total squared error of windows between edges."""

    def __init__(self, profile: Profile, edges: np.ndarray) -> None:
        self._edges, self._steps = edges, profile.steps
        counts = profile.counts
        # Relative to the largest magnitude, so that squares neither overflow nor lose small values to rounding.
        self._unit = float(np.abs(edges).max()) or 1.0
        centers = (profile.edges[1:] + profile.edges[:-1]) / 2 / self._unit
        spread = (profile.width / self._unit) ** 2 / 12
        self._count, self._first, self._second = (
            np.concatenate(([0.0], np.cumsum(counts * weight)))
            for weight in (1.0, centers, centers * centers + spread)
        )

    def __call__(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Costs of windows from edge ``low`` to edge ``high``, index arrays that broadcast."""
        bottom, top = self._edges[low] / self._unit, self._edges[high] / self._unit
        step = (top - bottom) / self._steps
        inside = self._count[high] - self._count[low]
        below = self._second[low] - 2 * bottom * self._first[low] + bottom * bottom * self._count[low]
        count, first, second = (sums[-1] - sums[high] for sums in (self._count, self._first, self._second))
        above = second - 2 * top * first + top * top * count
        return np.asarray(inside * step * step / 12 + below + above)
