"""A graph whose values take a narrower float type, with Casts where it meets float32.

For each node that computes in the narrow type its float32 inputs and outputs become narrow where the operator's
schema lets them. Everything else goes on seeing float32: other nodes, inputs and outputs of bodies (If, Loop,
Scan), and those of the graph unless they are converted, too. Where a value has one type and a reader wants the
other, one Cast serves all readers that want it, those in bodies as well. Names of nodes, inputs and outputs stay;
an output that is computed in the narrow type gives its name to the Cast behind it.

Constants are rounded to nearest, ties to even (IEEE 754; numpy and ml_dtypes do that), when they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from quantcli.graph.ir_types import dtype_from_name
from quantcli.graph.model import OnnxModel
from quantcli.graph.names import unique_name
from quantcli.graph.op_types import OperatorTypes, operator_types
from quantcli.graph.passes.collapse_casts import collapse_casts
from quantcli.graph.traverse import graph_values, home, nested_graphs

FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatTypeEdit:
    """What becomes narrow.

    Attributes:
        dtype: numpy's name of the narrow type.
        nodes: Nodes that compute in it.
        constants: Constants that are stored in it → the largest magnitude that they may have; None for no limit.
        copied: Those of them that stay in float32 as well, for the readers that want that.
        convert_io: Whether inputs and outputs of float32 become narrow.
    """

    dtype: str
    nodes: frozenset[str]
    constants: Mapping[str, float | None] = field(default_factory=dict)
    copied: frozenset[str] = frozenset()
    convert_io: bool = False


def narrow(model: OnnxModel, edit: FloatTypeEdit) -> None:
    """Carry out ``edit`` in place; element types of values must be known.

    Raises:
        ValueError: ``edit`` names a constant that does not exist.
    """
    model.sort()
    _Narrower(model, edit).run()
    collapse_casts(model.ir)
    model.sort()


def round_to(values: np.ndarray, dtype: str, limit: float | None = None) -> np.ndarray:
    """float32 ``values`` rounded to nearest even in ``dtype`` (numpy's name), cut off at ±``limit`` before."""
    if limit is not None:
        values = np.clip(values, -limit, limit)
    with np.errstate(over="ignore"):  # what overflows was told of when it was planned
        return values.astype(dtype_from_name(dtype).numpy())


class _Narrower:
    def __init__(self, model: OnnxModel, edit: FloatTypeEdit) -> None:
        self.model = model
        self.graph = model.ir.graph
        self.edit = edit
        self.narrow_type = dtype_from_name(edit.dtype)
        self.opsets = model.ir.opset_imports
        self.cast: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        graphs = list(nested_graphs(self.graph))
        self.taken = {value.name for graph in graphs for value in graph_values(graph) if value.name}
        self.taken_nodes = {node.name for graph in graphs for node in graph if node.name}

    def run(self) -> None:
        graphs = list(nested_graphs(self.graph))
        originals = {value: value.dtype for graph in graphs for value in graph_values(graph)}
        outputs = list(self.graph.outputs)
        for name, limit in sorted(self.edit.constants.items()):
            self._store(name, limit)
        if self.edit.convert_io:
            for value in self.graph.inputs:
                if originals[value] == FLOAT and not value.is_initializer():
                    value.dtype = self.narrow_type
        for graph in graphs:  # outer ones first: what a body captures has its type by then
            for node in list(graph):
                self._node(node, originals)
        for graph in graphs[1:]:
            for index, value in enumerate(graph.outputs):
                if originals.get(value) == FLOAT:
                    graph.outputs[index] = self._as(value, FLOAT)
        for index, value in enumerate(outputs):
            wanted = self.narrow_type if self.edit.convert_io else FLOAT
            if originals.get(value) == FLOAT and value.dtype != wanted and value.producer() is not None:
                self._give_output(index, value, wanted)

    def _store(self, name: str, limit: float | None) -> None:
        value = next((g.initializers[name] for g in nested_graphs(self.graph) if name in g.initializers), None)
        if value is None or value.const_value is None:
            raise ValueError(f"there is no constant '{name}'")
        wide, dtype = value.const_value, self.edit.dtype

        def rounded() -> ir.TensorProtocol:
            return ir.tensor(round_to(wide.numpy(), dtype, limit), dtype=self.narrow_type, name=name)

        shape = ir.Shape(wide.shape.numpy())
        if name in self.edit.copied:
            copy_name = unique_name(f"{name}_{dtype}", self.taken)
            copy = ir.Value(name=copy_name, type=ir.TensorType(self.narrow_type), shape=shape)
            copy.const_value = ir.LazyTensor(rounded, dtype=self.narrow_type, shape=shape, name=copy_name)
            graph = value.graph if value.graph is not None else self.graph
            graph.register_initializer(copy)
            self.cast[value, self.narrow_type] = copy
            return
        value.const_value = ir.LazyTensor(rounded, dtype=self.narrow_type, shape=shape, name=name)
        value.dtype = self.narrow_type

    def _node(self, node: ir.Node, originals: Mapping[ir.Value, ir.DataType | None]) -> None:
        computes = node.name in self.edit.nodes
        types = None
        if computes:
            types = operator_types(node.domain, node.op_type, self.opsets.get(node.domain, 0), self.edit.dtype)
        for index, value in enumerate(node.inputs):
            if value is None or originals.get(value) != FLOAT:
                continue
            wanted = self.narrow_type if types is not None and types.inputs.allows(index) else FLOAT
            if not computes and _reads_any(node):
                wanted = value.dtype or FLOAT
            node.replace_input_with(index, self._as(value, wanted))
        if types is not None:
            self._outputs(node, types, originals)

    def _outputs(
        self, node: ir.Node, types: OperatorTypes, originals: Mapping[ir.Value, ir.DataType | None]
    ) -> None:
        for index, value in enumerate(node.outputs):
            if value.name and originals.get(value) == FLOAT and types.outputs.allows(index):
                value.dtype = self.narrow_type
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) == int(FLOAT):
            node.attributes["to"] = ir.AttrInt64("to", int(self.narrow_type))

    def _as(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """``value`` in type ``wanted``."""
        if value.dtype == wanted:
            return value
        key = value, wanted
        if key not in self.cast:
            name = unique_name(f"{value.name}_{_label(wanted)}", self.taken)
            self.cast[key] = self._add_cast(value, wanted, name)
        return self.cast[key]

    def _add_cast(self, value: ir.Value, wanted: ir.DataType, output: str) -> ir.Value:
        result = ir.Value(name=output, type=ir.TensorType(wanted), shape=value.shape)
        node = ir.Node(
            "",
            "Cast",
            [value],
            [ir.AttrInt64("to", int(wanted))],
            outputs=[result],
            name=unique_name(f"{value.name}_to_{_label(wanted)}", self.taken_nodes),
        )
        producer = value.producer()
        graph = home(value) or self.graph
        if producer is None:
            graph.insert_before(graph[0], node)
        else:
            graph.insert_after(producer, node)
        return result

    def _give_output(self, index: int, value: ir.Value, wanted: ir.DataType) -> None:
        """Let a Cast make the graph's output under its name."""
        name, shape = str(value.name), value.shape
        inner = unique_name(f"{name}_{_label(value.dtype or FLOAT)}", self.taken)
        value.name = inner
        result = self._add_cast(value, wanted, name)
        result.shape = shape
        result.metadata_props.update(value.metadata_props)
        self.graph.outputs[index] = result


def _reads_any(node: ir.Node) -> bool:
    """Whether ``node`` reads float values of any type alike."""
    return not node.domain and node.op_type in {"Shape", "Size", "Cast"}


def _label(dtype: ir.DataType) -> str:
    return str(dtype.numpy().name)
