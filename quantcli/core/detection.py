"""Mean average precision of detections, by the definition of COCO.

(Lin et al. 2014, "Microsoft COCO"; the rules are those of its ``cocoeval.py``, written anew.)

1. *Matching*, in each image, for each class and IoU threshold by itself: detections by falling score, at most
   ``MOST`` of a class; each takes the truth that it overlaps most, among those that reach the threshold and are
   not taken. One that takes a truth is a true positive, else it is a false positive. A truth marked as a *crowd*
   may be taken by any number of detections, by those that match no other truth, and these count nowhere; nor do
   crowds.
2. *Average precision* of a class: over all images by falling score, precision p = TP / (TP + FP) and recall
   r = TP / truths. The interpolated precision at r is the highest at any recall ≥ r; AP is its mean at the 101
   recalls 0, 0.01, …, 1, and 0 where a recall is never reached. The comparison r ≥ j/100 is exact.
3. mAP at a threshold is the mean of AP over the classes that have truths; mAP@[.50:.95] the mean over the
   thresholds 0.50, 0.55, …, 0.95, too.

Images may count several times or not at all (``core.bootstrap``): one that counts w times brings w copies of its
detections and truths. Between copies of a true positive precision only rises, so the interpolated precision at
their recalls is that behind the last copy, and copies can be added as one block (scores that are equal are taken
in the order of the images, copies or not).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.core.boxes import overlaps
from quantcli.core.confusion import mean_of_defined

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""IoU thresholds of mAP@[.50:.95]."""

MOST = 100
"""Detections of a class in an image that count, the best."""

_BLOCK = 1 << 22
"""Counts of detections held at once: bounds the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """What a model found in one image.

    Attributes:
        boxes: Corners (see ``core.boxes``), float64 (N, 4).
        scores: float64 (N,), higher is surer.
        classes: int64 (N,).
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Truths:
    """What there is in one image.

    Attributes:
        boxes: Corners, float64 (M, 4).
        classes: int64 (M,).
        crowd: bool (M,): regions of many objects, which count nowhere.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Detections of one class in one image, by falling score.

    Attributes:
        scores: float64 (N,).
        hit: Whether each is a true positive; bool (thresholds, N).
        void: Whether it counts nowhere; bool (thresholds, N).
        truths: Truths of the class that count.
    """

    scores: np.ndarray
    hit: np.ndarray
    void: np.ndarray
    truths: int


def match_image(found: Detections, there: Truths, *, most: int = MOST) -> dict[int, Matches]:
    """Matches of each class that was found or is there."""
    both = np.union1d(found.classes, there.classes).tolist()
    return {int(label): _match_class(found, there, label, most) for label in both}


def _match_class(found: Detections, there: Truths, label: int, most: int) -> Matches:
    own = np.flatnonzero(found.classes == label)
    own = own[np.argsort(-found.scores[own], kind="stable")][:most]
    targets = np.flatnonzero(there.classes == label)
    if not len(targets):
        none = np.zeros((len(THRESHOLDS), len(own)), bool)
        return Matches(scores=found.scores[own], hit=none, void=none, truths=0)
    targets = targets[np.argsort(there.crowd[targets], kind="stable")]  # crowds last
    crowd = there.crowd[targets]
    shared = overlaps(found.boxes[own], there.boxes[targets], crowd)
    hit = np.zeros((len(THRESHOLDS), len(own)), bool)
    void = np.zeros_like(hit)
    useful = np.flatnonzero((shared >= THRESHOLDS[0]).any(axis=1))
    for row, threshold in enumerate(THRESHOLDS):
        free = ~crowd
        for index in useful:
            close = shared[index] >= threshold
            best = close & free
            if best.any():
                taken = int(np.argmax(np.where(best, shared[index], -1.0)))
                free[taken] = False
                hit[row, index] = True
            elif (close & crowd).any():
                void[row, index] = True
    return Matches(scores=found.scores[own], hit=hit, void=void, truths=int((~crowd).sum()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Curve:
    """A class over all images: what average precision needs, for images that count in any way.

    Attributes:
        image: Image of each detection, by falling score over all images; as far as the last hit.
        places: For each threshold, indices of the hits.
        voids: For each threshold, whether each detection counts nowhere; None where none does.
        truths: Truths in each image, int64 (images,).
    """

    image: np.ndarray
    places: tuple[np.ndarray, ...]
    voids: np.ndarray | None
    truths: np.ndarray


class AveragePrecision:
    """Average precision of every class, for images that count in any way.

    Args:
        images: Matches of each image by class.
    """

    def __init__(self, images: Sequence[dict[int, Matches]]) -> None:
        self._images = len(images)
        true = sorted({label for image in images for label, found in image.items() if found.truths})
        self.classes: tuple[int, ...] = tuple(true)
        self._curves = [_curve(images, label) for label in true]

    @property
    def truths(self) -> tuple[int, ...]:
        """Truths of each class."""
        return tuple(int(curve.truths.sum()) for curve in self._curves)

    @property
    def images_of_classes(self) -> tuple[int, ...]:
        """Images with truths of each class."""
        return tuple(int((curve.truths > 0).sum()) for curve in self._curves)

    def of_classes(self, counts: np.ndarray) -> np.ndarray:
        """Average precision.

        Args:
            counts: How often each image counts, int64 (draws, images).

        Returns:
            float64 (draws, thresholds, classes); NaN where no truth of the class counts.
        """
        counts = counts.astype(np.int32)  # half the time of int64
        parts = []
        for curve in self._curves:
            step = max(1, _BLOCK // max(1, len(curve.image)))
            blocks = [_precision(curve, counts[at : at + step]) for at in range(0, len(counts), step)]
            parts.append(np.concatenate(blocks))
        return np.stack(parts, axis=-1) if parts else np.full((len(counts), len(THRESHOLDS), 0), np.nan)

    def means(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """mAP@[.50:.95] and mAP@.50, float64 (draws,) each."""
        by_threshold = mean_of_defined(self.of_classes(counts))
        return by_threshold.mean(axis=-1), by_threshold[:, 0]


def _curve(images: Sequence[dict[int, Matches]], label: int) -> _Curve:
    parts = [(number, image[label]) for number, image in enumerate(images) if label in image]
    truths = np.zeros(len(images), np.int64)
    for number, found in parts:
        truths[number] = found.truths
    scores = np.concatenate([found.scores for _, found in parts])
    order = np.argsort(-scores, kind="stable")
    image = np.concatenate([np.full(len(found.scores), number) for number, found in parts])[order]
    hit = np.concatenate([found.hit for _, found in parts], axis=1)[:, order]
    void = np.concatenate([found.void for _, found in parts], axis=1)[:, order]
    hits = np.flatnonzero(hit.any(axis=0))
    end = int(hits[-1]) + 1 if len(hits) else 0  # what comes after the last hit changes no precision that counts
    return _Curve(
        image=image[:end],
        places=tuple(np.flatnonzero(row[:end]) for row in hit),
        voids=void[:, :end] if void[:, :end].any() else None,
        truths=truths,
    )


def _precision(curve: _Curve, counts: np.ndarray) -> np.ndarray:
    """Average precision at each threshold, float64 (draws, thresholds)."""
    truths = np.einsum("di,i->d", counts, curve.truths)
    copies = np.take(counts, curve.image, axis=1)
    seen = np.cumsum(copies, axis=1, dtype=np.int32) if curve.voids is None else None
    result = np.zeros((len(counts), len(THRESHOLDS)))
    for row, places in enumerate(curve.places):
        if not len(places):
            continue
        hits = np.cumsum(np.take(copies, places, axis=1), axis=1, dtype=np.int32)
        if seen is not None:
            behind = np.take(seen, places, axis=1)
        else:
            assert curve.voids is not None
            behind = np.cumsum(np.where(curve.voids[row], 0, copies), axis=1)[:, places]
        precision = hits / np.maximum(behind, 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # Recalls j/100 that are reached: j ≤ 100·hits/truths. A quotient that is whole is exact in float64, and
        # any other is further from the next whole number than it can be rounded.
        reached = np.floor(100.0 * hits / np.maximum(truths, 1)[:, None]) + (hits > 0)
        result[:, row] = (best * np.diff(reached, axis=1, prepend=0.0)).sum(axis=1) / 101
    result[truths == 0] = np.nan
    return result
