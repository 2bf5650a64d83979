"""Reading ``ModelProto`` from files and bytes, external data left where it is.

onnx.load raises a dozen exception classes, and reads other formats by the file's extension; here a file is
a protobuf message or an error of ours that names what it looks like instead.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from quantcli.errors import ModelError
from quantcli.graph.skim import SKIMMED_BYTES, skim

PROTOBUF_LIMIT = 2**31 - 1
"""Largest protobuf message in bytes."""

_HEAD = 256
_SIGNATURES: tuple[tuple[int, bytes, str, str | None], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer", "fetch the real file with 'git lfs pull'"),
    (4, b"ORTM", "an onnxruntime .ort model", "pass the .onnx file that it was made from"),
    (4, b"TFL3", "a TensorFlow Lite model", "convert it to ONNX first, for example with tf2onnx"),
    (0, b"\x89HDF", "an HDF5 file", "export the model to ONNX first"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it, or export the model to ONNX if it is a PyTorch .pt file"),
    (0, b"\x80", "a Python pickle", "export the model to ONNX first, for example with torch.onnx.export"),
)


def read_proto(path: Path) -> onnx.ModelProto:
    """Read the model in ``path`` without its external data.

    Large weights of a large file stay in it as well: the message refers to them as external data of this file.

    Raises:
        ModelError: The file cannot be read or is no ONNX model (M101), or is too large (M106).
    """
    if path.is_dir():
        raise ModelError("M101", f"'{path}' is a directory, not an ONNX model", hint="pass the .onnx file in it")
    try:
        if path.stat().st_size > PROTOBUF_LIMIT:
            raise ModelError(
                "M106",
                f"'{path}' is larger than the 2 GiB that a protobuf message can have",
                hint="export the model with external data",
            )
        data = skim(path) if path.stat().st_size >= SKIMMED_BYTES else None
        data = data or path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError("M101", f"model file '{path}' does not exist", hint="check the path") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelError("M101", f"model file '{path}' cannot be read: {reason}") from error
    return parse_proto(data, f"'{path}'")


def parse_proto(data: bytes, label: str) -> onnx.ModelProto:
    """Parse a protobuf message.

    Args:
        data: The message.
        label: What errors call it.

    Raises:
        ModelError: ``data`` is no ONNX model (M101).
    """
    if not data:
        raise ModelError("M101", f"{label} is empty", hint="copy or export the model again")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise _not_a_model(data, label) from error
    if not proto.HasField("graph") or proto.ir_version <= 0:
        raise _not_a_model(data, label)
    return proto


def _not_a_model(data: bytes, label: str) -> ModelError:
    head = data[:_HEAD]
    for offset, signature, what, hint in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return ModelError("M101", f"{label} is {what}, not an ONNX model", hint=hint)
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return ModelError("M101", f"{label} is a text file, not an ONNX model", hint="pass a binary .onnx file")
    return ModelError(
        "M101",
        f"{label} is not an ONNX model, or is cut off",
        hint="copy or export the model again, and check its size",
    )
