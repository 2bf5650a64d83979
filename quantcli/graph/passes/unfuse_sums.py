"""Biases and sums that onnxruntime fused into other operators are written as Add again.

    BiasGelu(x, b)                           →  Gelu(x + b)
    FastGelu(x, b)                           →  FastGelu(x + b)
    SkipLayerNormalization(x, r, γ, β, b)    →  LayerNormalization((x + b) + r, γ, β)

Why: a bias belongs to the product in front of it (one integer kernel), and onnxruntime's SkipLayerNormalization
is slower than sum and normalisation (see ``residual_sum``). The bias is added to the operand that a product
makes. Legal where LayerNormalization and Gelu exist (opset 17 and 20; Gelu of com.microsoft before), and nobody
reads mean or deviation. All nodes answer to the name of the one that they were.
"""

from __future__ import annotations

import onnx_ir as ir

from quantcli.graph.passes.constants import is_constant
from quantcli.graph.passes.node_writer import NodeWriter

_CONTRIB = "com.microsoft"
_GELU_OPSET = 20
_NORM_OPSET = 17
_EPSILON = 1e-12
"""Default of SkipLayerNormalization; LayerNormalization has another one."""


def unfuse_sums(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; it has nothing to tell."""
    writer: NodeWriter | None = None
    for node in list(model.graph):
        if node.domain == _CONTRIB and node.op_type in _FORMS:
            writer = writer or NodeWriter(model)
            _FORMS[node.op_type](writer, node)
    return ()


def _bias_gelu(writer: NodeWriter, node: ir.Node) -> None:
    total = writer.before(node, "Add", list(node.inputs), part="bias", like=node.outputs[0])
    if writer.graph.opset_imports.get("", 0) >= _GELU_OPSET:
        writer.rewrite(node, "Gelu", total)
    else:
        writer.rewrite(node, "Gelu", total, domain=_CONTRIB)


def _fast_gelu(writer: NodeWriter, node: ir.Node) -> None:
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        total = writer.before(node, "Add", list(node.inputs), part="bias", like=node.outputs[0])
        writer.rewrite(node, "FastGelu", total, domain=_CONTRIB)


def _skip_norm(writer: NodeWriter, node: ir.Node) -> None:
    inputs = [*node.inputs, *(None,) * (5 - len(node.inputs))]
    data, skip, gamma, beta, bias = inputs[:5]
    read = [output for output in node.outputs[1:3] if output.uses() or output.is_graph_output()]
    if writer.graph.opset_imports.get("", 0) < _NORM_OPSET or read or data is None:
        return
    if data.dtype not in {None, ir.DataType.FLOAT, ir.DataType.DOUBLE}:
        return
    if bias is not None:
        if not _of_product(data) and _of_product(skip):
            data, skip = skip, data
        (data,) = writer.before(node, "Add", [data, bias], part="bias", like=data)
    (total,) = writer.before(node, "Add", [data, skip], part="sum", like=node.outputs[0])
    epsilon = node.attributes.get_float("epsilon", _EPSILON)
    if len(node.outputs) > 3:
        sums = node.outputs[3]
        if sums.is_graph_output():
            (copy,) = writer.before(node, "Identity", [total], part="total", like=sums)
            _take_place(sums, copy)
        else:
            sums.replace_all_uses_with(total)
    node.resize_outputs(1)
    writer.rewrite(node, "LayerNormalization", [total, gamma, beta], attributes={"axis": -1, "epsilon": epsilon})


def _take_place(old: ir.Value, new: ir.Value) -> None:
    """``new`` becomes the graph's output in the place of ``old``, under its name."""
    name, old.name = old.name, None
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    new.name = name


def _of_product(value: ir.Value | None) -> bool:
    maker = None if value is None else value.producer()
    return maker is not None and maker.op_type == "MatMul" and not maker.domain and is_constant(maker.inputs[1])


_FORMS = {"BiasGelu": _bias_gelu, "FastGelu": _fast_gelu, "SkipLayerNormalization": _skip_norm}
