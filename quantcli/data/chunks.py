"""Equal runs of bytes (one per feed) of stored arrays, forward or in any order, in constant memory.

Forward reading uses the archive's own streams, which check the CRC. Reading in any order (``--shuffle``) uses
offsets into the file; deflated members have none, so they are unpacked once per pass into one anonymous
temporary file.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from contextlib import ExitStack
from io import BytesIO
from typing import IO

import numpy as np

from quantcli.data.stored import StoredArray, reading, skip, stored_offset, stream_values


class Chunks:
    """Runs of ``size`` bytes of a stream; run 0 begins at ``origin``.

    Args:
        stream: Where to read. Seekable when ``origin`` is given, else it stands at run 0.
        size: Bytes of a run.
        label: Names the array in messages.
        origin: Offset of run 0, or None when the stream only goes forward.
    """

    def __init__(self, stream: IO[bytes], size: int, label: str, origin: int | None) -> None:
        self._stream = stream
        self._size = size
        self._label = label
        self._origin = origin
        self._next = 0

    def read(self, index: int) -> bytes:
        """Run ``index``.

        Raises:
            DataError: D104, the file ends too early or its checksum is wrong.
        """
        with reading(self._label):
            if self._origin is not None:
                self._stream.seek(self._origin + index * self._size)
            else:
                assert index >= self._next, "a stream that only goes forward was asked to go back"
                skip(self._stream, (index - self._next) * self._size)
            data = self._stream.read(self._size)
            if len(data) != self._size:
                raise EOFError("the file ends too early")
        self._next = index + 1
        return data


class Unpacked:
    """One anonymous temporary file that holds deflated arrays unpacked; gone when ``stack`` closes."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._file: IO[bytes] | None = None
        self._offsets: dict[tuple[str, str | None], int] = {}

    def chunks(self, stored: StoredArray, size: int, archive: zipfile.ZipFile) -> Chunks:
        """Runs of a deflated member in any order."""
        if self._file is None:
            self._file = self._stack.enter_context(
                tempfile.TemporaryFile(prefix="quantcli-")  # noqa: SIM115  # the stack closes it
            )
        key = (str(stored.path), stored.member)
        if key not in self._offsets:
            self._offsets[key] = self._file.seek(0, 2)
            with stream_values(stored, archive) as stream:
                shutil.copyfileobj(stream, self._file, 2**18)
        return Chunks(self._file, size, stored.label, self._offsets[key])


def open_forward(stored: StoredArray, size: int, stack: ExitStack, archive: zipfile.ZipFile | None) -> Chunks:
    """Runs of ``stored``, read forward only; closed with ``stack``."""
    with reading(stored.label):
        stream = stack.enter_context(stream_values(stored, archive))
        if stored.fortran:
            return _transposed(stored, stream, size)
        return Chunks(stream, size, stored.label, None)


def open_any_order(
    stored: StoredArray, size: int, stack: ExitStack, archive: zipfile.ZipFile | None, unpacked: Unpacked
) -> Chunks:
    """Runs of ``stored`` in any order; closed with ``stack``."""
    with reading(stored.label):
        if stored.fortran:
            with stream_values(stored, archive) as stream:
                return _transposed(stored, stream, size)
        if archive is None or stored.member is None:
            stream = stack.enter_context(stream_values(stored, None))
            return Chunks(stream, size, stored.label, stream.tell())
        info = archive.getinfo(stored.member)
        if info.compress_type != zipfile.ZIP_STORED:
            return unpacked.chunks(stored, size, archive)
        with stream_values(stored, archive) as stream:
            header = stream.tell()
        plain = stack.enter_context(stored.path.open("rb"))
        return Chunks(plain, size, stored.label, stored_offset(stored.path, info) + header)


def _transposed(stored: StoredArray, stream: IO[bytes], size: int) -> Chunks:
    """Runs of a Fortran-ordered array (small: see ``FORTRAN_LIMIT``), which is loaded whole."""
    data = stream.read(stored.nbytes)
    if len(data) != stored.nbytes:
        raise EOFError("the file ends too early")
    array = np.frombuffer(data, dtype=stored.dtype).reshape(stored.shape, order="F")
    return Chunks(BytesIO(array.tobytes(order="C")), size, stored.label, 0)
