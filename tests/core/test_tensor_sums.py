"""Sums of pairs by channel and use of ranges, against numpy over everything at once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quantcli.core.tensor_sums import PairByChannel, RangeSums

RNG = np.random.default_rng(5)
A = RNG.normal(size=(4, 2, 3, 10))
B = A + RNG.normal(size=A.shape) / 10


def test_sums_over_samples_are_those_of_everything():
    sums = PairByChannel.empty(3)
    for a, b in zip(A, B, strict=True):
        sums.add(a, b)
    axes = (0, 1, 3)
    assert sums.ee == pytest.approx(((A - B) ** 2).sum(axes))
    assert sums.e == pytest.approx((B - A).sum(axes))
    assert sums.sqnr == pytest.approx(10 * math.log10((A**2).sum() / ((A - B) ** 2).sum()))
    assert (sums.count, sums.samples) == (80, 4)
    assert sums.largest == np.abs(A - B).max()


def test_a_new_nan_is_an_error_without_bound():
    sums = PairByChannel.empty(3)
    broken = B[0].copy()
    broken[0, 0, 0] = np.nan
    sums.add(A[0], broken)
    assert (sums.nonfinite, sums.sqnr) == (1, -math.inf)


def test_clipping_and_rounding_are_told_apart():
    """Steps of 1 from −2 to 3: 5 is clipped by 2, 0.25 is rounded by 0.25, 3.4 is within half a step."""
    sums = RangeSums()
    sums.add(np.array([5.0, 0.25, 3.4, -1.0]), 1.0, 2, (0, 5))
    assert (sums.count, sums.clipped) == (4, 1)
    assert sums.clip_energy == pytest.approx(4 + 0.4**2)
    assert sums.error_energy == pytest.approx(4 + 0.4**2 + 0.25**2)
    assert (sums.lows, sums.highs) == ([-1.0], [5.0])
