"""Finding the cheapest window of bins around zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Cost = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Costs of windows from index arrays of their ends, which broadcast."""


def cheapest_window(cost: Cost, lows: np.ndarray, highs: np.ndarray, *, grid: int) -> tuple[int, int]:
    """The window with the least cost; of equals the widest that was looked at.

    A grid of evenly spaced pairs first, then one around its best pair and half as far as the next, until
    neighbours are looked at. The search is exact where the cost is convex, and deterministic anywhere.

    Args:
        cost: Finite or inf; finite for at least one pair of every grid that holds the outermost ends.
        lows: int64, candidates for the lower end, innermost first.
        highs: int64, candidates for the upper end, innermost first.
        grid: Points per side, at least 3.
    """
    spans = [(0, len(lows) - 1), (0, len(highs) - 1)]
    while True:
        picks = [np.unique(np.linspace(*span, min(grid, span[1] - span[0] + 1)).round()) for span in spans]
        low, high = (pick.astype(np.int64) for pick in picks)
        costs = cost(lows[low][:, None], highs[high][None, :])
        # Reversed, so that the widest of equals comes first.
        row, column = np.unravel_index(int(np.argmin(costs[::-1, ::-1])), costs.shape)
        best = len(low) - 1 - int(row), len(high) - 1 - int(column)
        if all(pick.size == last - first + 1 for pick, (first, last) in zip((low, high), spans, strict=True)):
            return int(lows[low[best[0]]]), int(highs[high[best[1]]])
        spans = [
            (int(pick[max(0, index - 1)]), int(pick[min(pick.size - 1, index + 1)]))
            for pick, index in zip((low, high), best, strict=True)
        ]
