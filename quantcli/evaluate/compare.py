"""Two models against each other: files, graphs and weights always; outputs, accuracy and latency with samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np

from quantcli._version import __version__
from quantcli.data.states import StateLinks
from quantcli.errors import RuntimeFailure, UsageError
from quantcli.evaluate.checks import CheckOptions, run_checks
from quantcli.evaluate.default_gates import default_gates
from quantcli.evaluate.gate_list import each, parse_gates
from quantcli.evaluate.gate_syntax import Gate, parse_gate, require_measurable, require_outputs
from quantcli.evaluate.gates import evaluate_gates, verdict
from quantcli.evaluate.matching import match_outputs
from quantcli.evaluate.metric_options import MetricOptions
from quantcli.evaluate.outputs import OutputComparison, SampleSource, compare_outputs, feed_of
from quantcli.evaluate.size import compare_sizes, model_facts
from quantcli.evaluate.structure import structure_facts
from quantcli.evaluate.tensor_report import with_tensors
from quantcli.evaluate.tensors import TensorOptions
from quantcli.evaluate.weights import compare_weights
from quantcli.graph.read_view import read_whole_view
from quantcli.graph.view import GraphView
from quantcli.ops.table import BODY_OPS
from quantcli.progress import Progress, SilentProgress
from quantcli.report.schema import DataFacts, Latency, Report, StructureComparison, Verdict, WeightComparison
from quantcli.runtime.bench import check_repeats, compare_latency
from quantcli.runtime.session import Session, SessionSettings, runtime_version
from quantcli.runtime.trial_run import refuse_crash

UNROUNDED_DB = 5.0
"""A weight below this SQNR was changed by more than rounding (4-bit per-tensor rounding stays above it)."""


_HALF = frozenset({"float16", "bfloat16"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyOptions:
    """How to time.

    Attributes:
        repeats: Pairs of measurements.
        warmup: Runs of each model before.
        min_seconds: Go on beyond ``repeats`` until so much time was measured.
        samples: How many of the first samples are used in turn.
    """

    repeats: int = 50
    warmup: int = 3
    min_seconds: float = 0.0
    samples: int = 8


def compare_models(
    original: Path,
    quantized: Path,
    *,
    dataset: SampleSource | None = None,
    labels: np.ndarray | None = None,
    output_for_labels: str | None = None,
    metrics: MetricOptions | None = None,
    gates: Sequence[Gate | str] = (),
    latency: LatencyOptions | None = None,
    checks: CheckOptions | None = None,
    tensors: TensorOptions | None = None,
    default: bool = False,
    states: StateLinks | None = None,
    threads: int = 1,
    compressed: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compare a model with its quantized form; any two ONNX models with the same inputs will do.

    Args:
        original: The reference's file.
        quantized: The file of the model that is judged.
        dataset: Samples; without any, only files, graphs and weights are compared.
        labels: Integers, first axis samples: class numbers for accuracy.
        output_for_labels: Output that labels belong to; None for the first whose shape fits.
        metrics: What else to measure of the outputs.
        gates: Conditions; see ``gate_syntax``.
        latency: Time both models; None for no timing.
        checks: What to find out about kernels, fusions, shares of the error, CPUs without VNNI and memory; None
            for nothing of it.
        tensors: How to look for the layers that the error comes from; None for not at all.
        default: Hold the default gates as well, as far as ``gates`` says nothing of their metrics.
        states: Outputs that are fed back: ``dataset`` holds those of the original; for the fidelity of outputs,
            the other model goes on from its own.
        threads: Intra-op threads of all runs.
        compressed: Compare sizes after gzip, too.
        command: How to reproduce it, for the report.
        progress: Told of samples and timed pairs.

    Returns:
        The report, gates and verdict included. A failed gate is a result, not an error.

    Raises:
        UsageError: A gate is wrong or asks for what is not given (G1xx).
        ModelError: A model is unreadable (M1xx), or the two do not match (G201, G202).
        DataError: Samples or labels do not fit (Dxxx, G203).
        RuntimeFailure: onnxruntime does not load or run a model (R1xx).
    """
    metrics = metrics or MetricOptions()
    parsed = parse_gates(gates, lambda text: parse_gate(text, metrics.rows))
    _check_request(parsed, dataset, labels, latency, metrics, checks)
    views = (read_whole_view(original), read_whole_view(quantized))
    facts = (
        model_facts(original, views[0], compressed=compressed),
        model_facts(quantized, views[1], compressed=compressed),
    )
    weights = compare_weights(*views)
    report = Report(
        tools=tool_versions(),
        command=command,
        original=facts[0],
        quantized=facts[1],
        verdict=Verdict(status="no-gates", sentence=""),
        size=compare_sizes(*facts),
        structure=StructureComparison(original=structure_facts(views[0]), quantized=structure_facts(views[1])),
        weights=weights,
        notes=_graph_notes(views[1], weights),
    )
    if dataset is not None:
        report = _with_runs(
            report,
            (original, quantized),
            dataset,
            labels,
            output_for_labels,
            metrics.for_gates(parsed),
            parsed,
            latency,
            states,
            threads,
            progress or SilentProgress(),
        )
    if checks is not None:
        report = run_checks(
            report, (original, quantized), views[1], dataset, checks, threads, progress or SilentProgress()
        )
    if tensors is not None:
        report = with_tensors(report, (original, quantized), dataset, tensors, threads, progress)
    results = evaluate_gates(parsed, report)
    if default:
        added = default_gates(
            parsed,
            data=dataset is not None,
            tensors=report.tensors is not None,
            outputs=report.outputs,
            synthetic=report.synthetic,
        )
        results += tuple(dataclasses.replace(item, origin="default") for item in evaluate_gates(added, report))
    return dataclasses.replace(report, gates=results, verdict=verdict(results))


def _check_request(
    gates: Sequence[Gate],
    dataset: SampleSource | None,
    labels: np.ndarray | None,
    latency: LatencyOptions | None,
    metrics: MetricOptions,
    checks: CheckOptions | None,
) -> None:
    """Refuse what cannot be measured before anything is read."""
    synthetic = dataset is not None and dataset.synthetic
    present = {"data": dataset is not None, "labels": labels is not None, "latency": latency is not None}
    more = (*metrics.needs, *(() if checks is None else checks.gives))
    each(gates, lambda gate: require_measurable([gate], **present, synthetic=synthetic, more=more))
    metrics.check(data=dataset is not None, labels=labels is not None, synthetic=synthetic)
    memory = checks is not None and checks.memory
    for given, what in (
        (labels is not None, "accuracy"), (latency is not None, "timing"), (memory, "measuring memory"),
    ):  # fmt: skip
        if given and dataset is None:
            raise UsageError("G104", f"{what} needs samples, and none are given", hint="give them with --data")
    if latency is not None:
        check_repeats(latency.repeats)
    if labels is not None and synthetic:
        raise UsageError(
            "G105",
            "labels are given for made-up samples, where accuracy means nothing",
            hint="give real samples with --data, or leave --labels out",
        )


def _with_runs(
    report: Report,
    paths: tuple[Path, Path],
    dataset: SampleSource,
    labels: np.ndarray | None,
    output_for_labels: str | None,
    metrics: MetricOptions,
    gates: Sequence[Gate],
    latency: LatencyOptions | None,
    states: StateLinks | None,
    threads: int,
    progress: Progress,
) -> Report:
    """The report with everything that comes from running the models."""
    facts = report.structure.quantized.initializers if report.structure is not None else ()
    half = any(item.dtype in _HALF for item in facts)
    sessions = (_open(paths[0], threads), _open(paths[1], threads, half=half))
    matched = match_outputs(sessions[0].outputs, sessions[1].outputs)
    each(gates, lambda gate: require_outputs([gate], [name for name, _ in matched.pairs]))
    found = compare_outputs(
        *sessions,
        dataset,
        labels=labels,
        output_for_labels=output_for_labels,
        metrics=metrics,
        states=states,
        progress=progress,
    )
    timing = None if latency is None else _time(sessions, dataset, latency, threads, progress)
    return dataclasses.replace(
        report,
        threads=threads,
        outputs=found.outputs,
        accuracy=found.accuracy,
        metrics=found.metrics,
        latency=timing,
        data=_data_facts(dataset, found),
        notes=report.notes + found.notes + _ignored_labels(found),
    )


def _ignored_labels(found: OutputComparison) -> tuple[str, ...]:
    if found.accuracy is None or not found.accuracy.ignored:
        return ()
    return (f"{found.accuracy.ignored} labels are below zero, which means 'no label', and count nowhere",)


def _open(path: Path, threads: int, *, half: bool = False) -> Session:
    """A session whose failure says which of the two models it was; one of half precision may crash."""
    try:
        if half:
            refuse_crash(path)
        return Session(path, SessionSettings(threads=threads))
    except RuntimeFailure as error:
        raise RuntimeFailure(error.code, f"'{path.name}': {error.message}", hint=error.hint) from error


def _time(
    sessions: tuple[Session, Session],
    dataset: SampleSource,
    options: LatencyOptions,
    threads: int,
    progress: Progress,
) -> Latency:
    samples = islice(iter(dataset), options.samples)
    feeds = [feed_of(sessions[0], sample, index) for index, sample in enumerate(samples)]
    progress.start("latency", options.repeats)
    found = compare_latency(
        *sessions,
        feeds,
        repeats=options.repeats,
        warmup=options.warmup,
        min_seconds=options.min_seconds,
        tick=progress.advance,
    )
    progress.finish()
    return Latency(
        threads=threads,
        pairs=found.pairs,
        runs=found.runs,
        warmup=found.warmup,
        original_ms=1e3 * found.a_seconds,
        quantized_ms=1e3 * found.b_seconds,
        ratio=found.ratio,
        low=found.low,
        high=found.high,
        confidence=found.confidence,
        runtime=runtime_version(),
    )


def _data_facts(dataset: SampleSource, found: OutputComparison) -> DataFacts:
    return DataFacts(
        name=dataset.name, samples=found.samples, synthetic=dataset.synthetic, notes=tuple(dataset.notes)
    )


def _graph_notes(quantized: GraphView, weights: WeightComparison) -> tuple[str, ...]:
    notes: list[str] = []
    bodies = sorted({node.op for node in quantized.nodes if node.op in BODY_OPS and not node.yields})
    if bodies:
        notes.append(f"nodes inside the bodies of {', '.join(bodies)} are not counted")
    changed = sum(layer.sqnr < UNROUNDED_DB for layer in weights.layers)
    if changed:
        notes.append(
            f"{changed} of {weights.matched} weights differ by more than rounding: they were folded or corrected "
            "on purpose, or they are damaged"
        )
    return tuple(notes)


def tool_versions() -> dict[str, str]:
    """Versions that results depend on."""
    return {
        "quantcli": __version__,
        "onnx": version("onnx"),
        "onnxruntime": runtime_version(),
        "numpy": version("numpy"),
    }
