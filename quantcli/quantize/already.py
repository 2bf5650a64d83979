"""Nodes of the model itself that are quantized already: they are left as they are.

* operators that are quantized forms: Q, DQ, QLinear…, …Integer, MatMulNBits and the like;
* float operators between DequantizeLinear and QuantizeLinear, which runtimes make integer kernels of;
* what belongs to the arithmetic of dynamic quantization: products of scales, and the product that brings an int32
  result back to float.

A float operator that only reads a dequantized activation is none of these: a layer whose weight is a float
constant and whose result nobody quantizes is as free as any other.
"""

from __future__ import annotations

from quantcli.graph.view import GraphView, NodeInfo
from quantcli.ops.table import QUANTIZED_OPS

_CONTRIB = frozenset({
    "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "GatherBlockQuantized", "MatMulBnb4", "MatMulFpQ4",
    "MatMulInteger16", "MatMulIntegerToFloat", "MatMulNBits", "QAttention", "QEmbedLayerNormalization", "QGemm",
    "QMoE", "QuantizeBFP", "DequantizeBFP",
})  # fmt: skip
"""Quantized forms of com.microsoft that neither begin with QLinear or QOrdered nor end with QuantizeLinear."""

_INTEGER_PRODUCTS = frozenset({"ConvInteger", "MatMulInteger"})

_MAKES_FLOAT = "DequantizeLinear"
_MAKES_INTEGERS = "QuantizeLinear"


def is_quantized_form(domain: str, op_type: str) -> bool:
    """Whether an operator is a quantized form by itself."""
    if not domain:
        return op_type in QUANTIZED_OPS
    if domain != "com.microsoft":
        return False
    return (
        op_type in _CONTRIB
        or op_type.startswith(("QLinear", "QOrdered"))
        or op_type.endswith((_MAKES_FLOAT, _MAKES_INTEGERS))
    )


def already_quantized(view: GraphView, node: NodeInfo) -> str:
    """Why ``node`` counts as quantized already, "" where it does not."""
    if is_quantized_form(node.domain, node.op_type):
        return f"{node.op} is a quantized form already"
    makers = {index: view.producer(name) for index, name in enumerate(node.inputs) if name}
    dequantized = {index for index, maker in makers.items() if maker is not None and maker.op_type == _MAKES_FLOAT}
    quantizes = any(use.node.op_type == _MAKES_INTEGERS for name in node.outputs for use in view.uses(name))
    weight = node.input(1)
    free = bool(weight) and view.is_constant(weight) and view.tensors[weight].dtype == "float32"
    if quantizes and (dequantized or not makers):
        return f"{node.op_type} stands between existing quantizers"
    if dequantized and not free:
        return f"{node.op_type} reads integers of the model itself"
    if any(_is_dynamic(view, maker, node, index) for index, maker in makers.items()):
        return f"{node.op_type} belongs to the dynamic quantization of the model itself"
    return ""


def _is_dynamic(view: GraphView, maker: NodeInfo | None, node: NodeInfo, index: int) -> bool:
    """Whether ``node`` reads a scale, or an integer product, of dynamic quantization."""
    if maker is None:
        return False
    if maker.op_type == "DynamicQuantizeLinear":
        return view.tensors[node.inputs[index]].dtype == "float32"
    if maker.op_type in _INTEGER_PRODUCTS:
        return True
    source = view.producer(maker.inputs[0]) if maker.op_type == "Cast" else None
    return source is not None and source.op_type in _INTEGER_PRODUCTS
