"""What a report says of outputs: how far they are from the original's, and how often they are right."""

from __future__ import annotations

from dataclasses import dataclass

from quantcli.report.task_metrics import ClassValue, TaskMetric


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
class TopK:
    """Agreement of the best classes.

    Attributes:
        k: How many classes.
        agreement: Share of positions where the original's best class is among the k best of the quantized
            model.
    """

    k: int
    agreement: Rate


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
        topk: Agreement for larger numbers of classes.
        psnr: 20·log10(peak / RMSE) in dB, where the range of the output is given; inf: exact.
        peak: Length of that range.
        integers: Whether the output holds integers, such as class numbers, whose SQNR says little.
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
    topk: tuple[TopK, ...] = ()
    psnr: float | None = None
    peak: float | None = None
    integers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Top-1 accuracy of both models on the same labelled samples.

    Attributes:
        output: Output whose argmax is compared with the labels.
        original: Accuracy of the original.
        quantized: Accuracy of the quantized model.
        drop: original − quantized, as a fraction (0.01 is one percentage point).
        drop_low: Lower bound of the drop's interval (paired).
        drop_high: Upper bound.
        effective_trials: Independent trials that would make the drop as certain.
        broken: Decisions right in the original and wrong in the quantized model.
        fixed: The reverse.
        ignored: Labels below zero, which count nowhere.
        p_value: Exact McNemar test of "no difference", two-sided; None where trials are not independent.
        topk: Accuracy by number of classes that count as a hit, for k above 1.
        classes: Accuracy by true class.
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
    p_value: float | None = None
    topk: tuple[TaskMetric, ...] = ()
    classes: tuple[ClassValue, ...] = ()
