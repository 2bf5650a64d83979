"""What gates read of the checks (``evaluate.checks``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quantcli.evaluate.measured import Measured
from quantcli.report.schema import Report

Values = list[tuple[str, float | None]]


def _weights_only(report: Report) -> Values:
    return [(item.output, item.weights_only) for item in report.attribution]


def _activations_only(report: Report) -> Values:
    return [(item.output, item.activations_only) for item in report.attribution]


def _fusion(report: Report) -> Values:
    return [(item.output, item.steps) for item in report.fusion]


def _no_vnni(report: Report) -> Values:
    """The emulated result; where nothing can saturate, such a CPU gives what others give."""
    if report.saturation is not None and report.saturation.outputs:
        return [(item.output, item.sqnr) for item in report.saturation.outputs]
    if report.saturation is None or not report.saturation.risks:
        return [(item.name, item.sqnr) for item in report.outputs]
    return []


_OUTPUTS: Mapping[str, tuple[Callable[[Report], Values], str]] = {
    "weights_only_sqnr": (_weights_only, "the shares of the error were not separated"),
    "activations_only_sqnr": (_activations_only, "the shares of the error were not separated"),
    "fusion_steps": (_fusion, "the model was not run without optimizations"),
    "no_vnni_sqnr": (_no_vnni, "no CPU without VNNI was emulated"),
}

CHECK_METRICS = frozenset({*_OUTPUTS, "unfused_nodes", "saturation_risks", "memory_ratio"})
"""Metrics that ``check_values`` knows."""


def check_values(metric: str, output: str | None, report: Report) -> list[Measured]:
    """Values of one of ``CHECK_METRICS``: of ``output``, or of all outputs; at least one entry."""
    if metric in _OUTPUTS:
        read, missing = _OUTPUTS[metric]
        found = [(name, value) for name, value in read(report) if output in (None, name)]
        return [Measured(value=value, output=name, missing=missing) for name, value in found] or [
            Measured(value=None, output=output, missing=missing)
        ]
    if metric == "unfused_nodes":
        return [_unfused(report)]
    if metric == "memory_ratio":
        if report.memory is None:
            return [Measured(value=None, missing="memory was not measured")]
        return [Measured(value=report.memory.ratio)]
    return [Measured(value=float(len(report.saturation.risks)) if report.saturation is not None else 0.0)]


def _unfused(report: Report) -> Measured:
    if report.kernels is None:
        nothing = report.structure is not None and not report.structure.quantized.compute_quantized
        return Measured(value=0.0 if nothing else None, missing="the kernels were not looked at")
    return Measured(value=float(sum(node.code == "F405" for node in report.kernels.unfused)))
