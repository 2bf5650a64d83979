"""Confidence intervals that assume no distribution of the measured values.

* A proportion: Wilson's score interval (Wilson 1927, "Probable inference, the law of succession, and statistical
  inference"), which stays inside [0, 1] and does not collapse at 0 or 1. Where few trials fail (or few succeed),
  the bound on that side is wrong too often, up to 9 % in place of 2.5 % (Brown, Cai and DasGupta 2001, "Interval
  estimation for a binomial proportion", section 4); ``proportion`` does not let it be inside the exact one.
* A difference of two proportions measured on the same samples: the drop is lost − gained, the shares of trials
  that succeeded in one measurement only. Their Wilson intervals are joined by the method of variance estimates
  recovery (Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based
  on paired data"; Zou and Donner 2008, "Construction of confidence limits about effect measures"): the upper
  bound is d + sqrt((U_l − l)² + (g − L_g)² − 2·r·(U_l − l)·(g − L_g)), r the correlation of the two cells. Where
  trials are only lost, as small drops look, both bounds are wrong as seldom as stated; the adjusted Wald
  interval (Agresti and Min 2005) then calls a drop small up to five times as often as stated.
* A median: order statistics of the sample (the sign test turned round).

And one test: whether a difference of two proportions on the same trials is more than chance (McNemar 1947, "Note
on the sampling error of the difference between correlated proportions or percentages"), in its exact form.

Trials may be fractional: correlated trials count as fewer independent ones (see ``core.rates``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from quantcli.core.exact import exact_high, exact_low

CONFIDENCE = 0.95
"""Confidence of every interval that is reported."""


def normal_quantile(confidence: float = CONFIDENCE) -> float:
    """Two-sided standard normal quantile: 1.96 for 95 %."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, not {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(successes: float, trials: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of a proportion.

    Args:
        successes: Between 0 and ``trials``.
        trials: Independent trials, above 0; may be fractional.
        confidence: Two-sided.

    Returns:
        Lower and upper bound, both in [0, 1].

    Raises:
        ValueError: There are no trials, or more successes than trials.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials is no proportion")
    z = normal_quantile(confidence)
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    spread = math.sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2)
    half = z * spread / (1 + z * z / trials)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def proportion(successes: float, trials: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval to decide by: Wilson's, its bound towards the nearer end not inside the exact one.

    Args:
        successes: Between 0 and ``trials``.
        trials: Independent trials, above 0; may be fractional.
        confidence: Two-sided.

    Returns:
        Lower and upper bound, both in [0, 1].

    Raises:
        ValueError: As ``wilson``.
    """
    low, high = wilson(successes, trials, confidence)
    tail = (1 - confidence) / 2
    if 2 * successes > trials:
        return low, max(high, exact_high(successes, trials, tail))
    return min(low, exact_low(successes, trials, tail)), high


def wilson_trials_to_decide(rate: float, limit: float, confidence: float = CONFIDENCE) -> int | None:
    """Trials from which Wilson's interval around ``rate`` excludes ``limit``.

    The interval holds the limit exactly while the score test does not reject it:
    (rate − limit)² ≤ z²·limit·(1 − limit)/n. None where no number decides (rate = limit).
    """
    if rate == limit:
        return None
    z = normal_quantile(confidence)
    return math.floor(z * z * limit * (1 - limit) / (rate - limit) ** 2) + 1


def proportion_trials_to_decide(rate: float, limit: float, confidence: float = CONFIDENCE) -> int | None:
    """Trials from which ``proportion`` around ``rate`` excludes ``limit``, within 2 %; None if no number does."""
    count = wilson_trials_to_decide(rate, limit, confidence)
    while count is not None:
        low, high = proportion(min(rate * count, count), count, confidence)
        if not low <= limit <= high:
            return count
        count = math.ceil(1.02 * count)
    return None


def paired_difference(
    lost: float, gained: float, trials: float, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Interval of (lost − gained) / trials, the drop of a proportion between two paired measurements.

    Args:
        lost: Trials that succeeded in the first measurement only.
        gained: Trials that succeeded in the second only.
        trials: All trials, above 0; may be fractional.
        confidence: Two-sided.

    Returns:
        Lower and upper bound, both in [-1, 1].

    Raises:
        ValueError: There are no trials, or fewer than were lost and gained.
    """
    if trials <= 0 or min(lost, gained) < 0 or lost + gained > trials * (1 + 1e-12):
        raise ValueError(f"{lost} lost and {gained} gained of {trials} trials is no difference")
    shares = (min(1.0, lost / trials), min(1.0, gained / trials))
    bounds = tuple(wilson(min(cell, trials), trials, confidence) for cell in (lost, gained))
    spread = math.sqrt(math.prod(share * (1 - share) for share in shares))
    correlation = -shares[0] * shares[1] / spread if spread > 0 else 0.0
    drop = (lost - gained) / trials

    def joined(first: float, second: float) -> float:
        return math.sqrt(max(0.0, first**2 + second**2 - 2 * correlation * first * second))

    low = drop - joined(shares[0] - bounds[0][0], bounds[1][1] - shares[1])
    high = drop + joined(bounds[0][1] - shares[0], shares[1] - bounds[1][0])
    return max(-1.0, low), min(1.0, high)


def paired_trials_to_decide(
    lost: float, gained: float, trials: float, limit: float, confidence: float = CONFIDENCE
) -> int | None:
    """Trials from which the interval of the difference excludes ``limit``, at the same rates.

    None where no number below 10^12 does (the measured difference equals the limit).
    """
    if trials <= 0:
        return None

    def decided(count: int) -> bool:
        share = count / trials
        low, high = paired_difference(lost * share, gained * share, count, confidence)
        return not low <= limit <= high

    top = 1
    while not decided(top):
        top *= 2
        if top > 10**12:
            return None
    bottom = top // 2
    while top - bottom > 1:
        middle = (top + bottom) // 2
        bottom, top = (bottom, middle) if decided(middle) else (middle, top)
    return top


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float] | None:
    """Distribution-free interval of the median of independent values.

    The k-th smallest and k-th largest of n values enclose the median with probability
    1 − 2·P(Binomial(n, 1/2) < k); k is the largest that keeps ``confidence``.

    Args:
        values: Measurements in any order.
        confidence: Wanted; two-sided.

    Returns:
        Lower bound, upper bound and the confidence really held (at least the wanted one); None where there
        are too few values (fewer than 6 for 95 %).
    """
    ordered = sorted(values)
    n = len(ordered)
    half, tail, k = (1 - confidence) / 2, 0.0, 0
    held = 0.0
    while k < (n + 1) // 2:
        # In logarithms: 2^-n underflows from n = 1075 on.
        log_term = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
        tail += math.exp(log_term)
        if tail > half:
            break
        k, held = k + 1, 1 - 2 * tail
    if k == 0:
        return None
    return ordered[k - 1], ordered[n - k], held


def mcnemar_p(lost: int, gained: int) -> float:
    """Exact two-sided p-value of "as many are lost as gained".

    Among the lost + gained trials that changed, each is as likely to be lost as gained if there is no difference:
    p = min(1, 2·P(Binomial(lost + gained, 1/2) ≤ min(lost, gained))).

    Args:
        lost: Independent trials that succeeded in the first measurement only.
        gained: Independent trials that succeeded in the second only.

    Raises:
        ValueError: One of them is negative.
    """
    if min(lost, gained) < 0:
        raise ValueError(f"{lost} lost and {gained} gained trials cannot be")
    changed = lost + gained
    if changed == 0:
        return 1.0
    logs = [
        math.lgamma(changed + 1) - math.lgamma(k + 1) - math.lgamma(changed - k + 1) - changed * math.log(2)
        for k in range(min(lost, gained) + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))
