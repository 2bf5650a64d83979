"""Loading and saving: the only way into and out of ``OnnxModel``.

Loading reads the protobuf message, refuses what would be lost or cannot be handled, and hands the rest to
onnx-ir; external tensors stay on disk. Saving writes temporaries and renames them, external data first, so
that a model never refers to data that is not there. The same model gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from quantcli.errors import ModelError, OutputError, UnsupportedModelError
from quantcli.graph.external import check_external, data_roots, lazy_tensor
from quantcli.graph.model import STRUCTURE_BYTES, OnnxModel, first_line, root_cause
from quantcli.graph.preflight import DEFAULT_LIMITS, Limits, check_proto
from quantcli.graph.proto_file import PROTOBUF_LIMIT, parse_proto, read_proto
from quantcli.graph.scopes import rename_hiding_values
from quantcli.graph.streaming import write_streamed, write_tensor
from quantcli.graph.traverse import graph_values, nested_graphs
from quantcli.staged import staged_files

EXTERNAL_THRESHOLD_BYTES = 1_900_000_000
"""Constants beyond this go to a file of their own; leaves room under protobuf's 2 GiB."""

_EXTERNAL_MINIMUM = 1024  # smaller tensors stay inline: onnxruntime needs shapes and axes at load time
_ALIGNMENT = 4096  # ONNX recommends page-aligned offsets, so that tensors can be mapped


def load_model(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> OnnxModel:
    """Load a model; external tensors are read when they are needed, from the files beside it.

    Args:
        path: An ONNX file (protobuf), of any name.
        limits: Versions to accept.

    Raises:
        ModelError: The file is unreadable, not ONNX, invalid, or out of ``limits`` (M101–M106).
        UnsupportedModelError: It has something that would be lost (M201–M204).
    """
    proto = read_proto(path)
    check_proto(proto, limits)
    roots = data_roots(path)
    files = check_external(proto, roots, path)
    return _from_proto(proto, roots, (path.resolve(), *files))


def load_model_bytes(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> OnnxModel:
    """Load a model from memory; it cannot refer to external data.

    Raises:
        ModelError: As ``load_model``.
        UnsupportedModelError: As ``load_model``.
    """
    proto = parse_proto(data, "the model in memory")
    check_proto(proto, limits)
    check_external(proto, ())
    return _from_proto(proto, (), ())


def _from_proto(proto: onnx.ModelProto, roots: tuple[Path, ...], sources: tuple[Path, ...]) -> OnnxModel:
    try:
        model = OnnxModel(ir.serde.deserialize_model(proto), sources=sources)
    except ir.serde.SerdeError as error:
        reason = first_line(root_cause(error))
        raise UnsupportedModelError("M204", f"the model cannot be represented: {reason}") from error
    graphs = [model.ir.graph, *(function.graph for function in model.ir.functions.values())]
    for graph in graphs:
        if "ai.onnx" in graph.opset_imports:  # a synonym of "", which onnx-ir resolves for nodes only
            graph.opset_imports[""] = graph.opset_imports.pop("ai.onnx")
        for nested in nested_graphs(graph):
            _normalise(nested, roots)
    rename_hiding_values(model.ir.graph)
    model.sort()
    return model


def _normalise(graph: ir.Graph, roots: tuple[Path, ...]) -> None:
    """Make the tensors of ``graph`` lazy and its values such that onnx-ir writes what it read."""
    for value in graph_values(graph):
        if value.type is None:
            value.shape = None  # a shape without a type cannot be written
    for value in graph.initializers.values():
        if value.const_value is not None:
            value.const_value = _normal_tensor(value.const_value, roots)
    for node in graph:
        for name, attribute in list(node.attributes.items()):
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                tensor = _normal_tensor(attribute.as_tensor(), roots)
                node.attributes[name] = ir.AttrTensor(name, tensor, attribute.doc_string)
            elif attribute.type == ir.AttributeType.TENSORS:
                tensors = [_normal_tensor(tensor, roots) for tensor in attribute.as_tensors()]
                node.attributes[name] = ir.AttrTensors(name, tensors, attribute.doc_string)


def _normal_tensor(tensor: ir.TensorProtocol, roots: tuple[Path, ...]) -> ir.TensorProtocol:
    if isinstance(tensor, ir.ExternalTensor):
        return lazy_tensor(tensor, roots)
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        tensor.raw.ClearField("metadata_props")  # onnx-ir holds a copy, and would write both
    return tensor


def save_model(
    model: OnnxModel,
    path: Path,
    *,
    overwrite: bool = False,
    external_threshold_bytes: int | None = None,
    durable: bool = True,
    check: Callable[[Path], None] | None = None,
) -> tuple[Path, ...]:
    """Write ``model`` to ``path``, whole or not at all; its tensors are read one after the other.

    Args:
        model: The model; it is not changed.
        path: Target. Large models get a second file beside it, called like it with ".data" appended.
        overwrite: Replace files that exist; never the files that the model was read from.
        external_threshold_bytes: Bytes of constants from which on initializers of 1 KiB and more go to
            the second file; None for ``EXTERNAL_THRESHOLD_BYTES``.
        durable: Whether it is to survive a power failure; False for what is deleted soon.
        check: Looks at the written model, at another path, before it appears at its own; what it raises
            keeps it from appearing.

    Returns:
        The model's file, then that of its external data if there is one.

    Raises:
        OutputError: A file exists (O101), is a source of the model (O102), or cannot be written (O103).
        ModelError: External data can no longer be read (M103), or the model does not fit into protobuf's
            limit even without its initializers (M106).
    """
    threshold = EXTERNAL_THRESHOLD_BYTES if external_threshold_bytes is None else external_threshold_bytes
    data_path = path.with_name(path.name + ".data")
    external = model.constant_bytes() > threshold
    targets = [data_path, path] if external else [path]
    for target in targets:
        if any(_same_file(target, source) for source in model.sources):
            raise OutputError(
                "O102", f"'{target}' is the file that the model was read from", hint="choose another name"
            )
    with staged_files(targets, overwrite=overwrite, durable=durable) as files:
        written = _externalize(model, data_path.name, files[0]) if external else model
        _check_inline_size(written)
        write_streamed(written, files[-1])
        if check is not None:
            for file in files:
                file.flush()
            check(Path(files[-1].name))
    return tuple(reversed(targets))


def _same_file(target: Path, source: Path) -> bool:
    return target.exists() and source.exists() and target.samefile(source)


def _externalize(model: OnnxModel, location: str, file: BinaryIO) -> OnnxModel:
    """Write large initializers to ``file``; a copy of ``model`` that refers to them at ``location``."""
    copied = model.clone()
    for graph in nested_graphs(copied.ir.graph):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype == ir.DataType.STRING or tensor.nbytes < _EXTERNAL_MINIMUM:
                continue
            file.write(bytes(-file.tell() % _ALIGNMENT))
            start = file.tell()
            write_tensor(tensor, file)
            value.const_value = ir.ExternalTensor(
                location,
                start,
                file.tell() - start,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name or "",
                doc_string=tensor.doc_string,
                metadata_props=dict(tensor.metadata_props),
            )
    return copied


def _check_inline_size(model: OnnxModel) -> None:
    inline = sum(int(tensor.nbytes) for tensor in model.tensors() if not isinstance(tensor, ir.ExternalTensor))
    if inline + STRUCTURE_BYTES > PROTOBUF_LIMIT:
        raise ModelError(
            "M106",
            f"the model holds {inline / 2**30:.1f} GiB of constants inside nodes, more than a protobuf "
            "message can have",
            hint="turn Constant nodes into initializers first",
        )


def model_files(path: Path) -> tuple[Path, ...]:
    """The model's file and the files of its external data, these in order of first reference.

    Raises:
        ModelError: The file is unreadable or not ONNX (M101), or its external data is (M103, M104).
    """
    return (path, *check_external(read_proto(path), data_roots(path), path))


def model_digest(path: Path) -> str:
    """SHA-256 of a model, as hex; it does not depend on the name of the model's file.

    Of a single file it is what ``sha256sum`` prints; with external data it is the digest of the hex
    digests of the model's file and of the files of ``model_files`` in their order.

    Raises:
        ModelError: As ``model_files``.
    """
    digests = [_file_digest(file) for file in model_files(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_size(path: Path) -> int:
    """Bytes of the model's file and of its external data.

    Raises:
        ModelError: As ``model_files``.
    """
    return sum(file.stat().st_size for file in model_files(path))
