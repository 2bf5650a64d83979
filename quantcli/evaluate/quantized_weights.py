"""Reads the weight of a compute node out of a quantized graph, back in float.

``ŵ = scale · (q − zero_point)`` (ONNX DequantizeLinear), with the scale per tensor, along an axis, or per block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantcli.evaluate.structure import DEQUANTIZE_OPS
from quantcli.graph.view import GraphView, NodeInfo

_SLOTS: dict[str, tuple[int, int, int]] = {
    "QLinearConv": (3, 4, 5),
    "com.microsoft.QLinearConv": (3, 4, 5),
    "QLinearMatMul": (3, 4, 5),
    "com.microsoft.QGemm": (3, 4, 5),
    "com.microsoft.MatMulIntegerToFloat": (1, 3, 5),
    "com.microsoft.DynamicQuantizeMatMul": (1, 2, 3),
}
"""Integer operators whose weight, scale and zero point are inputs of their own: their positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundWeight:
    """A weight of a quantized graph.

    Attributes:
        values: Dequantized, float64, in the layout of the node that holds it.
        scale: Broadcastable to ``values``; None for a weight in float.
        dtype: Its stored type.
        granularity: "per-tensor", "per-channel" or "per-block"; "" in float.
    """

    values: np.ndarray
    scale: np.ndarray | None
    dtype: str
    granularity: str


def constant_value(view: GraphView, name: str) -> np.ndarray | None:
    """The array of an initializer, widened or not, or of a Constant node; None where ``name`` is neither."""
    name = _behind_cast(view, name)
    if view.is_constant(name):
        return view.constant(name)
    node = view.producer(name)
    if node is not None and node.op == "Constant":
        value = node.attributes.get("value")
        if isinstance(value, np.ndarray):
            return value
    return None


def _behind_cast(view: GraphView, name: str) -> str:
    """The int4 or uint4 constant that a Cast widens to ``name``; ``name`` itself where there is none."""
    node = view.producer(name)
    if node is None or node.op != "Cast" or not view.is_constant(node.input(0)):
        return name
    return node.input(0) if view.tensors[node.input(0)].dtype in {"int4", "uint4"} else name


def weight_slot(view: GraphView, node: NodeInfo) -> int | None:
    """Which input of a float compute node is its constant weight: 1, else 0, None without one."""
    return next((slot for slot in (1, 0) if constant_value(view, node.input(slot)) is not None), None)


def find_weight(view: GraphView, node: NodeInfo) -> FoundWeight | None:
    """The constant weight of ``node``, whatever form it has; None where there is none that is known."""
    if node.op in _SLOTS:
        weight, scale, zero = (node.input(slot) for slot in _SLOTS[node.op])
        axis = 0 if node.op_type == "QLinearConv" or node.attributes.get("transB") else -1
        return _dequantized(view, weight, scale, zero, axis, 0)
    for slot in (1, 0):
        found = _traced(view, node.input(slot))
        if found is not None:
            return found
    return None


def find_constant(view: GraphView, name: str) -> FoundWeight | None:
    """The constant behind ``name``, in float; None where there is none.

    Args:
        view: Its graph.
        name: A value: constant, or one made from a constant by DequantizeLinear or Transpose.
    """
    return _traced(view, name) if name else None


def _traced(view: GraphView, name: str) -> FoundWeight | None:
    """The weight behind ``name``: in float, behind DequantizeLinear, either behind Transpose."""
    array = constant_value(view, name)
    if array is not None:
        return FoundWeight(
            values=array.astype(np.float64), scale=None, dtype=_dtype(view, name, array), granularity=""
        )
    node = view.producer(name)
    if node is None:
        return None
    if node.op == "Identity":
        return _traced(view, node.input(0))
    if node.op == "Transpose":
        return _transposed(_traced(view, node.input(0)), node.attributes.get("perm"))
    if node.op not in DEQUANTIZE_OPS:
        return None
    axis, block = node.attributes.get("axis", 1), node.attributes.get("block_size", 0)
    assert isinstance(axis, int)
    assert isinstance(block, int)
    return _dequantized(view, node.input(0), node.input(1), node.input(2), axis, block)


def _transposed(found: FoundWeight | None, perm: object) -> FoundWeight | None:
    if found is None:
        return None
    axes = tuple(perm) if isinstance(perm, tuple) else None
    scale = found.scale
    if scale is not None and scale.ndim == found.values.ndim:
        scale = scale.transpose(axes)
    return FoundWeight(
        values=found.values.transpose(axes), scale=scale, dtype=found.dtype, granularity=found.granularity
    )


def _dequantized(view: GraphView, weight: str, scale: str, zero: str, axis: int, block: int) -> FoundWeight | None:
    q, s = constant_value(view, weight), constant_value(view, scale)
    z = constant_value(view, zero) if zero else None
    if q is None or s is None or (zero and z is None):
        return None
    step = _broadcast(s.astype(np.float64), q.shape, axis, block)
    offset = 0.0 if z is None else _broadcast(z.astype(np.float64), q.shape, axis, block)
    if step is None or offset is None:
        return None
    weight = _behind_cast(view, weight)
    granularity = "per-tensor" if s.size == 1 else "per-block" if block else "per-channel"
    return FoundWeight(
        values=(q.astype(np.float64) - offset) * step,
        scale=step,
        dtype=_dtype(view, weight, q),
        granularity=granularity,
    )


def _broadcast(value: np.ndarray, shape: tuple[int, ...], axis: int, block: int) -> np.ndarray | None:
    """``value`` with the rank of ``shape``; None where it does not fit."""
    rank = len(shape)
    if value.size == 1:
        return value.reshape((1,) * rank)
    if not -rank <= axis < rank:
        return None
    axis %= rank
    if block:
        if value.ndim != rank:
            return None
        value = np.repeat(value, block, axis=axis).take(range(shape[axis]), axis=axis)
    elif value.ndim == 1:
        value = value.reshape([-1 if i == axis else 1 for i in range(rank)])
    fits = value.ndim == rank and all(a in (1, b) for a, b in zip(value.shape, shape, strict=True))
    return value if fits else None


def _dtype(view: GraphView, name: str, array: np.ndarray) -> str:
    info = view.tensors.get(name)
    return info.dtype if info is not None and info.dtype is not None else str(array.dtype)
