"""Arrays in ``.npy`` files and in members of ``.npz`` archives, read one run of bytes at a time.

Only headers are read up front. Values are read with ordinary reads, never mapped: mapped pages count as
resident memory, so that peak memory would grow with the file. Nothing is ever unpickled.

Format: numpy.lib.format (NEP 1). Members of an archive are zip streams (stored or deflated); a stored member
can be read at any offset, a deflated one only forward.
"""

from __future__ import annotations

import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

from quantcli.data.problems import printable
from quantcli.errors import DataError

FORTRAN_LIMIT = 64 * 2**20
"""Bytes of a Fortran-ordered array that may be loaded whole: its rows are not contiguous in the file."""

_SKIP = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArray:
    """An array in a file: everything but its values.

    Attributes:
        label: Names it in messages.
        key: Name in its archive, or the stem of its file.
        path: The file.
        member: Member of the archive, None for a ``.npy`` file.
        dtype: Type.
        shape: Shape.
        fortran: Whether the values are in column-major order.
    """

    label: str
    key: str
    path: Path
    member: str | None
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


@contextmanager
def reading(label: str) -> Iterator[None]:
    """Turn what damaged files raise into a DataError.

    Raises:
        DataError: D103, the file cannot be read; D104, it is damaged.
    """
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            "D104", f"{label} is damaged or is not what its name says: {reason}", hint="write the file anew"
        ) from error
    except OSError as error:
        raise DataError("D103", f"{label} cannot be read: {error.strerror or error}") from error


def inspect_npy(path: Path) -> StoredArray:
    """The array of a ``.npy`` file, header only.

    Raises:
        DataError: D103 unreadable, D104 damaged, D105 Python objects.
    """
    label = f"'{printable(path.name)}'"
    with reading(label), path.open("rb") as stream:
        dtype, shape, fortran = _header(stream)
        start = stream.tell()
    stored = StoredArray(
        label=label, key=path.stem, path=path, member=None, dtype=dtype, shape=shape, fortran=fortran
    )
    return _checked(stored, path.stat().st_size - start)


def inspect_npz(path: Path) -> tuple[StoredArray, ...]:
    """The arrays of a ``.npz`` archive in the order of the file, headers only.

    Raises:
        DataError: D103 unreadable, D104 damaged, D105 Python objects, D106 no arrays.
    """
    name = f"'{printable(path.name)}'"
    found = []
    with reading(name), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir() or not info.filename.endswith(".npy"):
                continue
            key = info.filename.removesuffix(".npy")
            label = f"'{printable(key)}' of {name}"
            with reading(label), archive.open(info) as stream:
                dtype, shape, fortran = _header(stream)
                size = info.file_size - stream.tell()
            stored = StoredArray(
                label=label, key=key, path=path, member=info.filename, dtype=dtype, shape=shape, fortran=fortran
            )
            found.append(_checked(stored, size))
    if not found:
        raise DataError("D106", f"{name} holds no arrays", hint="write it with numpy.savez(path, INPUT=array)")
    return tuple(found)


def _header(stream: IO[bytes]) -> tuple[np.dtype, tuple[int, ...], bool]:
    """(dtype, shape, fortran order); the stream stands at the values afterwards. ValueError when damaged."""
    version = npy_format.read_magic(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # headers that Python 2 wrote are read as well
        if version == (1, 0):
            shape, fortran, dtype = npy_format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = npy_format.read_array_header_2_0(stream)
        else:  # 3.0 exists for the names of record fields only, and records are refused anyway
            raise ValueError(f"version {version[0]}.{version[1]} of the npy format holds records")
    if any(dim < 0 for dim in shape):
        raise ValueError(f"its shape is {shape}")
    return dtype, tuple(int(dim) for dim in shape), bool(fortran) and len(shape) > 1


def _checked(stored: StoredArray, size: int) -> StoredArray:
    """The array itself, when its type can be read and the file is as long as the header says."""
    if stored.dtype.hasobject or stored.dtype.names is not None:
        raise DataError(
            "D105",
            f"{stored.label} holds {'Python objects' if stored.dtype.hasobject else 'records'}, "
            "which are never unpickled",
            hint="save plain arrays of numbers, all samples of one shape; ragged ones as one file per sample",
        )
    if size != stored.nbytes and (size < stored.nbytes or stored.member is not None):
        raise DataError(
            "D104", f"{stored.label} is damaged: its header promises {stored.nbytes} bytes, {size} are there"
        )
    if stored.fortran and stored.nbytes > FORTRAN_LIMIT:
        raise DataError(
            "D104",
            f"{stored.label} is in Fortran order, so that its samples cannot be streamed",
            hint="save numpy.ascontiguousarray(array)",
        )
    return stored


def stream_values(stored: StoredArray, archive: zipfile.ZipFile | None) -> IO[bytes]:
    """A stream at the values of ``stored``; the caller closes it.

    Args:
        stored: The array.
        archive: The open archive of a member, None for a ``.npy`` file.

    Raises:
        DataError: D104, the header is another than the one inspected.
    """
    stream: IO[bytes]
    if stored.member is None:
        stream = stored.path.open("rb")
    else:
        assert archive is not None
        stream = archive.open(stored.member)
    try:
        dtype, shape, fortran = _header(stream)
    except ValueError:
        stream.close()
        raise
    if (dtype, shape, fortran) != (stored.dtype, stored.shape, stored.fortran):
        stream.close()
        raise DataError("D104", f"{stored.label} changed while it was in use", hint="run again")
    return stream


def stored_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the bytes of an uncompressed member begin in the archive's file.

    The local header may hold another extra field than the directory (zip specification, 4.3.7), so its own
    lengths count.
    """
    with path.open("rb") as stream:
        stream.seek(info.header_offset)
        header = stream.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise ValueError("a local header of the archive is missing")
    name, extra = struct.unpack("<HH", header[26:30])
    return int(info.header_offset + 30 + name + extra)


def skip(stream: IO[bytes], count: int) -> None:
    """Read ``count`` bytes away in small pieces."""
    while count > 0:
        piece = len(stream.read(min(count, _SKIP)))
        if piece == 0:
            raise EOFError("the file ends too early")
        count -= piece
