"""The report: one versioned value from which every rendering is made.

Only plain types (str, int, float, bool, None, tuples and mappings of them, dataclasses of them), so that
JSON is a mechanical image (``to_json``) and the JSON Schema is generated (``json_schema``). None means "not
measured", never zero; infinite floats are allowed and mean what they say (SQNR inf: exact).

Versions: a field that is added raises nothing; a field that is removed, or changes its meaning, raises
``SCHEMA_VERSION``. Names of files are base names: reports hold no paths, times or hosts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from quantcli.report.facts import (
    Coverage,
    CoverageRow,
    DtypeBytes,
    FloatReason,
    KernelFacts,
    LayerWeightError,
    ModelFacts,
    NodeRef,
    OpCount,
    SizeComparison,
    StructureComparison,
    StructureFacts,
    UnfusedNode,
    WeightComparison,
)
from quantcli.report.fidelity import Accuracy, OutputFidelity, Rate, TopK
from quantcli.report.task_metrics import ClassValue, TaskMetric
from quantcli.report.tensors import (
    Attribution,
    EmulatedOutput,
    Finding,
    FusionDifference,
    Histogram,
    Saturation,
    SaturationRisk,
    Suspect,
    TensorComparison,
    TensorError,
)

__all__ = [
    "SCHEMA_VERSION",
    "Accuracy",
    "Attribution",
    "Baseline",
    "ClassValue",
    "Coverage",
    "CoverageRow",
    "DataFacts",
    "DtypeBytes",
    "EmulatedOutput",
    "Finding",
    "FloatReason",
    "FusionDifference",
    "GateOrigin",
    "GateResult",
    "GateStatus",
    "Histogram",
    "KernelFacts",
    "Latency",
    "LayerWeightError",
    "Memory",
    "ModelFacts",
    "NodeRef",
    "OpCount",
    "OutputFidelity",
    "Rate",
    "Report",
    "Saturation",
    "SaturationRisk",
    "Severity",
    "SizeComparison",
    "StructureComparison",
    "StructureFacts",
    "Suspect",
    "TaskMetric",
    "TensorComparison",
    "TensorError",
    "TopK",
    "UnfusedNode",
    "Verdict",
    "VerdictStatus",
    "WeightComparison",
]

SCHEMA_VERSION = 1

Severity = Literal["fail", "warn"]
GateOrigin = Literal["asked", "default", "baseline"]
GateStatus = Literal["pass", "fail", "undecided", "not-measured"]
VerdictStatus = Literal["pass", "fail", "undecided", "no-gates"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Interleaved timing of both models in one process.

    Attributes:
        threads: Intra-op threads of both.
        pairs: Pairs of measurements (original, quantized), taken in alternating order.
        runs: Runs within one measurement.
        warmup: Runs of each before the first measurement.
        original_ms: Median time of one run.
        quantized_ms: Median time of one run.
        ratio: Median over pairs of quantized / original: the figure to judge by.
        low: Lower bound of its interval (order statistics of the pairs).
        high: Upper bound.
        confidence: Of the interval.
        runtime: Version of onnxruntime.
    """

    threads: int
    pairs: int
    runs: int
    warmup: int
    original_ms: float
    quantized_ms: float
    ratio: float
    low: float
    high: float
    confidence: float
    runtime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Peak resident memory of each model, run in a process of its own.

    Attributes:
        baseline_bytes: Of a process that has loaded the runtime and the samples, but no model.
        original_bytes: Peak of the process that ran the original.
        quantized_bytes: Peak of the process that ran the quantized model.
        ratio: (quantized − baseline) / (original − baseline).
    """

    baseline_bytes: int
    original_bytes: int
    quantized_bytes: int
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The earlier report that this one was held against.

    Attributes:
        name: Base name of its file.
        quantized_sha256: Of the quantized model that it is about.
        same_data: Whether it was made with the same samples; None where either has none.
        notes: What could not be held against it, and why.
    """

    name: str
    quantized_sha256: str
    same_data: bool | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The samples that were run.

    Attributes:
        name: Printable name, no directories.
        samples: How many were run.
        synthetic: Whether any of them is made up; then nothing here says how good the model is.
        notes: What the reader of the data remarked (casts, dropped rows).
        fingerprint: Digest of the data where one is known.
    """

    name: str
    samples: int
    synthetic: bool
    notes: tuple[str, ...] = ()
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What became of one gate.

    Attributes:
        expression: The gate in its plain form: "logits.cosine>=0.999".
        metric: Name of the metric.
        output: The output that decided, for metrics of outputs.
        severity: Whether a failure counts ("fail") or is shown only ("warn").
        status: "undecided": the interval holds the limit. "not-measured" counts as a failure.
        value: What was measured.
        low: Lower bound of its interval, where it has one.
        high: Upper bound.
        limit: What it was measured against.
        margin: Distance from the limit, positive on the good side, in the metric's unit.
        samples_needed: Samples (pairs, for latency) that would decide an undecided gate, at the measured
            value; None where no number would.
        sentence: The result in words.
        origin: Whether it was asked for, is one of the default gates, or follows from a baseline.
    """

    expression: str
    metric: str
    output: str | None = None
    severity: Severity
    status: GateStatus
    value: float | None
    low: float | None = None
    high: float | None = None
    limit: float
    margin: float | None
    samples_needed: int | None = None
    sentence: str
    origin: GateOrigin = "asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer in one word and one sentence."""

    status: VerdictStatus
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that a comparison (or a conversion) has to say.

    Attributes:
        schema_version: Of this format.
        tools: Versions by name ("quantcli", "onnxruntime", …).
        command: How to reproduce it, as typed; None where it was called as a library.
        threads: Intra-op threads of all runs; None where nothing was run.
        original: The original's file.
        quantized: The quantized model's file.
        verdict: The answer.
        gates: Each gate's result.
        size: Sizes compared.
        structure: Graphs compared.
        weights: Weight error; None where no model was read for it.
        coverage: Given by ``convert``.
        kernels: What the runtime executes, where that was looked at.
        outputs: Fidelity of each output; empty without data.
        accuracy: With labels only.
        metrics: Task metrics: built-in ones and the user's own.
        latency: On request only.
        memory: On request only.
        tensors: Where the error is; None without data, or where it was not asked for.
        attribution: Whose error it is, by output.
        fusion: What the runtime's optimizations change, by output.
        saturation: CPUs without VNNI.
        baseline: The report that this one was held against.
        data: The samples; None without data.
        notes: What else the reader must know.
    """

    schema_version: int = SCHEMA_VERSION
    tools: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    threads: int | None = None
    original: ModelFacts
    quantized: ModelFacts
    verdict: Verdict
    gates: tuple[GateResult, ...] = ()
    size: SizeComparison
    structure: StructureComparison | None = None
    weights: WeightComparison | None = None
    coverage: Coverage | None = None
    kernels: KernelFacts | None = None
    outputs: tuple[OutputFidelity, ...] = ()
    accuracy: Accuracy | None = None
    metrics: tuple[TaskMetric, ...] = ()
    latency: Latency | None = None
    memory: Memory | None = None
    tensors: TensorComparison | None = None
    attribution: tuple[Attribution, ...] = ()
    fusion: tuple[FusionDifference, ...] = ()
    saturation: Saturation | None = None
    baseline: Baseline | None = None
    data: DataFacts | None = None
    notes: tuple[str, ...] = ()

    @property
    def synthetic(self) -> bool:
        """Whether the samples were made up: every rendering must say so."""
        return self.data is not None and self.data.synthetic
