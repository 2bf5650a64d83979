"""The stem of a depthwise network: its first convolution and the depthwise one behind it.

Their integer kernels are slower than the float ones (few channels fill no vector), and 8 bits on the input
image are the largest single source of noise. Measured on onnxruntime 1.31.1 with AVX512-VNNI, time relative to
float and SQNR with the stem in integers → in float: vww_mobilenetv1_025 1.36 → 0.86; mobilenetv2 0.60 → 0.55,
12.6 → 15.8 dB; deeplabv3_mnv2 0.62 → 0.59, 23.5 → 23.7 dB. In front of a MaxPool or an ordinary convolution
the same costs time (squeezenet 0.51 → 1.14, resnet56 0.47 → 0.49), so the rule asks for depthwise readers.
"""

from __future__ import annotations

from quantcli.graph.view import GraphView, NodeInfo
from quantcli.quantize.kernels import Kernel

_IMAGE_CHANNELS = 4
"""Most channels of an image: more are features."""

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def is_stem(view: GraphView, kernel: Kernel) -> bool:
    """Whether ``kernel`` is the first Conv before depthwise ones only, or a depthwise Conv behind such a one."""
    node = kernel.node
    if node.op != "Conv":
        return False
    if _is_depthwise(view, node):
        before = _conv_before(view, node.inputs[0])
        return before is not None and _is_image_layer(view, before)
    readers = [use.node for use in view.uses(kernel.outputs[0])]
    return _is_image_layer(view, node) and bool(readers) and all(_is_depthwise(view, reader) for reader in readers)


def _weight_shape(view: GraphView, node: NodeInfo) -> tuple[int | str | None, ...]:
    return view.tensors[node.input(1)].shape or () if node.op == "Conv" else ()


def _is_depthwise(view: GraphView, node: NodeInfo) -> bool:
    shape = _weight_shape(view, node)
    return len(shape) == 4 and shape[1] == 1 and node.attributes.get("group", 1) != 1


def _is_image_layer(view: GraphView, node: NodeInfo) -> bool:
    """Whether an ordinary 2-D convolution reads few channels that no layer made."""
    shape = _weight_shape(view, node)
    if len(shape) != 4 or node.attributes.get("group", 1) != 1:
        return False
    if not isinstance(shape[1], int) or shape[1] > _IMAGE_CHANNELS:
        return False
    return is_first(view, node)


def is_first(view: GraphView, node: NodeInfo) -> bool:
    """Whether no layer is among what ``node`` reads from, directly or through other nodes."""
    stack, seen = [node.inputs[0]], set()
    while stack:
        maker = view.producer(stack.pop())
        if maker is None or maker.name in seen:
            continue
        if maker.op_type in _LAYERS:
            return False
        seen.add(maker.name)
        stack.extend(name for name in maker.inputs if name)
    return True


def _conv_before(view: GraphView, value: str) -> NodeInfo | None:
    """The Conv whose result ``value`` is, through Relu or Clip."""
    node = view.producer(value)
    while node is not None and node.op in {"Relu", "Clip"}:
        node = view.producer(node.inputs[0])
    return node if node is not None and node.op == "Conv" else None
