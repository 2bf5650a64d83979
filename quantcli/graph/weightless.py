"""The structure of a model without its weights.

Large constants become inputs of the graph with the same type and shape. The runtime checks such a model like the
whole one (operators, attributes, types, shapes), in the memory that its structure takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from quantcli.graph.model import OnnxModel
from quantcli.graph.names import unique_name
from quantcli.graph.traverse import graph_values, nested_graphs

KEPT_BYTES = 2**16
"""Constants up to here stay: shapes, axes and scales decide what a graph means."""


@dataclass(frozen=True, slots=True)
class Structure:
    """A model without its weights.

    Attributes:
        model: It; a copy.
        weights: Inputs that stand for weights.
    """

    model: OnnxModel
    weights: frozenset[str]


def without_weights(model: OnnxModel, *, kept_bytes: int = KEPT_BYTES) -> Structure:
    """A copy of ``model`` whose constants of more than ``kept_bytes`` are inputs of the main graph.

    Constants of bodies become inputs of the main graph as well; those of local functions stay.
    """
    copy = model.clone()
    main = copy.ir.graph
    taken = {value.name for graph in nested_graphs(main) for value in graph_values(graph) if value.name}
    weights: set[str] = set()
    for graph in list(nested_graphs(main)):
        known = taken if graph is not main else set()  # names of the main graph are inherited
        for value in list(graph.initializers.values()):
            tensor = value.const_value
            if tensor is None or tensor.nbytes <= kept_bytes or value.is_graph_output():
                continue
            name = str(value.name)
            del graph.initializers[name]
            value.const_value = None
            if value.is_graph_input():  # a default that callers may override
                weights.add(name)
                continue
            weights.add(_stand_in(value, tensor, main, known))
        for node in list(graph):
            tensor = _large_constant(node, kept_bytes)
            if tensor is not None:
                weights.add(_stand_in(node.outputs[0], tensor, main, known))
                graph.remove(node, safe=True)
    return Structure(copy, frozenset(weights))


def _stand_in(value: ir.Value, tensor: ir.TensorProtocol, main: ir.Graph, taken: set[str]) -> str:
    """Make the readers of ``value`` read a new input of ``main``; its name."""
    name = unique_name(str(value.name), taken)
    fresh = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()))
    value.replace_all_uses_with(fresh)
    main.inputs.append(fresh)
    return name


def _large_constant(node: ir.Node, kept_bytes: int) -> ir.TensorProtocol | None:
    """The tensor of a Constant node that is large and can be replaced."""
    attribute = node.attributes.get("value") if node.op_type == "Constant" and not node.domain else None
    if attribute is None or attribute.is_ref() or node.outputs[0].is_graph_output():
        return None
    tensor = attribute.as_tensor()
    return tensor if tensor.nbytes > kept_bytes else None
