"""Layers that both graphs have, with their weights and biases side by side.

Weights are brought into one form, (groups, outputs, inputs, positions):

* Conv (O, I/g, …) → (g, O/g, I/g, kernel positions); ConvTranspose (I, O/g, …) → (g, O/g, I/g, …);
* MatMul (K, N) → (1, N, K, 1), with a constant on the left (M, K) → (1, M, K, 1); Gemm by its transB.

A BatchNormalization behind a layer that the quantized graph no longer has was folded into it:
w·f and (b − μ)·f + β with f = γ/√(σ² + ε) (Ioffe and Szegedy 2015), so it is folded here, too.

A bias is an input of the layer or a constant added behind it. In integers its scale is s_x·s_w.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from quantcli.evaluate.quantized_weights import (
    FoundWeight,
    constant_value,
    find_constant,
    find_weight,
    weight_slot,
)
from quantcli.evaluate.structure import is_float_compute
from quantcli.evaluate.weights import NodeIndex, columns_first, folded_norm, norm_factor
from quantcli.graph.view import GraphView, NodeInfo

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

_BIAS_SLOTS: dict[str, int] = {
    "Conv": 2, "ConvTranspose": 2, "Gemm": 2, "com.microsoft.FusedConv": 2,
    "com.microsoft.DynamicQuantizeMatMul": 4, "com.microsoft.MatMulIntegerToFloat": 6,
    "com.microsoft.MatMulNBits": 5,
}  # fmt: skip
"""Operators with a bias of their own, in float or behind DequantizeLinear: its position."""

_INTEGER_BIAS: dict[str, tuple[int, int, int]] = {
    "QLinearConv": (8, 1, 4), "com.microsoft.QLinearConv": (8, 1, 4), "com.microsoft.QGemm": (6, 1, 4),
}  # fmt: skip
"""Operators with an int32 bias: positions of the bias, of s_x and of s_w."""

_ADDS = frozenset({"Add", "Sum"})
_QLINEAR_ADD = "com.microsoft.QLinearAdd"
_BETWEEN = frozenset(
    {"Cast", "Mul", "Identity", "QuantizeLinear", "DequantizeLinear", "com.microsoft.QuantizeLinear",
     "com.microsoft.DequantizeLinear"}
)  # fmt: skip
"""What may lie between an integer product and the addition of its bias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPair:
    """A layer of the original and what became of it.

    Attributes:
        node: In the original.
        partner: In the quantized graph.
        weight: Name of the weight in the original.
        source: Value of the original that it reads.
        output: Value of the original that holds the result, bias and folded normalization included.
        reference: w, float64 (groups, outputs, inputs, positions).
        found: ŵ, the same shape, dequantized.
        step: Scale of each element, the same shape; None for a weight in float.
        dtype: Stored type of ŵ.
        scaled: Whether the scale of ŵ is known; else ŵ is in integers.
        bias: b, float64 (outputs,); None without one.
        found_bias: b̂, the same; None where it was not found.
        bias_absent: The quantized layer certainly has no bias.
        smoothing: Constant that the quantized graph multiplies the layer's input with, (inputs,); None without.
        depthwise: Each output channel reads one input channel.
    """

    node: NodeInfo
    partner: NodeInfo
    weight: str
    source: str
    output: str
    reference: np.ndarray
    found: np.ndarray
    step: np.ndarray | None
    dtype: str
    scaled: bool
    bias: np.ndarray | None
    found_bias: np.ndarray | None
    bias_absent: bool
    smoothing: np.ndarray | None
    depthwise: bool


def layer_pairs(original: GraphView, quantized: GraphView) -> Iterator[LayerPair]:
    """Layers with constant weights that were found in both, in the original's order; one at a time in memory."""
    nodes = NodeIndex(quantized)
    for node in original.nodes:
        if node.op not in _LAYERS or not is_float_compute(node):
            continue
        slot = weight_slot(original, node)
        partner = nodes.find(node)
        if slot is None or partner is None:
            continue
        found = find_weight(quantized, partner)
        pair = None if found is None else _pair(original, quantized, node, slot, partner, found)
        if pair is not None:
            yield pair


def _pair(
    original: GraphView, quantized: GraphView, node: NodeInfo, slot: int, partner: NodeInfo, found: FoundWeight
) -> LayerPair | None:
    weight = constant_value(original, node.input(slot))
    assert weight is not None
    reference = weight.astype(np.float64)
    values, step = found.values, found.scale
    if step is not None:
        step = np.broadcast_to(step, values.shape)
    if values.ndim == 2 and columns_first(node) != columns_first(partner):
        values, step = values.T, None if step is None else step.T
    if values.shape != reference.shape or not (np.isfinite(reference).all() and np.isfinite(values).all()):
        return None
    forms = [None if array is None else _uniform(node, slot, array) for array in (reference, values, step)]
    if forms[0] is None or forms[1] is None:
        return None
    outputs = forms[0].shape[0] * forms[0].shape[1]
    bias, output = _bias(original, node, outputs)
    other, absent = _found_bias(quantized, partner, outputs)
    norm = folded_norm(original, quantized, node)
    if norm is not None:
        folded = _fold(original, norm, forms[0], bias)
        if folded is None:
            return None
        forms[0], bias, output = folded[0], folded[1], norm.outputs[0]
    return LayerPair(
        node=node,
        partner=partner,
        weight=node.input(slot),
        source=node.input(1 - slot),
        output=output,
        reference=forms[0],
        found=forms[1],
        step=forms[2],
        dtype=found.dtype,
        scaled=found.scaled,
        bias=bias,
        found_bias=other,
        bias_absent=absent,
        smoothing=_smoothing(original, quantized, partner, forms[0].shape[0] * forms[0].shape[2]),
        depthwise=forms[0].shape[2] == 1 and forms[0].shape[0] > 1,
    )


def _uniform(node: NodeInfo, slot: int, array: np.ndarray) -> np.ndarray | None:
    """``array`` as (groups, outputs, inputs, positions); None where it has no such form."""
    if node.op_type in ("Conv", "ConvTranspose"):
        groups = node.attributes.get("group", 1)
        if not isinstance(groups, int) or array.ndim < 3 or array.shape[0] % groups:
            return None
        parts = array.reshape(groups, array.shape[0] // groups, array.shape[1], -1)
        return parts if node.op_type == "Conv" else parts.swapaxes(1, 2)
    if array.ndim != 2:
        return None
    rows_are_outputs = columns_first(node) if node.op_type == "Gemm" else slot == 0
    return (array if rows_are_outputs else array.T)[None, :, :, None]


def _fold(
    view: GraphView, norm: NodeInfo, weight: np.ndarray, bias: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight and bias with a BatchNormalization in them; None where its parameters are not constant."""
    factor = norm_factor(view, norm)
    shift, mean = constant_value(view, norm.input(2)), constant_value(view, norm.input(3))
    outputs = weight.shape[0] * weight.shape[1]
    if factor is None or shift is None or mean is None or factor.size != outputs:
        return None
    start = np.zeros(outputs) if bias is None else bias
    return (
        weight * factor.reshape(*weight.shape[:2], 1, 1),
        (start - mean.astype(np.float64)) * factor + shift.astype(np.float64),
    )


def _bias(view: GraphView, node: NodeInfo, outputs: int) -> tuple[np.ndarray | None, str]:
    """Bias of a float layer, and the value that includes it."""
    if node.op_type != "MatMul":
        return _vector(find_constant(view, node.input(2)), outputs), node.outputs[0]
    uses = view.uses(node.outputs[0])
    if len(uses) == 1 and uses[0].node.op in _ADDS and not view.tensors[node.outputs[0]].is_output:
        bias = _addend(view, uses[0].node, node.outputs[0], outputs)
        if bias is not None:
            return bias, uses[0].node.outputs[0]
    return None, node.outputs[0]


def _smoothing(original: GraphView, quantized: GraphView, node: NodeInfo, inputs: int) -> np.ndarray | None:
    """The constant of a Mul in front of ``node`` that the original does not have."""
    maker = quantized.producer(node.input(0))
    while maker is not None and maker.op in _BETWEEN - {"Mul"}:
        maker = quantized.producer(maker.input(0))
    if maker is None or maker.op != "Mul" or maker.name in original.node_by_name:
        return None
    for name in maker.inputs:
        found = find_constant(quantized, name)
        if found is not None and found.values.size in (1, inputs):
            return found.values.reshape(-1)
    return None


def _found_bias(view: GraphView, node: NodeInfo, outputs: int) -> tuple[np.ndarray | None, bool]:
    """Bias of a layer of the quantized graph, and whether it certainly has none."""
    if node.op in _INTEGER_BIAS:
        slot, first, second = _INTEGER_BIAS[node.op]
        scales = [constant_value(view, node.input(index)) for index in (first, second)]
        bias = constant_value(view, node.input(slot)) if node.input(slot) else None
        if bias is None or scales[0] is None or scales[1] is None:
            return None, not node.input(slot)
        step = scales[0].astype(np.float64).reshape(-1) * scales[1].astype(np.float64).reshape(-1)
        return _sized(bias.astype(np.float64).reshape(-1) * step, outputs), False
    slot_of = _BIAS_SLOTS.get(node.op)
    if slot_of is not None and node.input(slot_of):
        return _vector(find_constant(view, node.input(slot_of)), outputs), False
    value = node.outputs[0]
    for _ in range(6):
        uses = view.uses(value)
        if len(uses) != 1:
            break
        reader = uses[0].node
        if reader.op in _ADDS or reader.op == _QLINEAR_ADD:
            found = _addend(view, reader, value, outputs)
            if found is not None:
                return found, False
            break
        if reader.op not in _BETWEEN:
            break
        value = reader.outputs[0]
    return None, node.op_type in ("Conv", "ConvTranspose", "Gemm")


def _addend(view: GraphView, add: NodeInfo, value: str, outputs: int) -> np.ndarray | None:
    """The constant that ``add`` adds to ``value``, as a vector of so many elements."""
    if add.op == _QLINEAR_ADD:
        for slot in (0, 3):
            found = find_constant(view, add.input(slot), scale=add.input(slot + 1), zero=add.input(slot + 2))
            if add.input(slot) != value and found is not None:
                return _vector(found, outputs)
        return None
    others = [name for name in add.inputs if name != value]
    return _vector(find_constant(view, others[0]), outputs) if len(others) == 1 else None


def _vector(found: FoundWeight | None, outputs: int) -> np.ndarray | None:
    return None if found is None else _sized(found.values.reshape(-1), outputs)


def _sized(values: np.ndarray, outputs: int) -> np.ndarray | None:
    if values.size == 1:
        values = np.repeat(values, outputs)
    return values if values.size == outputs else None
