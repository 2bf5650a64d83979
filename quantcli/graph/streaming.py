"""Writing a model of one file tensor by tensor.

protobuf makes the whole message in memory before the first byte is written. Here the large initializers are left
out of it, and their bytes are written between its parts when their turn comes. The file is the same to the byte:
fields are in the order of their numbers, as protobuf writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import onnx
import onnx_ir as ir

from quantcli.graph.model import OnnxModel, model_proto
from quantcli.graph.skim import message_head

STREAMED_BYTES = 64 * 2**10
"""Initializers below this are part of the message."""

_GRAPH = onnx.ModelProto.GRAPH_FIELD_NUMBER
_INITIALIZER = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
_RAW_DATA = onnx.TensorProto.RAW_DATA_FIELD_NUMBER


def write_streamed(model: OnnxModel, file: BinaryIO) -> None:
    """Write ``model``, which fits into one message, to ``file``.

    Raises:
        ModelError: As ``model_proto`` raises.
    """
    light, tensors = _without_weights(model)
    proto = model_proto(light.ir)
    head, tail = _around(proto, _GRAPH)
    graph_head, graph_tail = _around(proto.graph, _INITIALIZER)
    pieces = [_Piece(tensor, tensors.get(tensor.name)) for tensor in proto.graph.initializer]
    inside = len(graph_head) + len(graph_tail) + sum(piece.length for piece in pieces)
    file.write(head + message_head(_GRAPH, inside) + graph_head)
    for piece in pieces:
        piece.write(file)
    file.write(graph_tail + tail)


def _without_weights(model: OnnxModel) -> tuple[OnnxModel, dict[str, ir.TensorProtocol]]:
    """A copy without the values of large initializers of the main graph, and these by name."""
    light = model.clone()
    tensors: dict[str, ir.TensorProtocol] = {}
    for value in light.ir.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not is_streamed(tensor):
            continue
        name = str(value.name)
        tensors[name] = tensor
        value.const_value = ir.ExternalTensor(
            "",
            None,
            None,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=tensor.name or name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )
    return light, tensors


def is_streamed(tensor: ir.TensorProtocol) -> bool:
    """Whether ``tensor`` is written by itself: it is large, and not a piece of a parsed message."""
    kinds = (ir.LazyTensor, ir.Tensor, ir.PackedTensor)
    return isinstance(tensor, kinds) and tensor.nbytes >= STREAMED_BYTES


def _around(message: onnx.ModelProto | onnx.GraphProto, middle: int) -> tuple[bytes, bytes]:
    """What ``message`` writes in front of field ``middle``, and behind it."""
    head, tail = type(message)(), type(message)()
    head.CopyFrom(message)
    tail.CopyFrom(message)
    for field in message.DESCRIPTOR.fields:
        if field.number >= middle:
            head.ClearField(field.name)
        if field.number <= middle:
            tail.ClearField(field.name)
    return head.SerializeToString(deterministic=True), tail.SerializeToString(deterministic=True)


class _Piece:
    """An initializer as it is written: what is in front of its bytes, these, and what is behind them."""

    def __init__(self, proto: onnx.TensorProto, tensor: ir.TensorProtocol | None) -> None:
        self._tensor = tensor
        self._weight_bytes = 0 if tensor is None else int(tensor.nbytes)
        self._parts = list(self._split(proto))
        self._length = sum(map(len, self._parts)) + self._weight_bytes

    def _split(self, proto: onnx.TensorProto) -> Iterator[bytes]:
        if self._tensor is None:
            yield proto.SerializeToString(deterministic=True)
            return
        front = onnx.TensorProto(dims=proto.dims, data_type=proto.data_type, name=proto.name)
        yield front.SerializeToString(deterministic=True) + message_head(_RAW_DATA, self._weight_bytes)
        back = onnx.TensorProto()
        if proto.HasField("doc_string"):
            back.doc_string = proto.doc_string
        back.metadata_props.extend(proto.metadata_props)
        yield back.SerializeToString(deterministic=True)

    @property
    def length(self) -> int:
        """Length of the whole field."""
        return len(self._head()) + self._length

    def _head(self) -> bytes:
        return message_head(_INITIALIZER, self._length)

    def write(self, file: BinaryIO) -> None:
        file.write(self._head() + self._parts[0])
        if self._tensor is None:
            return
        begin = file.tell()
        write_tensor(self._tensor, file)
        if file.tell() - begin != self._weight_bytes:
            raise ValueError(f"tensor '{self._tensor.name}' has not the {self._weight_bytes} bytes that it states")
        file.write(self._parts[1])


def write_tensor(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    """Write the bytes of ``tensor``, from file to file or from memory, without a copy where that is possible."""
    if isinstance(tensor, (ir.LazyTensor, ir.Tensor, ir.PackedTensor)):
        tensor.tofile(file)
    else:
        file.write(tensor.tobytes())
