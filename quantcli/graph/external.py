"""Tensors whose bytes lie in files beside the model (TensorProto.EXTERNAL).

Rules: a location is a relative path without "..", and the file that it names, links followed, lies in the
directory of the model or in that of the file that the model's name links to (as in the Hugging Face cache,
where both are links to a directory of blobs). onnxruntime has the same rule; onnx and onnx-ir refuse every
link, so their own checks are not used here. The file exists and holds offset + length bytes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from quantcli.errors import ModelError

_KEPT_KEYS = ("location", "offset", "length")


def proto_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every dense tensor of a model: initializers and attributes of the graph, its bodies and functions."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from _graph_tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _graph_tensors(graph)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the bytes of ``tensor`` lie in another file."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def data_roots(model: Path) -> tuple[Path, ...]:
    """Directories that may hold the external data of the model file ``model``, links resolved."""
    return tuple(dict.fromkeys((_real(model.parent), _real(model).parent)))


def _real(path: Path) -> Path:
    """``path`` with links resolved; unlike ``Path.resolve`` it lets links that form a loop be."""
    return Path(os.path.realpath(path))


def check_external(proto: onnx.ModelProto, roots: tuple[Path, ...], model: Path | None = None) -> tuple[Path, ...]:
    """Check every reference to external data.

    Keys other than location, offset and length are removed from ``proto``: onnx-ir does not keep them
    (a checksum, or notes of onnxruntime on prepacked weights), and their bytes are written anew anyway.

    Args:
        proto: The model.
        roots: What ``data_roots`` gives for its file; none if it came from memory.
        model: Its file.

    Returns:
        The other files that are referred to, links resolved, in order of first reference, each once.

    Raises:
        ModelError: A file is missing or too short (M103), or a location leads outside (M104).
    """
    files: dict[Path, int] = {}
    for tensor in proto_tensors(proto):
        if not is_external(tensor):
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data if entry.key in _KEPT_KEYS}
        del tensor.external_data[:]
        for key, value in sorted(entries.items()):
            tensor.external_data.add(key=key, value=value)
        if not roots:
            raise ModelError(
                "M103",
                f"tensor '{tensor.name}' lies in '{entries.get('location', '')}', which a model in memory "
                "cannot refer to",
                hint="load the model from its file",
            )
        path = resolve_location(tensor.name, entries.get("location", ""), roots)
        if path not in files:
            files[path] = _file_size(path, tensor.name, entries["location"])
        _check_extent(tensor, entries, files[path])
    own = None if model is None else _real(model)
    return tuple(file for file in files if file != own)


def resolve_location(name: str, location: str, roots: tuple[Path, ...]) -> Path:
    """The file at ``location``, which tensor ``name`` refers to; links resolved.

    Raises:
        ModelError: There is no location (M103), or it leads out of ``roots`` (M104).
    """
    if not location:
        raise ModelError("M103", f"tensor '{name}' is said to be external, but no file is given")
    pure = PurePosixPath(location)
    if pure.is_absolute() or Path(location).is_absolute() or ".." in pure.parts or "\0" in location:
        raise ModelError(
            "M104",
            f"tensor '{name}' lies in '{location}', which is not a path inside the model's directory",
            hint="external data must lie beside the model; put a copy of the file there",
        )
    path = _real(roots[0] / location)
    if not any(path.is_relative_to(root) for root in roots):
        raise ModelError(
            "M104",
            f"tensor '{name}' lies in '{location}', a link that leads out of the model's directory",
            hint="put a copy of the file beside the model in place of the link",
        )
    return path


def _file_size(path: Path, name: str, location: str) -> int:
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise ModelError(
            "M103",
            f"file '{location}' with the data of tensor '{name}' {reason}",
            hint="keep external data beside the model, under the name that it was saved with",
        ) from error
    return size


def _check_extent(tensor: onnx.TensorProto, entries: dict[str, str], size: int) -> None:
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        bits = ir.DataType(tensor.data_type).bitwidth
    except (ValueError, TypeError) as error:
        raise ModelError(
            "M103", f"the reference of tensor '{tensor.name}' to external data is not valid: {error}"
        ) from error
    needed = math.ceil(math.prod(tensor.dims) * bits / 8)
    if offset < 0 or (length and length != needed):
        raise ModelError(
            "M103",
            f"tensor '{tensor.name}' needs {needed} bytes, but refers to {length} bytes at offset {offset}",
        )
    if offset + needed > size:
        raise ModelError(
            "M103",
            f"file '{entries['location']}' has {size} bytes, but tensor '{tensor.name}' ends at {offset + needed}",
            hint="the file is cut off; copy or download it again",
        )


class _MappedTensor(ir.ExternalTensor):
    """A tensor that maps its file; what fails is an error of ours, and arrays are aligned."""

    __slots__ = ()

    def numpy(self) -> np.ndarray:
        """The values, mapped; copied only where their offset does not suit their type."""
        with _readable(self.name):
            array = super().numpy()
        return array if array.flags.aligned else array.copy()

    def tobytes(self) -> bytes:
        """The bytes, read into memory."""
        with _readable(self.name):
            return super().tobytes()

    def tofile(self, file: BinaryIO) -> None:
        """Copy the bytes from file to file."""
        super().tofile(file)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise _unreadable(name, str(error)) from error


def _unreadable(name: str, reason: str) -> ModelError:
    return ModelError("M103", f"the external data of tensor '{name}' can no longer be read: {reason}")


def lazy_tensor(tensor: ir.ExternalTensor, roots: tuple[Path, ...]) -> ir.TensorProtocol:
    """A tensor that maps its file for each reading and lets go of it afterwards.

    Unlike onnx-ir's ``ExternalTensor`` it is written inline when its model is serialized, wherever that
    model goes.

    Args:
        tensor: Reference, checked by ``check_external``.
        roots: What ``data_roots`` gives for the model's file.

    Raises:
        ModelError: The location leads out of ``roots`` (M104); on reading, the file is gone or another (M103).
    """
    path = resolve_location(tensor.name, str(tensor.location), roots)
    known = _state(path)

    def read() -> ir.TensorProtocol:
        if tensor.size == 0:
            empty = np.empty(tensor.shape.numpy(), dtype=tensor.dtype.numpy())  # nothing to map
            return ir.Tensor(empty, dtype=tensor.dtype, name=tensor.name)
        with _readable(tensor.name):
            found = _state(path)
        if found != known:  # offsets may mean other values now
            raise _unreadable(tensor.name, f"'{path.name}' was changed after the model was loaded")
        return _MappedTensor(
            path, tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape, name=tensor.name
        )

    return ir.LazyTensor(
        read,
        tensor.dtype,
        tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def _state(path: Path) -> tuple[int, int]:
    """Size and time of the last change: what tells whether a file is still the same."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns
