"""A graph in float16 or bfloat16 computes in float32 inside.

    x: float16 → f → y: float16     becomes     x → Cast(float32) → f → Cast(float16) → y

Every value of the narrow types is a float32, so constants stay exactly what they are; results are rounded less
often than before, at the outputs only. Inputs and outputs keep their types and names. Bodies are widened as well,
and so are attributes that name an element type. Casts between the types, which mixed-precision exports are full
of, do nothing any more; the caller removes them when types are known (``collapse_casts``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from quantcli.graph.names import unique_name
from quantcli.graph.traverse import graph_values, nested_graphs

_HALF = {ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}

_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "precision", "softmax_precision")
"""Attributes that hold a number of ``TensorProto.DataType``."""


def half_types(model: ir.Model) -> tuple[str, ...]:
    """Names of the narrow float types that ``model`` uses, in its interface, constants and Casts; sorted."""
    return tuple(sorted({_HALF[dtype] for dtype in _types(model) if dtype in _HALF}))


def _types(model: ir.Model) -> Iterator[ir.DataType | None]:
    yield from (value.dtype for value in (*model.graph.inputs, *model.graph.outputs))
    for graph in nested_graphs(model.graph):
        yield from (value.dtype for value in graph.initializers.values())
        for node in graph:
            for name, attribute in node.attributes.items():
                if attribute.is_ref():
                    continue
                if attribute.type == ir.AttributeType.TENSOR:
                    yield attribute.as_tensor().dtype
                elif name in _TYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT:
                    yield from (dtype for dtype in _HALF if int(dtype) == attribute.as_int())


def widen_floats(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; tells of it where there was anything to widen."""
    found = half_types(model)
    if not found:
        return ()
    graph = model.graph
    interface = set(graph.inputs) | {value for value in graph.outputs if value.is_initializer()}
    for nested in nested_graphs(graph):
        for value in nested.initializers.values():
            if value not in interface:
                _widen_constant(value)
        for node in nested:
            _widen_attributes(node)
    outputs = {index: value.dtype for index, value in enumerate(graph.outputs) if value.dtype in _HALF}
    for nested in nested_graphs(graph):
        for value in graph_values(nested):
            if value not in interface and isinstance(value.type, ir.TensorType) and value.dtype in _HALF:
                value.dtype = ir.DataType.FLOAT
    _Border(model).cast(interface, outputs)
    told = (
        f"the model computes in {' and '.join(found)}; integer kernels take scales in float32, so its inside was "
        "widened to float32, which changes no constant; inputs and outputs keep their types"
    )
    return (told,)


def _widen_constant(value: ir.Value) -> None:
    if value.const_value is None or value.const_value.dtype not in _HALF:
        return
    value.const_value = _widened(value.const_value)
    value.dtype = ir.DataType.FLOAT


def _widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The same numbers in float32, computed when they are asked for."""
    name = tensor.name

    def computed() -> ir.TensorProtocol:
        return ir.tensor(tensor.numpy().astype("float32"), name=name)

    return ir.LazyTensor(computed, dtype=ir.DataType.FLOAT, shape=ir.Shape(tensor.shape.numpy()), name=name)


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _HALF:
            node.attributes[name] = ir.AttrTensor(name, _widened(attribute.as_tensor()))
        elif _names_half(name, attribute):
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))


def _names_half(name: str, attribute: ir.Attr) -> bool:
    """Whether an attribute says that something has a narrow type."""
    if name not in _TYPE_ATTRIBUTES or attribute.type != ir.AttributeType.INT:
        return False
    return attribute.as_int() in {int(dtype) for dtype in _HALF}


class _Border:
    """Casts between the interface, which keeps its types, and the inside."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        graphs = list(nested_graphs(self.graph))
        self.taken = {value.name for graph in graphs for value in graph_values(graph) if value.name}
        self.taken_nodes = {node.name for graph in graphs for node in graph if node.name}

    def cast(self, interface: set[ir.Value], outputs: Mapping[int, ir.DataType | None]) -> None:
        """Add them: behind what is not widened, in front of outputs of type ``outputs`` (by place)."""
        for value in sorted(interface, key=lambda value: str(value.name)):
            if value.dtype in _HALF and value.uses():
                readers = list(value.uses())
                result = self._add(value, ir.DataType.FLOAT, unique_name(f"{value.name}_float32", self.taken))
                for reader, index in readers:
                    reader.replace_input_with(index, result)
        for index, dtype in outputs.items():
            value = self.graph.outputs[index]
            if dtype is None or value.producer() is None:
                continue
            name = str(value.name)
            value.name = unique_name(f"{name}_float32", self.taken)
            self.graph.outputs[index] = self._add(value, dtype, name)

    def _add(self, value: ir.Value, dtype: ir.DataType, output: str) -> ir.Value:
        name = unique_name(f"{output}_cast", self.taken_nodes)
        result = ir.Value(name=output, type=ir.TensorType(dtype), shape=value.shape)
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], outputs=[result], name=name)
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, node)
        return result
