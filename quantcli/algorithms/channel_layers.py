"""Operators with constants that absorb scales: their outputs have variables of their own.

    Conv            W (O, I/g, …)      W'[o, i] = W[o, i]·s_in[first(o) + i] / s_out[o],  first(o) = ⌊o·g/O⌋·I/g
    ConvTranspose   W (I, O/g, …)      W'[i, j] = W[i, j]·s_in[i] / s_out[⌊i·g/I⌋·O/g + j]
    Gemm, MatMul    W (K, N)           W'[k, n] = W[k, n]·s_in[k] / s_out[n]
    BatchNormalization                 γ' = γ·s_in/s_out, β' = β/s_out, μ' = μ/s_in
    LayerNormalization and others      γ' = γ/s_out, β' = β/s_out; the input is pinned

A bias is divided by s_out. A depthwise convolution is a Conv with g = O = I.
"""

from __future__ import annotations

import numpy as np

from quantcli.algorithms.channel_flow import Factor, Flow, Rewrite, ones
from quantcli.graph.view import NodeInfo


def convolution(flow: Flow, node: NodeInfo) -> None:
    """Conv and ConvTranspose."""
    weight = _weight_shape(flow, node.input(1))
    if weight is None or len(weight) < 3 or not _constant_or_absent(flow, node, 2):
        flow.pin_inputs(node, f"{node.op_type} without constant float32 weights")
        return
    given = node.attributes.get("group", 1)
    groups = given if isinstance(given, int) else 1
    if node.op_type == "Conv":
        outputs, inputs = weight[0], weight[1] * groups
        out_index = np.arange(outputs)[:, None]
        first = np.arange(outputs) // (outputs // groups) * weight[1]
        in_index = first[:, None] + np.arange(weight[1])
    else:
        outputs, inputs = weight[1] * groups, weight[0]
        in_index = np.arange(inputs)[:, None]
        first = np.arange(inputs) // (inputs // groups) * weight[1]
        out_index = first[:, None] + np.arange(weight[1])
    if groups == 1:
        in_index = np.arange(inputs).reshape((1, -1) if node.op_type == "Conv" else (-1, 1))
    spatial = (1,) * (len(weight) - 2)
    read = _read(flow, node, axis=1, count=inputs)
    made = flow.groups.fresh(outputs)
    flow.rewrites.append(
        Rewrite(
            node=node.name,
            index=1,
            constant=node.input(1),
            multiply=Factor(ids=read, index=in_index.reshape(*in_index.shape, *spatial)),
            divide=Factor(ids=made, index=out_index.reshape(*out_index.shape, *spatial)),
            source=node.input(0),
        )
    )
    _divide(flow, node, 2, made)
    flow.put(node.outputs[0], 1, made)


def gemm(flow: Flow, node: NodeInfo) -> None:
    """Gemm with constant B: α·A·B + β·C; a transposed A is pinned."""
    weight = _weight_shape(flow, node.input(1))
    usable = weight is not None and not node.attributes.get("transA", 0) and _constant_or_absent(flow, node, 2)
    if weight is None or not usable:
        flow.pin_inputs(node, "Gemm without constant float32 weights")
        return
    made = _product(flow, node, weight, transposed=bool(node.attributes.get("transB", 0)), axis=1)
    _divide(flow, node, 2, made)
    flow.put(node.outputs[0], 1, made)


def matmul(flow: Flow, node: NodeInfo) -> None:
    """MatMul by a constant matrix from the right; products of two activations are pinned."""
    weight = _weight_shape(flow, node.input(1))
    rank = flow.rank(node.outputs[0])
    before = flow.rank(node.input(0))
    if weight is None or len(weight) != 2 or not rank or rank != before:
        both = not flow.view.is_constant(node.input(1)) and not flow.view.is_constant(node.input(0))
        flow.pin_inputs(node, "a product of two activations" if both else "MatMul of a form that is not known")
        return
    made = _product(flow, node, weight, transposed=False, axis=rank - 1)
    flow.put(node.outputs[0], rank - 1, made)


def batch_normalization(flow: Flow, node: NodeInfo) -> None:
    """BatchNormalization that was not folded."""
    shape = _weight_shape(flow, node.input(1))
    if shape is None or not all(_weight_shape(flow, name) == shape for name in node.inputs[1:5]):
        flow.pin_inputs(node, "BatchNormalization without constants")
        return
    if len([name for name in node.outputs if name]) > 1:
        flow.pin_inputs(node, "BatchNormalization in training")
        return
    every = np.arange(shape[0])
    read = Factor(ids=_read(flow, node, axis=1, count=shape[0]), index=every)
    made = Factor(ids=flow.groups.fresh(shape[0]), index=every)
    for index, multiply, divide in ((1, read, made), (2, None, made), (3, None, read)):
        flow.rewrites.append(
            Rewrite(node=node.name, index=index, constant=node.input(index), multiply=multiply, divide=divide)
        )
    flow.put(node.outputs[0], 1, made.ids)


def normalization(flow: Flow, node: NodeInfo) -> None:
    """LayerNormalization and RMSNormalization over the last axis, InstanceNormalization."""
    flow.pin_inputs(node)
    shape = _weight_shape(flow, node.input(1))
    if shape is None or len(shape) != 1 or not _constant_or_absent(flow, node, 2):
        return
    if node.op_type == "InstanceNormalization":
        axis = 1
    else:
        rank = flow.rank(node.outputs[0])
        if not rank or node.attributes.get("axis", -1) not in (-1, rank - 1):
            return
        axis = rank - 1
    made = flow.groups.fresh(shape[0], normalized=True)
    _divide(flow, node, 1, made)
    _divide(flow, node, 2, made)
    flow.put(node.outputs[0], axis, made)


def _product(flow: Flow, node: NodeInfo, weight: tuple[int, ...], *, transposed: bool, axis: int) -> np.ndarray:
    """Record the weight of a matrix product; the variables of its output."""
    outputs, inputs = weight if transposed else weight[::-1]
    read = _read(flow, node, axis=axis, count=inputs)
    made = flow.groups.fresh(outputs)
    rows, columns = np.arange(weight[0])[:, None], np.arange(weight[1])[None, :]
    in_index, out_index = (columns, rows) if transposed else (rows, columns)
    flow.rewrites.append(
        Rewrite(
            node=node.name,
            index=1,
            constant=node.input(1),
            multiply=Factor(ids=read, index=in_index),
            divide=Factor(ids=made, index=out_index),
            source=node.input(0),
        )
    )
    return made


def _read(flow: Flow, node: NodeInfo, *, axis: int, count: int) -> np.ndarray:
    """Variables of the input as the layer reads them, (count,); 1 where it has none on that axis."""
    found = flow.get(node.input(0))
    if found is not None and found.axis == axis and len(found.ids) == count:
        return found.ids
    flow.pin_value(node.input(0), f"channels on another axis than {node.op_type} reads")
    return ones(count)


def _divide(flow: Flow, node: NodeInfo, index: int, ids: np.ndarray) -> None:
    """Record that the constant at ``index``, if there is one, is divided on its last axis."""
    if node.input(index):
        factor = Factor(ids=ids, index=np.arange(len(ids)))
        flow.rewrites.append(Rewrite(node=node.name, index=index, constant=node.input(index), divide=factor))


def _weight_shape(flow: Flow, name: str) -> tuple[int, ...] | None:
    """Shape of a float32 constant, None for anything else."""
    info = flow.view.tensors.get(name)
    if info is None or not info.is_constant or info.dtype != "float32" or info.shape is None:
        return None
    return tuple(dim for dim in info.shape if isinstance(dim, int))


def _constant_or_absent(flow: Flow, node: NodeInfo, index: int) -> bool:
    return not node.input(index) or _weight_shape(flow, node.input(index)) is not None
