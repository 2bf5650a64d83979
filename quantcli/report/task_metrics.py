"""What a report says of tasks: metrics that compare a model with the truth, each with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassValue:
    """A metric of one class.

    Attributes:
        label: Class number, or its name where names are given.
        samples: Trials (labelled positions, boxes) of the class.
        original: Of the original; None where it is not defined (no such label).
        quantized: Of the quantized model.
    """

    label: str
    samples: int
    original: float | None
    quantized: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMetric:
    """A metric of both models on the same samples.

    Attributes:
        name: As gates call it; ``NAME_drop`` is the change for the worse.
        sentence: Its definition, in words.
        better: Which way is better.
        samples: Samples that were scored.
        original: Of the original.
        original_low: Lower bound of its interval; None where there is none.
        original_high: Upper bound.
        quantized: Of the quantized model.
        quantized_low: Lower bound.
        quantized_high: Upper bound.
        drop: Change for the worse: original − quantized where higher is better, else quantized − original.
        drop_low: Lower bound of its paired interval; None where there is none.
        drop_high: Upper bound.
        confidence: Of the intervals, two-sided.
        interval: How they were found: "wilson", "paired", "bootstrap", or "none".
        classes: By class, where the metric has classes.
    """

    name: str
    sentence: str
    better: Literal["higher", "lower"]
    samples: int
    original: float
    original_low: float | None = None
    original_high: float | None = None
    quantized: float
    quantized_low: float | None = None
    quantized_high: float | None = None
    drop: float
    drop_low: float | None = None
    drop_high: float | None = None
    confidence: float | None = None
    interval: Literal["wilson", "paired", "bootstrap", "none"] = "none"
    classes: tuple[ClassValue, ...] = ()
