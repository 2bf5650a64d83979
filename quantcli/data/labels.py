"""Labels: what the model should have answered, one row per sample in the order of the samples."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from quantcli.data.problems import printable
from quantcli.data.stored import inspect_npy, reading
from quantcli.errors import DataError


def read_labels(path: Path, count: int | None) -> np.ndarray:
    """Read labels.

    Args:
        path: ``.npy`` with integers, shape (N,) or (N, …); ``.txt`` or ``.csv`` with one label a line, or
            "file,label" (the last column counts), with an optional header.
        count: Number of samples that they belong to, None where it is not known.

    Returns:
        int64, shape (N,) or (N, …).

    Raises:
        DataError: D103 unreadable, D105 Python objects, D121 no integers, or not ``count`` of them.
    """
    suffix = path.suffix.lower()
    name = printable(path.name)
    if not path.is_file():
        raise DataError("D103", f"labels '{name}' do not exist", hint="check the path")
    if suffix == ".npy":
        labels = _from_npy(path, name)
    elif suffix in (".txt", ".csv"):
        labels = _from_text(path, name)
    else:
        raise DataError("D121", f"labels '{name}' are of no kind that can be read", hint="give .npy, .txt or .csv")
    if len(labels) == 0:
        raise DataError("D121", f"labels '{name}' are empty")
    if count is not None and len(labels) != count:
        raise DataError(
            "D121",
            f"labels '{name}' hold {len(labels)} rows for {count} samples",
            hint="one row per sample, in the same order",
        )
    return labels


def _from_npy(path: Path, name: str) -> np.ndarray:
    stored = inspect_npy(path)
    if stored.dtype.kind not in "iu" or not stored.shape:
        what = f"{stored.dtype.name} of shape {stored.shape}"
        raise DataError(
            "D121",
            f"labels '{name}' hold {what}, not a row of integers per sample",
            hint="save class numbers, for example labels.astype('int64')",
        )
    with reading(f"'{name}'"):
        array = np.load(path, allow_pickle=False)
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise DataError("D121", f"labels '{name}' hold {array.max()}, which is no class number")
    return np.ascontiguousarray(array, dtype=np.int64)


def _from_text(path: Path, name: str) -> np.ndarray:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("D103", f"labels '{name}' cannot be read: {error}") from error
    labels: list[int] = []
    seen = 0
    for number, row in enumerate(csv.reader(text.splitlines()), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        seen += 1
        try:
            value = int(cells[-1])
        except ValueError:
            if seen == 1 and not _numeric(cells[-1]):
                continue  # a header
            raise DataError(
                "D121",
                f"labels '{name}', line {number}: '{printable(cells[-1])}' is no integer",
                hint="one integer a line, or file,label",
            ) from None
        if abs(value) > np.iinfo(np.int64).max:
            raise DataError("D121", f"labels '{name}', line {number}: {value} is no class number")
        labels.append(value)
    return np.array(labels, dtype=np.int64)


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
