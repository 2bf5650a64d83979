import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.core.exact import exact_high, exact_low
from quantcli.core.intervals import (
    mcnemar_p,
    median_interval,
    normal_quantile,
    paired_difference,
    paired_trials_to_decide,
    proportion,
    proportion_trials_to_decide,
    wilson,
    wilson_trials_to_decide,
)


def test_the_95_percent_quantile_is_1_96():
    assert normal_quantile(0.95) == pytest.approx(1.959964, abs=1e-6)


def test_a_confidence_outside_0_and_1_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        normal_quantile(1.0)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_table(hits, trials, low, high):
    assert wilson(hits, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000), st.data())
@settings(deadline=None, derandomize=True)
def test_wilson_holds_the_rate_and_stays_in_the_unit_interval(trials, data):
    hits = data.draw(st.integers(0, trials))
    low, high = wilson(hits, trials)
    assert 0 <= low <= hits / trials <= high <= 1
    mirrored = wilson(trials - hits, trials)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize(("hits", "trials"), [(1, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_proportion(hits, trials):
    with pytest.raises(ValueError, match="no proportion"):
        wilson(hits, trials)


@given(st.integers(0, 100), st.integers(1, 99))
@settings(deadline=None, derandomize=True)
def test_the_number_of_trials_that_decides_is_the_first_that_excludes_the_limit(rate, limit):
    rate, limit = rate / 100, limit / 100
    needed = wilson_trials_to_decide(rate, limit)
    if rate == limit:
        assert needed is None
        return
    low, high = wilson(rate * needed, needed)
    assert not low <= limit <= high
    if needed > 1:
        low, high = wilson(rate * (needed - 1), needed - 1)
        assert low - 1e-12 <= limit <= high + 1e-12


def test_full_agreement_needs_381_samples_to_prove_99_percent():
    assert wilson_trials_to_decide(1.0, 0.99) == 381  # z²·0.99/0.01 = 380.3


def test_paired_difference_reproduces_the_approval_ratings_example():
    # Agresti, "Categorical Data Analysis", table 10.1: 150 and 86 of 1600 changed their minds; Wald gives
    # 0.04 ± 1.96·0.0095; and Wilson bounds of each cell move that by less than 0.0003.
    assert paired_difference(150, 86, 1600) == pytest.approx((0.0213, 0.0587), abs=3e-4)


def test_no_difference_still_has_an_interval_around_0():
    low, high = paired_difference(0, 0, 100)
    assert low < 0 < high
    assert high == pytest.approx(-low)


def test_paired_difference_refuses_more_changes_than_trials():
    with pytest.raises(ValueError, match="no difference"):
        paired_difference(3, 3, 5)


def test_paired_trials_decide_and_one_fewer_does_not():
    needed = paired_trials_to_decide(4, 2, 300, limit=0.02)
    for trials, decided in ((needed, True), (needed - 1, False)):
        low, high = paired_difference(4 * trials / 300, 2 * trials / 300, trials)
        assert (not low <= 0.02 <= high) is decided


def test_a_difference_equal_to_its_limit_is_never_decided():
    assert paired_trials_to_decide(3, 0, 300, limit=0.01) is None
    assert paired_trials_to_decide(0, 0, 0, limit=0.01) is None


@pytest.mark.parametrize(
    ("count", "rank"),
    # Conover, "Practical Nonparametric Statistics": ranks of the sign-test interval at 95 %.
    [(6, 1), (8, 1), (9, 2), (12, 3), (20, 6), (30, 10)],
)
def test_median_interval_takes_the_tabulated_order_statistics(count, rank):
    values = list(range(1, count + 1))
    random.Random(3).shuffle(values)
    low, high, held = median_interval(values)
    assert (low, high) == (rank, count + 1 - rank)
    tail = sum(math.comb(count, k) for k in range(rank)) / 2**count
    assert held == pytest.approx(1 - 2 * tail, rel=1e-9)
    assert held >= 0.95


def test_five_values_cannot_hold_a_median_at_95_percent():
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None


def test_median_interval_does_not_underflow_for_thousands_of_values():
    low, high, held = median_interval([float(i) for i in range(5001)])
    # Normal approximation: 2500 ± 1.96·sqrt(5001)/2 = 2500 ± 69.3.
    assert (low, high) == (2430, 2570)
    assert 0.95 <= held < 0.96


def test_the_bound_on_the_near_end_is_never_inside_the_exact_one():
    for hits, trials in ((97, 100), (49, 50), (300, 300), (3, 100), (150, 200)):
        low, high = proportion(hits, trials)
        plain = wilson(hits, trials)
        if 2 * hits > trials:
            assert low == plain[0]
            assert high == pytest.approx(max(plain[1], exact_high(hits, trials, 0.025)))
        else:
            assert low == pytest.approx(min(plain[0], exact_low(hits, trials, 0.025)))
            assert high == plain[1]


def test_trials_to_decide_really_decide():
    for rate, limit in ((0.98, 0.99), (1.0, 0.99), (0.6, 0.5), (0.02, 0.05)):
        count = proportion_trials_to_decide(rate, limit)
        low, high = proportion(rate * count, count)
        assert not low <= limit <= high
        low, high = proportion(rate * 0.9 * count, 0.9 * count)
        assert low <= limit <= high
    assert proportion_trials_to_decide(0.9, 0.9) is None


def test_a_drop_without_gains_has_the_bound_of_the_share_that_was_lost():
    low, high = paired_difference(3, 0, 300)
    assert high == pytest.approx(wilson(3, 300)[1])
    assert low < 0 < 0.01


def test_turning_the_two_measurements_round_turns_the_interval_round():
    low, high = paired_difference(17, 5, 400)
    assert paired_difference(5, 17, 400) == (pytest.approx(-high), pytest.approx(-low))


def test_mcnemar_is_the_sign_test_on_what_changed():
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(5, 5) == 1.0
    assert mcnemar_p(6, 0) == pytest.approx(2 / 2**6)
    assert mcnemar_p(1, 8) == mcnemar_p(8, 1) == pytest.approx(2 * (1 + 9) / 2**9)
    assert mcnemar_p(5000, 5400) == pytest.approx(math.erfc(399 / math.sqrt(2 * 10400)), rel=0.01)


def test_a_negative_count_is_no_change():
    with pytest.raises(ValueError, match="cannot be"):
        mcnemar_p(-1, 3)
