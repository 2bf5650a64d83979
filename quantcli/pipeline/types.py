"""What goes into the use cases and what comes out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quantcli.algorithms.effort import DEFAULT_EFFORT
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.kernel_report import KernelReport

if TYPE_CHECKING:
    from quantcli.calibration.statistics import CalibrationStatistics
    from quantcli.pipeline.placement_verdict import PlacementVerdict
    from quantcli.quantize.plan import Plan
    from quantcli.report.schema import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """Which samples, and how they become inputs (section "Data" of the guide).

    Attributes:
        specs: ``--data`` arguments, in order.
        samples: At most so many samples; None for all.
        shuffle: Take them in a seeded random order.
        seed: Of the shuffle and of ``random:`` data.
        shapes: Shapes of inputs with dynamic dimensions, for ``random:`` data.
        states: ``OUTPUT=INPUT`` pairs: what a run gives as OUTPUT, the next one takes as INPUT.
        sequence: Samples of a sequence, after which states start anew; None for one sequence.
        image: Options of image folders by name (resize, crop, mean, std, scale, layout, channels, preprocess),
            as text; options in a spec are stronger.
    """

    specs: tuple[str, ...] = ()
    samples: int | None = None
    shuffle: bool = False
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    states: tuple[str, ...] = ()
    sequence: int | None = None
    image: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How models are run.

    Attributes:
        threads: Intra-op threads of onnxruntime, at least 1.
        batch_size: Samples per run where the model allows batches; None lets quantcli choose.
        providers: Execution providers for calibration, in order of preference.
    """

    threads: int = 1
    batch_size: int | None = None
    providers: tuple[str, ...] = ("CPUExecutionProvider",)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateRequest:
    """``quantcli calibrate``.

    Attributes:
        model: Float model.
        output: Statistics file; None for MODEL.calib beside the model.
        data: Samples.
        run: How to run.
        target: Target whose tensors are observed.
        overwrite: Replace an existing file.
        ignore_nonfinite: Leave NaN and Inf out of the statistics instead of failing.
    """

    model: Path
    data: DataOptions
    output: Path | None = None
    run: RunOptions = field(default_factory=RunOptions)
    target: str = "ort-cpu"
    overwrite: bool = False
    ignore_nonfinite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateResult:
    """What calibration did.

    Attributes:
        output: The file written.
        statistics: Its content; ``statistics.convergence`` holds the verdict.
        seconds: Wall time of the sweep over the samples.
        notes: Things the user should know (casts, dropped rows, preparation).
    """

    output: Path
    statistics: CalibrationStatistics
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertRequest:
    """``quantcli convert``.

    Attributes:
        model: Float model.
        output: Where the result goes; None for MODEL.int8.onnx beside the model.
        calibration: Statistics file; or
        data: samples to calibrate on. One of the two, unless ``dry_run``.
        eval_data: Samples that calibration does not see, for the fidelity shown at the end.
        recipe: How to quantize.
        format: "qdq" or "qoperator".
        effort: Key of ``algorithms.effort.EFFORTS``.
        placement: "measured", "static", or "" for what the effort says.
        float_if_faster: Leave the model in float where no integer form is faster.
        mask: Input that says which positions of a sample count (0 for padding), None where all do.
        max_memory: Bytes of activations that rounding against the data may hold at a time.
        opset: ai.onnx version of the result; None for the lowest that does.
        plan: A saved plan that takes the place of planning.
        plan_out: Where to write the plan.
        reports: Report files (.json, .md, .html, .xml).
        dry_run: Plan only; nothing but ``plan_out`` is written, no data are needed.
        run: How to run.
        overwrite: Replace existing files.
    """

    model: Path
    output: Path | None = None
    calibration: Path | None = None
    data: DataOptions = field(default_factory=DataOptions)
    eval_data: DataOptions = field(default_factory=DataOptions)
    recipe: Recipe = field(default_factory=Recipe)
    format: str = "qdq"
    effort: str = DEFAULT_EFFORT
    placement: str = ""
    float_if_faster: bool = False
    mask: str | None = None
    max_memory: int = 2**31
    opset: int | None = None
    plan: Path | None = None
    plan_out: Path | None = None
    reports: tuple[Path, ...] = ()
    dry_run: bool = False
    run: RunOptions = field(default_factory=RunOptions)
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingFacts:
    """How weights and biases were found.

    Attributes:
        effort: Level of effort.
        samples: Samples that weights were rounded against; 0 for rounding to nearest.
        peak_bytes: Most bytes of activations held at a time.
        variants: Way of rounding → number of layers.
        alpha: Strength of equalization, 0 for none.
        scaled: Channels that equalization scaled.
        trial_sqnr: SQNR in dB of the worst output in the trial, on samples held out; None where there was none.
    """

    effort: str
    samples: int = 0
    peak_bytes: int = 0
    variants: Mapping[str, int] = field(default_factory=dict)
    alpha: float = 0.0
    scaled: int = 0
    trial_sqnr: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """What conversion did.

    Attributes:
        plan: All decisions.
        output: The file written; None after a dry run.
        files: All files written.
        source_bytes: Size of the float model with its external data.
        output_bytes: Size of the result.
        kernels: What the runtime made of it; None after a dry run.
        fidelity: SQNR in dB of each float output against the float model; empty when nothing was measured.
        fidelity_on: What ``fidelity`` was measured on ("8 calibration samples", "40 samples of eval.npz"), "".
        report: The report; None after a dry run.
        rounding: How weights were rounded; None after a dry run.
        placement: What measuring placements found; None where nothing was measured.
        notes: Things the user should know.
    """

    plan: Plan
    output: Path | None = None
    files: tuple[Path, ...] = ()
    source_bytes: int = 0
    output_bytes: int = 0
    kernels: KernelReport | None = None
    fidelity: Mapping[str, float] = field(default_factory=dict)
    fidelity_on: str = ""
    report: Report | None = None
    rounding: RoundingFacts | None = None
    placement: PlacementVerdict | None = None
    notes: tuple[str, ...] = ()

    def reasons(self) -> Counter[tuple[str, str]]:
        """(code, operator) of the nodes left in float, counted."""
        return Counter((n.reason.code, n.op_type) for n in self.plan.nodes if n.reason is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRequest:
    """What to measure of the outputs besides their error.

    Attributes:
        ranges: ``[OUTPUT=]LENGTH`` or ``[OUTPUT=]LOW:HIGH``, for PSNR.
        top_k: Numbers of classes for top-k.
        tasks: ``NAME?option=value&…`` (``evaluate.task_spec``).
        functions: ``[NAME=]FILE.py:FUNCTION`` (``evaluate.user_metric``).
    """

    ranges: tuple[str, ...] = ()
    top_k: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRequest:
    """``quantcli compare``.

    Attributes:
        original: The reference.
        quantized: The model to judge.
        data: Samples; without any, only files and weights are compared.
        labels: File of labels.
        labels_output: Output that the labels belong to; None to choose.
        metrics: What else to measure of the outputs.
        gates: Gate expressions.
        baseline: Report of an earlier comparison (JSON) that this one is held against.
        allow_regression: How much worse than it single metrics may be: "sqnr=1dB".
        latency: Measure the latency ratio.
        repeats: Pairs of timed runs.
        checks: Look at kernels, fusions, shares of the error and CPUs without VNNI.
        memory: Measure the peak memory of both models, each in a process of its own.
        tensors: Look for the layers that the error comes from.
        tensor_samples: At most so many samples for that; None for the default.
        max_memory: Bytes that the values of one sample may take at a time there; None for the default.
        default_gates: Hold the default gates as well.
        reports: Report files (.json, .md, .html, .xml).
        run: How to run.
        overwrite: Replace existing report files.
        command: The command line as typed, for the section "how to reproduce"; no absolute paths.
    """

    original: Path
    quantized: Path
    data: DataOptions = field(default_factory=DataOptions)
    labels: Path | None = None
    labels_output: str | None = None
    metrics: MetricRequest = field(default_factory=MetricRequest)
    gates: tuple[str, ...] = ()
    baseline: Path | None = None
    allow_regression: tuple[str, ...] = ()
    latency: bool = False
    repeats: int = 50
    checks: bool = True
    memory: bool = False
    tensors: bool = True
    tensor_samples: int | None = None
    max_memory: int | None = None
    default_gates: bool = True
    reports: tuple[Path, ...] = ()
    run: RunOptions = field(default_factory=RunOptions)
    overwrite: bool = False
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """``quantcli inspect`` of one file.

    Attributes:
        path: The file.
        kind: "model", "calibration", "plan" or "report".
        facts: Label → text, in order of interest.
        plan: What would become of a model's nodes; the plan in a plan file.
        statistics: Content of a calibration file.
        report: Content of a report file.
    """

    path: Path
    kind: str
    facts: Mapping[str, str]
    plan: Plan | None = None
    statistics: CalibrationStatistics | None = None
    report: Report | None = None
