"""Rank correlation (Spearman 1904): how far two orders agree, whatever the distances."""

from __future__ import annotations

import numpy as np


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, float64 (n,); equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    starts = np.cumsum(count) - count
    return np.asarray((starts + (count - 1) / 2)[place])


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's ρ of two lists of n values, −1 to 1; None where one of them has no order."""
    first, second = ranks(a), ranks(b)
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])
