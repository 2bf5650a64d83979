"""Which quantized nodes of any model run as integer kernels, and why the others do not.

Types of 16 bits and float8 have no integer kernels: nodes that are quantized to these run in float, which is told
once and not for each of them. Of the others, expected to be integer kernels are the compute nodes that the graph
quantizes (``structure.compute_state``), products with a quantized weight alone (MatMulNBits), and the other
operators that have an integer kernel and stand between DequantizeLinear and QuantizeLinear.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from quantcli.evaluate.structure import (
    DEQUANTIZE_OPS,
    INTEGER_COMPUTE_OPS,
    QUANTIZE_OPS,
    compute_state,
    dequantizer,
    is_float_compute,
)
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.ops.spec import Trait
from quantcli.ops.table import lookup
from quantcli.report.schema import KernelFacts, OpCount, UnfusedNode
from quantcli.runtime.kernels import kernel_report, optimized_view
from quantcli.runtime.session import SessionSettings, runtime_version

UNFUSED = "F405"
NO_KERNEL = "F201"

_BETWEEN = frozenset({"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid",
                      "Softmax", "Where"})  # fmt: skip
"""Operators besides the compute nodes that have an integer kernel of their own."""


def expected_kernels(view: GraphView) -> dict[str, str]:
    """Node name → operator of the nodes that should run as integer kernels."""
    found: dict[str, str] = {}
    for node in view.nodes:
        state = compute_state(view, node)
        product = node.op_type in ("MatMul", "MatMulNBits")
        if state == "quantized" or (state == "weight-only" and product) or _between(view, node, _BETWEEN):
            found[node.name] = node.op_type
    return found


def kernel_facts(quantized: Path, view: GraphView, *, threads: int) -> KernelFacts | None:
    """What the runtime makes of a quantized model; None where nothing in it is quantized."""
    quantized_nodes = expected_kernels(view)
    expected = {name: op for name, op in quantized_nodes.items() if not _wide(view, view.node_by_name[name])}
    without = [node for node in view.nodes if node.op not in _NEVER and _between(view, node, None)]
    if not quantized_nodes and not without:
        return None
    settings = SessionSettings(threads=threads)
    optimized = optimized_view(quantized, settings)
    report = kernel_report(quantized, expected, settings, view=optimized)
    unfused = [
        UnfusedNode(name=name, op=expected[name], code=UNFUSED, sentence=sentence)
        for name, sentence in report.unfused.items()
    ]
    unfused += [
        UnfusedNode(
            name=node.name,
            op=node.op_type,
            code=NO_KERNEL,
            sentence=f"there is no integer kernel for {node.op_type}: it runs in float, between the conversions "
            "around it",
        )
        for node in without
        if node.name not in expected and not _wide(view, node)
    ]
    wide = sorted({kind for node in view.nodes for kind in _wide(view, node)})
    note = ""
    if wide:
        count = sum(bool(_wide(view, node)) for node in view.nodes)
        note = f"{count} nodes run as float, because there are no integer kernels of {' and '.join(wide)}"
    return KernelFacts(
        runtime=runtime_version(),
        integer=tuple(OpCount(op=op, count=count) for op, count in report.integer.items()),
        float_compute=_float_compute(optimized),
        unfused=tuple(unfused),
        note=note,
    )


_WIDE = frozenset({"int16", "uint16", "float8_e4m3fn", "float8_e5m2"})
"""Quantized types without integer kernels."""


def _wide(view: GraphView, node: NodeInfo) -> tuple[str, ...]:
    """The types without integer kernels that a node between quantizers reads."""
    if node.op in QUANTIZE_OPS or node.op in DEQUANTIZE_OPS:
        return ()
    sources = [dequantizer(view, name) for name in node.inputs if name]
    kinds = (_held(view, source) for source in sources if source is not None)
    return tuple(kind for kind in kinds if kind in _WIDE)


def _held(view: GraphView, source: NodeInfo) -> str:
    """The type that a weight is stored in, or that an activation is quantized to."""
    maker = view.producer(source.input(0))
    stored = maker.input(0) if maker is not None and maker.op == "Cast" else source.input(0)
    zero = source.input(2)
    name = stored if view.is_constant(stored) else zero
    return (view.tensors[name].dtype or "") if name else ""


_NEVER = QUANTIZE_OPS | DEQUANTIZE_OPS | INTEGER_COMPUTE_OPS | _BETWEEN | {"Identity", "Relu", "Clip"}


def _between(view: GraphView, node: NodeInfo, operators: frozenset[str] | None) -> bool:
    """Whether ``node`` computes, reads DequantizeLinear only, and is followed by one QuantizeLinear.

    Args:
        view: The graph.
        node: A node.
        operators: Those that count; None for all that compute in float and are not known to have a kernel.
    """
    if operators is not None and node.op not in operators:
        return False
    if operators is None and not _computes(node):
        return False
    data = [name for name in node.inputs if name and not view.is_constant(name)]
    if node.op == "Where":
        data = [name for name in node.inputs[1:] if name]
    if not data or any(dequantizer(view, name) is None for name in data):
        return False
    uses = view.uses(node.outputs[0]) if node.outputs[0] else ()
    return bool(uses) and all(use.node.op in QUANTIZE_OPS for use in uses)


def _computes(node: NodeInfo) -> bool:
    """Whether the operator is known to compute on floats, without an integer form."""
    row = lookup(node.domain, node.op_type)
    return row is not None and row.trait in (Trait.OWN, Trait.FIXED, Trait.FLOAT) and not is_float_compute(node)


def _float_compute(optimized: GraphView) -> tuple[OpCount, ...]:
    counts = Counter(node.op_type for node in optimized.nodes if is_float_compute(node))
    return tuple(OpCount(op=op, count=count) for op, count in sorted(counts.items()))
