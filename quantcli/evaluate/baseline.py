"""A report held against an earlier one: what got worse, by more than is allowed, is a failed gate.

How each figure is judged is in ``baseline_gate``. What the baseline has and the new report lacks becomes a note,
or an error where the user named it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quantcli.errors import UsageError
from quantcli.evaluate.allowance_syntax import AllowedRegression, allowed
from quantcli.evaluate.baseline_figures import Figures, figures
from quantcli.evaluate.baseline_gate import TIMES, Kinship, judge, title
from quantcli.evaluate.gates import verdict
from quantcli.evaluate.metric_table import METRICS, Needs
from quantcli.report.schema import Baseline, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierReport:
    """What to hold a report against.

    Attributes:
        name: Base name of the file that it was read from.
        report: The earlier report.
        allowed: Regressions that the user allows.
    """

    name: str
    report: Report
    allowed: tuple[AllowedRegression, ...] = ()


def hold_against(report: Report, earlier: EarlierReport) -> Report:
    """``report`` with a gate for each figure that both reports have, and the verdict of all its gates.

    Raises:
        UsageError: G302, the two have nothing in common; G303, a named regression cannot be judged.
    """
    before, now = figures(earlier.report), figures(report)
    same_data = _same_data(earlier.report, report)
    kin = Kinship(
        same_data=same_data,
        same_original=earlier.report.original.sha256 == report.original.sha256,
        samples=0 if report.data is None else report.data.samples,
    )
    notes = [*_differences(earlier.report, report, same_data)]
    if _other_threads(earlier.report, report):
        before = {key: figure for key, figure in before.items() if figure.metric not in TIMES}
        notes.append("times of the baseline are of another number of threads, so they are not compared")
    if (
        earlier.report.data is not None
        and report.data is not None
        and earlier.report.synthetic != report.synthetic
    ):
        before = {key: figure for key, figure in before.items() if not figure.of_samples}
        notes.append("one of the two reports is about made-up samples, so only files and graphs are compared")
    _require_outputs(earlier, report)
    for item in earlier.allowed:
        for place, found in ((f"the baseline '{earlier.name}'", before), ("the new report", now)):
            if not _has(found, item):
                raise _not_in(place, item)
    results = []
    missing: list[str] = []
    for key, old in before.items():
        allow = allowed(*key, earlier.allowed)
        if allow is None:
            continue
        new = now.get(key)
        if new is None:
            missing.append(title(*key))
        elif math.isnan(old.value):
            notes.append(f"{title(*key)} is not a number in the baseline, so nothing is held against it")
        else:
            results.append(judge(old, new, allow, kin))
    if missing:
        notes.append(f"in the baseline, but not measured now: {', '.join(missing)}")
    if not results:
        raise UsageError(
            "G302",
            f"nothing in the baseline '{earlier.name}' can be held against this comparison",
            hint="give a report of the same model, made with the same options, or allow fewer things to be 'off'",
        )
    gates = (*report.gates, *results)
    return dataclasses.replace(
        report,
        gates=gates,
        verdict=verdict(gates),
        baseline=Baseline(
            name=earlier.name,
            quantized_sha256=earlier.report.quantized.sha256,
            same_data=same_data,
            notes=tuple(notes),
        ),
    )


def _same_data(before: Report, now: Report) -> bool | None:
    """Whether both are about the same samples; None where either does not say."""
    first = before.data.fingerprint if before.data is not None else None
    second = now.data.fingerprint if now.data is not None else None
    return None if first is None or second is None else first == second


def _differences(before: Report, now: Report, same_data: bool | None) -> Iterator[str]:
    """What makes the two reports less comparable than they look."""
    if before.original.sha256 != now.original.sha256:
        yield f"the baseline is about another original ('{before.original.name}', or an earlier version of it)"
    if before.verdict.status == "fail":
        yield "the baseline itself failed its gates"
    if before.data is not None and now.data is not None and not same_data:
        how = "is about other samples" if same_data is False else "does not say which samples it is about"
        yield f"the baseline {how}: so little of it can be decided"
    first, second = before.tools.get("onnxruntime"), now.tools.get("onnxruntime")
    if first and second and first != second:
        yield f"the baseline was made with onnxruntime {first}, this report with {second}"


def _other_threads(before: Report, now: Report) -> bool:
    if before.latency is None or now.latency is None:
        return False
    return before.latency.threads != now.latency.threads


def _require_outputs(earlier: EarlierReport, report: Report) -> None:
    """Refuse a baseline of which no output exists any more: it is about something else."""
    old, new = [out.name for out in earlier.report.outputs], [out.name for out in report.outputs]
    if old and new and not set(old) & set(new):
        raise UsageError(
            "G302",
            f"the baseline '{earlier.name}' is about the outputs {_quoted(old)}, and the model has {_quoted(new)}",
            hint="give a report of the same model",
        )


def require_allowed(earlier: EarlierReport, *, data: bool, labels: bool, latency: bool) -> None:
    """Refuse allowed regressions that cannot be judged, before anything runs.

    Raises:
        UsageError: G303, the baseline does not have the metric, or what it needs is not given.
    """
    before = figures(earlier.report)
    lacking = {Needs.DATA: not data, Needs.LABELS: not labels, Needs.LATENCY: not latency}
    for item in earlier.allowed:
        row = METRICS.get(item.metric)
        if not _has(before, item):
            raise _not_in(f"the baseline '{earlier.name}'", item)
        if item.allowance is not None and row is not None and lacking.get(row.needs, False):
            raise _not_in("the new report", item)


def _has(found: Figures, item: AllowedRegression) -> bool:
    return item.allowance is None or any(
        metric == item.metric and item.output in (None, output) for metric, output in found
    )


def _not_in(place: str, item: AllowedRegression) -> UsageError:
    row = METRICS.get(item.metric)
    needs = f"it needs {row.needs.value}; " if row is not None else ""
    return UsageError(
        "G303",
        f"the allowed regression '{item.text}' is of something that {place} does not have",
        hint=f"{needs}measure it in both, or leave --allow-regression '{item.metric}=…' out",
    )


def _quoted(names: Sequence[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:5])
    return listed if len(names) <= 5 else f"{listed}, …"
