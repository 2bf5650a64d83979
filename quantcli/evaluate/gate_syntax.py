"""Gate expressions: ``[OUTPUT.]METRIC OP LIMIT[UNIT][:warn]``.

``sqnr>=25``, ``logits.cosine>=0.999``, ``accuracy_drop<=1pp``, ``size_ratio<=30%:warn``. OUTPUT is everything
before the last dot, so names with dots and slashes need no quotes. A unit is taken only where it can mean
one thing: ``%`` for rates and ratios, ``pp`` (percentage points) for a difference of rates, ``dB``, ``x``. A
limit that its metric can never reach, or never miss, is refused: ``accuracy_drop<=1`` almost surely meant 1pp.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from quantcli.errors import UsageError
from quantcli.evaluate.metric_names import find_metric
from quantcli.evaluate.metric_table import METRICS, Metric, Needs
from quantcli.report.schema import Severity

TRUTHS = (Needs.LABELS, Needs.SEGMENTATION, Needs.DETECTION)
"""What says how the samples should be answered, which for made-up samples nobody knows."""

OPERATORS = (">=", "<=", "==", ">", "<")

_GATE = re.compile(
    r"(?P<left>.+?)\s*(?P<op>>=|<=|==|>|<)\s*"
    r"(?P<number>[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|inf))\s*(?P<unit>[^\s\d:]*)\s*"
    r"(?::\s*(?P<severity>\w+))?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A condition on one metric.

    Attributes:
        expression: As typed, without spaces around its parts and without its severity.
        metric: Name of the metric.
        output: The output it is about; None for all of them (the worst counts) or for the whole model.
        op: One of ``OPERATORS``.
        limit: In the metric's own unit (rates and ratios as fractions).
        severity: Whether a failure counts.
        given: The metric's row where it is no built-in one.
    """

    expression: str
    metric: str
    output: str | None
    op: str
    limit: float
    severity: Severity = "fail"
    given: Metric | None = None

    @property
    def row(self) -> Metric:
        """The metric's row."""
        row = find_metric(self.metric) if self.given is None else self.given
        assert row is not None
        return row


def parse_gate(text: str, given: Mapping[str, Metric] | None = None) -> Gate:
    """The gate that ``text`` says; ``given`` holds the rows of metrics that are not built in.

    Raises:
        UsageError: It does not parse (G102), names no known metric (G101), or its limit is senseless (G103).
    """
    found = _GATE.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            "G102",
            f"the gate '{text}' does not parse",
            hint="write METRIC OP LIMIT, for example 'sqnr>=25' or 'logits.cosine>=0.999:warn'",
        )
    given = given or {}
    output, metric = _metric(found["left"].strip(), text, given)
    limit = _limit(metric, found["number"], found["unit"], text)
    severity = found["severity"] or "fail"
    if severity not in ("fail", "warn"):
        raise UsageError(
            "G102", f"the gate '{text}' ends in ':{severity}'", hint="only ':warn' (and ':fail') may stand there"
        )
    prefix = f"{output}." if output is not None else ""
    return Gate(
        expression=f"{prefix}{metric.name}{found['op']}{found['number']}{found['unit']}",
        metric=metric.name,
        output=output,
        op=found["op"],
        limit=limit,
        severity="warn" if severity == "warn" else "fail",
        given=given.get(metric.name),
    )


def _metric(left: str, text: str, given: Mapping[str, Metric]) -> tuple[str | None, Metric]:
    """Output and metric of the left side."""
    output, dot, name = left.rpartition(".")
    name = name.strip()
    metric = find_metric(name, given)
    if metric is None:
        names = [*METRICS, *given]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        known = " or ".join(f"'{item}'" for item in near) if near else ", ".join(names)
        question = f"did you mean {known}?" if near else f"there are {known}"
        raise UsageError("G101", f"the gate '{text}' asks for '{name}', which is no metric", hint=question)
    if dot and not metric.per_output:
        raise UsageError(
            "G102",
            f"the gate '{text}' asks for '{name}' of an output, but it belongs to the whole model",
            hint=f"write '{text[text.index(name) :].strip()}'",
        )
    return (output.strip() if dot else None), metric


def _limit(metric: Metric, digits: str, unit: str, text: str) -> float:
    factor = 1.0
    if unit:
        if unit not in metric.units:
            allowed = ", ".join(f"'{item}'" for item in metric.units if item != "db")
            raise UsageError(
                "G102",
                f"the gate '{text}' has the unit '{unit}', which '{metric.name}' does not take",
                hint=f"write the plain number or one with {allowed}" if allowed else "write the plain number",
            )
        factor = metric.units[unit]
    limit = float(digits) * factor
    inside = metric.low < limit < metric.high if metric.strict else metric.low <= limit <= metric.high
    if not inside:
        suffix = next((item for item in metric.units if metric.units[item] == 0.01), "")
        meant = f"did you mean '{digits}{suffix}'?" if suffix and not unit else None
        raise UsageError(
            "G103",
            f"the gate '{text}' has a limit outside {metric.low:g} to {metric.high:g}, where '{metric.name}' lies",
            hint=meant,
        )
    return limit


def require_measurable(
    gates: Sequence[Gate],
    *,
    data: bool,
    labels: bool,
    latency: bool,
    synthetic: bool,
    more: Collection[Needs] = (),
) -> None:
    """Refuse gates on what will not be measured, before anything runs.

    Args:
        gates: What is asked for.
        data: Whether there are samples.
        labels: Whether there are labels.
        latency: Whether models are timed.
        synthetic: Whether the samples are made up.
        more: What else was given: the range of an output, a task, a metric of one's own.

    Raises:
        UsageError: G104, samples, labels or timing are missing; G105, accuracy on made-up samples.
    """
    given = {
        Needs.MODELS: True,
        Needs.DATA: data,
        Needs.LABELS: data and labels,
        Needs.LATENCY: latency,
        **dict.fromkeys(more, data),
    }
    for gate in gates:
        if not given.get(gate.row.needs, False):
            raise UsageError(
                "G104",
                f"the gate '{gate.expression}' needs {gate.row.needs.value}, which is not given",
                hint="give it, or leave the gate out",
            )
        if synthetic and gate.row.needs in TRUTHS:
            raise UsageError(
                "G105",
                f"the gate '{gate.expression}' asks for accuracy on made-up samples, where it means nothing",
                hint="give real samples with --data",
            )


def require_outputs(gates: Sequence[Gate], names: Sequence[str]) -> None:
    """Refuse gates on outputs that do not exist.

    Raises:
        UsageError: G106, with the nearest names.
    """
    for gate in gates:
        if gate.output is not None and gate.output not in names:
            raise unknown_output(f"the gate '{gate.expression}'", gate.output, names)


def unknown_output(who: str, name: str, names: Sequence[str]) -> UsageError:
    """The error for an output that does not exist (G106)."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or list(names)[:5]
    listed = ", ".join(f"'{item}'" for item in near)
    return UsageError("G106", f"{who} names the output '{name}', which does not exist", hint=f"there are {listed}")
