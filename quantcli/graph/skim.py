"""Reading a large model file without its weights.

A protobuf parser holds the file, and then the message that it makes of it: twice the size of the model. Here the
fields of the message are walked on the mapped file instead (key, length, content: protobuf's encoding,
https://protobuf.dev/programming-guides/encoding). Where an initializer of the main graph has much ``raw_data``,
the message that is given back refers to these bytes, as external data at their offset in this very file; the rest
is copied as it is. What follows treats such tensors like those that lie in files of their own.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto

SKIMMED_BYTES = 64 * 2**20
"""Files below this are parsed as a whole."""

REFERRED_BYTES = 64 * 2**10
"""Tensors below this are copied."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH = ModelProto.GRAPH_FIELD_NUMBER
_INITIALIZER = GraphProto.INITIALIZER_FIELD_NUMBER
_RAW_DATA = TensorProto.RAW_DATA_FIELD_NUMBER
_EXTERNAL_DATA = TensorProto.EXTERNAL_DATA_FIELD_NUMBER
_DATA_LOCATION = TensorProto.DATA_LOCATION_FIELD_NUMBER
_LONGEST_VARINT = 70  # bits


class _Broken(Exception):
    """The bytes are no protobuf message, or one in a form that is not walked."""


def skim(path: Path) -> bytes | None:
    """The model's message with references in place of large weights.

    Args:
        path: A file of at least one byte.

    Returns:
        The message; None where the file is none, which a parser will tell better.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return b"".join(_model(content, path.name))
        except _Broken:
            return None


def _model(content: mmap.mmap, location: str) -> Iterator[bytes]:
    for number, start, value, end in _fields(content, 0, len(content)):
        if number == _GRAPH:
            yield from _message(number, b"".join(_graph(content, value, end, location)))
        else:
            yield content[start:end]


def _graph(content: mmap.mmap, begin: int, stop: int, location: str) -> Iterator[bytes]:
    for number, start, value, end in _fields(content, begin, stop):
        if number == _INITIALIZER and end - value >= REFERRED_BYTES:
            yield from _message(number, _tensor(content, value, end, location))
        else:
            yield content[start:end]


def _tensor(content: mmap.mmap, begin: int, stop: int, location: str) -> bytes:
    """A tensor whose ``raw_data`` is a reference; as it is where it has none, or refers to a file already."""
    fields = list(_fields(content, begin, stop))
    raw = [field for field in fields if field[0] == _RAW_DATA]
    stated = [_read_varint(content, value, end)[0] for number, _, value, end in fields if number == _DATA_LOCATION]
    if len(raw) != 1 or TensorProto.EXTERNAL in stated:
        return content[begin:stop]
    _, _, offset, end = raw[0]
    replaced = (_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION)
    kept = b"".join(content[start:to] for number, start, _, to in fields if number not in replaced)
    reference = TensorProto(data_location=TensorProto.EXTERNAL)
    for key, entry in (("location", location), ("offset", offset), ("length", end - offset)):
        reference.external_data.add(key=key, value=str(entry))
    return kept + bytes(reference.SerializeToString())


def _message(number: int, content: bytes) -> Iterator[bytes]:
    """A field that holds a message."""
    yield message_head(number, len(content))
    yield content


def message_head(number: int, length: int) -> bytes:
    """Key and length in front of the content of field ``number``, which holds bytes or a message."""
    return _varint(number << 3 | _BYTES) + _varint(length)


def _varint(value: int) -> bytes:
    """``value`` ≥ 0 in groups of seven bits, low ones first, each but the last with its top bit set."""
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _fields(content: mmap.mmap, begin: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, start, start of the value and end of every field between two offsets."""
    at = begin
    while at < stop:
        key, value = _read_varint(content, at, stop)
        kind = key & 7
        if kind == _BYTES:
            length, value = _read_varint(content, value, stop)
            end = value + length
        elif kind == _VARINT:
            _, end = _read_varint(content, value, stop)
        elif kind in (_FIXED64, _FIXED32):
            end = value + (8 if kind == _FIXED64 else 4)
        else:
            raise _Broken
        if end > stop:
            raise _Broken
        yield key >> 3, at, value, end
        at = end


def _read_varint(content: mmap.mmap, at: int, stop: int) -> tuple[int, int]:
    """A number, and the offset behind it."""
    found = shift = 0
    while at < stop and shift < _LONGEST_VARINT:
        byte = content[at]
        found |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return found, at
    raise _Broken
