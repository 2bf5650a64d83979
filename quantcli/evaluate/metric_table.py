"""The metrics that gates can ask for: one row each, read by the parser, ``quantcli explain`` and the docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from quantcli.evaluate.allowance import Allowance, Measure, usual_allowance

_INF = float("inf")


class Needs(StrEnum):
    """What must have been given for a metric to exist."""

    MODELS = "the two models"
    DATA = "samples (--data)"
    LABELS = "samples and labels (--data, --labels)"
    LATENCY = "timing (--latency)"
    RANGE = "samples and the range of an output (--data, --output-range)"
    SEGMENTATION = "samples and true class maps (--data, --task segmentation)"
    DETECTION = "samples and true boxes (--data, --task detection)"
    METRIC = "samples and a metric of one's own (--data, --metric)"
    CHECKS = "samples and checks (--data, without --no-checks)"
    MEMORY = "samples and peak memory (--data, --memory)"


class Better(StrEnum):
    """Which way a metric gets better."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: As written in gates.
        sentence: What it is; the formula where there is one.
        better: Which way is better: the worst of several outputs is judged by it.
        needs: What it is measured from.
        per_output: Whether it belongs to an output ("logits.cosine").
        unit: How its value is shown: "dB", "%", "pp", "×" or "".
        units: Suffixes that a limit may carry, with their factor.
        low: Smallest limit that makes sense.
        high: Largest.
        strict: Whether ``low`` and ``high`` themselves make no sense.
        allow: How much worse than a baseline it may be; None for what is usual for its unit.
    """

    name: str
    sentence: str
    better: Better
    needs: Needs
    per_output: bool = False
    unit: str = ""
    units: Mapping[str, float] = field(default_factory=dict)
    low: float = -_INF
    high: float = _INF
    strict: bool = False
    allow: Allowance | None = None

    @property
    def allowance(self) -> Allowance:
        """How much worse than a baseline it may be."""
        return self.allow or usual_allowance(self.unit)


_PERCENT = {"%": 0.01}
_DECIBELS = {"dB": 1.0, "db": 1.0}


def share(name: str, sentence: str, needs: Needs, *, per_output: bool = False) -> Metric:
    """The row of a metric between 0 and 1, more is better."""
    return Metric(
        name=name,
        sentence=sentence,
        better=Better.HIGHER,
        needs=needs,
        per_output=per_output,
        unit="%",
        units=_PERCENT,
        low=0.0,
        high=1.0,
    )


def sqnr_row(name: str, sentence: str, needs: Needs, *, per_output: bool = False) -> Metric:
    """The row of a SQNR that says where noise comes from; against a baseline only where it is named."""
    return Metric(
        name=name,
        sentence=sentence,
        better=Better.HIGHER,
        needs=needs,
        per_output=per_output,
        unit="dB",
        units=_DECIBELS,
        allow=Allowance(amount=0.5, named_only=True),
    )


def drop_of(name: str, what: str, needs: Needs) -> Metric:
    """The row of the drop of a metric between 0 and 1."""
    return Metric(
        name=f"{name}_drop",
        sentence=f"{what} of the original minus that of the quantized model, as a fraction: 0.01 or 1pp is one "
        "percentage point; on the same samples, so its interval is paired",
        better=Better.LOWER,
        needs=needs,
        unit="pp",
        units={"pp": 0.01},
        low=-1.0,
        high=1.0,
        strict=True,
    )


_ROWS = (
    Metric(
        name="sqnr",
        sentence="signal-to-quantization-noise ratio of an output, 10·log10(Σr² / Σ(r − q)²) dB over all "
        "samples; inf means exact",
        better=Better.HIGHER,
        needs=Needs.DATA,
        per_output=True,
        unit="dB",
        units=_DECIBELS,
    ),
    Metric(
        name="cosine",
        sentence="mean over samples of the cosine similarity of an output, flattened",
        better=Better.HIGHER,
        needs=Needs.DATA,
        per_output=True,
        low=-1.0,
        high=1.0,
        allow=Allowance(amount=0.12, measure=Measure.DISTANCE),
    ),
    Metric(
        name="cosine_min",
        sentence="cosine similarity of an output in the worst sample",
        better=Better.HIGHER,
        needs=Needs.DATA,
        per_output=True,
        low=-1.0,
        high=1.0,
        allow=Allowance(amount=0.25, measure=Measure.DISTANCE, named_only=True),
    ),
    Metric(
        name="cosine_global",
        sentence="cosine similarity of an output over all samples at once",
        better=Better.HIGHER,
        needs=Needs.DATA,
        per_output=True,
        low=-1.0,
        high=1.0,
        allow=Allowance(amount=0.12, measure=Measure.DISTANCE, named_only=True),
    ),
    Metric(
        name="rmse",
        sentence="root mean squared error of an output, in its own unit",
        better=Better.LOWER,
        needs=Needs.DATA,
        per_output=True,
        low=0.0,
        allow=Allowance(amount=0.06, measure=Measure.SHARE, named_only=True),
    ),
    Metric(
        name="max_abs",
        sentence="largest absolute error of an output, in its own unit",
        better=Better.LOWER,
        needs=Needs.DATA,
        per_output=True,
        low=0.0,
        allow=Allowance(amount=0.25, measure=Measure.SHARE, named_only=True),
    ),
    Metric(
        name="top1_agreement",
        sentence="share of decisions (argmax over the class axis) that are the same in both models",
        better=Better.HIGHER,
        needs=Needs.DATA,
        per_output=True,
        unit="%",
        units=_PERCENT,
        low=0.0,
        high=1.0,
    ),
    Metric(
        name="nonfinite",
        sentence="NaN and infinite elements of an output that are not the same in both models",
        better=Better.LOWER,
        needs=Needs.DATA,
        per_output=True,
        low=0.0,
        allow=Allowance(amount=0.0),
    ),
    Metric(
        name="accuracy",
        sentence="top-1 accuracy of the quantized model",
        better=Better.HIGHER,
        needs=Needs.LABELS,
        unit="%",
        units=_PERCENT,
        low=0.0,
        high=1.0,
    ),
    Metric(
        name="accuracy_drop",
        sentence="top-1 accuracy of the original minus that of the quantized model, as a fraction: 0.01 or "
        "1pp is one percentage point",
        better=Better.LOWER,
        needs=Needs.LABELS,
        unit="pp",
        units={"pp": 0.01},
        low=-1.0,
        high=1.0,
        strict=True,
    ),
    Metric(
        name="psnr",
        sentence="peak signal-to-noise ratio of an output, 20·log10(range / RMSE) dB over all samples; inf means "
        "exact",
        better=Better.HIGHER,
        needs=Needs.RANGE,
        per_output=True,
        unit="dB",
        units=_DECIBELS,
    ),
    share(
        "top5_agreement",
        "share of decisions where the original's best class is among the 5 best of the quantized model; any other "
        "number may stand for 5",
        Needs.DATA,
        per_output=True,
    ),
    share(
        "top5_accuracy",
        "share of labels that are among the 5 best classes of the quantized model; any other number may stand for "
        "5",
        Needs.LABELS,
    ),
    drop_of("top5_accuracy", "top-5 accuracy", Needs.LABELS),
    share("miou", "mean intersection over union of the quantized model", Needs.SEGMENTATION),
    drop_of("miou", "mean intersection over union", Needs.SEGMENTATION),
    share(
        "map",
        "mean average precision of the quantized model, by COCO's definition: averaged over the IoU thresholds "
        "0.50 to 0.95",
        Needs.DETECTION,
    ),
    drop_of("map", "mean average precision", Needs.DETECTION),
    share("map50", "mean average precision of the quantized model at the IoU threshold 0.50", Needs.DETECTION),
    drop_of("map50", "mean average precision at the IoU threshold 0.50", Needs.DETECTION),
    Metric(
        name="size_ratio",
        sentence="bytes of the quantized model over bytes of the original, external data included",
        better=Better.LOWER,
        needs=Needs.MODELS,
        unit="×",
        units={"x": 1.0, **_PERCENT},
        low=0.0,
        allow=Allowance(amount=0.01, measure=Measure.SHARE),
    ),
    Metric(
        name="latency_ratio",
        sentence="median over interleaved pairs of the time of the quantized model over that of the original",
        better=Better.LOWER,
        needs=Needs.LATENCY,
        unit="×",
        units={"x": 1.0, **_PERCENT},
        low=0.0,
    ),
    Metric(
        name="float_nodes",
        sentence="compute nodes (Conv, MatMul, Gemm, …) that the quantized model leaves in float",
        better=Better.LOWER,
        needs=Needs.MODELS,
        low=0.0,
        allow=Allowance(amount=0.0),
    ),
    Metric(
        name="quantized_nodes",
        sentence="compute nodes (Conv, MatMul, Gemm, …) that are quantized: integer operators, or all data "
        "inputs from DequantizeLinear",
        better=Better.HIGHER,
        needs=Needs.MODELS,
        low=0.0,
        allow=Allowance(amount=0.0),
    ),
    Metric(
        name="suspects",
        sentence="layers whose own error is more than quantization explains: by their weights, biases and scales, "
        "with samples also by their ranges and local errors",
        better=Better.LOWER,
        needs=Needs.MODELS,
        low=0.0,
        allow=Allowance(amount=0.0),
    ),
    Metric(
        name="clipped",
        sentence="largest share of an activation's values that lie outside the range of its integers",
        better=Better.LOWER,
        needs=Needs.DATA,
        unit="%",
        units=_PERCENT,
        low=0.0,
        high=1.0,
        allow=Allowance(amount=0.005, named_only=True),
    ),
    sqnr_row(
        "worst_tensor_sqnr",
        "lowest local SQNR of an activation in dB: its layer against the original's on the same inputs",
        Needs.DATA,
    ),
    sqnr_row(
        "weight_sqnr",
        "signal-to-quantization-noise ratio of the worst weight that was found in both models, in dB",
        Needs.MODELS,
    ),
)

_CHECK_ROWS = (
    sqnr_row(
        "weights_only_sqnr",
        "signal-to-quantization-noise ratio of an output with quantized weights and float activations",
        Needs.CHECKS,
        per_output=True,
    ),
    sqnr_row(
        "activations_only_sqnr",
        "signal-to-quantization-noise ratio of an output with float weights and quantized activations",
        Needs.CHECKS,
        per_output=True,
    ),
    sqnr_row(
        "no_vnni_sqnr",
        "signal-to-quantization-noise ratio of an output on an emulated x86 CPU without VNNI, whose "
        "16-bit sums saturate",
        Needs.CHECKS,
        per_output=True,
    ),
    Metric(
        name="fusion_steps",
        sentence="largest difference that the runtime's optimizations make in an output, in steps of its scale "
        "(2⁻⁸ of its range where it is not quantized); above 2 is more than rounding",
        better=Better.LOWER,
        needs=Needs.CHECKS,
        per_output=True,
        low=0.0,
        allow=Allowance(amount=1.0, named_only=True),
    ),
    Metric(
        name="unfused_nodes",
        sentence="quantized nodes that the runtime could execute as integer kernels, and does not (F405)",
        better=Better.LOWER,
        needs=Needs.CHECKS,
        low=0.0,
        allow=Allowance(amount=0.0),
    ),
    Metric(
        name="saturation_risks",
        sentence="layers whose weights do not prove that 16-bit sums never saturate on an x86 CPU without VNNI",
        better=Better.LOWER,
        needs=Needs.MODELS,
        low=0.0,
        allow=Allowance(amount=0.0, named_only=True),
    ),
    Metric(
        name="memory_ratio",
        sentence="peak memory of the quantized model over that of the original, each in a process of its own and "
        "without what the process takes anyway",
        better=Better.LOWER,
        needs=Needs.MEMORY,
        unit="×",
        units={"x": 1.0, **_PERCENT},
        low=0.0,
        allow=Allowance(amount=0.1, measure=Measure.SHARE),
    ),
)
"""What ``checks`` measures."""

METRICS: Mapping[str, Metric] = {row.name: row for row in (*_ROWS, *_CHECK_ROWS)}
"""Rows by name."""


def show(metric: Metric, value: float, digits: int | None = None) -> str:
    """A value of ``metric`` in its unit, with ``digits`` significant digits (as many as it is worth for None)."""
    if metric.unit in ("%", "pp"):
        return f"{100 * value + 0.0:.{digits or 4}g} {metric.unit}"
    if metric.unit:
        return f"{value:.{digits or 4}g} {metric.unit}"
    return f"{value:.{digits or 6}g}"
