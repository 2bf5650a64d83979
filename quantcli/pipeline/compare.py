"""Compare: two model files, samples and gates in, a report out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from quantcli.data.base import InputSpec
from quantcli.data.labels import read_labels
from quantcli.errors import RuntimeFailure, UsageError
from quantcli.evaluate.baseline import hold_against
from quantcli.evaluate.checks import CheckOptions
from quantcli.evaluate.compare import LatencyOptions, compare_models
from quantcli.evaluate.gate_list import parse_gates
from quantcli.evaluate.gate_syntax import Gate, parse_gate
from quantcli.evaluate.tensors import TensorOptions
from quantcli.graph.metadata import provenance
from quantcli.graph.model_io import load_model
from quantcli.pipeline.baseline import read_baseline
from quantcli.pipeline.large import is_large, stated_inputs
from quantcli.pipeline.metrics import open_metrics, truth_files
from quantcli.pipeline.reporting import check_report_forms, write_reports
from quantcli.pipeline.samples import WatchedSamples, links_of, open_samples
from quantcli.pipeline.types import CompareRequest, RunOptions
from quantcli.pipeline.writing import check_outputs, data_files
from quantcli.progress import Progress
from quantcli.report.schema import Report
from quantcli.runtime.versions import runnable_versions

_NOT_SEARCHED = (
    "the model is large, so its layers were not searched for faults; --tensor-samples does it, in memory of a "
    "multiple of its size"
)


def compare(request: CompareRequest, progress: Progress) -> Report:
    """Compare two models and write the reports that were asked for.

    Raises:
        UsageError: A gate or an option is wrong, or asks for what was not given.
        ModelError, DataError: The models, samples or labels are unreadable or do not fit.
        OutputError: A report file must not or cannot be written.
    """
    metrics = open_metrics(request.metrics, request.data)
    gates = parse_gates(request.gates, lambda text: parse_gate(text, metrics.rows))
    earlier = None if request.baseline is None else read_baseline(request)
    check_report_forms(request.reports)
    inputs = [request.original, request.quantized, request.labels, request.baseline, *data_files(request.data)]
    inputs += truth_files(request.metrics)
    check_outputs(request.reports, request.overwrite, inputs=inputs)
    dataset = None
    labels = None
    if request.data.specs:
        dataset = WatchedSamples(
            open_samples(request.data, model_inputs(request.original, request.run), request.original)
        )
    if request.labels is not None:
        labels = _labels(request, dataset)
    report = compare_models(
        request.original,
        request.quantized,
        dataset=dataset,
        labels=labels,
        output_for_labels=request.labels_output,
        metrics=metrics,
        gates=gates,
        latency=LatencyOptions(repeats=request.repeats) if request.latency else None,
        checks=_checks(request),
        tensors=_tensor_options(request),
        default=request.default_gates,
        states=links_of(request.data),
        threads=request.run.threads,
        command=request.command or None,
        progress=progress,
    )
    if dataset is not None:
        report = _with_fingerprint(report, dataset.fingerprint.hexdigest(), request.quantized)
    if _too_large(request):
        report = dataclasses.replace(report, notes=(*report.notes, _NOT_SEARCHED))
    if earlier is not None:
        report = hold_against(report, earlier)
    write_reports(report, request.reports, overwrite=request.overwrite)
    return report


def _checks(request: CompareRequest) -> CheckOptions | None:
    """What was asked for; nothing where neither checks nor memory are wanted."""
    if request.checks:
        return CheckOptions(memory=request.memory)
    return CheckOptions(samples=0, emulated=0, kernels=False, memory=True) if request.memory else None


def _too_large(request: CompareRequest) -> bool:
    """Whether looking at every tensor takes more memory and time than is spent unasked."""
    return request.tensors and not request.tensor_samples and is_large(request.original)


def _tensor_options(request: CompareRequest) -> TensorOptions | None:
    if not request.tensors or _too_large(request):
        return None
    usual = TensorOptions()
    return TensorOptions(
        samples=request.tensor_samples or usual.samples, max_memory=request.max_memory or usual.max_memory
    )


def _with_fingerprint(report: Report, fingerprint: str, quantized: Path) -> Report:
    """The report with the samples' fingerprint, and a warning where the model was calibrated on them."""
    notes = report.notes
    if provenance(load_model(quantized).metadata).get("data_fingerprint") == fingerprint:
        notes += ("these are the samples that the model was calibrated on: its figures on others will be lower",)
    data = None if report.data is None else dataclasses.replace(report.data, fingerprint=fingerprint)
    return dataclasses.replace(report, data=data, notes=notes)


def model_inputs(path: Path, run: RunOptions) -> tuple[InputSpec, ...]:
    """Inputs of a model as the runtime states them.

    Raises:
        RuntimeFailure: R101, naming the file.
    """
    model = load_model(path, limits=runnable_versions())  # its refusals are clearer than the runtime's
    try:
        return stated_inputs(model, path, threads=run.threads)[0]
    except RuntimeFailure as error:
        raise RuntimeFailure(error.code, f"'{path.name}': {error.message}", hint=error.hint) from error


def _labels(request: CompareRequest, dataset: WatchedSamples | None) -> np.ndarray:
    """Labels of the samples that are compared: the first ones when there is a limit."""
    assert request.labels is not None
    if request.data.shuffle:
        raise UsageError(
            "U105", "labels are given in order, but the samples are shuffled", hint="leave --shuffle out"
        )
    length = None if dataset is None else dataset.length
    if request.data.samples is None:
        return read_labels(request.labels, length)
    return read_labels(request.labels, None)[:length]


def gates_of(request: CompareRequest) -> tuple[Gate, ...]:
    """The gates of a request; loads the user's metrics, because gates may name them.

    Raises:
        UsageError, DataError: A gate or a metric is wrong.
    """
    rows = open_metrics(request.metrics, request.data).rows
    return parse_gates(request.gates, lambda text: parse_gate(text, rows))
