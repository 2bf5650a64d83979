"""BatchNormalization and per-channel constants behind a layer become part of its weight and bias.

A layer gives y_o = Σ W_o·x + b_o per output channel o. An affine map behind it,

    z_o = m_o · y_o + a_o,    gives    W'_o = m_o · W_o,   b'_o = m_o · b_o + a_o.

BatchNormalization at inference is m = γ / √(σ² + ε), a = β − μ·m (Ioffe & Szegedy 2015, algorithm 2). Mul and
Div by a per-channel constant have a = 0; Add and Sub have m = 1.

Legal where: the layer's output has this one reader and is no graph output; weight, bias and all parameters are
constants of type float32 or float64 and the folded ones are finite; BatchNormalization has one output (below
opset 14 further ones mean training, even when nobody reads them: RAN on onnxruntime 1.31.1) and normalises per
channel (``spatial`` 1). Gemm gives alpha·W·x + beta·b: W' is as above, b' = m·beta·b + a with beta' = 1. Computed
in float64 and rounded once. The layer keeps its name and takes the output of the node that it absorbs. In bodies
it is the same, also with constants of graphs around them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from quantcli.graph.metadata import absorbed_names, add_absorbed
from quantcli.graph.passes.constants import array_of, own_constant
from quantcli.graph.traverse import nested_graphs

_LAYERS = ("Conv", "ConvTranspose", "Gemm")

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class _Affine(NamedTuple):
    """z = m·y + a per channel, float64 (channels,)."""

    m: np.ndarray
    a: np.ndarray


def fold_batchnorm(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; it has nothing to tell (absorbed names go to the nodes' metadata)."""
    for graph in nested_graphs(model.graph):
        for layer in list(graph):
            if layer.op_type in _LAYERS and not layer.domain:
                while (reader := _sole_reader(layer)) is not None and _absorb(layer, reader, graph):
                    pass
    return ()


def _sole_reader(layer: ir.Node) -> ir.Node | None:
    output = layer.outputs[0]
    uses = tuple(output.uses())
    if len(uses) != 1 or output.is_graph_output():
        return None
    reader = uses[0].node
    return reader if reader.graph is layer.graph and not reader.domain else None


def _absorb(layer: ir.Node, reader: ir.Node, graph: ir.Graph) -> bool:
    weight = array_of(layer.inputs[1])
    old_bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    bias = array_of(old_bias)
    if weight is None or weight.dtype not in _FLOATS or (old_bias is not None and bias is None):
        return False
    channels = _channels(layer, weight)
    affine = _affine(layer, reader, channels, weight.ndim)
    if affine is None or (bias is not None and not _per_channel(bias, channels)):
        return False
    before = np.zeros(channels) if bias is None else np.broadcast_to(bias.astype(np.float64).reshape(-1), channels)
    beta = layer.attributes.get_float("beta", 1.0) if layer.op_type == "Gemm" else 1.0
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is not folded
        folded = (weight.astype(np.float64) * _spread(affine.m, layer, weight)).astype(weight.dtype)
        after = (affine.m * beta * before + affine.a).astype(weight.dtype)
    if not (np.isfinite(folded).all() and np.isfinite(after).all()):
        return False
    own_constant(layer, 1, graph, folded, f"{layer.name}_weight")
    own_constant(layer, 2, graph, after, f"{layer.name}_bias")
    layer.attributes.pop("beta", None)
    add_absorbed(layer.metadata_props, [str(reader.name), *absorbed_names(reader.metadata_props)])
    _take_output(layer, reader, graph)
    return True


def _per_channel(bias: np.ndarray, channels: int) -> bool:
    """Whether a bias is one value per channel, or one for all; Gemm also takes one per row."""
    return bias.size == 1 or (bias.shape[-1] == channels and bias.size == channels)


def _take_output(layer: ir.Node, reader: ir.Node, graph: ir.Graph) -> None:
    """The layer's output becomes the reader's: same name, same readers, same place among graph outputs."""
    old, new = layer.outputs[0], reader.outputs[0]
    name, kind, shape = new.name, new.type, new.shape
    new.replace_all_uses_with(old, replace_graph_outputs=True)
    graph.remove(reader, safe=True)
    new.name = None
    old.name, old.type, old.shape = name, kind or old.type, shape or old.shape


def _channels(layer: ir.Node, weight: np.ndarray) -> int:
    match layer.op_type:
        case "Conv":
            return int(weight.shape[0])
        case "ConvTranspose":
            return int(weight.shape[1]) * layer.attributes.get_int("group", 1)
        case _:
            return int(weight.shape[0 if layer.attributes.get_int("transB", 0) else 1])


def _spread(m: np.ndarray, layer: ir.Node, weight: np.ndarray) -> np.ndarray:
    """Per-channel factors in a shape that broadcasts over the weight."""
    if layer.op_type == "ConvTranspose":
        # The weight is (C_in, C_out / group, …): each block of rows belongs to one group of output channels.
        group = layer.attributes.get_int("group", 1)
        per_row = np.repeat(m.reshape(group, -1), weight.shape[0] // group, axis=0)
        return per_row.reshape(per_row.shape + (1,) * (weight.ndim - 2))
    if layer.op_type == "Gemm" and not layer.attributes.get_int("transB", 0):
        return m
    return m.reshape((-1,) + (1,) * (weight.ndim - 1))


def _affine(layer: ir.Node, reader: ir.Node, channels: int, rank: int) -> _Affine | None:
    if reader.op_type == "BatchNormalization" and reader.inputs[0] is layer.outputs[0]:
        return _of_batchnorm(reader, channels)
    if reader.op_type in ("Mul", "Add", "Sub", "Div"):
        return _of_constant(layer, reader, channels, rank)
    return None


def _of_batchnorm(node: ir.Node, channels: int) -> _Affine | None:
    attributes = node.attributes
    if attributes.get_int("spatial", 1) != 1 or attributes.get_int("training_mode", 0) != 0:
        return None
    if any(output.name for output in node.outputs[1:]):
        return None
    arrays = [array_of(value) for value in node.inputs[1:5]]
    if any(array is None or array.shape != (channels,) for array in arrays):
        return None
    gamma, beta, mean, variance = (array.astype(np.float64) for array in arrays if array is not None)
    with np.errstate(divide="ignore", invalid="ignore"):  # a variance below −ε: see the caller's check
        m = gamma / np.sqrt(variance + attributes.get_float("epsilon", 1e-5))
    return _Affine(m=m, a=beta - mean * m)


def _of_constant(layer: ir.Node, node: ir.Node, channels: int, rank: int) -> _Affine | None:
    """A constant operand that is one value per channel, or one for all."""
    left = node.inputs[0] is layer.outputs[0]
    constant = array_of(node.inputs[1 if left else 0])
    if constant is None or constant.dtype not in _FLOATS or node.inputs[0] is node.inputs[1]:
        return None
    per_channel = (channels,) if layer.op_type == "Gemm" else (channels,) + (1,) * (rank - 2)
    extra = max(constant.ndim - len(per_channel), 0)
    trimmed = constant.reshape(constant.shape[extra:]) if all(d == 1 for d in constant.shape[:extra]) else None
    if trimmed is None or constant.ndim > rank or (trimmed.size != 1 and trimmed.shape != per_channel):
        return None
    c = np.broadcast_to(trimmed.astype(np.float64).reshape(-1), channels)
    one, zero = np.ones(channels), np.zeros(channels)
    match node.op_type:
        case "Mul":
            return _Affine(m=c, a=zero)
        case "Add":
            return _Affine(m=one, a=c)
        case "Sub":
            return _Affine(m=one, a=-c) if left else _Affine(m=-one, a=c)
        case _:
            return _Affine(m=1 / c, a=zero) if left and (c != 0).all() else None
