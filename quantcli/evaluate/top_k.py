"""Top-k of both models, streaming: agreement without labels; with them accuracy, also by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quantcli.core.metrics import top1
from quantcli.core.ranks import class_ranks
from quantcli.core.rates import PairedSums, RateSums, count_paired, count_rate, merge_paired, merge_rates
from quantcli.evaluate.metric_names import find_metric
from quantcli.evaluate.rate_facts import paired_metric, rate
from quantcli.report.schema import ClassValue, TaskMetric, TopK

USUAL = 5
"""K that is measured of every output with many classes."""

MANY = 10
"""An output has many classes that has more than this."""


def counts_for(asked: Sequence[int], classes: int) -> tuple[int, ...]:
    """K of what is measured of an output: those asked for and the usual one, as far as there are more classes."""
    wanted = {*asked, *((USUAL,) if classes > MANY else ())}
    return tuple(sorted(k for k in wanted if k < classes))


class TopAgreement:
    """Counts where the original's best class is among the k best of the quantized model.

    Args:
        asked: K besides the usual one, all above 1.
    """

    def __init__(self, asked: Sequence[int] = ()) -> None:
        self._asked = asked
        self._sums: dict[int, RateSums] = {}

    def observe(self, reference: np.ndarray, other: np.ndarray, axis: int) -> None:
        """Count one call; each row of axis 0 is a sample."""
        counts = counts_for(self._asked, reference.shape[axis])
        if not counts or not reference.size:
            return
        best = top1(reference, axis)
        ranks = class_ranks(other, axis, best)  # a best class of −1 (NaN) has no rank
        for k in counts:
            hits = (ranks < k).reshape(len(ranks), -1)
            for row in hits.sum(axis=1).tolist():
                known = self._sums.get(k, RateSums())
                self._sums[k] = merge_rates(known, count_rate(row, hits.shape[1]))

    def results(self) -> tuple[TopK, ...]:
        """Agreement by k."""
        found = ((k, rate(self._sums[k])) for k in sorted(self._sums))
        return tuple(TopK(k=k, agreement=agreement) for k, agreement in found if agreement is not None)


class TopAccuracy:
    """Counts where the label is among the k best classes, and right decisions by class.

    Args:
        asked: K besides the usual one, all above 1.
    """

    def __init__(self, asked: Sequence[int] = ()) -> None:
        self._asked = asked
        self._sums: dict[int, PairedSums] = {}
        self._classes = np.zeros((3, 0), np.int64)

    def observe(self, labels: np.ndarray, reference: np.ndarray, other: np.ndarray, axis: int) -> None:
        """Count one call.

        Args:
            labels: Class numbers, the outputs' shape without ``axis``; below zero: none.
            reference: Output of the original.
            other: Output of the quantized model, of the same shape.
            axis: Class axis.
        """
        counted = labels >= 0
        right = [(top1(values, axis).reshape(labels.shape) == labels) & counted for values in (reference, other)]
        self._by_class(labels[counted], [hits[counted] for hits in right])
        counts = counts_for(self._asked, reference.shape[axis])
        if not counts:
            return
        places = np.delete(reference.shape, axis)
        ranks = [class_ranks(values, axis, labels.reshape(places)).reshape(labels.shape)
                 for values in (reference, other)]  # fmt: skip
        for k in counts:
            for row in range(len(labels)):
                first, second = ((rank[row] < k) & counted[row] for rank in ranks)
                sums = count_paired(
                    int((first & ~second).sum()),
                    int((second & ~first).sum()),
                    int((first & second).sum()),
                    int(counted[row].sum()),
                )
                self._sums[k] = merge_paired(self._sums.get(k, PairedSums()), sums)

    def _by_class(self, labels: np.ndarray, right: Sequence[np.ndarray]) -> None:
        size = max(self._classes.shape[1], int(labels.max(initial=-1)) + 1)
        found = [labels, *(labels[hits] for hits in right)]
        grown = np.zeros((3, size), np.int64)
        grown[:, : self._classes.shape[1]] = self._classes
        self._classes = grown + np.stack([np.bincount(part, minlength=size) for part in found])

    def results(self) -> tuple[TaskMetric, ...]:
        """Accuracy by k."""
        found = []
        for k in sorted(self._sums):
            name = f"top{k}_accuracy"
            row = find_metric(name)
            assert row is not None
            metric = paired_metric(name, row.sentence, self._sums[k])
            found += [metric] if metric is not None else []
        return tuple(found)

    def classes(self) -> tuple[ClassValue, ...]:
        """Accuracy of each class that has labels."""
        return tuple(
            ClassValue(label=str(label), samples=count, original=first / count, quantized=second / count)
            for label, (count, first, second) in enumerate(self._classes.T.tolist())
            if count
        )
