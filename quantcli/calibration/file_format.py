"""Calibration files (``.calib``): deterministic, versioned, without pickles.

Layout, all numbers little endian:

* the text "quantcli calib" and a newline, 15 bytes;
* uint32: format version (``VERSION``);
* uint32: length of the header in bytes;
* header: JSON with sorted keys; names and texts, and for each array its name, type and shape;
* arrays: raw bytes, one after the other, in the header's order;
* 32 bytes: SHA-256 of everything before.

The same statistics give the same bytes, and reading gives exactly what was written. Counts are divided by
their greatest common divisor (the stride of sampling) and stored in the narrowest unsigned type.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quantcli.calibration.convergence import RangeHistory
from quantcli.calibration.statistics import CalibrationStatistics
from quantcli.calibration.trial import TrialInput
from quantcli.core.histogram import Histogram
from quantcli.core.stats import MovingRange, TensorStats
from quantcli.data.overlap import SampleDigests
from quantcli.errors import StaleCalibrationError
from quantcli.staged import staged_files

MAGIC = b"quantcli calib\n"
VERSION = 1

_PREFIX = struct.Struct("<II")
_DIGEST_BYTES = 32
_COLUMNS: tuple[tuple[str, str], ...] = (
    ("samples", "<i8"),
    ("nonfinite", "<i8"),
    ("minimum", "<f4"),
    ("maximum", "<f4"),
    ("exponent", "<i4"),
    ("first", "<i8"),
    ("bins", "<i4"),
    ("unit", "<i8"),
    ("zeros", "<i8"),
    ("average_low", "<f8"),
    ("average_high", "<f8"),
    ("average_samples", "<i8"),
    ("amplitudes", "<f8"),
    ("channel_axis", "<i4"),
    ("channels", "<i4"),
)


def save_statistics(statistics: CalibrationStatistics, path: Path, *, overwrite: bool = False) -> None:
    """Write a calibration file; it appears whole or not at all.

    Raises:
        OutputError: The file exists (O101) or cannot be written (O103).
    """
    with staged_files([path], overwrite=overwrite) as (file,):
        file.write(encode(statistics))


def load_statistics(path: Path) -> CalibrationStatistics:
    """Read a calibration file.

    Raises:
        StaleCalibrationError: It cannot be read or is something else (K202), is damaged (K203), or was
            written by a newer version (K204).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StaleCalibrationError(
            "K202", f"cannot read '{path}': {error.strerror or error}", hint="name a file made by calibrate"
        ) from error
    return decode(data, str(path))


def encode(statistics: CalibrationStatistics) -> bytes:
    """The bytes of a calibration file."""
    arrays = dict(_arrays(statistics))
    header = {
        "arrays": [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()],
        "data_fingerprint": statistics.data_fingerprint,
        "inputs": [[e.name, e.dtype, list(e.shape), e.low, e.high] for e in statistics.inputs],
        "dtypes": [found.dtype for found in statistics.tensors.values()],
        "model_digest": statistics.model_digest,
        "notes": list(statistics.notes),
        "samples": statistics.samples,
        "synthetic": statistics.synthetic,
        "tensors": list(statistics.tensors),
    }
    text = json.dumps(header, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()
    parts = [MAGIC, _PREFIX.pack(VERSION, len(text)), text, *(array.tobytes() for array in arrays.values())]
    body = b"".join(parts)
    return body + hashlib.sha256(body).digest()


def decode(data: bytes, name: str) -> CalibrationStatistics:
    """Statistics of the bytes of a calibration file; ``name`` is for messages.

    Raises:
        StaleCalibrationError: K202, K203 or K204 as ``load_statistics``.
    """
    start = len(MAGIC) + _PREFIX.size
    if not data.startswith(MAGIC):
        cut = len(data) < len(MAGIC) and MAGIC.startswith(data)
        raise StaleCalibrationError(
            "K202",
            f"'{name}' is {'empty' if not data else 'cut short' if cut else 'no calibration file'}",
            hint="name a file made by calibrate",
        )
    if len(data) < start + _DIGEST_BYTES:
        raise _damaged(name, "it is cut short")
    version, length = _PREFIX.unpack_from(data, len(MAGIC))
    if version > VERSION:
        raise StaleCalibrationError(
            "K204",
            f"'{name}' has format version {version}; this quantcli reads versions up to {VERSION}",
            hint="use the quantcli that wrote it, or calibrate again",
        )
    body = data[:-_DIGEST_BYTES]
    if hashlib.sha256(body).digest() != data[-_DIGEST_BYTES:]:
        raise _damaged(name, "its checksum is wrong, so it is cut short or was changed")
    try:
        header = json.loads(body[start : start + length])
        return _statistics(header, _read_arrays(header["arrays"], body[start + length :]))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _damaged(name, f"it is inconsistent ({error})") from error


def _damaged(name: str, why: str) -> StaleCalibrationError:
    return StaleCalibrationError("K203", f"'{name}' is damaged: {why}", hint="copy it again, or calibrate again")


# Writing ------------------------------------------------------------------------------------------


def _arrays(statistics: CalibrationStatistics) -> Iterator[tuple[str, np.ndarray]]:
    rows = [_row(found) for found in statistics.tensors.values()]
    for name, dtype in _COLUMNS:
        yield name, np.array([row[name] for row in rows], dtype=dtype)
    counts = [
        found.histogram.counts // row["unit"] for found, row in zip(statistics.tensors.values(), rows, strict=True)
    ]
    joined = np.concatenate([np.zeros(0, dtype=np.int64), *counts])
    largest = int(joined.max(initial=0))
    yield (
        "counts",
        joined.astype(next(kind for kind in ("<u1", "<u2", "<u4", "<u8") if largest < 256 ** int(kind[2]))),
    )
    for which in ("channel_minimum", "channel_maximum"):
        extremes = [getattr(found, which) for found in statistics.tensors.values()]
        parts = [np.zeros(0, dtype=np.float32), *(part for part in extremes if part is not None)]
        yield which, np.concatenate(parts).astype("<f4")
    yield "history_samples", statistics.history.samples.astype("<i8")
    yield "history_minimum", statistics.history.minimum.astype("<f4")
    yield "history_maximum", statistics.history.maximum.astype("<f4")
    yield "sample_digests", statistics.sample_digests.values.astype("<u8")


def _row(found: TensorStats) -> dict[str, float]:
    """One tensor's entries of the columns."""
    histogram, average = found.histogram, found.average
    return {
        "samples": found.samples,
        "nonfinite": found.nonfinite,
        "minimum": found.minimum,
        "maximum": found.maximum,
        "exponent": histogram.exponent,
        "first": histogram.first,
        "bins": histogram.counts.size,
        "unit": max(1, int(np.gcd.reduce(histogram.counts, initial=histogram.zeros))),
        "zeros": histogram.zeros,
        "average_low": average.low,
        "average_high": average.high,
        "average_samples": average.samples,
        "amplitudes": found.amplitudes,
        "channel_axis": -1 if found.channel_axis is None else found.channel_axis,
        "channels": 0 if found.channel_minimum is None else found.channel_minimum.size,
    }


# Reading ------------------------------------------------------------------------------------------


def _read_arrays(directory: list[list[Any]], data: bytes) -> dict[str, np.ndarray]:
    arrays, at = {}, 0
    for name, dtype, shape in directory:
        kind = np.dtype(dtype)
        if kind.kind not in "iuf":
            raise ValueError(f"array '{name}' has type {dtype}")
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if min(shape, default=0) < 0 or at + size > len(data):
            raise ValueError(f"array '{name}' does not fit")
        arrays[name] = np.frombuffer(data[at : at + size], dtype=kind).reshape(shape)
        at += size
    if at != len(data):
        raise ValueError("there is more data than arrays")
    return arrays


def _statistics(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> CalibrationStatistics:
    names = header["tensors"]
    rows = [{key: arrays[key][index].item() for key, _ in _COLUMNS} for index in range(len(names))]
    bins = np.cumsum([0, *(row["bins"] for row in rows)])
    channels = np.cumsum([0, *(row["channels"] for row in rows)])
    if bins[-1] != arrays["counts"].size or channels[-1] != arrays["channel_minimum"].size:
        raise ValueError("the lengths of the tensors' parts do not add up")
    tensors = {}
    for index, (name, dtype, row) in enumerate(zip(names, header["dtypes"], rows, strict=True)):
        counts = arrays["counts"][bins[index] : bins[index + 1]].astype(np.int64) * row["unit"]
        part = slice(channels[index], channels[index + 1])
        with_channels = row["channel_axis"] >= 0
        tensors[name] = TensorStats(
            dtype=dtype,
            samples=row["samples"],
            nonfinite=row["nonfinite"],
            minimum=row["minimum"],
            maximum=row["maximum"],
            histogram=Histogram(exponent=row["exponent"], first=row["first"], counts=counts, zeros=row["zeros"]),
            average=MovingRange(samples=row["average_samples"], low=row["average_low"], high=row["average_high"]),
            amplitudes=row["amplitudes"],
            channel_axis=row["channel_axis"] if with_channels else None,
            channel_minimum=arrays["channel_minimum"][part] if with_channels else None,
            channel_maximum=arrays["channel_maximum"][part] if with_channels else None,
        )
    return CalibrationStatistics(
        model_digest=header["model_digest"],
        data_fingerprint=header["data_fingerprint"],
        samples=header["samples"],
        synthetic=header["synthetic"],
        tensors=tensors,
        history=RangeHistory(
            samples=arrays["history_samples"],
            minimum=arrays["history_minimum"],
            maximum=arrays["history_maximum"],
        ),
        sample_digests=SampleDigests(values=arrays["sample_digests"]),
        inputs=tuple(
            TrialInput(name=name, dtype=dtype, shape=tuple(shape), low=low, high=high)
            for name, dtype, shape, low, high in header["inputs"]
        ),
        notes=tuple(header["notes"]),
    )
