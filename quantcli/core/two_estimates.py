"""Two independent estimates against each other.

The interval of a difference follows from the intervals of its parts by squaring and adding the distances to
their bounds (MOVER; Zou and Donner 2008, "Construction of confidence limits about effect measures"). For two
proportions with Wilson's intervals it is method 10 of Newcombe 1998, "Interval estimation for the difference
between independent proportions". It holds whatever the shape of the parts' intervals is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with the bounds of its interval; a value that is known has both bounds at itself."""

    value: float
    low: float
    high: float


def difference(a: Estimate, b: Estimate) -> Estimate:
    """``a − b`` with its interval, at the confidence that both have, for independent estimates."""
    value = a.value - b.value
    return Estimate(
        value=value,
        low=value - math.hypot(a.value - a.low, b.high - b.value),
        high=value + math.hypot(a.high - a.value, b.value - b.low),
    )
