"""Nodes whose inputs are all constants are replaced by their value.

    y = f(c1, c2, …)  →  initializer y

The value is computed by the runtime itself (handed in), one node at a time. Not folded: operators that are
random or have bodies, quantized forms (their weights are meant to stay integers), graph outputs, and results
that would be more than ``GROWTH`` bytes larger than what they are made of (Expand, Tile, ConstantOfShape),
types that numpy lacks, sequences. A Shape of a value with fixed dimensions is folded as well; since that fixes
further shapes, the caller infers shapes and folds again until nothing changes. The names of folded nodes go to
the nodes that read their values. In bodies it is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from quantcli.errors import RuntimeFailure
from quantcli.graph.computed import computed_tensor
from quantcli.graph.metadata import absorbed_names, add_absorbed
from quantcli.graph.passes.constants import array_of, is_constant, replace_by_constant
from quantcli.graph.traverse import bodies, nested_graphs

Evaluate = Callable[[bytes, Mapping[str, np.ndarray]], dict[str, np.ndarray]]
"""Runs a serialized model on named inputs and gives its outputs by name."""

GROWTH: Final = 64 * 1024
"""Bytes that a folded value may be larger than its inputs."""

LAZY_BYTES: Final = 16 * 2**20
"""Values from here on that are made of external data are not kept in memory."""

_EVALUATION_IR = 8

_NOT_FOLDED = frozenset({
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli",
    "Dropout", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Constant",
})  # fmt: skip


def fold_constants(model: ir.Model, evaluate: Evaluate) -> tuple[str, ...]:
    """Run the pass in place, on nodes in topological order; it has nothing to tell."""
    for graph in nested_graphs(model.graph):
        _fold(graph, model, evaluate)
    return ()


def _fold(graph: ir.Graph, model: ir.Model, evaluate: Evaluate) -> None:
    for node in list(graph):
        if node.domain or node.op_type in _NOT_FOLDED or any(True for _ in bodies(node)):
            continue
        if any(output.is_graph_output() for output in node.outputs):
            continue
        arrays = _values(model, node, evaluate)
        if arrays is not None:
            _tell_readers(node)
            replace_by_constant(node, graph, arrays)


def _values(model: ir.Model, node: ir.Node, evaluate: Evaluate) -> Sequence[np.ndarray | ir.LazyTensor] | None:
    """The outputs of ``node``, None where they are not constant or are not to be folded."""
    shape = _fixed_shape(node)
    if shape is not None:
        return [shape]
    if node.inputs and all(value is None or is_constant(value) for value in node.inputs):
        return _computed(model, node, evaluate)
    return None


def _tell_readers(node: ir.Node) -> None:
    names = [node.name or "", *absorbed_names(node.metadata_props)]
    for output in node.outputs:
        for reader in output.consumers():
            if reader.graph is node.graph:
                add_absorbed(reader.metadata_props, names)


def _fixed_shape(node: ir.Node) -> np.ndarray | None:
    """The value of a Shape node, where the dimensions are fixed."""
    if node.op_type != "Shape" or node.inputs[0] is None or node.inputs[0].shape is None:
        return None
    dims = list(node.inputs[0].shape)
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", len(dims))
    chosen = dims[start:end]
    if not all(isinstance(dim, int) for dim in chosen):
        return None
    return np.array(chosen, dtype=np.int64)


def _computed(model: ir.Model, node: ir.Node, evaluate: Evaluate) -> Sequence[np.ndarray | ir.LazyTensor] | None:
    limit = GROWTH + sum(value.const_value.nbytes for value in set(node.inputs) if value and value.const_value)
    if sum(_known_bytes(output) for output in node.outputs) > limit:
        return None
    arrays = {str(value.name): array_of(value) for value in node.inputs if value is not None}
    feeds = {name: array for name, array in arrays.items() if array is not None}
    if not all(_is_plain(array) for array in feeds.values()):
        return None
    single = _single_node(model, node, feeds)
    try:
        found = evaluate(single, feeds)
    except RuntimeFailure:
        return None  # what the runtime cannot run alone stays as it was, and is judged with the whole model
    results = [found[str(output.name)] if output.name else np.empty(0) for output in node.outputs]
    if not all(_is_plain(result) for result in results) or sum(result.nbytes for result in results) > limit:
        return None
    tensors = {str(value.name): value.const_value for value in node.inputs if value is not None}
    if not any(isinstance(tensor, ir.LazyTensor) for tensor in tensors.values()):
        return results
    return [
        result if result.nbytes < LAZY_BYTES else _on_demand(single, tensors, evaluate, str(output.name), result)
        for output, result in zip(node.outputs, results, strict=True)
    ]


def _on_demand(
    single: bytes,
    tensors: Mapping[str, ir.TensorProtocol | None],
    evaluate: Evaluate,
    name: str,
    result: np.ndarray,
) -> ir.LazyTensor:
    """The result ``name`` of a node, computed anew at each reading, so that what it is made of stays on disk."""

    def compute() -> np.ndarray:
        return evaluate(single, {key: tensor.numpy() for key, tensor in tensors.items() if tensor is not None})[
            name
        ]

    return computed_tensor(name, result.dtype.name, result.shape, compute)


def _known_bytes(value: ir.Value) -> int:
    """Bytes of a tensor of known type and shape, otherwise 0: so that a huge one is not even computed."""
    if value.dtype is None or value.shape is None or not isinstance(value.type, ir.TensorType):
        return 0
    dims = list(value.shape)
    if not all(isinstance(dim, int) for dim in dims):
        return 0
    return int(math.prod(int(dim) for dim in dims if isinstance(dim, int)) * value.dtype.itemsize)


def _is_plain(value: object) -> bool:
    """Whether ``value`` is an array of numbers or truth values of a type of numpy's own."""
    return isinstance(value, np.ndarray) and value.dtype.isbuiltin != 2 and value.dtype.kind in "biufc"


def _single_node(model: ir.Model, node: ir.Node, feeds: Mapping[str, np.ndarray]) -> bytes:
    """A model of this node alone."""
    proto = ir.to_proto(node)
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
    graph = onnx.helper.make_graph([proto], "node", inputs, outputs)
    opsets = [onnx.helper.make_opsetid("", model.graph.opset_imports.get("", 1))]
    single = onnx.helper.make_model(graph, opset_imports=opsets)
    single.ir_version = max(_EVALUATION_IR, min(model.ir_version, 13))
    return bytes(single.SerializeToString())
