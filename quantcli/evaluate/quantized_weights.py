"""Reads the weight of a compute node out of a quantized graph, back in float.

``ŵ = scale · (q − zero_point)`` (ONNX DequantizeLinear), with the scale per tensor, along an axis, or per block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from quantcli.core.dtypes import FLOAT8E4M3FN
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

_UNSCALED = frozenset({"MatMulInteger", "ConvInteger"})
"""Integer operators that know no scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundWeight:
    """A weight of a quantized graph.

    Attributes:
        values: Dequantized, float64, in the layout of the node that holds it.
        scale: Distance between codes, broadcastable to ``values``; None for a weight in float.
        dtype: Its stored type.
        granularity: "per-tensor", "per-channel" or "per-block"; "" in float.
        scaled: False for an integer weight whose scale is not at hand; then ``values`` are in steps.
    """

    values: np.ndarray
    scale: np.ndarray | None
    dtype: str
    granularity: str
    scaled: bool = True


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


_WIDENED = frozenset({"int2", "uint2", "int4", "uint4", "int8", "uint8"})
"""Types that a Cast widens in front of DequantizeLinear."""


def folded_value(view: GraphView, name: str) -> np.ndarray | None:
    """As ``constant_value``, also where ``name`` is the transpose of one: the runtime folds that when it loads."""
    node = view.producer(name)
    if node is None or node.op != "Transpose":
        return constant_value(view, name)
    array, order = constant_value(view, node.input(0)), node.attributes.get("perm")
    if array is None:
        return None
    return array.transpose([int(axis) for axis in order] if isinstance(order, tuple) else None)


def _behind_cast(view: GraphView, name: str) -> str:
    """The constant that a Cast widens to integers ``name``; ``name`` itself where there is none."""
    node = view.producer(name)
    if node is None or node.op != "Cast" or not view.is_constant(node.input(0)):
        return name
    return node.input(0) if view.tensors[node.input(0)].dtype in _WIDENED else name


def weight_slot(view: GraphView, node: NodeInfo) -> int | None:
    """Which input of a float compute node is its constant weight: 1, else 0, None without one."""
    return next((slot for slot in (1, 0) if constant_value(view, node.input(slot)) is not None), None)


def find_weight(view: GraphView, node: NodeInfo) -> FoundWeight | None:
    """The constant weight of ``node``, whatever form it has; None where there is none that is known."""
    if node.op in _SLOTS:
        weight, scale, zero = (node.input(slot) for slot in _SLOTS[node.op])
        axis = 0 if node.op_type == "QLinearConv" or node.attributes.get("transB") else -1
        return _dequantized(view, weight, scale, zero, axis, 0)
    if node.op == "com.microsoft.MatMulNBits":
        return _unpacked(view, node)
    if node.op in _UNSCALED:
        return _steps(view, node)
    for slot in (1, 0):
        found = find_constant(view, node.input(slot))
        if found is not None:
            return found
    return None


def find_constant(view: GraphView, name: str, *, scale: str = "", zero: str = "") -> FoundWeight | None:
    """The constant behind ``name``, in float; None where there is none.

    Args:
        view: Its graph.
        name: A value: constant, or one made from a constant by DequantizeLinear, Transpose, Cast or Reshape.
        scale: For an integer constant that an operator takes with its parameters: its scale, per tensor.
        zero: Its zero point.
    """
    if not name:
        return None
    return _dequantized(view, name, scale, zero, 0, 0) if scale else _traced(view, name)


def _steps(view: GraphView, node: NodeInfo) -> FoundWeight | None:
    """The weight of MatMulInteger or ConvInteger; its scale is multiplied to the product, somewhere behind."""
    axis = 0 if node.op_type == "ConvInteger" else -1
    scale = scale_of_steps(view, node)
    if scale:
        return _dequantized(view, node.input(1), scale, node.input(3), axis, 0)
    q = folded_value(view, node.input(1))
    z = constant_value(view, node.input(3)) if node.input(3) else None
    if q is None or (node.input(3) and z is None):
        return None
    offset = 0.0 if z is None else _broadcast(z.astype(np.float64), q.shape, axis, 0)
    if offset is None:
        return None
    return FoundWeight(
        values=q.astype(np.float64) - offset,
        scale=np.ones((1,) * q.ndim),
        dtype=_dtype(view, node.input(1), q),
        granularity="",
        scaled=False,
    )


def scale_of_steps(view: GraphView, node: NodeInfo) -> str:
    """The constant with the scale of the weight of MatMulInteger or ConvInteger; "" where it is unknown.

    onnxruntime names it after the weight ("w_quantized", "w_scale"); else it is looked for behind the product:
    Cast, and Mul with the product of two scales, of which one is constant.
    """
    base = node.input(1).removesuffix("_quantized")
    return f"{base}_scale" if view.is_constant(f"{base}_scale") else _scale_behind(view, node)


def _scale_behind(view: GraphView, node: NodeInfo) -> str:
    """The constant w of ``Mul(Cast(product), Mul(s, w))`` behind an integer product; "" where there is none."""
    behind = node
    for op in ("Cast", "Mul"):
        uses = view.uses(behind.outputs[0])
        if len(uses) != 1 or uses[0].node.op != op:
            return ""
        behind, product = uses[0].node, behind.outputs[0]
    other = next((name for name in behind.inputs if name != product), "")
    scales = view.producer(other)
    if scales is None or scales.op != "Mul":
        return ""
    return next((name for name in scales.inputs if view.is_constant(name)), "")


def _unpacked(view: GraphView, node: NodeInfo) -> FoundWeight | None:
    """The weight of MatMulNBits as (K, N): codes of ``bits`` bits, the low ones first, in blocks along K.

    B is uint8 (N, blocks, block·bits/8), scales (N·blocks), zero points packed like B or absent for 2^(bits−1).
    """
    keys = ("K", "N", "bits", "block_size")
    values = [node.attributes.get(key, 4 if key == "bits" else None) for key in keys]
    if not all(isinstance(value, int) for value in values):
        return None
    depth, outputs, bits, block = (int(value) for value in values)  # type: ignore[arg-type]
    packed, scales = constant_value(view, node.input(1)), constant_value(view, node.input(2))
    if packed is None or scales is None or bits not in (2, 4, 8):
        return None
    blocks = -(-depth // block)
    codes = _codes(packed.reshape(outputs, blocks, -1), bits)[:, :, :block].astype(np.float64)
    zero: np.ndarray | float = float(2 ** (bits - 1))
    if node.input(3):
        stored = constant_value(view, node.input(3))
        if stored is None:
            return None
        zero = stored.astype(np.float64).reshape(outputs, -1)[:, :blocks, None]
        if stored.dtype == np.uint8:
            zero = _codes(stored.reshape(outputs, -1), bits)[:, :blocks, None].astype(np.float64)
    step = scales.astype(np.float64).reshape(outputs, blocks, 1)
    return FoundWeight(
        values=((codes - zero) * step).reshape(outputs, -1)[:, :depth].T,
        scale=np.broadcast_to(step, codes.shape).reshape(outputs, -1)[:, :depth].T,
        dtype=f"uint{bits}",
        granularity="per-block",
    )


def _codes(packed: np.ndarray, bits: int) -> np.ndarray:
    """Codes of ``bits`` bits out of uint8, low bits first, along the last axis."""
    parts = [(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(*packed.shape[:-1], -1)


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
    if node.op in ("Identity", "Cast"):
        return _traced(view, node.input(0))
    if node.op == "Reshape":
        return _reshaped(view, node)
    if node.op in ("Mul", "Sub"):
        return _of_arithmetic(view, node)
    if node.op == "Transpose":
        return _transposed(_traced(view, node.input(0)), node.attributes.get("perm"))
    if node.op not in DEQUANTIZE_OPS:
        return None
    axis, block = node.attributes.get("axis", 1), node.attributes.get("block_size", 0)
    assert isinstance(axis, int)
    assert isinstance(block, int)
    return _dequantized(view, node.input(0), node.input(1), node.input(2), axis, block)


def _of_arithmetic(view: GraphView, node: NodeInfo) -> FoundWeight | None:
    """Integers less zero points, or steps times scales: what weight-only files store in front of any operator."""
    found, other = _traced(view, node.input(0)), _traced(view, node.input(1))
    if found is None or other is None or "int" not in found.dtype or found.scale is not None:
        return None
    if node.op == "Sub":
        return replace(found, values=found.values - other.values)
    scale, size = np.broadcast_to(other.values, found.values.shape), other.values.size
    granularity = "per-tensor" if size == 1 else "per-channel"
    return replace(found, values=found.values * scale, scale=scale, granularity=granularity)


def _reshaped(view: GraphView, node: NodeInfo) -> FoundWeight | None:
    """A reshaped constant; its scale only where it is one for all, or has the shape of the values."""
    found, shape = _traced(view, node.input(0)), constant_value(view, node.input(1))
    if found is None or shape is None:
        return None
    if found.scale is not None and found.scale.shape == found.values.shape:
        sizes = [int(size) for size in shape]
        return replace(
            found,
            values=found.values.reshape(sizes),
            scale=found.scale.reshape(sizes),
            granularity="per-block" if found.granularity == "per-channel" else found.granularity,
        )
    if found.scale is not None and found.scale.size > 1:
        return None
    sizes = [found.values.shape[i] if size == 0 else int(size) for i, size in enumerate(shape.tolist())]
    values = found.values.reshape(sizes)
    scale = None if found.scale is None else found.scale.reshape((1,) * values.ndim)
    return FoundWeight(values=values, scale=scale, dtype=found.dtype, granularity=found.granularity)


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
    q, s = folded_value(view, weight), constant_value(view, scale)
    z = constant_value(view, zero) if zero else None
    if q is None or s is None or (zero and z is None):
        return None
    step = _broadcast(s.astype(np.float64), q.shape, axis, block)
    offset = 0.0 if z is None else _broadcast(z.astype(np.float64), q.shape, axis, block)
    if step is None or offset is None:
        return None
    values = (q.astype(np.float64) - offset) * step
    weight = _behind_cast(view, weight)
    if _dtype(view, weight, q) == FLOAT8E4M3FN.name and FLOAT8E4M3FN.format is not None:
        step = step * FLOAT8E4M3FN.format.steps(q.astype(np.float32))
    granularity = "per-tensor" if s.size == 1 else "per-block" if block else "per-channel"
    return FoundWeight(
        values=values,
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
