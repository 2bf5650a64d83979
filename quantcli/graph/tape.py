"""Nodes appended to a graph for computing with its values: what rules of gradients are written with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from quantcli.graph.model import OnnxModel
from quantcli.graph.traverse import graph_values, nested_graphs

Attribute = int | float | str | list[int]


class Tape:
    """Appends nodes to the main graph of a model.

    Args:
        model: Is changed.
        shapes: Shape of every value for the samples that the model is run on.

    Attributes:
        nodes: The nodes that the graph had before.
    """

    def __init__(self, model: OnnxModel, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._graph = model.ir.graph
        self.nodes = list(self._graph)
        self._shapes = shapes
        self._values = {value.name: value for value in graph_values(self._graph) if value.name}
        taken = {value.name or "" for graph in nested_graphs(self._graph) for value in graph_values(graph)}
        taken |= {node.name or "" for graph in nested_graphs(self._graph) for node in graph}
        number = 0
        while any(name.startswith(f"tape{number}_") for name in taken):
            number += 1
        self._prefix, self._count = f"tape{number}_", 0
        self._added: list[ir.Node] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def value(self, name: str) -> ir.Value:
        """A value of the graph."""
        return self._values[name]

    def shape(self, value: ir.Value | None) -> tuple[int, ...]:
        """Shape of a value that the graph had before; () of an absent one."""
        if value is None:
            return ()
        if value.const_value is not None:
            return tuple(int(dim) for dim in value.const_value.shape.numpy())
        return self._shapes[str(value.name)]

    def op(
        self, operator: str, inputs: Sequence[ir.Value | None], domain: str = "", **attributes: Attribute
    ) -> ir.Value:
        """The output of a new node."""
        return self.like(operator, inputs, [_attribute(*item) for item in sorted(attributes.items())], domain)

    def like(
        self, operator: str, inputs: Sequence[ir.Value | None], attributes: Sequence[ir.Attr], domain: str = ""
    ) -> ir.Value:
        """The output of a new node with the attributes of another."""
        name = f"{self._prefix}{self._count}"
        self._count += 1
        node = ir.Node(domain, operator, inputs, attributes, outputs=[ir.Value(name=name)], name=name)
        self._graph.append(node)
        self._added.append(node)
        return node.outputs[0]

    def second_output(self, operator: str, node: ir.Node) -> ir.Value:
        """The second output of a copy of ``node``, which has one only."""
        name = f"{self._prefix}{self._count}"
        self._count += 1
        outputs = [ir.Value(name=name), ir.Value(name=f"{name}_second")]
        copied = ir.Node(
            node.domain, operator, node.inputs, list(node.attributes.values()), outputs=outputs, name=name
        )
        self._graph.append(copied)
        self._added.append(copied)
        return outputs[1]

    def constant(self, array: np.ndarray | float) -> ir.Value:
        """A constant; a number is float32. Equal ones are stored once."""
        values = np.asarray(array, np.float32) if isinstance(array, float) else np.asarray(array)
        key = (values.dtype.name, values.shape, values.tobytes())
        if key not in self._constants:
            name = f"{self._prefix}constant_{len(self._constants)}"
            tensor = ir.tensor(values, name=name)
            value = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(values.shape), const_value=tensor
            )
            self._graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def ints(self, *values: int) -> ir.Value:
        """An int64 constant of one axis."""
        return self.constant(np.array(values, np.int64))

    def input(self, name: str) -> ir.Value:
        """A new float32 input of any shape; its name ends with ``name``."""
        value = ir.Value(name=self._prefix + name, type=ir.TensorType(ir.DataType.FLOAT))
        self._graph.inputs.append(value)
        return value

    def output(self, value: ir.Value) -> str:
        """Make a float32 value an output; its name."""
        value.type = ir.TensorType(ir.DataType.FLOAT)
        self._graph.outputs.append(value)
        return str(value.name)

    def total(self, values: Sequence[ir.Value]) -> ir.Value | None:
        """The sum, None of nothing."""
        if len(values) < 2:
            return values[0] if values else None
        return self.op("Sum", values)

    # Undoing ----------------------------------------------------------------------------------------

    def mark(self) -> int:
        """Where the tape is."""
        return len(self._added)

    def rewind(self, mark: int) -> None:
        """Take back all nodes since ``mark``."""
        for node in reversed(self._added[mark:]):
            self._graph.remove(node, safe=True)
        del self._added[mark:]


def _attribute(name: str, value: Attribute) -> ir.Attr:
    if isinstance(value, list):
        return ir.AttrInt64s(name, value)
    if isinstance(value, str):
        return ir.AttrString(name, value)
    return ir.AttrFloat32(name, value) if isinstance(value, float) else ir.AttrInt64(name, value)
