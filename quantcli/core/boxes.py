"""Axis-parallel boxes: formats, intersection over union, non-maximum suppression.

Inside quantcli a box is (x1, y1, x2, y2) with x1 ≤ x2 and y1 ≤ y2, in float64 and without the "+1" of pixel
corners: a box from 0 to 10 is 10 wide, as in COCO.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np


def _corners(x1: np.ndarray, y1: np.ndarray, x2: np.ndarray, y2: np.ndarray) -> np.ndarray:
    return np.stack([x1, y1, x2, y2], axis=-1)


FORMATS: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "xyxy": _corners,
    "yxyx": lambda y1, x1, y2, x2: _corners(x1, y1, x2, y2),
    "xywh": lambda x, y, w, h: _corners(x, y, x + w, y + h),
    "cxcywh": lambda x, y, w, h: _corners(x - w / 2, y - h / 2, x + w / 2, y + h / 2),
}
"""Formats of four numbers, by name: two corners (in either order), corner and size, centre and size."""


def to_corners(boxes: np.ndarray, form: str) -> np.ndarray:
    """Boxes (…, 4) in a format of ``FORMATS`` as float64 (…, 4) corners."""
    values = boxes.astype(np.float64)
    return FORMATS[form](*(values[..., axis] for axis in range(4)))


def _areas(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = (boxes[:, 2] - boxes[:, 0]).clip(min=0) * (boxes[:, 3] - boxes[:, 1]).clip(min=0)
    return areas


def overlaps(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """Intersection over union of each pair.

    Args:
        boxes: Corners, (N, 4).
        others: Corners, (M, 4).
        crowd: bool (M,): regions that hold many objects, where the share of the box that lies inside counts
            (COCO's rule); None for none.

    Returns:
        float64 (N, M), 0 for boxes without area.
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inside = (high - low).clip(min=0).prod(axis=-1)
    own, other = _areas(boxes)[:, None], _areas(others)[None, :]
    union = own + other - inside
    if crowd is not None:
        union = np.where(crowd[None, :], own, union)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(union > 0, inside / union, 0.0)


def suppress(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, limit: float) -> np.ndarray:
    """Greedy non-maximum suppression within each class.

    Args:
        boxes: Corners, (N, 4).
        scores: (N,).
        classes: (N,).
        limit: A box goes that overlaps a better one of its class by more than this.

    Returns:
        Indices of the boxes that stay, best first; of equal scores the first comes first.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    alive = np.ones(len(order), bool)
    for place, index in enumerate(order.tolist()):
        if not alive[place]:
            continue
        kept.append(index)
        rest = order[place + 1 :]
        shared = overlaps(boxes[index : index + 1], boxes[rest])[0]
        alive[place + 1 :] &= ~((shared > limit) & (classes[rest] == classes[index]))
    return np.array(kept, np.int64)
