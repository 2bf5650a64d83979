from math import comb

import pytest

from quantcli.core.exact import beta_share, exact_high, exact_low


def at_least(k, n, p):
    return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@pytest.mark.parametrize("p", [0.001, 0.2, 0.5, 0.93])
def test_the_incomplete_beta_function_is_the_tail_of_the_binomial_distribution(p):
    for n in (1, 7, 40):
        for k in range(1, n + 1):
            assert beta_share(k, n - k + 1, p) == pytest.approx(at_least(k, n, p), rel=1e-10, abs=1e-14)


def test_at_the_ends_nothing_or_everything_is_below():
    assert (beta_share(2, 3, 0.0), beta_share(2, 3, 1.0)) == (0.0, 1.0)


def test_exact_bounds_invert_the_tails():
    low, high = exact_low(3, 50, 0.025), exact_high(3, 50, 0.025)
    assert at_least(3, 50, low) == pytest.approx(0.025, rel=1e-9)
    assert 1 - at_least(4, 50, high) == pytest.approx(0.025, rel=1e-9)


def test_without_successes_the_bounds_have_closed_forms():
    assert exact_low(0, 20, 0.025) == 0
    assert exact_high(0, 20, 0.025) == pytest.approx(1 - 0.025 ** (1 / 20))
    assert exact_high(20, 20, 0.025) == 1


def test_fractional_trials_lie_between_whole_ones():
    assert exact_low(2, 31, 0.025) < exact_low(2, 30.5, 0.025) < exact_low(2, 30, 0.025)
