from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.core import histogram
from quantcli.core.histogram import BINS, EMPTY, MIN_EXPONENT, Histogram

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
NEAR = st.floats(min_value=-8, max_value=8, width=32)
LISTS = st.lists(FLOATS, max_size=30) | st.lists(NEAR, max_size=30)

checked = settings(deadline=None, derandomize=True, max_examples=300)


def f32(values: object) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def naive(values: np.ndarray, h: Histogram) -> np.ndarray:
    """Counts by comparing every value with every edge."""
    exact = values.astype(np.float64)
    edges = h.edges
    return np.array([((exact >= lo) & (exact < hi)).sum() for lo, hi in pairwise(edges)])


@checked
@given(LISTS, LISTS)
def test_merging_equals_observing_together(a: list[float], b: list[float]) -> None:
    together = histogram.of(f32(a + b))
    assert histogram.merge(histogram.of(f32(a)), histogram.of(f32(b))) == together
    assert histogram.merge(histogram.of(f32(b)), histogram.of(f32(a))) == together


@checked
@given(LISTS, LISTS, LISTS)
def test_merging_is_associative(a: list[float], b: list[float], c: list[float]) -> None:
    x, y, z = (histogram.of(f32(part)) for part in (a, b, c))
    assert histogram.merge(histogram.merge(x, y), z) == histogram.merge(x, histogram.merge(y, z))


@checked
@given(st.lists(FLOATS, min_size=1, max_size=30))
def test_every_value_lies_in_the_bin_that_counts_it(values: list[float]) -> None:
    h = histogram.of(f32(values))
    assert np.array_equal(h.counts, naive(f32(values), h))
    assert h.total == len(values)
    assert h.zeros == int((f32(values) == 0).sum())


@checked
@given(st.lists(FLOATS, min_size=1, max_size=30))
def test_bins_are_the_finest_that_the_rules_allow(values: list[float]) -> None:
    h = histogram.of(f32(values))
    lo, hi = float(min(f32(values))), float(max(f32(values)))
    largest = max(abs(lo), abs(hi))
    finer = h.exponent - 1
    spans = np.floor(np.ldexp(hi, -finer)) - np.floor(np.ldexp(lo, -finer)) + 1
    assert h.counts.size <= BINS
    assert spans > BINS or finer < MIN_EXPONENT or np.ldexp(largest, -finer) >= 2**24


@checked
@given(st.lists(FLOATS, min_size=1, max_size=30), st.permutations(range(30)))
def test_the_order_of_values_does_not_matter(values: list[float], order: list[int]) -> None:
    shuffled = [values[i] for i in order if i < len(values)]
    assert histogram.of(f32(values)) == histogram.of(f32(shuffled))


def test_an_empty_histogram_is_neutral() -> None:
    h = histogram.of(f32([1, 2, -7]))
    assert histogram.of(f32([])) == EMPTY
    assert histogram.merge(EMPTY, h) == h == histogram.merge(h, EMPTY)
    assert histogram.merge(EMPTY, EMPTY) == EMPTY


def test_a_constant_is_one_bin_as_fine_as_float32() -> None:
    h = histogram.of(f32([3.3] * 5))
    assert h.counts.tolist() == [5]
    assert h.width == 2.0**-22  # 3.3 < 2^2, 24 bits
    assert h.edges[0] == np.float32(3.3)


def test_all_zeros_are_one_bin_of_zeros() -> None:
    h = histogram.of(f32([0, -0.0, 0]))
    assert (h.counts.tolist(), h.zeros, h.first) == ([3], 3, 0)


def test_a_normal_range_uses_at_least_half_of_the_bins() -> None:
    h = histogram.of(np.random.default_rng(0).normal(size=10_000).astype(np.float32))
    assert BINS // 2 <= h.counts.size <= BINS


def test_weights_multiply_counts_and_zeros() -> None:
    h = histogram.of(f32([0, 1, 1, 3]), weight=7)
    assert (h.total, h.zeros) == (28, 7)


def test_known_extremes_widen_the_range_without_being_counted() -> None:
    h = histogram.of(f32([1, 2]), minimum=-3.0, maximum=9.0)
    assert h.total == 2
    assert h.edges[0] <= -3
    assert h.edges[-1] > 9


def test_values_outside_the_given_extremes_are_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        histogram.of(f32([1, 20]), minimum=0.0, maximum=9.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        histogram.of(f32([1, value]))


def test_refining_is_refused() -> None:
    with pytest.raises(ValueError, match="refined"):
        histogram.of(f32([1, 2])).coarsened(-100)


def test_centers_lie_in_the_middle_of_the_edges() -> None:
    h = histogram.of(f32([-2, 5, 1.5]))
    assert np.array_equal(h.centers, (h.edges[1:] + h.edges[:-1]) / 2)


def test_counts_are_read_only_and_one_dimensional() -> None:
    with pytest.raises(ValueError, match="read-only"):
        histogram.of(f32([1])).counts[0] = 2
    with pytest.raises(ValueError, match="one axis"):
        Histogram(counts=np.zeros((2, 2), np.int64))
    assert len({histogram.of(f32([1])), histogram.of(f32([1]))}) == 1
