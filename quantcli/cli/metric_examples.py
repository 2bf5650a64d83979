"""Of each metric: a gate as an example, and what a baseline allows, in words."""

from __future__ import annotations

from quantcli.evaluate.allowance import Measure
from quantcli.evaluate.metric_table import Better, Metric

_LIMITS = {"dB": "25dB", "%": "99%", "pp": "1pp", "×": "50%"}


def example_gate(metric: Metric) -> str:
    """A gate that is likely to be wanted."""
    limit = _LIMITS.get(metric.unit)
    if limit is None:
        limit = "0.99" if metric.high == 1 else "0.1" if metric.per_output and metric.name != "nonfinite" else "0"
        if metric.better is Better.HIGHER and limit == "0":
            limit = "1"
    return f"{metric.name}{'>=' if metric.better is Better.HIGHER else '<='}{limit}"


def baseline_text(metric: Metric) -> str:
    """How much worse than a baseline the metric may be, and how that is written."""
    allow = metric.allowance
    way = "less" if metric.better is Better.HIGHER else "more"
    amounts = {
        Measure.UNITS: f"{_in_units(metric, allow.amount)} {way}" if allow.amount else f"nothing {way}",
        Measure.SHARE: f"{100 * allow.amount:g} % {way}",
        Measure.DISTANCE: f"{100 * allow.amount:g} % further from 1",
    }
    typed = example_allowance(metric)
    if allow.named_only:
        return f"held only where it is named: --allow-regression '{typed}'"
    return f"{amounts[allow.measure]} is allowed, as --allow-regression '{typed}' says; other amounts likewise"


def example_allowance(metric: Metric) -> str:
    """The default allowance as --allow-regression takes it."""
    allow = metric.allowance
    if allow.measure is not Measure.UNITS:
        return f"{metric.name}={100 * allow.amount:g}%"
    if metric.unit in ("%", "pp"):
        return f"{metric.name}={100 * allow.amount:g}pp"
    return f"{metric.name}={allow.amount:g}{metric.unit if metric.unit == 'dB' else ''}"


def _in_units(metric: Metric, amount: float) -> str:
    if metric.unit in ("%", "pp"):
        return f"{100 * amount:g} pp"
    return f"{amount:g} {metric.unit}".strip()
