"""One figure of a report against the same figure of an earlier report.

The limit of each gate is the baseline's value less what is allowed (``allowance``). How it is judged depends on
where noise comes from:

* On the same samples, a value within what is allowed passes. One beyond it fails if that is more than noise,
  and is *undecided* otherwise: two equally good models differ in some decisions. The noise of accuracy is that
  of the changes against the common original, far smaller than that of the accuracy itself. Figures without an
  interval (SQNR, cosine similarity, counts) are judged by their value.
* On other samples, rates are noisy in both reports, so the interval of the difference of two independent estimates
  decides (``core.two_estimates``), and between pass and fail there is *undecided*. Figures without an interval
  differ between samples by an unknown amount (SQNR by a decibel or two): beyond what is allowed they are
  undecided, and beyond ten times of it they fail.
* Times are noisy in any case: their interval decides.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from quantcli.core.two_estimates import Estimate, difference
from quantcli.evaluate.allowance_syntax import AllowedRegression
from quantcli.evaluate.baseline_figures import Figure
from quantcli.evaluate.metric_table import METRICS, show
from quantcli.report.schema import GateResult, GateStatus

TIMES = ("latency_ratio",)
"""Metrics that are noisy even on the same samples."""

_GROSS = 10.0
"""How many times the allowed regression a figure without an interval has to be worse to fail on other samples."""

_ROUNDING = 1e-12
"""Relative difference that float64 arithmetic on a limit may make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinship:
    """How close two reports are.

    Attributes:
        same_data: Whether they are about the same samples; None where one does not say.
        same_original: Whether the original is the same file.
        samples: How many samples the new one is about.
    """

    same_data: bool | None
    same_original: bool
    samples: int


def judge(old: Figure, new: Figure, allow: AllowedRegression, kin: Kinship) -> GateResult:
    """The gate that ``allow`` makes of the figure ``old``, held against ``new``."""
    limit = _limit(old.value, old, allow)
    margin = new.value - limit if old.higher_is_better else limit - new.value
    if new.value == limit or math.isclose(new.value, limit, rel_tol=_ROUNDING):
        margin = 0.0
    status: GateStatus = "pass" if margin >= 0 else "fail"  # NaN fails
    shown = None
    fact = kin.same_data is True and old.metric not in TIMES
    estimates = _estimates(old, new, paired=fact and kin.same_original)
    if estimates is not None and not (fact and status == "pass"):
        shown = _relative(*estimates, old, limit, allow)
        good, bad = (shown.low, shown.high) if old.higher_is_better else (-shown.high, -shown.low)
        edge = limit if old.higher_is_better else -limit
        status = "pass" if good >= edge else "fail" if bad < edge else "undecided"
    elif status == "fail" and old.of_samples and not fact and not _gross(old, new, allow):
        status = "undecided"
    needed = None
    if status == "undecided" and fact and shown is not None:
        reach = (shown.high - new.value) if old.higher_is_better else (new.value - shown.low)
        needed = math.ceil(kin.samples * (reach / abs(margin)) ** 2) + 1  # noise shrinks with the root
    return GateResult(
        expression=_expression(old, limit),
        metric=old.metric,
        output=old.output,
        severity=allow.severity,
        status=status,
        value=new.value,
        low=None if shown is None else shown.low,
        high=None if shown is None else shown.high,
        limit=limit,
        margin=-math.inf if math.isnan(margin) else margin,
        samples_needed=needed,
        sentence=_sentence(old, new, limit, shown, status, _doubt(old, kin, needed)),
        origin="baseline",
    )


def _gross(old: Figure, new: Figure, allow: AllowedRegression) -> bool:
    """Whether a figure without an interval is so much worse that other samples are no explanation."""
    assert allow.allowance is not None
    wide = dataclasses.replace(allow.allowance, amount=_GROSS * allow.allowance.amount)
    limit = wide.limit(old.value, higher_is_better=old.higher_is_better)
    return not (new.value >= limit if old.higher_is_better else new.value <= limit)  # NaN is


def _estimates(old: Figure, new: Figure, *, paired: bool) -> tuple[Estimate, Estimate] | None:
    """Both values with their noise, the new one first; None where there is no interval."""
    if paired and old.paired is not None and new.paired is not None:
        return new.paired, old.paired
    if old.estimate is not None and new.estimate is not None:
        return new.estimate, old.estimate
    return None


def _limit(value: float, old: Figure, allow: AllowedRegression) -> float:
    """The worst value that is allowed, inside what the metric can be."""
    assert allow.allowance is not None
    limit = allow.allowance.limit(value, higher_is_better=old.higher_is_better)
    row = METRICS.get(old.metric)
    return limit if row is None else min(max(limit, row.low), row.high)


def _relative(new: Estimate, before: Estimate, old: Figure, limit: float, allow: AllowedRegression) -> Estimate:
    """The new estimate with an interval that holds the baseline's noise, too, so that it can meet ``limit``."""
    ends = sorted(_limit(value, old, allow) for value in (before.low, before.high))
    moved = Estimate(value=limit, low=min(ends[0], limit), high=max(ends[1], limit))
    found = difference(new, moved)
    row = METRICS.get(old.metric)
    least, most = (-math.inf, math.inf) if row is None else (row.low, row.high)
    return Estimate(value=new.value, low=max(least, limit + found.low), high=min(most, limit + found.high))


def _expression(old: Figure, limit: float) -> str:
    prefix = f"{old.output}." if old.output is not None else ""
    return f"{prefix}{old.metric}{'>=' if old.higher_is_better else '<='}{limit:.8g}"


def _sentence(
    old: Figure, new: Figure, limit: float, shown: Estimate | None, status: GateStatus, doubt: str
) -> str:
    digits = next(
        (count for count in (None, 6, 9, 12) if _told(old, new.value, count) != _told(old, limit, count)), None
    )
    text = f"{title(old.metric, old.output)} is {_told(old, new.value, digits)}"
    if shown is not None:
        text += f" [{_told(old, shown.low)}, {_told(old, shown.high)}]"
    joint = {"pass": ", and", "fail": ", but"}.get(status, " and")
    wanted = f"{'>=' if old.higher_is_better else '<='} {_told(old, limit, digits)}"
    text += f"{joint} has to be {wanted} (baseline: {_told(old, old.value, digits)})"
    return f"{text}: {doubt}" if status == "undecided" else text


def _doubt(old: Figure, kin: Kinship, needed: int | None) -> str:
    """Why a gate is undecided, and what would decide it."""
    if old.metric in TIMES:
        return "so few pairs cannot decide"
    if needed is not None:
        return f"{kin.samples} samples cannot decide, about {needed} would"
    return "other samples than the baseline's cannot decide"


def _told(figure: Figure, value: float, digits: int | None = None) -> str:
    row = METRICS.get(figure.metric)
    return f"{value:.{digits or 6}g}" if row is None else show(row, value, digits)


def title(metric: str, output: str | None) -> str:
    """A figure in words."""
    return metric if output is None else f"{metric} of '{output}'"
