"""AveragePool becomes a depthwise convolution.

    y = AveragePool(x, kernel k, strides, pads, dilations)  →  y = Conv(x, w, group = C, the same geometry)
    w[c, 0, ·] = 1 / ∏ k

Equal where every window divides by the same number ∏ k: padding is counted (count_include_pad = 1) or there is
none. Otherwise windows at the border divide by fewer positions, and the pool is left as it is; so it is where
ceil_mode adds a window that reaches beyond the padded map, or where that cannot be seen because the map's size
is not known. All weights are equal, so that their 8-bit form has no rounding error.

Why: onnxruntime's integer AveragePool takes 57 times as long as the float one; a pool left in float between
integer convolutions costs two conversions. Whether the convolution is faster is measured
(``Choices.average_pool``). Bodies stay as they are.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from quantcli.graph.passes.constants import make_initializer, unique_name


def write_average_pool_as_conv(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; it has nothing to tell."""
    for node in model.graph:
        if node.op_type != "AveragePool" or node.domain or not _divides_equally(node):
            continue
        source = node.inputs[0]
        assert source is not None
        assert source.shape is not None
        channels = source.shape[1]
        assert isinstance(channels, int)
        kernel = node.attributes.get_ints("kernel_shape", [])
        weight = np.full((channels, 1, *kernel), 1 / math.prod(kernel), np.float32)
        name = unique_name(model.graph, f"{node.outputs[0].name}_weight")
        node.op_type = "Conv"
        for key in ("count_include_pad", "ceil_mode"):
            node.attributes.pop(key, None)
        node.attributes.add(ir.AttrInt64("group", channels))
        node.resize_inputs(2)
        node.replace_input_with(1, make_initializer(model.graph, name, weight))
    return ()


def _divides_equally(node: ir.Node) -> bool:
    """Whether all windows of a float32 pool with a known number of channels divide by the same number."""
    source, attributes = node.inputs[0], node.attributes
    if source is None or source.shape is None or source.dtype != ir.DataType.FLOAT:
        return False
    if len(source.shape) < 3 or not isinstance(source.shape[1], int):
        return False
    pads = list(attributes.get_ints("pads", []))
    padding = attributes.get_string("auto_pad", "NOTSET")
    counted = bool(attributes.get_int("count_include_pad", 0))
    if padding in ("SAME_UPPER", "SAME_LOWER") and not counted:
        return False
    if padding == "NOTSET" and any(pads) and not counted:
        return False
    return not attributes.get_int("ceil_mode", 0) or _all_windows_inside(node, source.shape)


def _all_windows_inside(node: ir.Node, shape: ir.Shape) -> bool:
    """Whether rounding the output's size up or down is the same: (size + pads − reach) divides by the stride."""
    attributes = node.attributes
    if attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return False
    kernel = attributes.get_ints("kernel_shape", [])
    rank = len(kernel)
    strides = attributes.get_ints("strides", [1] * rank)
    dilations = attributes.get_ints("dilations", [1] * rank)
    pads = attributes.get_ints("pads", [0] * (2 * rank))
    for axis, size in enumerate(list(shape)[2:]):
        if not isinstance(size, int):
            return False
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        if (size + pads[axis] + pads[rank + axis] - reach) % strides[axis]:
            return False
    return True
