"""How much worse than a baseline a metric may be before that counts as a regression.

The defaults go together: 0.5 dB of SQNR is 10^0.05 = 1.12 times the noise power, 6 % more RMSE, and 12 % more
of 1 − cosine, which is half the ratio of noise to signal where the error is small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Measure(StrEnum):
    """What the amount of an allowance is a number of."""

    UNITS = "units"
    SHARE = "share"
    DISTANCE = "distance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """An allowed regression.

    Attributes:
        amount: Not negative: in the metric's own unit (UNITS), as a share of the baseline's value (SHARE), or as
            a share of the baseline's distance from 1 (DISTANCE).
        measure: What ``amount`` counts.
        named_only: Whether the metric is held against a baseline only where it is named: others say the same
            more steadily.
    """

    amount: float
    measure: Measure = Measure.UNITS
    named_only: bool = False

    def limit(self, value: float, *, higher_is_better: bool) -> float:
        """The worst value that is allowed where the baseline has ``value``.

        A value that is not finite allows nothing: what was exact has to stay exact.
        """
        if not math.isfinite(value):
            return value
        loss = self.amount
        if self.measure is Measure.SHARE:
            loss *= abs(value)
        elif self.measure is Measure.DISTANCE:
            loss *= abs(1 - value)
        return value - loss if higher_is_better else value + loss


_BY_UNIT = {
    "dB": Allowance(amount=0.5),
    "%": Allowance(amount=0.005),
    "pp": Allowance(amount=0.005, named_only=True),  # a drop says what its metric says
    "×": Allowance(amount=0.05, measure=Measure.SHARE),
}

USUAL = Allowance(amount=0.01, measure=Measure.SHARE)
"""For metrics that have no unit and nothing of their own, metrics of tasks among them."""


def usual_allowance(unit: str) -> Allowance:
    """The default of a metric that has none of its own, by its unit."""
    return _BY_UNIT.get(unit, USUAL)
