"""What scorers of tasks and metrics of the user's own see of each call, and the metric that they make in the end.

Both models answer the same samples, so their difference is *paired*: it is drawn again together
(``core.bootstrap``). ``drop`` is always the change for the worse, whichever way the metric goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from quantcli.core.bootstrap import Interval, bootstrap
from quantcli.core.intervals import CONFIDENCE
from quantcli.report.schema import ClassValue, TaskMetric

SEED = 0
"""Of the generator that draws samples again: the same samples give the same intervals."""

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One call of both models.

    Attributes:
        index: Number of the call, from 0.
        inputs: What both were fed with.
        original: Outputs by name.
        quantized: Outputs of the quantized model, by the names of the original.
        labels: The call's rows of the labels; None without labels.
    """

    index: int
    inputs: Mapping[str, np.ndarray]
    original: Mapping[str, np.ndarray]
    quantized: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None


class Scorer(Protocol):
    """Makes metrics of calls."""

    def observe(self, call: Observation) -> None:
        """Take one call in."""

    def results(self) -> tuple[TaskMetric, ...]:
        """The metrics, when all calls were seen."""


def mean_metric(
    name: str, sentence: str, better: Better, original: Sequence[float], quantized: Sequence[float]
) -> TaskMetric:
    """A metric that is the mean of a score of each sample, with intervals by drawing samples again."""
    scores = np.array([original, quantized], np.float64).T
    if not np.isfinite(scores).all():  # a mean that is not finite has no interval, and a NaN passes no gate
        with np.errstate(invalid="ignore"):
            means = scores.mean(axis=0).tolist()
        return plain_metric(name, sentence, better, len(scores), means[0], means[1])
    inside = bool(((scores >= 0) & (scores <= 1)).all())
    columns = with_drop(scores[:, 0], scores[:, 1], better)

    def means_of(counts: np.ndarray) -> np.ndarray:
        # einsum and not a product of matrices, whose order of addition depends on threads
        means: np.ndarray = np.einsum("ds,sk->dk", counts, columns) / counts.sum(axis=1)[:, None]
        return means

    found = bootstrap(
        means_of,
        len(scores),
        np.random.default_rng(SEED),
        reach=1.0 if inside else float(np.abs(scores).max()),
    )
    return drawn_metric(name, sentence, better, len(scores), found)


SHARE_LIMITS = ((0.0, 1.0), (0.0, 1.0), (-1.0, 1.0))
"""Limits of the columns of ``with_drop`` for metrics between 0 and 1."""


def with_drop(original: np.ndarray, quantized: np.ndarray, better: Better) -> np.ndarray:
    """Columns original, quantized, drop of arrays of one shape."""
    drop = original - quantized if better == "higher" else quantized - original
    return np.stack([original, quantized, drop], axis=-1)


def drawn_metric(
    name: str,
    sentence: str,
    better: Better,
    samples: int,
    found: Sequence[Interval],
    classes: tuple[ClassValue, ...] = (),
) -> TaskMetric:
    """A metric from the intervals of its columns (see ``with_drop``)."""
    original, quantized, drop = found
    return TaskMetric(
        name=name,
        sentence=sentence,
        better=better,
        samples=samples,
        original=original.value,
        original_low=original.low,
        original_high=original.high,
        quantized=quantized.value,
        quantized_low=quantized.low,
        quantized_high=quantized.high,
        drop=drop.value,
        drop_low=drop.low,
        drop_high=drop.high,
        confidence=CONFIDENCE,
        interval="bootstrap",
        classes=classes,
    )


def plain_metric(
    name: str, sentence: str, better: Better, samples: int, original: float, quantized: float
) -> TaskMetric:
    """A metric without intervals."""
    return TaskMetric(
        name=name,
        sentence=sentence,
        better=better,
        samples=samples,
        original=original,
        quantized=quantized,
        drop=original - quantized if better == "higher" else quantized - original,
    )
