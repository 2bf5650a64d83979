"""Mean intersection over union of segmentations, from counts of each image.

For class c over all images, with pixels that the truth ignores left out:

    IoU(c) = TP / (TP + FP + FN) = both / (truth + predicted − both)

(Everingham et al. 2010, "The PASCAL Visual Object Classes challenge", section 4.2). mIoU is the mean over the
classes that occur in the truth; pixels predicted as a class that does not are false negatives of what they are.
Sums run over images before the division, so large images and large objects count more, as is usual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCounts:
    """Pixels of each class in one image or several.

    Attributes:
        both: True and predicted; int64 (classes,), or (…, classes) for several.
        truth: True.
        predicted: Predicted.
    """

    both: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


def count_classes(truth: np.ndarray, predicted: np.ndarray, classes: int) -> ClassCounts:
    """Counts of one image.

    Args:
        truth: Class of each pixel, integers in [0, classes), flat; without what is to be ignored.
        predicted: The same pixels as a model sees them; below zero: no class (NaN).
        classes: How many there are.
    """
    hit = truth[truth == predicted]
    return ClassCounts(
        both=np.bincount(hit, minlength=classes),
        truth=np.bincount(truth, minlength=classes),
        predicted=np.bincount(predicted[predicted >= 0], minlength=classes),
    )


def class_ious(counts: ClassCounts) -> np.ndarray:
    """IoU of each class, float64 in the shape of the counts; NaN for classes that the truth does not have."""
    union = counts.truth + counts.predicted - counts.both
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts.truth > 0, counts.both / union, np.nan)


def mean_iou(counts: ClassCounts) -> np.ndarray:
    """Mean IoU over the last axis; NaN where the truth has no class at all."""
    return mean_of_defined(class_ious(counts))


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=-1)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan)
