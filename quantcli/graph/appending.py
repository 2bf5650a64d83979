"""Adding nodes behind those of a graph, under names that the model does not use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from quantcli.graph.model import OnnxModel
from quantcli.graph.traverse import graph_values, nested_graphs

_OPSET_WITHOUT_ANY = 17  # for models that only import other domains


class Appender:
    """Appends nodes, inputs, outputs and constants to the main graph of a model, or to the body ``graph`` in it.

    The model is changed; one that imports no version of ai.onnx gets one.

    Attributes:
        opset: Version of ai.onnx that the nodes are of.
    """

    def __init__(self, model: OnnxModel, graph: ir.Graph | None = None) -> None:
        self._graph = graph or model.ir.graph
        self.opset = model.ir.opset_imports.setdefault("", _OPSET_WITHOUT_ANY)
        self._values = values_by_name(model)
        self._prefix = _free_prefix(model)
        self._count = 0
        self._constants: dict[str, ir.Value] = {}

    def value(self, name: str) -> ir.Value:
        """A value of the graph.

        Raises:
            ValueError: There is none of this name.
        """
        return known_value(self._values, name)

    def positions(self, names: Sequence[str]) -> dict[str, int]:
        """For each value the place of its producer among the nodes, −1 for those that no node makes."""
        position = {node: index for index, node in enumerate(self._graph)}
        producers = {name: self.value(name).producer() for name in names}
        return {name: -1 if node is None else position[node] for name, node in producers.items()}

    def node(self, operator: str, inputs: Sequence[ir.Value], **attributes: int | list[int]) -> ir.Value:
        """The output of a new node."""
        name = f"{self._prefix}{operator}_{self._count}"
        self._count += 1
        made = [
            ir.AttrInt64s(key, value) if isinstance(value, list) else ir.AttrInt64(key, value)
            for key, value in sorted(attributes.items())
        ]
        node = ir.Node("", operator, inputs, made, outputs=[ir.Value(name=name)], name=name)
        self._graph.append(node)
        return node.outputs[0]

    def free_name(self, base: str) -> str:
        """A name of no node or value yet, which ends with ``base``."""
        self._count += 1
        return f"{self._prefix}{self._count}_{base}"

    def column(self, matrix: ir.Value, first: int, end: int) -> ir.Value:
        """Columns ``first`` to ``end`` (exclusive) of a matrix."""
        return self.node("Slice", [matrix, self.ints([first]), self.ints([end]), self.ints([1])])

    def output(self, value: ir.Value, dtype: ir.DataType) -> str:
        """Make ``value`` an output; its name."""
        value.type = ir.TensorType(dtype)
        self._graph.outputs.append(value)
        return str(value.name)

    def input(self, name: str, dtype: ir.DataType, shape: list[int | None]) -> ir.Value:
        """A new input; its name ends with ``name``."""
        value = ir.Value(name=self._prefix + name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self._graph.inputs.append(value)
        return value

    def ints(self, values: Sequence[int]) -> ir.Value:
        """An int64 constant, one for all that ask for the same."""
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """An initializer, one for all that ask for this ``name``."""
        if name not in self._constants:
            full = self._prefix + name
            tensor = ir.tensor(array, name=full)
            value = ir.Value(
                name=full, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
            self._graph.register_initializer(value)
            self._constants[name] = value
        return self._constants[name]


def values_by_name(model: OnnxModel) -> dict[str, ir.Value]:
    """All values of the main graph."""
    return {value.name: value for value in graph_values(model.ir.graph) if value.name}


def known_value(values: Mapping[str, ir.Value], name: str) -> ir.Value:
    """The value ``name``.

    Raises:
        ValueError: There is none of this name.
    """
    if name not in values:
        raise ValueError(f"there is no value '{name}'")
    return values[name]


def _free_prefix(model: OnnxModel) -> str:
    taken = {value.name or "" for graph in nested_graphs(model.ir.graph) for value in graph_values(graph)}
    taken |= {node.name or "" for graph in nested_graphs(model.ir.graph) for node in graph}
    number = 0
    while any(name.startswith(f"observer{number}_") for name in taken):
        number += 1
    return f"observer{number}_"
