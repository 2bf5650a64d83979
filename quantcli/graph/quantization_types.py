"""Types of the values that added quantizers make."""

from __future__ import annotations

import onnx_ir as ir


def infer_quantization_types(node: ir.Node) -> None:
    """Types and shapes of a Q or DQ node's output, where its inputs' are known and its own are not.

    The output of QuantizeLinear has the zero point's type (uint8 without one, or as ``output_dtype`` says),
    that of DequantizeLinear the scale's; both have the shape of the first input (ai.onnx opset 21).
    """
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.inputs[0] is None:
        return
    output = node.outputs[0]
    position = 2 if node.op_type == "QuantizeLinear" else 1
    source = node.inputs[position] if position < len(node.inputs) else None
    stated = ir.DataType(node.attributes.get_int("output_dtype", 0))
    dtype = source.dtype if source is not None else (stated or ir.DataType.UINT8)
    if output.type is None and dtype is not None:
        output.type = ir.TensorType(dtype)
    if output.shape is None and output.type is not None and node.inputs[0].shape is not None:
        output.shape = node.inputs[0].shape.copy()
