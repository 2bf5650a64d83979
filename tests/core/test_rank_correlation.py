"""Rank correlation against its textbook formula."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantcli.core.rank_correlation import rank_correlation, ranks


def test_equal_values_share_a_rank():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]


@given(st.permutations(range(8)))
def test_without_ties_it_is_one_minus_six_times_the_squared_differences(order):
    """ρ = 1 − 6·Σd² / (n·(n² − 1))."""
    a, b = np.arange(8.0), np.array(order, dtype=float)
    expected = 1 - 6 * float(np.square(a - b).sum()) / (8 * 63)
    assert rank_correlation(a, b) == pytest.approx(expected, abs=1e-12)


def test_only_the_order_counts():
    values = np.array([0.1, 5.0, 2.0])
    assert rank_correlation(values, np.exp(values)) == pytest.approx(1.0)
    assert rank_correlation(values, -values) == pytest.approx(-1.0)


def test_values_without_an_order_have_none():
    assert rank_correlation(np.array([1.0, 1.0]), np.array([1.0, 2.0])) is None
