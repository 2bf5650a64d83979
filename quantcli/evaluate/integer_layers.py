"""Layers that x86 CPUs compute with uint8 activations and int8 weights, and these as the kernel reads them.

* QDQ: Conv, MatMul, Gemm on DequantizeLinear of uint8 or int8 activations (onnxruntime turns int8 into uint8 on
  x86: QDQS8ToU8Transformer) and of a constant int8 weight.
* Integer operators with uint8 activations and a constant int8 weight: QLinearConv, QLinearMatMul, QGemm,
  MatMulInteger, MatMulIntegerToFloat, DynamicQuantizeMatMul, QAttention.
* DynamicQuantizeLSTM, which rounds its input and its state to uint8: a layer for W and one for R.

Reduction order: of a product the inner axis; of a convolution (kernel position, input channel of the group),
because QLinearConv always works on channels-last data. Depthwise convolutions have kernels that widen every
product to 32 bits (MlasConvSymDepthwiseKernelAvx2, MlasConvDepthwiseKernelAvx2), so they never saturate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantcli.core.saturation import COLUMNS, CONVOLUTION, ROWS, kernel_rows
from quantcli.evaluate.quantized_weights import constant_value, folded_value
from quantcli.evaluate.structure import DEQUANTIZE_OPS, dequantizer
from quantcli.graph.view import GraphView, NodeInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerLayer:
    """A layer.

    Attributes:
        node: Name of its node.
        op: Its operator with the domain.
        conv: Whether it is a convolution.
        weight: int8 (outputs, reduction) in the kernel's order.
        scale: Of the weight, float64 (outputs,) or (1,).
        groups: Groups of a convolution.
        kernel: Spatial extent of a convolution's kernel.
        depthwise: Whether every product gets 32 bits of its own.
        signed: Whether activations are int8 in the model, and offset by 128 when it runs.
    """

    node: str
    op: str
    conv: bool
    weight: np.ndarray
    scale: np.ndarray
    groups: int = 1
    kernel: tuple[int, ...] = ()
    depthwise: bool = False
    signed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operands:
    """Weight, its scale and the type of the activation."""

    weight: np.ndarray
    scale: np.ndarray
    activation: str


_SLOTS: dict[str, tuple[int, int | None, int]] = {
    "QLinearConv": (3, 4, 0),
    "QLinearMatMul": (3, 4, 0),
    "com.microsoft.QGemm": (3, 4, 0),
    "MatMulInteger": (1, None, 0),
    "com.microsoft.MatMulIntegerToFloat": (1, 3, 0),
    "com.microsoft.DynamicQuantizeMatMul": (1, 2, 0),
    "com.microsoft.QAttention": (1, 4, 0),
}
"""Integer operators: inputs of the weight, of its scale, and of the activation."""

_LSTM = "com.microsoft.DynamicQuantizeLSTM"
_LSTM_SLOTS = ((1, 8), (2, 10))
"""Its weights of the input and of the state, int8 (directions, inputs, 4·hidden), and their scales."""

_ROUNDING = frozenset({"DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
"""Operators that round float activations to uint8 themselves."""

_WEIGHTS = frozenset({"int8", "int4", "int2"})
"""Types of weights that kernels read as int8."""


def integer_layers(view: GraphView) -> tuple[IntegerLayer, ...]:
    """The layers of a quantized graph, in topological order."""
    found = (
        _layer(view, node, slots)
        for node in view.nodes
        for slots in (_LSTM_SLOTS if node.op == _LSTM else (_SLOTS.get(node.op, (1, None))[:2],))
    )
    return tuple(layer for layer in found if layer is not None)


def _layer(view: GraphView, node: NodeInfo, slots: tuple[int, int | None]) -> IntegerLayer | None:
    """The layer of a node whose weight and scale are at ``slots``, where it is an integer operator."""
    if node.op in _SLOTS or node.op == _LSTM:
        operands = _of_operator(view, node, *slots)
        allowed: tuple[str, ...] = ("uint8",)
    elif node.op in ("Conv", "MatMul", "Gemm"):
        operands = _of_pattern(view, node)
        allowed = ("uint8", "int8")
    else:
        return None
    if operands is None or operands.activation not in allowed or operands.weight.dtype.name not in _WEIGHTS:
        return None
    weight, conv = operands.weight.astype(np.int8), node.op_type in ("Conv", "QLinearConv")
    group = node.attributes.get("group", 1)
    groups = group if isinstance(group, int) and conv else 1
    return IntegerLayer(
        node=node.name,
        op=node.op,
        conv=conv,
        weight=kernel_rows(weight, CONVOLUTION if conv else ROWS if node.attributes.get("transB") else COLUMNS),
        scale=operands.scale.astype(np.float64).reshape(-1),
        groups=groups,
        kernel=tuple(int(dim) for dim in weight.shape[2:]) if conv else (),
        depthwise=conv and groups > 1 and weight.shape[0] == groups and weight.shape[1] == 1,
        signed=operands.activation == "int8",
    )


def _of_operator(view: GraphView, node: NodeInfo, weight_slot: int, scale_slot: int | None) -> _Operands | None:
    weight = folded_value(view, node.input(weight_slot))
    scale = np.ones(1) if scale_slot is None else constant_value(view, node.input(scale_slot))
    if weight is None or scale is None or weight.ndim < 2:
        return None
    rounding = node.op_type in _ROUNDING
    kind = "uint8" if rounding else _integer_type(view, node.input(_SLOTS[node.op][2]))
    return _Operands(weight=weight, scale=scale, activation=kind)


def _of_pattern(view: GraphView, node: NodeInfo) -> _Operands | None:
    source, behind = dequantizer(view, node.input(0)), view.producer(node.input(1))
    if source is None or behind is None or behind.op not in DEQUANTIZE_OPS or node.attributes.get("transA"):
        return None
    if behind.attributes.get("block_size"):
        return None
    weight, scale = constant_value(view, behind.input(0)), constant_value(view, behind.input(1))
    if weight is None or scale is None or weight.ndim < 2 or constant_value(view, source.input(0)) is not None:
        return None
    zero = constant_value(view, behind.input(2)) if behind.input(2) else None
    held = view.tensors[behind.input(2)].dtype if zero is not None else "int8"
    if held != "int8" or (zero is not None and np.any(zero)):
        return None
    return _Operands(weight=weight, scale=scale, activation=_integer_type(view, source.input(0)))


def _integer_type(view: GraphView, name: str) -> str:
    """Element type of an integer value, from what makes it where the graph does not state it."""
    known = view.tensors[name].dtype if name in view.tensors else None
    if known is not None:
        return known
    node = view.producer(name)
    while node is not None:
        if node.op_type == "DynamicQuantizeLinear":
            return "uint8"
        zero = INTEGER_RESULTS.get(node.op_type)
        if zero is not None:
            value = node.input(zero)
            return view.tensors[value].dtype or "uint8" if value else "uint8"
        node = view.producer(node.input(0))
    return ""


INTEGER_RESULTS = {
    "QuantizeLinear": 2,
    "QLinearConv": 7,
    "QLinearMatMul": 7,
    "QGemm": 8,
    "QLinearAdd": 7,
    "QLinearMul": 7,
    "QLinearConcat": 1,
    "QLinearAveragePool": 4,
    "QLinearGlobalAveragePool": 4,
    "QLinearLeakyRelu": 4,
    "QLinearSigmoid": 4,
    "QLinearSoftmax": 4,
    "QLinearWhere": 8,
}
"""Operators with an integer result: the input that is its zero point, whose type it has."""
