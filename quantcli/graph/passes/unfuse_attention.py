"""The projections inside com.microsoft.Attention become a product of their own, which can be quantized.

    Attention(x, [W_q W_k W_v], [b_q b_k b_v], mask)  →  q, k, v = Split(x·W + b);
                                                         MultiHeadAttention(q, k, v, mask)

The same arithmetic in the same order: both operators multiply once by the joined weight, add the bias, and attend
per head. Legal for constant W and b of three equal parts, without past or rotary embedding, and for no mask or
one of rank 2 (batch, total length), which both read alike. Otherwise the operator is left in float as it is.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantcli.graph.passes.constants import is_constant, make_initializer, unique_name
from quantcli.graph.passes.node_writer import Attribute, NodeWriter

_CONTRIB = "com.microsoft"
_SPLIT_OPSET = 13
_KEPT = ("num_heads", "scale", "mask_filter_value", "unidirectional")


def unfuse_attention(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; tells how many products were taken out."""
    if model.graph.opset_imports.get("", 0) < _SPLIT_OPSET:
        return ()
    found = [n for n in model.graph if n.domain == _CONTRIB and n.op_type == "Attention" and _is_plain(n)]
    if not found:
        return ()
    writer = NodeWriter(model)
    for node in found:
        _take_apart(writer, node)
    return (f"the projections of {len(found)} Attention operators were written as MatMul, which can be quantized",)


def _is_plain(node: ir.Node) -> bool:
    data, weight, bias, mask, past, _, length = (*node.inputs, *(None,) * 7)[:7]
    if data is None or not is_constant(weight) or (bias is not None and not is_constant(bias)):
        return False
    assert weight is not None
    width = None if weight.shape is None or len(weight.shape) != 2 else weight.shape[1]
    sizes = set(node.attributes.get_ints("qkv_hidden_sizes", []))
    if not isinstance(width, int) or width % 3 or not sizes <= {width // 3}:
        return False
    if past is not None or length is not None or node.attributes.get_int("do_rotary", 0) != 0:
        return False
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return False
    if mask is not None and (mask.shape is None or len(mask.shape) != 2):
        return False
    return weight.dtype == ir.DataType.FLOAT


def _take_apart(writer: NodeWriter, node: ir.Node) -> None:
    data, weight, bias, mask, _, scores, _ = (*node.inputs, *(None,) * 7)[:7]
    assert weight is not None
    assert weight.shape is not None
    third = int(weight.shape[1]) // 3  # type: ignore[arg-type]
    output = node.outputs[0]
    (joined,) = writer.before(node, "MatMul", [data, weight], part="projection")
    joined.type = output.type
    if bias is not None:
        (joined,) = writer.before(node, "Add", [joined, bias], part="bias")
        joined.type = output.type
    sizes = make_initializer(
        writer.graph, unique_name(writer.graph, f"{node.name}_sizes"), np.full(3, third, dtype=np.int64)
    )
    parts = writer.before(
        node, "Split", [joined, sizes], part="split", attributes={"axis": -1}, outputs=3, like=output
    )
    kept: dict[str, Attribute] = {key: node.attributes[key].value for key in _KEPT if key in node.attributes}
    node.resize_outputs(1)
    writer.rewrite(node, "MultiHeadAttention", [*parts, None, mask, scores], domain=_CONTRIB, attributes=kept)
