"""What the adapters of ``quantcli.graph.opset_adapters`` do to nodes of any graph, bodies included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from quantcli.graph.ir_types import ir_attributes
from quantcli.graph.model import OnnxModel
from quantcli.graph.shapes import ValueTypes
from quantcli.graph.traverse import graph_values, nested_graphs
from quantcli.graph.view import AttributeValue


class CannotRaise(Exception):
    """A node has no exact form in the next opset; the message says why."""


class Rewriter:
    """Edits nodes of one model; the names that it makes are in no graph of it.

    Args:
        model: Model whose nodes are edited.
        types: What is known of its values; belongs to the rewriter from here on.
    """

    def __init__(self, model: OnnxModel, types: ValueTypes) -> None:
        self._types = types
        self._names: set[str] = set()
        self._functions: set[ir.Graph] = set()
        for function in model.ir.functions.values():
            self._functions.update(nested_graphs(function.graph))
        for graph in (*nested_graphs(model.ir.graph), *self._functions):
            self._names.update(value.name for value in graph_values(graph) if value.name)
            self._names.update(node.name for node in graph if node.name)

    # Reading --------------------------------------------------------------------------------------

    def dtype(self, value: ir.Value | None) -> ir.DataType | None:
        """Element type of a tensor, None where not known."""
        kind, _ = self._known(value)
        return kind.dtype if isinstance(kind, ir.TensorType) else None

    def shape(self, value: ir.Value | None) -> ir.Shape | None:
        """Dimensions of a tensor, None for unknown rank."""
        return self._known(value)[1]

    def _known(self, value: ir.Value | None) -> tuple[ir.TypeProtocol | None, ir.Shape | None]:
        if value is None:
            return None, None
        kind, shape = self._types.get(value, (None, None))
        return kind or value.type, shape if shape is not None else value.shape

    # Changing a node ------------------------------------------------------------------------------

    def take(self, node: ir.Node, name: str) -> ir.Attr | None:
        """Remove attribute ``name`` of ``node`` and give it; None where it is absent.

        Raises:
            CannotRaise: Its value comes from the call of a local function.
        """
        attribute = node.attributes.pop(name, None)
        if attribute is not None and attribute.is_ref():
            raise CannotRaise(f"its attribute '{name}' comes from the call of a local function")
        return attribute

    def integers(self, node: ir.Node, name: str) -> list[int] | None:
        """Remove attribute ``name``, a list of integers, and give its values; None where it is absent."""
        attribute = self.take(node, name)
        return None if attribute is None else [int(item) for item in attribute.as_ints()]

    def set_attributes(self, node: ir.Node, **attributes: AttributeValue) -> None:
        """Set attributes of ``node``."""
        for attribute in ir_attributes(attributes):
            node.attributes[attribute.name] = attribute

    def set_input(self, node: ir.Node, index: int, value: ir.Value | None) -> None:
        """Let input ``index`` be ``value``; gaps before it become absent inputs."""
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, value)

    def drop_outputs(self, node: ir.Node, count: int, why: str) -> None:
        """Keep the first ``count`` outputs of ``node``.

        Raises:
            CannotRaise: ``why``, since a further output is read.
        """
        for value in node.outputs[count:]:
            if value.uses() or value.is_graph_output():
                raise CannotRaise(why)
        if len(node.outputs) > count:
            node.resize_outputs(count)

    # Adding ---------------------------------------------------------------------------------------

    def constant(self, node: ir.Node, array: np.ndarray, role: str) -> ir.Value:
        """A constant for ``node``: an initializer of its graph, or a Constant node inside functions."""
        name = self._unique(f"{node.outputs[0].name or node.op_type}_{role}")
        tensor = ir.tensor(array, name=name)
        graph = _graph(node)
        if graph in self._functions:
            made = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], num_outputs=1, name=name)
            made.outputs[0].name = name
            graph.insert_before(node, made)
            return made.outputs[0]
        kind = ir.TensorType(tensor.dtype)
        value = ir.Value(name=name, type=kind, shape=ir.Shape(array.shape), const_value=tensor)
        graph.register_initializer(value)
        return value

    def before(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        **attributes: AttributeValue,
    ) -> ir.Value:
        """The output of a new node of ai.onnx in front of ``node``."""
        made = self._node(node, op_type, inputs, **attributes)
        _graph(node).insert_before(node, made)
        return made.outputs[0]

    def reshape_after(self, node: ir.Node, shape: ir.Value) -> None:
        """Put a Reshape to ``shape`` behind ``node``; it takes over the first output with its name."""
        result = node.outputs[0]
        made = self._node(node, "Reshape", [None, shape])
        taken = made.outputs[0]
        _graph(node).insert_after(node, made)
        result.name, taken.name = taken.name, result.name
        result.replace_all_uses_with(taken, replace_graph_outputs=True)
        made.replace_input_with(0, result)
        taken.type, taken.shape, taken.doc_string = result.type, result.shape, result.doc_string
        taken.metadata_props.update(result.metadata_props)
        result.shape, result.doc_string = None, None
        result.metadata_props.clear()
        if result in self._types:
            self._types[taken] = self._types.pop(result)

    def _node(
        self, node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], **attributes: AttributeValue
    ) -> ir.Node:
        name = self._unique(f"{node.name or node.outputs[0].name or node.op_type}_{op_type}")
        output = ir.Value(name=self._unique(f"{node.outputs[0].name or node.op_type}_{op_type}"))
        return ir.Node("", op_type, inputs, ir_attributes(attributes), outputs=[output], name=name)

    def _unique(self, base: str) -> str:
        name, number = base, 0
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name


def _graph(node: ir.Node) -> ir.Graph:
    graph = node.graph
    if isinstance(graph, ir.Function):
        return graph.graph
    if graph is None:
        raise ValueError(f"node '{node.name}' is in no graph")
    return graph
