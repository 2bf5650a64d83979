"""Gates held against a report.

A metric with an interval is judged by it: the gate passes where the whole interval is on the good side,
fails where none of it is, and is *undecided* in between, with the number of samples that would decide at the
measured value. A limit at the end of a rate's range (``top1_agreement>=1``) cannot be proven by any number of
samples, so it asks for exactly that of the samples at hand; so does ``==``.

A gate without an output is held against every output, and the worst result counts. What could not be measured
never passes: "not-measured" counts as a failure. NaN fails every gate.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence

from quantcli.core.intervals import paired_trials_to_decide
from quantcli.evaluate.check_values import CHECK_METRICS, check_values
from quantcli.evaluate.default_gates import suspects_sentence
from quantcli.evaluate.gate_syntax import Gate
from quantcli.evaluate.measured import Measured, of_interval, of_rate, of_task, of_top_k, samples_for
from quantcli.evaluate.metric_names import top_k
from quantcli.evaluate.metric_table import Needs, show
from quantcli.report.schema import (
    Accuracy,
    GateResult,
    GateStatus,
    OutputFidelity,
    Report,
    Verdict,
    VerdictStatus,
)

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}

_TASKS = (Needs.SEGMENTATION, Needs.DETECTION, Needs.METRIC)

_RANK: Mapping[GateStatus, int] = {"fail": 0, "not-measured": 0, "undecided": 1, "pass": 2}


def evaluate_gates(gates: Sequence[Gate], report: Report) -> tuple[GateResult, ...]:
    """Every gate's result, in order of ``gates``."""
    return tuple(_evaluate(gate, report) for gate in gates)


def verdict(results: Sequence[GateResult]) -> Verdict:
    """One answer from all gates; those of severity "warn" are counted, but decide nothing."""
    if not results:
        return Verdict(status="no-gates", sentence="no gates were set: the figures are for you to judge")
    failed = [r for r in results if _RANK[r.status] == 0]
    serious = [r for r in failed if r.severity == "fail"]
    open_ones = [r for r in results if r.status == "undecided"]
    passed = len(results) - len(failed) - len(open_ones)
    parts = [f"{passed} of {len(results)} gates passed"]
    if serious:
        parts.append(f"{len(serious)} failed")
    if len(failed) > len(serious):
        parts.append(f"{len(failed) - len(serious)} failed as a warning")
    if open_ones:
        parts.append(f"{len(open_ones)} undecided")
    named = next((r.sentence for r in serious if r.metric == "suspects"), "")
    if named:
        parts[-1] += f": {named}"
    waiting = any(r.severity == "fail" for r in open_ones)
    status: VerdictStatus = "fail" if serious else "undecided" if waiting else "pass"
    return Verdict(status=status, sentence=", ".join(parts))


def _evaluate(gate: Gate, report: Report) -> GateResult:
    found = _measurements(gate, report)
    usable = [item for item in found if not item.skippable] or found[:1]
    results = [_judge(gate, item) for item in usable]
    return min(results, key=lambda r: (_RANK[r.status], -math.inf if r.margin is None else r.margin))


def _judge(gate: Gate, item: Measured) -> GateResult:
    value, limit = item.value, gate.limit
    if value is None:
        return _result(gate, item, "not-measured", None, None)
    if math.isnan(value):
        return _result(gate, item, "fail", -math.inf, None)
    margin = _margin(gate.op, value, limit)
    holds = _COMPARE[gate.op]
    at_the_end = gate.row.unit == "%" and limit in (gate.row.low, gate.row.high)
    if item.low is None or item.high is None or gate.op == "==" or at_the_end:
        return _result(gate, item, "pass" if holds(value, limit) else "fail", margin, None)
    if holds(item.low, limit) and holds(item.high, limit):
        return _result(gate, item, "pass", margin, None)
    if not holds(item.low, limit) and not holds(item.high, limit):
        return _result(gate, item, "fail", margin, None)
    needed = item.decide(limit) if item.decide is not None else None
    return _result(gate, item, "undecided", margin, needed)


def _margin(op: str, value: float, limit: float) -> float:
    """Distance from the limit, positive on the good side; 0 where both are the same infinity."""
    if value == limit:
        return 0.0
    if op == "==":
        return -abs(value - limit)
    return value - limit if op[0] == ">" else limit - value


def _result(
    gate: Gate, item: Measured, status: GateStatus, margin: float | None, needed: int | None
) -> GateResult:
    return GateResult(
        expression=gate.expression,
        metric=gate.metric,
        output=item.output,
        severity=gate.severity,
        status=status,
        value=item.value,
        low=item.low,
        high=item.high,
        limit=gate.limit,
        margin=margin,
        samples_needed=needed,
        sentence=_sentence(gate, item, status, needed),
    )


def _sentence(gate: Gate, item: Measured, status: GateStatus, needed: int | None) -> str:
    who = gate.metric if item.output is None else f"{gate.metric} of '{item.output}'"
    wanted = f"{gate.op} {show(gate.row, gate.limit)}"
    if item.value is None:
        return f"{who} was not measured ({item.missing}), so {wanted} is not shown"
    shown = show(gate.row, item.value)
    if item.value != gate.limit and shown == show(gate.row, gate.limit):
        shown = show(gate.row, item.value, 12)  # "is 99 % but has to be 99 %" would help nobody
    text = f"{who} is {shown}"
    if item.low is not None and item.high is not None:
        text += f" [{show(gate.row, item.low)}, {show(gate.row, item.high)}]"
    if status != "undecided":
        where = f" ({item.note})" if item.note and status != "pass" else ""
        return f"{text}, {'and' if status == 'pass' else 'but'} has to be {wanted}{where}"
    count, unit = item.count
    more = f"about {needed} would" if needed is not None else "the value is too close to the limit"
    return f"{text} and has to be {wanted}: {count} {unit} cannot decide, {more}"


def _measurements(gate: Gate, report: Report) -> list[Measured]:
    """What the report knows of the gate's metric; at least one entry."""
    if gate.metric in CHECK_METRICS:
        return check_values(gate.metric, gate.output, report)
    if gate.row.per_output:
        outputs = [out for out in report.outputs if gate.output in (None, out.name)]
        if not outputs:
            return [Measured(value=None, output=gate.output, missing="no output was compared")]
        return [_of_output(gate.metric, out) for out in outputs]
    if gate.row.needs in _TASKS or top_k(gate.metric) is not None:
        return [of_task(gate.metric, report)]
    return [_of_model(gate.metric, report)]


def _of_output(metric: str, out: OutputFidelity) -> Measured:
    if out.shape_mismatches:
        why = f"its shape differs between the models in {out.shape_mismatches} samples"
        return Measured(value=None, output=out.name, missing=why)
    if metric == "top1_agreement":
        if out.top1 is None:
            return Measured(value=None, output=out.name, missing="it has no class axis", skippable=True)
        return of_rate(out.top1, out.name)
    if top_k(metric) is not None:
        return of_top_k(metric, out)
    values: Mapping[str, float | None] = {
        "psnr": out.psnr,
        "sqnr": out.sqnr,
        "cosine": out.cosine,
        "cosine_min": out.cosine_min,
        "cosine_global": out.cosine_global,
        "rmse": out.rmse,
        "max_abs": out.max_abs,
        "nonfinite": float(out.nonfinite_differ),
    }
    value = values[metric]
    missing = "its range is not given" if metric == "psnr" and out.peak is None else "it has no finite elements"
    return Measured(value=value, output=out.name, missing=missing, skippable=value is None)


def _of_model(metric: str, report: Report) -> Measured:
    if metric in ("accuracy", "accuracy_drop"):
        if report.accuracy is None or report.synthetic:
            return Measured(value=None, missing="there are no real samples with labels")
        return of_rate(report.accuracy.quantized, None) if metric == "accuracy" else _of_drop(report.accuracy)
    if metric == "latency_ratio":
        return (
            Measured(value=None, missing="nothing was timed")
            if report.latency is None
            else of_interval(
                report.latency.ratio, report.latency.low, report.latency.high, report.latency.pairs, "pairs"
            )
        )
    if metric in ("suspects", "clipped", "worst_tensor_sqnr"):
        return _of_tensors(metric, report)
    if metric == "size_ratio":
        return Measured(value=report.size.ratio)
    if metric == "weight_sqnr":
        layers = report.weights.layers if report.weights is not None else ()
        if not layers:
            return Measured(value=None, missing="no weight was found in both models")
        return Measured(value=min(layer.sqnr for layer in layers))
    if report.structure is None:
        return Measured(value=None, missing="the graphs were not read")
    facts = report.structure.quantized
    counts = {"float_nodes": facts.compute_float, "quantized_nodes": facts.compute_quantized}
    return Measured(value=float(counts[metric]))


def _of_tensors(metric: str, report: Report) -> Measured:
    found = report.tensors
    if found is None:
        return Measured(value=None, missing="tensors were not compared")
    if metric == "suspects":
        return Measured(value=float(len(found.suspects)), note=suspects_sentence(found.suspects))
    key = "clipped" if metric == "clipped" else "local_sqnr"
    values = [(value, item.name) for item in found.tensors if (value := getattr(item, key)) is not None]
    if not values:
        return Measured(value=None, missing="no tensor has one")
    value, name = max(values) if metric == "clipped" else min(values)
    return Measured(value=value, note=f"of '{name}'")


def _of_drop(accuracy: Accuracy) -> Measured:
    trials = accuracy.original.trials
    effective = accuracy.effective_trials
    share = effective / trials

    def decide(limit: float) -> int | None:
        needed = paired_trials_to_decide(accuracy.broken * share, accuracy.fixed * share, effective, limit)
        return None if needed is None else samples_for(needed, accuracy.original.samples, effective)

    return Measured(
        value=accuracy.drop,
        low=accuracy.drop_low,
        high=accuracy.drop_high,
        count=(accuracy.original.samples, "samples"),
        decide=decide,
    )
