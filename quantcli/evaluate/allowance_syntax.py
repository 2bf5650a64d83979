"""Allowed regressions as typed: ``[OUTPUT.]METRIC=AMOUNT[UNIT][:warn]``, or ``METRIC=off``.

``sqnr=1dB``, ``accuracy=0.5pp:warn``, ``logits.cosine=20%``, ``rmse=10%``, ``max_abs=off``. A plain number is in
the metric's own unit. ``%`` is a share of the baseline's value (of its distance from 1 for cosine similarity),
and is refused where it could mean percentage points or where the unit is a logarithm.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantcli.errors import UsageError
from quantcli.evaluate.allowance import USUAL, Allowance, Measure
from quantcli.evaluate.metric_table import METRICS
from quantcli.report.schema import Severity

_FORM = re.compile(
    r"(?P<left>[^=]+?)\s*=\s*(?:(?P<off>off)|(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)"
    r"\s*(?P<unit>[^\s\d:]*))\s*(?::\s*(?P<severity>fail|warn))?",
    re.DOTALL,
)

_POINTS = {"pp": 0.01}


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedRegression:
    """What the user allows one metric.

    Attributes:
        text: As typed.
        metric: Its name: a key of ``METRICS``, or a metric of a task.
        output: The output that it is about; None for all of them.
        allowance: How much; None to leave the metric out.
        severity: Whether a regression beyond it counts.
    """

    text: str
    metric: str
    output: str | None
    allowance: Allowance | None
    severity: Severity = "fail"


def parse_allowed_regression(text: str, tasks: Sequence[str] = ()) -> AllowedRegression:
    """The allowed regression that ``text`` says.

    Args:
        text: As typed.
        tasks: Names of the baseline's task metrics, which are no keys of ``METRICS``.

    Raises:
        UsageError: It does not parse (G112), or names no known metric (G101).
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise _wrong(
            text,
            "does not parse",
            "write METRIC=AMOUNT, for example 'sqnr=1dB', 'accuracy=0.5pp:warn' or 'max_abs=off'",
        )
    output, metric = _metric(found["left"], text, tasks)
    allowance = None if found["off"] else _allowance(metric, float(found["number"]), found["unit"], text)
    return AllowedRegression(
        text=text,
        metric=metric,
        output=output,
        allowance=allowance,
        severity="warn" if found["severity"] == "warn" else "fail",
    )


def _metric(left: str, text: str, tasks: Sequence[str]) -> tuple[str | None, str]:
    output, dot, name = left.rpartition(".")
    name = name.strip()
    known = [*METRICS, *tasks]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        listed = " or ".join(f"'{item}'" for item in near) if near else ", ".join(known)
        raise UsageError(
            "G101",
            f"the allowed regression '{text}' is of '{name}', which is no metric",
            hint=f"did you mean {listed}?" if near else f"there are {listed}",
        )
    if dot and not (name in METRICS and METRICS[name].per_output):
        raise _wrong(text, f"is of '{name}' of an output, but it belongs to the whole model", f"write '{name}=…'")
    return (output.strip() if dot else None), name


def _allowance(metric: str, number: float, unit: str, text: str) -> Allowance:
    """``number`` in ``unit``; a share keeps the measure that the metric's default has."""
    row = METRICS.get(metric)
    units: Mapping[str, float] = {} if row is None else row.units
    if row is None or row.unit in ("%", "pp"):
        units = {**{name: factor for name, factor in units.items() if name != "%"}, **_POINTS}
    usual = Measure.SHARE if row is None else row.allowance.measure
    shares = row is None or row.unit not in ("%", "pp", "dB")
    if unit == "%" and shares:
        measure = Measure.DISTANCE if usual is Measure.DISTANCE else Measure.SHARE
        return Allowance(amount=number / 100, measure=measure)
    if not unit or (unit in units and unit != "%"):
        return Allowance(amount=number * units.get(unit, 1.0))
    allowed = [*(name for name in units if name not in ("db", "%")), *(["%"] if shares else [])]
    hint = f"write the plain number or one with {', '.join(allowed)}"
    if unit == "%" and "pp" in units:
        hint = f"write '{metric}={number:g}pp' for percentage points"
    raise _wrong(text, f"has the unit '{unit}', which '{metric}' does not take", hint)


def allowed(metric: str, output: str | None, asked: Sequence[AllowedRegression]) -> AllowedRegression | None:
    """What of ``asked`` is about a metric of an output: the last one counts, one with an output before others.

    Returns:
        The default, as a regression without text, where nothing was asked; None where nothing is to be held.
    """
    fitting = [item for item in asked if item.metric == metric and item.output in (None, output)]
    own = [item for item in fitting if item.output is not None]
    if fitting:
        chosen = (own or fitting)[-1]
        return None if chosen.allowance is None else chosen
    default = METRICS[metric].allowance if metric in METRICS else USUAL
    if default.named_only:
        return None
    return AllowedRegression(text="", metric=metric, output=output, allowance=default)


def _wrong(text: str, what: str, hint: str) -> UsageError:
    return UsageError("G112", f"the allowed regression '{text}' {what}", hint=hint)
