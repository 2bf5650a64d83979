"""Mean average precision of both models (``core.detection``): outputs become boxes, which are matched by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from quantcli.core.bootstrap import bootstrap, hidden_spread
from quantcli.core.boxes import suppress, to_corners
from quantcli.core.confusion import mean_of_defined
from quantcli.core.detection import AveragePrecision, Detections, Matches, match_image
from quantcli.data.problems import printable
from quantcli.data.truth import read_boxes
from quantcli.data.user_code import UserCode, running
from quantcli.errors import DataError
from quantcli.evaluate.gate_syntax import unknown_output
from quantcli.evaluate.scoring import SEED, SHARE_LIMITS, Observation, drawn_metric, with_drop
from quantcli.evaluate.task_spec import TaskSpec
from quantcli.report.schema import ClassValue, TaskMetric

SENTENCE = (
    "mean average precision by the definition of COCO, over the classes that occur in the truth: precision "
    "interpolated at 101 recalls, "
)
SENTENCES = {
    "map": SENTENCE + "averaged over the IoU thresholds 0.50, 0.55, …, 0.95",
    "map50": SENTENCE + "at the IoU threshold 0.50",
}


class DetectionScorer:
    """Matches boxes with the truth.

    Args:
        spec: A task "detection".
        decode: Makes outputs of the model's outputs; None for none.
        limited: Whether there may be fewer samples than truths.

    Raises:
        DataError: The truth is unreadable.
    """

    def __init__(self, spec: TaskSpec, decode: UserCode | None = None, *, limited: bool = False) -> None:
        self._spec = spec
        self._truth = read_boxes(spec.truth, str(spec.values["truth-boxes"]))
        self._true_classes = np.unique(self._truth.truths.classes[~self._truth.truths.crowd])
        self._decode = decode
        self._limited = limited
        self._images: tuple[list[dict[int, Matches]], list[dict[int, Matches]]] = ([], [])

    def observe(self, call: Observation) -> None:
        """Match one call's boxes.

        Raises:
            UsageError: G106, there is no such output.
            DataError: G109, the outputs are no boxes; D109 or G110, the decoder failed.
        """
        found = [self._detections(outputs) for outputs in (call.original, call.quantized)]
        if len(found[0]) != len(found[1]):
            raise DataError(
                "G109", f"call {call.index}: {len(found[0])} images of one model, {len(found[1])} of the other"
            )
        most = int(self._spec.number_of("max") or 0)
        for images, detections in zip(self._images, found, strict=True):
            for one in detections:
                images.append(match_image(one, self._truth.of_image(len(images)), most=most))

    def _detections(self, outputs: Mapping[str, np.ndarray]) -> list[Detections]:
        """What a model found, image by image."""
        images = boxes_of(self._decoded(outputs), self._spec)
        return [self._kept(one) for one in images]

    def _decoded(self, outputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        if self._decode is None:
            return outputs
        with running(self._decode.label, self._decode.home, self._decode.file):
            given = self._decode.function(dict(outputs))
        if isinstance(given, Mapping):
            return {str(name): np.asarray(value) for name, value in given.items()}
        try:
            if isinstance(given, (list, tuple)):
                given = _padded([np.asarray(rows, dtype=np.float64) for rows in given])
            return {"decoded": np.asarray(given, dtype=np.float64)}
        except (ValueError, TypeError) as error:
            raise DataError(
                "G110",
                f"the decoder '{self._decode.label}' gave {type(given).__name__}, which is no array",
                hint="return an array with a row for each box, a list of one for each image, or a dictionary",
            ) from error

    def _kept(self, found: Detections) -> Detections:
        """What counts: true classes only, from the lowest score on, without the worse of two alike."""
        lowest = self._spec.number_of("score")
        keep = np.isin(found.classes, self._true_classes) & np.isfinite(found.boxes).all(axis=1)
        keep &= found.scores >= (-np.inf if lowest is None else lowest)  # a score that is NaN is not kept, either
        scale = self._spec.number_of("scale") or 1.0
        kept = Detections(boxes=found.boxes[keep] * scale, scores=found.scores[keep], classes=found.classes[keep])
        limit = self._spec.number_of("nms")
        if limit is None:
            return kept
        best = suppress(kept.boxes, kept.scores, kept.classes, limit)
        return Detections(boxes=kept.boxes[best], scores=kept.scores[best], classes=kept.classes[best])

    def results(self) -> tuple[TaskMetric, ...]:
        """MAP@[.50:.95] and mAP@.50.

        Raises:
            DataError: G109, the truth is of more images than there are samples.
        """
        images = len(self._images[0])
        if self._truth.images > images and not self._limited:
            raise DataError(
                "G109",
                f"the truth '{printable(self._spec.truth.name)}' has objects in image {self._truth.images - 1}, "
                f"and there are {images} samples",
                hint="images count from 0, in the order of the samples",
            )
        models = [AveragePrecision(matches) for matches in self._images]
        if not models[0].classes:
            raise DataError("G109", "the truth has no object in the images that were run")

        def scores(counts: np.ndarray) -> np.ndarray:
            original, quantized = (model.means(counts) for model in models)
            pairs = zip(original, quantized, strict=True)
            return np.concatenate([with_drop(first, second, "higher") for first, second in pairs], axis=-1)

        found = bootstrap(
            scores,
            images,
            np.random.default_rng(SEED),
            limits=(*SHARE_LIMITS, *SHARE_LIMITS),
            widen=hidden_spread(models[0].images_of_classes),
        )
        ones = np.ones((1, images), np.int64)
        by_class = [model.of_classes(ones)[0] for model in models]
        averaged = [mean_of_defined(precision.T).tolist() for precision in by_class]
        return (
            drawn_metric("map", SENTENCES["map"], "higher", images, found[:3], _classes(models[0], averaged)),
            drawn_metric(
                "map50",
                SENTENCES["map50"],
                "higher",
                images,
                found[3:],
                _classes(models[0], [precision[0].tolist() for precision in by_class]),
            ),
        )


def _padded(images: list[np.ndarray]) -> list[np.ndarray]:
    """Rows of each image, as many for all: those added are NaN, which is no box."""
    if not all(rows.ndim == 2 for rows in images):
        return images
    most = max((len(rows) for rows in images), default=0)
    return [np.pad(rows, ((0, most - len(rows)), (0, 0)), constant_values=np.nan) for rows in images]


def _classes(model: AveragePrecision, values: Sequence[Sequence[float]]) -> tuple[ClassValue, ...]:
    return tuple(
        ClassValue(label=str(label), samples=truths, original=first, quantized=second)
        for label, truths, first, second in zip(model.classes, model.truths, *values, strict=True)
    )


def boxes_of(outputs: Mapping[str, np.ndarray], spec: TaskSpec) -> list[Detections]:
    """Detections in outputs, image by image; boxes as corners in the model's unit.

    Raises:
        UsageError: G106, there is no such output.
        DataError: G109, the outputs are no boxes.
    """
    if spec.text_of("boxes-output") is not None:
        boxes = _images(_output(outputs, spec, "boxes-output"), 4)
        scores = _output(outputs, spec, "scores-output")
        labels = None if spec.text_of("classes-output") is None else _output(outputs, spec, "classes-output")
        rest = _apart(boxes, scores, labels)
    else:
        name = spec.text_of("output")
        if name is None and len(outputs) > 1:
            raise DataError(
                "G109",
                f"the task 'detection' does not say which output holds the boxes; there are "
                f"{', '.join(map(printable, outputs))}",
                hint="add &output=NAME, or &boxes-output=NAME&scores-output=NAME&classes-output=NAME",
            )
        rows = next(iter(outputs.values())) if name is None else _output(outputs, spec, "output")
        boxes, rest = _columns(_images(rows, None), str(spec.values["columns"]))
    form = str(spec.values["boxes"])
    return [
        Detections(boxes=to_corners(own, form), scores=scored, classes=labelled)
        for own, (scored, labelled) in zip(boxes, rest, strict=True)
    ]


def _output(outputs: Mapping[str, np.ndarray], spec: TaskSpec, option: str) -> np.ndarray:
    name = str(spec.text_of(option))
    if name not in outputs:
        raise unknown_output(f"the task 'detection' ({option})", name, list(outputs))
    return outputs[name]


def _images(values: np.ndarray, width: int | None) -> np.ndarray:
    """(images, boxes, width); an output without the axis of images is one image."""
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or (width is not None and values.shape[-1] != width):
        raise DataError(
            "G109",
            f"an output of shape {list(values.shape)} holds no boxes",
            hint=f"shape (images, boxes, {width or 'numbers of a box'}) is wanted; "
            "decode=FILE.py:FUNCTION can make it",
        )
    return values


_Scored = list[tuple[np.ndarray, np.ndarray]]


def _columns(rows: np.ndarray, columns: str) -> tuple[np.ndarray, _Scored]:
    """Boxes, and scores and classes image by image, of rows."""
    least = {"score,class": 6, "class,score": 6, "scores": 5, "object,scores": 6}[columns]
    width = rows.shape[-1]
    if width < least or (columns in ("score,class", "class,score") and width != least):
        raise DataError(
            "G109",
            f"rows of {width} numbers are no box with the columns '{columns}'",
            hint="say what follows the box with columns=...; decode=FILE.py:FUNCTION can make such rows",
        )
    rest = rows[..., 4:].astype(np.float64)
    if columns == "score,class":
        return rows[..., :4], [_labelled(image[:, 0], image[:, 1]) for image in rest]
    if columns == "class,score":
        return rows[..., :4], [_labelled(image[:, 1], image[:, 0]) for image in rest]
    if columns == "object,scores":
        rest = rest[..., 1:] * rest[..., :1]
    return rows[..., :4], [(image.max(axis=1), image.argmax(axis=1)) for image in rest]


def _apart(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray | None) -> _Scored:
    """Scores and classes image by image, of outputs of their own."""
    count = boxes.shape[:2]
    values = scores.astype(np.float64)
    if labels is not None and values.size == labels.size == count[0] * count[1]:
        pairs = zip(values.reshape(count), labels.reshape(count), strict=True)
        return [_labelled(score, label) for score, label in pairs]
    if labels is None and values.shape[-3:-1] in (count, count[1:]) and values.shape[-1]:
        table = values.reshape(*count, values.shape[-1])
        return [(image.max(axis=1), image.argmax(axis=1)) for image in table]
    listed = f"boxes {list(boxes.shape)}, scores {list(scores.shape)}"
    listed += "" if labels is None else f", classes {list(labels.shape)}"
    raise DataError("G109", f"the outputs for boxes, scores and classes do not belong together: {listed}")


def _labelled(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and whole class numbers; a class that is no number is −1, which is no class."""
    numbers = np.nan_to_num(labels.astype(np.float64), nan=-1.0, posinf=-1.0, neginf=-1.0)
    return scores.astype(np.float64), np.rint(numbers).astype(np.int64)
