"""The owner of one onnx-ir model."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from quantcli.errors import ModelError
from quantcli.graph import build_view
from quantcli.graph.proto_file import PROTOBUF_LIMIT
from quantcli.graph.traverse import graph_values, nested_graphs, topological_order
from quantcli.graph.view import GraphView

STRUCTURE_BYTES = 64 * 2**20
"""Allowance for everything of a model but its tensors, when sizes are estimated."""


class OnnxModel:
    """A model in memory; tensors of external files stay on disk until they are read.

    Attributes:
        ir: The onnx-ir model; for use inside ``quantcli.graph`` only.
        sources: Files that the tensors may still be read from; these must not be overwritten.
    """

    __slots__ = ("ir", "sources")

    def __init__(self, model: ir.Model, *, sources: tuple[Path, ...] = ()) -> None:
        self.ir = model
        self.sources = sources

    def view(self) -> GraphView:
        """A picture of the main graph as it is now.

        Raises:
            ModelError: A node has no name of its own (M107), or the graph has a cycle (M102).
        """
        return build_view.view(self.ir)

    def clone(self) -> OnnxModel:
        """A copy whose edits do not show in this one; the arrays of constants are shared.

        Raises:
            ModelError: The graph has a cycle (M102).
        """
        self.sort()
        copied = OnnxModel(self.ir.clone(deep_copy=True), sources=self.sources)
        for graph in copied._graphs():
            for value in graph_values(graph):
                # onnx-ir's clone shares type objects, and ``value.dtype = …`` edits them in place.
                value.type = copy.deepcopy(value.type)
        return copied

    def sort(self) -> None:
        """Bring the nodes of all graphs into topological order; sorted graphs stay as they are.

        Raises:
            ModelError: A graph has a cycle (M102).
        """
        for graph in self._graphs():
            _sort(graph)

    def to_bytes(self) -> bytes:
        """The whole model as one protobuf message, external tensors embedded; same model, same bytes.

        Raises:
            ModelError: The model does not fit into one message (M106).
        """
        if self.constant_bytes() + STRUCTURE_BYTES > PROTOBUF_LIMIT:
            raise ModelError(
                "M106",
                f"the model holds {self.constant_bytes() / 2**30:.1f} GiB of constants, more than the 2 GiB "
                "of a protobuf message",
                hint="save it with external data instead",
            )
        return serialize(self.ir)

    def constant_bytes(self) -> int:
        """Bytes of all tensors that the model holds: initializers of all graphs and tensor attributes."""
        return sum(int(tensor.nbytes) for tensor in self.tensors())

    def tensors(self) -> Iterator[ir.TensorProtocol]:
        """Initializers of the main graph and of all bodies, then tensors in attributes, functions' too."""
        graphs = list(self._graphs())
        for graph in graphs:
            for value in graph.initializers.values():
                if value.const_value is not None:
                    yield value.const_value
        for graph in graphs:
            for node in graph:
                yield from attribute_tensors(node)

    @property
    def opset(self) -> int:
        """Version of ai.onnx; 0 where the model does not import it."""
        return self.ir.opset_imports.get("", 0)

    @property
    def ir_version(self) -> int:
        """IR version of the file format."""
        return self.ir.ir_version

    @ir_version.setter
    def ir_version(self, version: int) -> None:
        self.ir.ir_version = version

    @property
    def metadata(self) -> dict[str, str]:
        """The model's own ``metadata_props``, to be read and changed in place."""
        return self.ir.metadata_props

    @metadata.setter
    def metadata(self, entries: Mapping[str, str]) -> None:
        replacement = dict(entries)
        self.ir.metadata_props.clear()
        self.ir.metadata_props.update(replacement)

    @property
    def has_half(self) -> bool:
        """Whether a constant, an input or a value whose type is known is float16 or bfloat16."""
        half = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
        return any(value.dtype in half for graph in self._graphs() for value in graph_values(graph))

    def _graphs(self) -> Iterator[ir.Graph]:
        yield from nested_graphs(self.ir.graph)
        for function in self.ir.functions.values():
            yield from nested_graphs(function.graph)


def attribute_tensors(node: ir.Node) -> Iterator[ir.TensorProtocol]:
    """Tensors among the attributes of ``node``; bodies are left out."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.TENSOR:
            yield attribute.as_tensor()
        elif attribute.type == ir.AttributeType.TENSORS:
            yield from attribute.as_tensors()


def serialize(model: ir.Model) -> bytes:
    """The protobuf message of ``model``; fields that hold maps are written in order of their keys.

    Raises:
        ModelError: As ``model_proto``.
    """
    return bytes(model_proto(model).SerializeToString(deterministic=True))


def model_proto(model: ir.Model) -> onnx.ModelProto:
    """``model`` as protobuf.

    Raises:
        ModelError: onnx-ir cannot represent the model as protobuf (M204), or external data is gone (M103).
    """
    try:
        proto: onnx.ModelProto = ir.serde.serialize_model(model)
    except ir.serde.SerdeError as error:
        cause = root_cause(error)
        if isinstance(cause, ModelError):
            raise cause from cause.__cause__  # external data that cannot be read
        raise ModelError("M204", f"the model cannot be written as ONNX: {first_line(cause)}") from error
    return proto


def root_cause(error: BaseException) -> BaseException:
    """The innermost cause of ``error``, which onnx-ir wraps once for each level of nesting."""
    while error.__cause__ is not None and not isinstance(error, ModelError):
        error = error.__cause__
    return error


def first_line(error: BaseException) -> str:
    """The first line of the message of ``error``, or its kind."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _sort(graph: ir.Graph) -> None:
    """Bring the nodes of ``graph`` into topological order where they are not (onnx-ir's clone needs it)."""
    try:
        order = topological_order(graph)
    except ValueError as error:
        raise ModelError("M102", f"the model is not valid: {error}") from error
    if order != list(graph):
        graph.extend(order)
