"""Which nodes really run as integer kernels.

onnxruntime writes the graph that it runs (``SessionOptions.optimized_model_filepath``); integer kernels in it and
in its bodies keep the name of the node they were made of, with a suffix (``_token_3`` from the layout change,
``/MatMulAddFusion`` from joining a bias).
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from quantcli.graph.read_view import read_whole_view
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.runtime.kernel_report import KernelReport
from quantcli.runtime.session import Session, SessionSettings

INTEGER_KERNELS = frozenset({
    "QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "QLinearAdd", "QLinearMul", "QLinearConcat",
    "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax",
    "QLinearWhere", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention",
    "MatMulNBits",
})  # fmt: skip
"""Operators of the optimized graph that compute on integers."""

_PRODUCT = "MatMulInteger"
"""What onnxruntime fuses with DynamicQuantizeLinear before it, or with Cast and Mul behind it."""

_SUFFIX = re.compile(r"(_token_\d+|/MatMulAddFusion/?|_nchwc)+$")

_OPTIMIZED = "optimized.onnx"


def optimized_view(model: bytes | Path, settings: SessionSettings) -> GraphView:
    """The graph that onnxruntime runs, with open bodies.

    Raises:
        RuntimeFailure: R101, the model does not load.
    """
    with tempfile.TemporaryDirectory(prefix="quantcli-") as folder:
        path = Path(folder) / _OPTIMIZED
        config = {
            **settings.config,
            "session.optimized_model_external_initializers_file_name": _OPTIMIZED + ".data",
            "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        }
        Session(model, replace(settings, optimized_path=path, config=config))
        return read_whole_view(path)


def plain_name(name: str) -> str:
    """The name that a node of the optimized graph was made from: of a node or, in NCHWc layout, of its result."""
    return _SUFFIX.sub("", name)


def kernel_report(
    model: bytes | Path,
    expected: Mapping[str, str],
    settings: SessionSettings | None = None,
    *,
    view: GraphView | None = None,
) -> KernelReport:
    """Count integer kernels, and say of each expected node that is none what it became.

    Args:
        model: The quantized model.
        expected: Node name → operator, of the nodes that are to be integer kernels.
        settings: How the model is run; the optimization level decides what is fused.
        view: The optimized graph, where it is known already.
    """
    if view is None:
        view = optimized_view(model, settings or SessionSettings())
    integer = [node for node in view.nodes if node.op_type in INTEGER_KERNELS]
    names = {plain_name(node.name) for node in integer if node.op_type != _PRODUCT}
    unfused = {}
    left = {
        plain_name(node.name): node
        for node in view.nodes
        if node.op_type not in INTEGER_KERNELS or node.op_type == _PRODUCT
    }
    for name, op_type in expected.items():
        if name in names:
            continue
        node = left.get(name)
        if node is not None and op_type == "Concat" and _moves_integers(view, node):
            continue
        unfused[name] = _why(view, node, op_type)
    return KernelReport(
        integer=dict(sorted(Counter(node.op_type for node in integer).items())),
        expected=len(expected),
        fused=len(expected) - len(unfused),
        unfused=unfused,
    )


def _moves_integers(view: GraphView, node: NodeInfo) -> bool:
    """Whether an operator that only moves values does so with integers.

    The optimized graph states no types, but a float one between quantized neighbours reads DequantizeLinear.
    """
    makers = [view.producer(name) for name in node.inputs if name]
    return all(maker is not None and maker.op_type != "DequantizeLinear" for maker in makers)


def _why(view: GraphView, node: NodeInfo | None, op_type: str) -> str:
    """What can be read off the optimized graph about a node that was not fused."""
    if node is None:
        return f"{op_type} was merged into another float operator"
    if node.op_type == _PRODUCT:
        return f"its product is one of integers, but Cast and Mul behind it are kernels of their own ({node.op})"
    readers = [use.node for use in view.uses(node.outputs[0])]
    if view.tensors[node.outputs[0]].is_output:
        return f"its result is an output of the graph, so no QuantizeLinear follows (it runs as {node.op})"
    if len(readers) > 1:
        return f"its result has {len(readers)} readers, not one QuantizeLinear (it runs as {node.op})"
    if readers and readers[0].op_type != "QuantizeLinear":
        return f"a {readers[0].op} follows it, not a QuantizeLinear (it runs as {node.op})"
    makers = [view.producer(name) for name in node.inputs if name and not view.is_constant(name)]
    floats = [m.op for m in makers if m is not None and m.op_type != "DequantizeLinear"]
    if floats:
        return f"an input comes from {floats[0]}, not from DequantizeLinear (it runs as {node.op})"
    return f"onnxruntime did not accept the pattern; a bias scale that is not s_x·s_w does this ({node.op})"
