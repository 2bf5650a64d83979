"""Layers that onnxruntime fused are written in plain operators again, so that they can be quantized.

    FusedMatMul(A, W)             →  MatMul(A, α·W or α·Wᵀ)
    FusedGemm(A, W, b)            →  activation(Gemm(A, W, b))
    FusedConv(x, W, b[, Z])       →  activation(Conv(x, W, b) [+ Z])

Models that were saved after onnxruntime's optimizations (``optimized_model_filepath``) have these operators of
com.microsoft. Legal for a constant W on the right side, without transposed or batch-transposed activations, and
for activations that are operators of ai.onnx with the same parameters. α·W is computed in float64 and rounded
once. The layer is a new node, the last node keeps name and output; both answer to the name.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from quantcli.graph.passes.constants import array_of, own_constant
from quantcli.graph.passes.node_writer import Attribute, NodeWriter

_CONTRIB = "com.microsoft"

_PARAMETERS: dict[str, tuple[str, ...]] = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
}
"""Activations that are written as nodes → their parameters, in the order of ``activation_params``."""

_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_GEMM = ("alpha", "beta", "transA", "transB")


def unfuse_layers(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; tells how many layers were taken apart."""
    writer: NodeWriter | None = None
    done = 0
    for node in list(model.graph):
        if node.domain != _CONTRIB or node.op_type not in _FORMS:
            continue
        writer = writer or NodeWriter(model)
        done += _FORMS[node.op_type](writer, node)
    if not done:
        return ()
    return (
        f"{done} layers that onnxruntime had fused were written as plain operators, so that they can be quantized",
    )


def _product(writer: NodeWriter, node: ir.Node) -> bool:
    attributes = node.attributes
    weight = array_of(node.inputs[1])
    if weight is None or weight.ndim < 2 or weight.dtype != np.float32:
        return False
    if any(attributes.get_int(key, 0) for key in ("transA", "transBatchA", "transBatchB")):
        return False
    scale = np.float64(attributes.get_float("alpha", 1.0))
    if attributes.get_int("transB", 0) or scale != 1:
        turned = weight.swapaxes(-1, -2) if attributes.get_int("transB", 0) else weight
        own_constant(node, 1, writer.graph, (scale * turned).astype(np.float32), f"{node.name}_weight")
    writer.rewrite(node, "MatMul", list(node.inputs))
    return True


def _gemm(writer: NodeWriter, node: ir.Node) -> bool:
    activation = node.attributes.get_string("activation", "")
    if activation not in _PARAMETERS:
        return False
    wanted = _PARAMETERS[activation]
    given = [node.attributes.get_float(f"activation_{key}") for key in wanted]
    if any(value is None for value in given):
        return False
    layer = writer.before(
        node, "Gemm", list(node.inputs), part="layer", attributes=_kept(node, _GEMM), like=node.outputs[0]
    )
    writer.rewrite(node, activation, layer, attributes=_parameters(wanted, given))
    return True


def _conv(writer: NodeWriter, node: ir.Node) -> bool:
    activation = node.attributes.get_string("activation", "")
    given = list(node.attributes.get_floats("activation_params", []))
    if activation not in _PARAMETERS or len(given) != len(_PARAMETERS[activation]):
        return False
    inputs = list(node.inputs)
    layer = writer.before(
        node, "Conv", inputs[:3], part="layer", attributes=_kept(node, _CONV), like=node.outputs[0]
    )
    if len(inputs) > 3 and inputs[3] is not None:
        layer = writer.before(node, "Add", [*layer, inputs[3]], part="sum", like=node.outputs[0])
    writer.rewrite(node, activation, layer, attributes=_parameters(_PARAMETERS[activation], given))
    return True


def _parameters(names: tuple[str, ...], values: Sequence[float | None]) -> dict[str, Attribute]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _kept(node: ir.Node, names: tuple[str, ...]) -> dict[str, Attribute]:
    return {name: node.attributes[name].value for name in names if name in node.attributes}


_FORMS = {"FusedMatMul": _product, "TransposeMatMul": _product, "FusedGemm": _gemm, "FusedConv": _conv}
