"""What passes need to know of constants: reading them, and putting an initializer in a value's place.

A body that captures a value goes on reading the same value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from quantcli.graph.traverse import graph_values, nested_graphs


def array_of(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer, None for any other value."""
    if value is None or not value.is_initializer() or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Whether ``value`` is an initializer (its array is not read)."""
    return (
        value is not None
        and value.is_initializer()
        and value.const_value is not None
        and not value.is_graph_input()
    )


def unique_name(graph: ir.Graph, base: str) -> str:
    """``base``, or ``base_1``, … : a name that no value of the graph or of its bodies has."""
    taken = {value.name for nested in nested_graphs(graph) for value in graph_values(nested)}
    name, number = base, 0
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name


def make_initializer(graph: ir.Graph, name: str, array: np.ndarray | ir.LazyTensor) -> ir.Value:
    """A new initializer with exactly this name, which must be free; lazy values stay lazy."""
    tensor: ir.TensorProtocol
    if isinstance(array, ir.LazyTensor):
        tensor = ir.LazyTensor(array.raw, array.dtype, array.shape, name=name)
    else:
        tensor = ir.tensor(np.asarray(array, order="C"), name=name)
    shape = ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def replace_by_constant(node: ir.Node, graph: ir.Graph, arrays: Sequence[np.ndarray | ir.LazyTensor]) -> None:
    """Put initializers with the same names in the place of a node's outputs, and remove the node."""
    for output, array in zip(node.outputs, arrays, strict=True):
        if not output.name:
            continue
        name = output.name
        output.name = None
        output.replace_all_uses_with(make_initializer(graph, name, array))
    graph.remove(node, safe=True)


def own_constant(node: ir.Node, index: int, graph: ir.Graph, array: np.ndarray, base: str) -> None:
    """Give input ``index`` of ``node`` the constant ``array``, without changing it for anybody else.

    The initializer that was there keeps its name if nobody else reads it; ``base`` is the name of a new one, which
    in a body may be the name of a value outside (``scopes.separate_values`` mends that).
    """
    old = node.inputs[index] if index < len(node.inputs) else None
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    if old is not None and len(old.uses()) == 1 and not old.is_graph_output():
        name = str(old.name)
        node.replace_input_with(index, None)
        owner = old.graph
        assert owner is not None
        del owner.initializers[name]
    else:
        name = unique_name(graph, base)
    node.replace_input_with(index, make_initializer(graph, name, array))
