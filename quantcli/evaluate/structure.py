"""What a model is made of, and which of its compute nodes are quantized.

A *compute node* is one whose cost is multiply-adds: the COMPUTE rows of the operator table, recurrent and
attention operators, and their quantized forms. By the graph alone it is

* quantized: an integer operator (QLinearConv, QGemm, MatMulInteger, …), or a float operator whose data inputs
  all come from DequantizeLinear, directly or through Transpose, Reshape and the like;
* weight only: its constant weight comes from DequantizeLinear, or is made of integers by plain arithmetic, and its
  activation is not (MatMulNBits, too);
* float: anything else.

Whether the runtime fuses a quantized node into an integer kernel is another question (``KernelFacts``). Nodes
in bodies of If, Loop and Scan are counted like those of the main graph; those in other bodies and in local
functions are not.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np

from quantcli.graph.view import GraphView, NodeInfo
from quantcli.ops.spec import Trait
from quantcli.ops.table import lookup
from quantcli.report.schema import DtypeBytes, NodeRef, OpCount, StructureFacts

QUANTIZE_OPS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "com.microsoft.QuantizeLinear"})
DEQUANTIZE_OPS = frozenset({"DequantizeLinear", "com.microsoft.DequantizeLinear"})

FLOAT_COMPUTE_OPS = frozenset(
    {
        "LSTM", "GRU", "RNN", "Einsum", "DeformConv", "Attention",
        "com.microsoft.FusedConv", "com.microsoft.FusedMatMul", "com.microsoft.FusedGemm",
        "com.microsoft.TransposeMatMul", "com.microsoft.Attention", "com.microsoft.MultiHeadAttention",
        "com.microsoft.GroupQueryAttention", "com.microsoft.NhwcFusedConv",
    }
)  # fmt: skip
"""Float compute operators that are no COMPUTE row of the operator table (nothing quantizes them statically)."""

INTEGER_COMPUTE_OPS = frozenset(
    {
        "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
        "com.microsoft.QLinearConv", "com.microsoft.QGemm", "com.microsoft.MatMulIntegerToFloat",
        "com.microsoft.DynamicQuantizeMatMul", "com.microsoft.DynamicQuantizeLSTM", "com.microsoft.QAttention",
    }
)  # fmt: skip

WEIGHT_ONLY_OPS = frozenset({"com.microsoft.MatMulNBits", "com.microsoft.MatMulBnb4"})

_MOVES = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})

State = Literal["quantized", "weight-only", "float"]


def is_float_compute(node: NodeInfo) -> bool:
    """Whether ``node`` is a compute node of a float operator."""
    if node.op in FLOAT_COMPUTE_OPS:
        return True
    row = lookup(node.domain, node.op_type)
    return row is not None and row.trait is Trait.COMPUTE


def compute_state(view: GraphView, node: NodeInfo) -> State | None:
    """What ``node`` is by the graph; None for nodes that are no compute nodes."""
    if node.op in INTEGER_COMPUTE_OPS:
        return "quantized"
    if node.op in WEIGHT_ONLY_OPS:
        return "weight-only"
    if not is_float_compute(node):
        return None
    origins = [dequantizer(view, name) for name in node.inputs[:2] if name]
    if origins and all(origin is not None for origin in origins):
        return "quantized"
    if any(origin is not None and _is_constant(view, origin.input(0)) for origin in origins):
        return "weight-only"
    if any(name and is_stored_as_integers(view, name) for name in node.inputs[:3]):
        return "weight-only"
    return "float"


def is_stored_as_integers(view: GraphView, name: str) -> bool:
    """Whether ``name`` is made of an integer constant by Cast, Sub and Mul with constants, and moves."""
    node = view.producer(name)
    while node is not None and node.op in {"Reshape", "Transpose", "Mul", "Sub"}:
        name = node.input(0)
        node = view.producer(name)
    if node is None or node.op != "Cast" or not view.is_constant(node.input(0)):
        return False
    return "int" in str(view.tensors[node.input(0)].dtype)


def dequantizer(view: GraphView, name: str) -> NodeInfo | None:
    """The DequantizeLinear that ``name`` comes from, looking through nodes that only move values."""
    node = view.producer(name)
    while node is not None and node.op in _MOVES:
        node = view.producer(node.input(0))
    return node if node is not None and node.op in DEQUANTIZE_OPS else None


def _is_constant(view: GraphView, name: str) -> bool:
    if view.is_constant(name):
        return True
    node = view.producer(name)
    if node is not None and node.op in QUANTIZE_OPS:  # weights kept in float, rounded at each run
        return view.is_constant(node.input(0))
    return node is not None and node.op == "Constant"


def structure_facts(view: GraphView) -> StructureFacts:
    """Counts of a graph; nothing is loaded."""
    ops = Counter(node.op for node in view.nodes)
    states: Counter[State] = Counter()
    left: list[NodeRef] = []
    for node in view.nodes:
        state = compute_state(view, node)
        if state is not None:
            states[state] += 1
        if state == "float":
            left.append(NodeRef(name=node.name, op=node.op))
    return StructureFacts(
        nodes=len(view.nodes),
        ops=tuple(
            OpCount(op=op, count=count) for op, count in sorted(ops.items(), key=lambda kv: (-kv[1], kv[0]))
        ),
        initializers=_initializers(view),
        quantize_nodes=sum(ops[op] for op in QUANTIZE_OPS),
        dequantize_nodes=sum(ops[op] for op in DEQUANTIZE_OPS),
        compute_quantized=states["quantized"],
        compute_weight_only=states["weight-only"],
        compute_float=states["float"],
        float_compute=tuple(left),
    )


def _initializers(view: GraphView) -> tuple[DtypeBytes, ...]:
    """Bytes of initializers and Constant nodes by dtype, largest first."""
    tensors: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for info in view.tensors.values():
        if info.is_constant:
            tensors[info.dtype or "unknown"] += 1
            sizes[info.dtype or "unknown"] += info.nbytes
    for node in view.nodes:
        value = node.attributes.get("value") if node.op == "Constant" else None
        if isinstance(value, np.ndarray):
            tensors[str(value.dtype)] += 1
            sizes[str(value.dtype)] += int(value.nbytes)
    return tuple(
        DtypeBytes(dtype=dtype, tensors=tensors[dtype], bytes=sizes[dtype])
        for dtype in sorted(tensors, key=lambda dtype: (-sizes[dtype], dtype))
    )
