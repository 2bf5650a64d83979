"""Accuracy of two models on the same labelled samples, streaming.

A label belongs to a decision: an argmax over the class axis. Labels (samples,) go with an output [N, C],
labels (samples, L) with [N, L, C], labels (samples, H, W) with [N, H, W, C] or [N, C, H, W]: the output's shape
without its class axis has to be that of the labels. A call of the model with N rows takes the next N labels.
One value below zero may mark positions without an answer (padding, void); they count nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from quantcli.core.intervals import mcnemar_p
from quantcli.core.metrics import top1
from quantcli.core.rates import PairedSums, count_paired, merge_paired
from quantcli.errors import DataError
from quantcli.evaluate.rate_facts import rate
from quantcli.evaluate.top_k import TopAccuracy
from quantcli.report.schema import Accuracy


def label_axis(shape: tuple[int, ...], rows: tuple[int, ...]) -> int | None:
    """The class axis of an output of ``shape`` for labels of shape ``rows`` per sample; None if none fits."""
    if len(shape) > 2 and all(dim == 1 for dim in shape[2:]) and not rows:
        return 1 if shape[1] > 1 else None
    for axis in (len(shape) - 1, 1):
        if 0 < axis < len(shape) and shape[axis] > 1 and shape[1:axis] + shape[axis + 1 :] == rows:
            return axis
    return None


class LabelScorer:
    """Counts right decisions of both models.

    Args:
        labels: Integers, first axis samples.
        wanted: Name of the output to score; None for the first whose shape fits.
        top_k: Numbers of classes for top-k accuracy, besides the usual one.
    """

    def __init__(self, labels: np.ndarray, wanted: str | None = None, top_k: Sequence[int] = ()) -> None:
        if labels.dtype.kind not in "iu" or labels.ndim < 1:
            raise DataError(
                "G203",
                f"labels are class numbers, integers with one row per sample; these are {labels.dtype} of shape "
                f"{labels.shape}",
            )
        markers = np.unique(labels[labels < 0])
        if markers.size > 1:
            raise DataError(
                "G203",
                f"labels have {markers.size} different values below zero, from {markers[0]} to {markers[-1]}; "
                "class numbers count from 0",
                hint="one value below zero may mark what has no label, such as -1 or -100",
            )
        self._labels = labels
        self._next = 0
        self._ignored = 0
        self._sums = PairedSums()
        self._top = TopAccuracy(top_k)
        self.output: str | None = wanted

    @property
    def rows(self) -> tuple[int, ...]:
        """Shape of one sample's labels."""
        return self._labels.shape[1:]

    def fits(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether any output (the wanted one, if there is one) can be scored."""
        candidates = [self.output] if self.output is not None else list(shapes)
        return any(label_axis(shapes[name], self.rows) is not None for name in candidates)

    def choose(self, shapes: dict[str, tuple[int, ...]], expected: int | None) -> str:
        """Settle which output is scored, from the shapes of the first sample's outputs.

        Args:
            shapes: Shapes by name of the outputs that are compared.
            expected: Number of calls, None where it is not known.

        Raises:
            DataError: G203, no output fits; D121, the number of labels is not that of the samples.
        """
        rows = self.rows
        candidates = [self.output] if self.output is not None else list(shapes)
        fitting = [name for name in candidates if label_axis(shapes[name], rows) is not None]
        if not fitting:
            listed = ", ".join(f"'{name}' {list(shapes[name])}" for name in candidates)
            raise DataError(
                "G203",
                f"labels of shape {list(self._labels.shape)} fit no output; there are {listed}",
                hint="labels need one class number per decision: the output's shape without its class axis",
            )
        self.output = fitting[0]
        one_each = shapes[self.output][0] == 1
        if one_each and expected is not None and expected != len(self._labels):
            raise self._wrong_count(str(expected))
        return self.output

    def observe(self, reference: np.ndarray, other: np.ndarray) -> None:
        """Count one call's decisions.

        Raises:
            DataError: D121, there are not enough labels; G203, a label is no class of the output, or the
                shape changed to one that labels do not fit.
        """
        axis = label_axis(reference.shape, self.rows)
        if axis is None or reference.size != other.size:
            raise DataError(
                "G203",
                f"output '{self.output}' has shape {list(reference.shape)} in one sample, which the labels do not "
                "fit",
            )
        rows = reference.shape[0]
        labels = self._labels[self._next : self._next + rows]
        if len(labels) < rows:
            raise self._wrong_count("more")
        self._next += rows
        if labels.max(initial=0) >= reference.shape[axis]:
            raise DataError(
                "G203",
                f"there is a label {labels.max()}, and output '{self.output}' has classes 0 to "
                f"{reference.shape[axis] - 1}",
                hint="do the labels count from 1?",
            )
        other = other.reshape(reference.shape)
        self._top.observe(labels, reference, other, axis)
        right_ref = top1(reference, axis).reshape(labels.shape) == labels
        right_other = top1(other, axis).reshape(labels.shape) == labels
        for label, first, second in zip(labels, right_ref, right_other, strict=True):
            self._count(np.asarray(label), np.asarray(first), np.asarray(second))

    def _count(self, label: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
        counted = label >= 0
        self._ignored += int(label.size - counted.sum())
        sums = count_paired(
            int((counted & first & ~second).sum()),
            int((counted & second & ~first).sum()),
            int((counted & first & second).sum()),
            int(counted.sum()),
        )
        self._sums = merge_paired(self._sums, sums)

    def result(self) -> Accuracy:
        """What was counted.

        Raises:
            DataError: D121, labels are left over, or all are below zero.
        """
        if self._next != len(self._labels):
            raise self._wrong_count(str(self._next))
        sums = self._sums
        drop, interval = sums.drop, sums.interval()
        original, quantized = rate(sums.first), rate(sums.second)
        if drop is None or interval is None or original is None or quantized is None or self.output is None:
            raise DataError("D121", "all labels are below zero, which means 'no label'")
        return Accuracy(
            output=self.output,
            original=original,
            quantized=quantized,
            drop=drop,
            drop_low=interval[0],
            drop_high=interval[1],
            effective_trials=sums.effective_trials,
            broken=sums.lost,
            fixed=sums.gained,
            ignored=self._ignored,
            p_value=mcnemar_p(sums.lost, sums.gained) if sums.first.trials_squared == sums.first.trials else None,
            topk=self._top.results(),
            classes=self._top.classes(),
        )

    def _wrong_count(self, samples: str) -> DataError:
        return DataError(
            "D121",
            f"there are {len(self._labels)} labels, and {samples} samples",
            hint="labels and samples have to be in the same order, one label for each",
        )
