"""Sums behind convolutions, of which one operand is quantized.

Some runtimes compute ``conv(x) + r`` in the convolution's kernel. Its result can be integers only if r is, and
conv(x) itself must not be quantized, for that would end the kernel (NVIDIA TensorRT, Q/DQ Layer-Placement
Recommendations: "Quantize the residual input in skip connections"). So r gets Q/DQ, the convolution's result none.
"""

from __future__ import annotations

from quantcli.graph.view import GraphView, NodeInfo

_CONVOLUTIONS = {"Conv", "ConvTranspose"}


def convolution_of(view: GraphView, node: NodeInfo) -> NodeInfo | None:
    """The convolution that the sum ``node`` joins; None where there is none.

    That is the later one where both operands are convolutions: the other is then the shortcut.
    """
    if node.op != "Add" or len(node.inputs) != 2 or any(view.is_constant(name) for name in node.inputs):
        return None
    found = [maker for name in node.inputs if (maker := _sole_convolution(view, name)) is not None]
    places = {each.name: index for index, each in enumerate(view.nodes)} if len(found) > 1 else {}
    return max(found, key=lambda each: places.get(each.name, 0), default=None)


def _sole_convolution(view: GraphView, name: str) -> NodeInfo | None:
    """The convolution that makes ``name`` for one reader only."""
    maker = view.producer(name)
    if maker is None or maker.op not in _CONVOLUTIONS or view.tensors[name].is_output:
        return None
    return maker if len(view.uses(name)) == 1 else None
