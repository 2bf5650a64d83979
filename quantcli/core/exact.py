"""Tails of the binomial distribution, and the exact bounds of a proportion that follow from them.

P(X ≥ k) for X ~ Binomial(n, p) is the regularised incomplete beta function I_p(k, n − k + 1), which is defined
for fractional k and n as well (trials that count as fewer independent ones). It is computed by its continued
fraction (Abramowitz and Stegun 1964, 26.5.8, evaluated as by Lentz 1976). Bounds that invert it (Clopper and
Pearson 1934) are wrong with at most the stated probability, for any rate and any number of trials.
"""

from __future__ import annotations

import math

_STEPS = 10_000
_TINY = 1e-300


def beta_share(a: float, b: float, x: float) -> float:
    """I_x(a, b), for a, b > 0 and x in [0, 1]."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges quickly below
        return 1 - beta_share(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    above, below = 1.0, _nonzero(1 - (a + b) * x / (a + 1))
    below = 1 / below
    value = below
    for step in range(1, _STEPS):
        even = step * (b - step) * x / ((a + 2 * step - 1) * (a + 2 * step))
        odd = -(a + step) * (a + b + step) * x / ((a + 2 * step) * (a + 2 * step + 1))
        for term in (even, odd):
            below = 1 / _nonzero(1 + term * below)
            above = _nonzero(1 + term / above)
            value *= above * below
        if abs(above * below - 1) < 1e-14:
            break
    return front * value / a


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def exact_low(successes: float, trials: float, tail: float) -> float:
    """The rate at which so many successes or more have the probability ``tail``; 0 without successes."""
    if successes <= 0:
        return 0.0
    low, high = 0.0, successes / trials
    for _ in range(60):
        middle = (low + high) / 2
        more = beta_share(successes, trials - successes + 1, middle) < tail
        low, high = (middle, high) if more else (low, middle)
    return low


def exact_high(successes: float, trials: float, tail: float) -> float:
    """The rate at which so many successes or fewer have the probability ``tail``; 1 where all succeeded."""
    return 1 - exact_low(trials - successes, trials, tail)
