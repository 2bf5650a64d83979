"""Types and shapes of values: by onnx's inference, or stated by who measured them.

Inference works on a copy without weights: initializers and tensor attributes over ``_KEPT_BYTES`` become
placeholders that have a type and a shape only. It runs first without the types that the model states for
its intermediate values, because files exist whose statements are stale (onnxruntime ignores them, onnx's
inference keeps them). What is stated then counts where inference does not contradict it, and helps a second
run past operators that onnx does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir
from onnx import shape_inference

from quantcli.graph.ir_types import dtype_from_name
from quantcli.graph.model import OnnxModel, serialize
from quantcli.graph.traverse import graph_values, nested_graphs
from quantcli.graph.view import Dim

_KEPT_BYTES = 1024
"""Constants up to here keep their data, so that Reshape, Slice and the like resolve."""

_MADE_UP = "unk__"
"""How onnx's inference calls dimensions that it does not know."""


class ValueTypes(dict[ir.Value, tuple[ir.TypeProtocol | None, ir.Shape | None]]):
    """Type and shape of values; None where not known."""


def infer_shapes(model: OnnxModel) -> None:
    """Fill in types and shapes of values, those of bodies included, in place; never raises for want of types.

    What inputs and outputs of graphs and bodies state stays; other values take what is inferred where that
    contradicts what is stated. Values behind operators that onnx does not know stay as they are.

    Raises:
        ModelError: The graph has a cycle (M102), or a small external tensor cannot be read (M103).
    """
    for value, (kind, shape) in inferred_types(model).items():
        if value.is_initializer():
            continue
        if value.is_graph_input() or value.is_graph_output():
            _complete(value, kind, shape)
        elif kind is not None:
            value.type, value.shape = kind, shape


def _complete(value: ir.Value, kind: ir.TypeProtocol | None, shape: ir.Shape | None) -> None:
    """Add what ``value`` does not state."""
    if value.type is None and kind is not None:
        value.type = kind
    if value.shape is None and value.type is not None and value.type == kind:
        value.shape = shape


def inferred_types(model: OnnxModel) -> ValueTypes:
    """Types and shapes of all values of the main graph and its bodies, as far as they can be known.

    ``model`` is left as it is. The types and shapes are nobody else's: they may be given to values.
    """
    skeleton = _skeleton(model)
    stated = skeleton.clone()
    _forget(skeleton, interface=False)
    first = _run(skeleton)
    if first is None:
        _forget(skeleton, interface=True)
        first = _run(skeleton)
    if first is None:
        return _stated_types(model)
    if not _reconcile(stated, first):
        return _by_original(model, stated)
    return _by_original(model, _run(stated) or stated)


def _skeleton(model: OnnxModel) -> OnnxModel:
    """A copy of ``model`` whose large tensors have a type and a shape, but no data."""
    copied = model.clone()
    for graph in _all_graphs(copied):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _light(value.const_value)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR:
                    node.attributes[name] = ir.AttrTensor(name, _light(attribute.as_tensor()))
    return copied


def _light(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if tensor.dtype == ir.DataType.STRING or tensor.nbytes <= _KEPT_BYTES:
        return tensor
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor("none", 0, int(tensor.nbytes), tensor.dtype, shape=shape, name=tensor.name or "")


def _all_graphs(model: OnnxModel) -> Iterator[ir.Graph]:
    yield from nested_graphs(model.ir.graph)
    for function in model.ir.functions.values():
        yield from nested_graphs(function.graph)


def _forget(model: OnnxModel, *, interface: bool) -> None:
    """Drop the types of values that nodes make; with ``interface`` those of the graph's outputs too."""
    kept = set() if interface else set(model.ir.graph.outputs)
    for graph in nested_graphs(model.ir.graph):
        for node in graph:
            for value in node.outputs:
                if value not in kept:
                    value.type = value.shape = None


def _run(model: OnnxModel) -> OnnxModel | None:
    """``model`` with what onnx infers; None where onnx refuses."""
    try:
        proto = onnx.ModelProto.FromString(serialize(model.ir))
        inferred = shape_inference.infer_shapes(proto, strict_mode=False, data_prop=True)
        return OnnxModel(ir.serde.deserialize_model(inferred))
    except (shape_inference.InferenceError, ir.serde.SerdeError, RuntimeError, ValueError):
        return None


def _pairs(one: OnnxModel, other: OnnxModel) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Values of the same name in the same graph of two models that have the same nodes."""
    for left, right in zip(nested_graphs(one.ir.graph), nested_graphs(other.ir.graph), strict=True):
        found = {value.name: value for value in graph_values(right) if value.name}
        for value in graph_values(left):
            if value.name in found:
                yield value, found[value.name]


def _reconcile(stated: OnnxModel, inferred: OnnxModel) -> bool:
    """Complete ``stated`` by ``inferred`` and correct it; whether it knows more than ``inferred``."""
    more = False
    interface = {*stated.ir.graph.inputs, *stated.ir.graph.outputs}
    for own, found in _pairs(stated, inferred):
        shape = _without_made_up(found.shape)
        if own in interface or own.is_initializer():
            _complete(own, found.type, shape)
        elif found.type is None:
            more |= own.type is not None
        elif own.type != found.type or not _agree(own.shape, shape):
            own.type, own.shape = found.type, shape
        elif own.shape is None or shape is None:
            more |= own.shape is not None
            own.shape = own.shape if shape is None else shape
        else:
            dims = [
                right if isinstance(right, int) else left for left, right in zip(own.shape, shape, strict=True)
            ]
            more |= any(isinstance(a, int) and not isinstance(b, int) for a, b in zip(dims, shape, strict=True))
            own.shape = ir.Shape(dims)
    return more


def _agree(one: ir.Shape | None, other: ir.Shape | None) -> bool:
    """Whether a tensor can have both shapes."""
    if one is None or other is None:
        return True
    return len(one) == len(other) and all(
        left == right or not (isinstance(left, int) and isinstance(right, int))
        for left, right in zip(one, other, strict=True)
    )


def _without_made_up(shape: ir.Shape | None) -> ir.Shape | None:
    if shape is None:
        return None
    dims = [dim if isinstance(dim, int) else dim.value for dim in shape]
    return ir.Shape([None if isinstance(dim, str) and dim.startswith(_MADE_UP) else dim for dim in dims])


def _by_original(model: OnnxModel, known: OnnxModel) -> ValueTypes:
    return ValueTypes({own: (found.type, _without_made_up(found.shape)) for own, found in _pairs(model, known)})


def _stated_types(model: OnnxModel) -> ValueTypes:
    return _by_original(model, model.clone())


def state_types(model: OnnxModel, types: Mapping[str, tuple[str, tuple[Dim, ...]]]) -> None:
    """State element type (numpy name) and shape of values of the main graph, in place of what was known.

    Raises:
        ValueError: A value or a type does not exist.
    """
    values = _values(model)
    for name, (dtype, shape) in sorted(types.items()):
        value = _value(values, name)
        value.type = ir.TensorType(dtype_from_name(dtype))
        value.shape = ir.Shape(shape)


def _values(model: OnnxModel) -> dict[str, ir.Value]:
    return {value.name: value for value in graph_values(model.ir.graph) if value.name}


def _value(values: Mapping[str, ir.Value], name: str) -> ir.Value:
    if name not in values:
        raise ValueError(f"there is no value '{name}'")
    return values[name]


def shapes_known(model: OnnxModel) -> bool:
    """Whether every value that a node makes has a type and a shape without unknown dimensions."""
    return all(
        value.type is not None
        and value.shape is not None
        and all(isinstance(dim, int) or dim.value is not None for dim in value.shape)
        for graph in nested_graphs(model.ir.graph)
        for node in graph
        for value in node.outputs
        if value.name
    )


def stated_values(model: OnnxModel) -> frozenset[str]:
    """Names of the main graph's intermediate values whose type the model states."""
    made = (value for node in model.ir.graph for value in node.outputs)
    return frozenset(str(value.name) for value in made if value.name and value.type is not None)


def forget_types(model: OnnxModel, keep: frozenset[str]) -> None:
    """Drop the types of values that nodes make, bodies included, except of those in ``keep`` and of results.

    A runtime finds them again by itself; in a small quantized model they take a fifth of the file.
    """
    for graph in nested_graphs(model.ir.graph):
        for node in graph:
            for value in node.outputs:
                if value.name not in keep and not value.is_graph_output():
                    value.type = None
                    value.shape = None
