"""Mean intersection over union of both models (``core.confusion``); a few numbers are kept of each image."""

from __future__ import annotations

import numpy as np

from quantcli.core.bootstrap import bootstrap, hidden_spread
from quantcli.core.confusion import ClassCounts, class_ious, count_classes, mean_iou
from quantcli.core.metrics import top1
from quantcli.data.problems import printable
from quantcli.data.truth import read_maps
from quantcli.errors import DataError
from quantcli.evaluate.gate_syntax import unknown_output
from quantcli.evaluate.labels import label_axis
from quantcli.evaluate.scoring import SEED, SHARE_LIMITS, Observation, drawn_metric, with_drop
from quantcli.evaluate.task_spec import TaskSpec
from quantcli.report.schema import ClassValue, TaskMetric

SENTENCE = (
    "mean over the classes that occur in the truth of TP / (TP + FP + FN), pixels of all images summed before the "
    "division"
)


class SegmentationScorer:
    """Counts pixels of each class.

    Args:
        spec: A task "segmentation".
        limited: Whether there may be fewer samples than truths.

    Raises:
        DataError: The truth is unreadable.
    """

    def __init__(self, spec: TaskSpec, *, limited: bool = False) -> None:
        self._maps = read_maps(spec.truth)
        self._file = printable(spec.truth.name)
        ignore = spec.number_of("ignore")
        self._ignore = None if ignore is None else int(ignore)
        self._output = spec.text_of("output")
        self._limited = limited
        self._next = 0
        self._classes = 0
        self._images: tuple[list[ClassCounts], list[ClassCounts]] = ([], [])

    def observe(self, call: Observation) -> None:
        """Count one call's pixels.

        Raises:
            UsageError: G106, there is no such output.
            DataError: G109, truth and outputs do not fit.
        """
        if self._output is None or not self._next:
            self._output = self._choose(call)
        reference, other = call.original[self._output], call.quantized[self._output]
        rows = reference.shape[0]
        truth = self._maps[self._next : self._next + rows]
        if len(truth) < rows:
            raise self._wrong_count("more")
        self._next += rows
        predicted = [_classes(values, self._maps.shape[1:]) for values in (reference, other)]
        for own, image in enumerate(truth):
            self._count(image, [found[own] if found is not None else None for found in predicted])

    def _choose(self, call: Observation) -> str:
        if self._output is not None and self._output not in call.original:
            raise unknown_output("the task 'segmentation'", self._output, list(call.original))
        names = list(call.original) if self._output is None else [self._output]
        for name in names:
            values = call.original[name]
            if _classes(values, self._maps.shape[1:]) is not None:
                axis = label_axis(values.shape, self._maps.shape[1:])
                self._classes = 0 if axis is None else values.shape[axis]
                return name
        listed = ", ".join(f"'{name}' {list(call.original[name].shape)}" for name in names)
        raise DataError(
            "G109",
            f"the truth '{self._file}' of shape {list(self._maps.shape)} fits no output; there are {listed}",
            hint="the output needs the height and width of the truth, with or without an axis of classes",
        )

    def _count(self, image: np.ndarray, predicted: list[np.ndarray | None]) -> None:
        counted = image >= 0
        if self._ignore is not None:
            counted &= image != self._ignore
        truth = image[counted].astype(np.int64)
        if self._classes and truth.max(initial=0) >= self._classes:
            raise DataError(
                "G109",
                f"the truth '{self._file}' has a class {truth.max()}, and output '{self._output}' has classes 0 "
                f"to {self._classes - 1}",
                hint=f"if it says 'no class', add &ignore={truth.max()}",
            )
        for images, found in zip(self._images, predicted, strict=True):
            # Another shape than the original's: no pixel is right.
            seen = np.full(truth.shape, -1) if found is None else found[counted]
            size = max(self._classes, int(truth.max(initial=0)) + 1, int(seen.max(initial=0)) + 1)
            images.append(count_classes(truth, seen, size))

    def results(self) -> tuple[TaskMetric, ...]:
        """MIoU.

        Raises:
            DataError: G109, truths are left over, or none of them is a class.
        """
        if self._next != len(self._maps) and not self._limited:
            raise self._wrong_count(str(self._next))
        original, quantized = (_stacked(images) for images in self._images)
        if not original.truth.sum():
            raise DataError("G109", f"the truth '{self._file}' says 'no class' everywhere")

        def scores(counts: np.ndarray) -> np.ndarray:
            first, second = (mean_iou(_drawn(model, counts)) for model in (original, quantized))
            return with_drop(first, second, "higher")

        images = len(original.truth)
        found = bootstrap(
            scores,
            images,
            np.random.default_rng(SEED),
            limits=SHARE_LIMITS,
            widen=hidden_spread((original.truth > 0).sum(axis=0).tolist()),
        )
        ones = np.ones((1, images), np.int64)
        by_class = [class_ious(_drawn(model, ones))[0].tolist() for model in (original, quantized)]
        pixels = original.truth.sum(axis=0).astype(np.int64).tolist()
        classes = tuple(
            ClassValue(label=str(label), samples=pixels[label], original=first, quantized=second)
            for label, (first, second) in enumerate(zip(*by_class, strict=True))
            if pixels[label]
        )
        return (drawn_metric("miou", SENTENCE, "higher", images, found, classes),)

    def _wrong_count(self, samples: str) -> DataError:
        return DataError(
            "G109",
            f"the truth '{self._file}' holds {len(self._maps)} images, and there are {samples} samples",
            hint="one map for each sample, in the same order",
        )


def _classes(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray | None:
    """The class of each pixel, int64 (rows, height, width); None where the shape does not fit."""
    axis = label_axis(values.shape, size)
    if axis is not None:
        return top1(values, axis).reshape(values.shape[0], *size)
    if values.shape[1:] in (size, (1, *size), (*size, 1)) and values.dtype.kind in "iu":
        return values.reshape(values.shape[0], *size).astype(np.int64)
    return None


def _stacked(images: list[ClassCounts]) -> ClassCounts:
    size = max(len(image.truth) for image in images)
    return ClassCounts(
        both=_table([image.both for image in images], size),
        truth=_table([image.truth for image in images], size),
        predicted=_table([image.predicted for image in images], size),
    )


def _table(rows: list[np.ndarray], size: int) -> np.ndarray:
    table = np.zeros((len(rows), size))
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table


def _drawn(model: ClassCounts, counts: np.ndarray) -> ClassCounts:
    """Sums over images as often as they count; whole numbers below 2^53, so float64 is exact."""
    times = counts.astype(np.float64)
    return ClassCounts(both=times @ model.both, truth=times @ model.truth, predicted=times @ model.predicted)
