"""The truth of tasks: maps of classes, and boxes. Never unpickled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantcli.core.boxes import to_corners
from quantcli.core.detection import Truths
from quantcli.data.problems import printable
from quantcli.data.stored import reading
from quantcli.errors import DataError

_SUFFIXES = (".npy", ".npz")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueBoxes:
    """Objects of all images.

    Attributes:
        image: Number of the image of each object, int64 (objects,).
        truths: All of them.
    """

    image: np.ndarray
    truths: Truths

    @property
    def images(self) -> int:
        """Images up to the last one with an object."""
        return int(self.image.max(initial=-1)) + 1

    def of_image(self, number: int) -> Truths:
        """Objects of one image."""
        own = self.image == number
        return Truths(boxes=self.truths.boxes[own], classes=self.truths.classes[own], crowd=self.truths.crowd[own])


def read_maps(path: Path) -> np.ndarray:
    """Class of every pixel: integers (images, height, width); below zero: no class.

    Raises:
        DataError: G109, it cannot be read, or is no such array.
    """
    name = printable(path.name)
    arrays = _arrays(path)
    if len(arrays) != 1:
        raise DataError("G109", f"the truth '{name}' holds {len(arrays)} arrays", hint="one array of class maps")
    (maps,) = arrays.values()
    if maps.dtype.kind not in "iub" or maps.ndim != 3 or not maps.size:
        raise DataError(
            "G109",
            f"the truth '{name}' holds {maps.dtype.name} {list(maps.shape)}, not the class of every pixel",
            hint="save integers of shape (images, height, width)",
        )
    return maps


def read_boxes(path: Path, form: str) -> TrueBoxes:
    """Objects: rows (image, class, four numbers[, crowd]), or arrays "image", "class", "boxes"[, "crowd"].

    Args:
        path: ``.npy`` or ``.npz``.
        form: Format of the boxes, a key of ``core.boxes.FORMATS``.

    Raises:
        DataError: G109, it cannot be read, or is no such array.
    """
    name = printable(path.name)
    arrays = _arrays(path)
    if {"image", "class", "boxes"} <= set(arrays):
        columns = [arrays["image"], arrays["class"], arrays["boxes"]]
        crowd = arrays.get("crowd", np.zeros(len(columns[0])))
    elif len(arrays) == 1:
        (rows,) = arrays.values()
        if rows.ndim != 2 or rows.shape[1] not in (6, 7):
            raise _no_boxes(name, f"{rows.dtype.name} of shape {list(rows.shape)}")
        columns = [rows[:, 0], rows[:, 1], rows[:, 2:6]]
        crowd = rows[:, 6] if rows.shape[1] == 7 else np.zeros(len(rows))
    else:
        raise _no_boxes(name, f"arrays {', '.join(map(printable, arrays))}")
    count = len(columns[0])
    shapes = [(count,), (count,), (count, 4), (count,)]
    if [part.shape for part in (*columns, crowd)] != shapes or not count:
        raise _no_boxes(name, "arrays that do not belong together" if count else "no objects")
    if any(part.dtype.kind not in "iubf" or not np.isfinite(part).all() for part in (*columns, crowd)):
        raise _no_boxes(name, "values that are no finite numbers")
    whole = [np.asarray(part, np.float64) for part in columns[:2]]
    if any((part < 0).any() or (part != np.rint(part)).any() for part in whole):
        raise _no_boxes(name, "images or classes that do not count from 0")
    boxes = to_corners(columns[2], form)
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise DataError(
            "G109",
            f"the truth '{name}' has boxes whose second corner is before the first, read as {form}",
            hint="say their format with truth-boxes=...",
        )
    return TrueBoxes(
        image=whole[0].astype(np.int64),
        truths=Truths(boxes=boxes, classes=whole[1].astype(np.int64), crowd=crowd.astype(bool)),
    )


def _no_boxes(name: str, what: str) -> DataError:
    return DataError(
        "G109",
        f"the truth '{name}' holds {what}, not boxes",
        hint="save rows of image, class and four numbers, images and classes counted from 0",
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    name = printable(path.name)
    if not path.is_file():
        raise DataError("G109", f"the truth '{name}' does not exist", hint="check the path")
    if path.suffix.lower() not in _SUFFIXES:
        raise DataError("G109", f"the truth '{name}' is of no kind that can be read", hint="give .npy or .npz")
    with reading(f"'{name}'"):
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"rows": loaded}
        with loaded:
            return {key: loaded[key] for key in loaded.files}
