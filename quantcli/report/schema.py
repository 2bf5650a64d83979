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

__all__ = [
    "SCHEMA_VERSION",
    "Accuracy",
    "Coverage",
    "CoverageRow",
    "DataFacts",
    "DtypeBytes",
    "FloatReason",
    "GateResult",
    "GateStatus",
    "KernelFacts",
    "Latency",
    "LayerWeightError",
    "ModelFacts",
    "NodeRef",
    "OpCount",
    "OutputFidelity",
    "Rate",
    "Report",
    "Severity",
    "SizeComparison",
    "StructureComparison",
    "StructureFacts",
    "UnfusedNode",
    "Verdict",
    "VerdictStatus",
    "WeightComparison",
]

SCHEMA_VERSION = 1

Severity = Literal["fail", "warn"]
GateStatus = Literal["pass", "fail", "undecided", "not-measured"]
VerdictStatus = Literal["pass", "fail", "undecided", "no-gates"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A proportion with its confidence interval.

    Attributes:
        value: Hits per trial, 0 to 1.
        low: Lower bound of the interval.
        high: Upper bound.
        confidence: Of the interval, two-sided.
        samples: Samples with at least one trial.
        trials: Decisions counted: one per sample for a classifier, one per position otherwise.
        effective_trials: Independent trials that would be as certain (positions of one sample are not).
    """

    value: float
    low: float
    high: float
    confidence: float
    samples: int
    trials: int
    effective_trials: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFidelity:
    """How far an output of the quantized model is from the original's.

    Attributes:
        name: In the original.
        quantized_name: In the quantized model.
        samples: Samples that gave this output.
        elements: Finite elements compared.
        shape_mismatches: Samples whose two outputs have different shapes: they cannot be compared, and the
            measures below are of the other samples only.
        nonfinite_original: NaN and infinite elements in the original.
        nonfinite_quantized: The same in the quantized model.
        nonfinite_differ: Elements not finite in one and different in the other; any makes the error
            infinite.
        sqnr: 10·log10(Σ r² / Σ (r − q)²) in dB, over all samples; inf: exact.
        cosine: Mean over samples of the cosine similarity.
        cosine_min: That of the worst sample.
        cosine_global: Over all samples at once.
        rmse: Root mean squared error, in the output's unit.
        max_abs: Largest absolute error, in the output's unit.
        top1: Share of positions with the same argmax; None where the output has no class axis.
        class_axis: The axis of that argmax.
    """

    name: str
    quantized_name: str
    samples: int
    elements: int
    shape_mismatches: int = 0
    nonfinite_original: int = 0
    nonfinite_quantized: int = 0
    nonfinite_differ: int = 0
    sqnr: float | None
    cosine: float | None
    cosine_min: float | None
    cosine_global: float | None
    rmse: float | None
    max_abs: float | None
    top1: Rate | None = None
    class_axis: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Top-1 accuracy of both models on the same labelled samples.

    Attributes:
        output: Output whose argmax is compared with the labels.
        original: Accuracy of the original.
        quantized: Accuracy of the quantized model.
        drop: original − quantized, as a fraction (0.01 is one percentage point).
        drop_low: Lower bound of the drop's interval (paired, Agresti–Min).
        drop_high: Upper bound.
        effective_trials: Independent trials that would make the drop as certain.
        broken: Decisions right in the original and wrong in the quantized model.
        fixed: The reverse.
        ignored: Labels below zero, which count nowhere.
    """

    output: str
    original: Rate
    quantized: Rate
    drop: float
    drop_low: float
    drop_high: float
    effective_trials: float
    broken: int
    fixed: int
    ignored: int = 0


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
        latency: On request only.
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
    latency: Latency | None = None
    data: DataFacts | None = None
    notes: tuple[str, ...] = ()

    @property
    def synthetic(self) -> bool:
        """Whether the samples were made up: every rendering must say so."""
        return self.data is not None and self.data.synthetic
