"""Operators that hand scales on: f(x/s) = f(x)/s for scales s > 0 per channel.

Relu, LeakyRelu, PRelu, Abs, Neg, pools, Resize, sums, means and extremes over other axes, and what moves elements.
Clip(x, 0, c): see ``UpperBound``. Pad by zeros: a padded channel is 0 whatever its scale, so it has variables of
its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from quantcli.algorithms import channel_joins, channel_layers
from quantcli.algorithms.channel_flow import SPLIT_CHANNELS, Channels, Flow, UpperBound
from quantcli.algorithms.channels import constant_axes, reshaped_axis
from quantcli.graph.view import GraphView, NodeInfo

Rule = Callable[[Flow, NodeInfo], None]


def walk(view: GraphView) -> Flow:
    """The variables of every value of ``view``, and the constants that depend on them."""
    flow = Flow(view=view)
    flow.reasons.update(dict.fromkeys(view.inputs, "graph input"))
    for node in view.nodes:
        rule = RULES.get(node.op_type) if not node.domain else None
        if rule is None:
            flow.pin_inputs(node)
        else:
            rule(flow, node)
        for name in node.captures:
            flow.pin_value(name, "read inside a body")
    for name in view.outputs:
        flow.pin_value(name, "graph output")
    return flow


# One input ------------------------------------------------------------------------------------------


def _same(flow: Flow, node: NodeInfo) -> None:
    """The output has the axes of the input, and the same channels."""
    found = _first(flow, node)
    if found is not None:
        flow.put(node.outputs[0], found.axis, found.ids)


def _pool(flow: Flow, node: NodeInfo) -> None:
    """Pools over everything but axes 0 and 1; indices, where they are asked for, do not depend on s > 0."""
    found = _first(flow, node)
    if found is None:
        return
    if found.axis == 1:
        flow.put(node.outputs[0], 1, found.ids)
    else:
        flow.pin_inputs(node, SPLIT_CHANNELS)


def _resize(flow: Flow, node: NodeInfo) -> None:
    """Interpolation between elements of a channel; extrapolation by a constant is none."""
    found = _first(flow, node)
    if found is None:
        return
    sizes = flow.size(node.inputs[0], found.axis), flow.size(node.outputs[0], found.axis)
    crops = node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    if crops or sizes != (len(found.ids), len(found.ids)):
        flow.pin_inputs(node, "Resize over channels")
    else:
        flow.put(node.outputs[0], found.axis, found.ids)


def _prelu(flow: Flow, node: NodeInfo) -> None:
    """Slopes do not scale; those that are computed are pinned."""
    flow.pin_value(node.input(1), "slope of a PRelu")
    _same(flow, node)


def _clip(flow: Flow, node: NodeInfo) -> None:
    """Lower bound 0 or none, upper bound positive or none."""
    found = _first(flow, node)
    if found is None:
        return
    low = _bound(flow, node, 1, "min", -math.inf)
    high = _bound(flow, node, 2, "max", math.inf)
    if low not in (0.0, -math.inf) or high is None or not high > 0:
        flow.pin_inputs(node, "Clip with other bounds than 0 and a positive one")
        return
    if high < float(np.finfo(np.float32).max):
        flow.bounds.append(UpperBound(value=node.outputs[0], upper=high))
    flow.put(node.outputs[0], found.axis, found.ids)


def _bound(flow: Flow, node: NodeInfo, index: int, attribute: str, absent: float) -> float | None:
    """A bound of a Clip; None where it is computed."""
    given = node.attributes.get(attribute)
    if isinstance(given, int | float):
        value = float(given)
    elif not node.input(index):
        return absent
    else:
        array = flow.array(node.input(index))
        if array is None or array.size != 1:
            return None
        value = float(array.reshape(()))
    return absent if abs(value) >= float(np.finfo(np.float32).max) and value * absent > 0 else value


def _reduce(flow: Flow, node: NodeInfo) -> None:
    """Reductions over other axes than the channels'."""
    found = _first(flow, node)
    if found is None:
        return
    axes, rank = constant_axes(flow.view, node, 1), flow.rank(node.inputs[0])
    gone = None if axes is None or rank is None else {axis % rank for axis in axes}
    if not gone or found.axis in gone:
        flow.pin_inputs(node, f"{node.op_type} over channels")
        return
    kept = bool(node.attributes.get("keepdims", 1))
    shift = 0 if kept else sum(axis < found.axis for axis in gone)
    flow.put(node.outputs[0], found.axis - shift, found.ids)


def _first(flow: Flow, node: NodeInfo) -> Channels | None:
    """Variables of the first input; without them the outputs have none, for the same reason."""
    found = flow.get(node.input(0))
    if found is None:
        for name in node.outputs:
            flow.reasons.setdefault(name, flow.reason(node.input(0)))
    return found


def _ignore(flow: Flow, node: NodeInfo) -> None:
    """The operator reads the shape only."""
    for name in node.outputs:
        flow.reasons.setdefault(name, f"operator {node.op}")


# Moves ----------------------------------------------------------------------------------------------


def _reshape(flow: Flow, node: NodeInfo) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: channel c becomes k neighbours."""
    found = _first(flow, node)
    if found is None:
        return
    axis = reshaped_axis(flow.shape(node.inputs[0]), flow.shape(node.outputs[0]), found.axis)
    if axis is None:
        flow.pin_inputs(node, SPLIT_CHANNELS)
        return
    size = flow.size(node.outputs[0], axis) or len(found.ids)
    flow.put(node.outputs[0], axis, np.repeat(found.ids, size // len(found.ids)))


def _transpose(flow: Flow, node: NodeInfo) -> None:
    found = _first(flow, node)
    if found is None:
        return
    given, rank = node.attributes.get("perm"), flow.rank(node.inputs[0])
    order = tuple(given) if isinstance(given, tuple) else tuple(range(rank or 0))[::-1]
    if found.axis in order:
        flow.put(node.outputs[0], order.index(found.axis), found.ids)
    else:
        flow.pin_inputs(node, "Transpose of unknown rank")


def _slice(flow: Flow, node: NodeInfo) -> None:
    """On the channel axis a choice of channels, on others nothing."""
    found = _first(flow, node)
    if found is None:
        return
    rank = flow.rank(node.inputs[0])
    starts, ends = flow.array(node.input(1)), flow.array(node.input(2))
    axes = constant_axes(flow.view, node, 3)
    if not node.input(3) and starts is not None:
        axes = tuple(range(starts.size))
    if axes is None or rank is None:
        flow.pin_inputs(node, "Slice of unknown axes")
        return
    places = [place for place, axis in enumerate(axes) if axis % rank == found.axis]
    if not places:
        flow.put(node.outputs[0], found.axis, found.ids)
        return
    steps = flow.array(node.input(4)) if node.input(4) else np.ones(len(axes), np.int64)
    if starts is None or ends is None or steps is None or steps[places[0]] < 0:
        flow.pin_inputs(node, "Slice of channels that are not known")
        return
    start, end, step = (int(array.reshape(-1)[places[0]]) for array in (starts, ends, steps))
    flow.put(node.outputs[0], found.axis, found.ids[start:end:step])


def _pad(flow: Flow, node: NodeInfo) -> None:
    """Zeros around a channel change nothing; channels of zeros have variables of their own."""
    found = _first(flow, node)
    if found is None:
        return
    rank, pads = flow.rank(node.inputs[0]), flow.array(node.input(1))
    axes = constant_axes(flow.view, node, 3) if node.input(3) else tuple(range(rank or 0))
    value = flow.array(node.input(2)) if node.input(2) else np.zeros(1)
    constant = node.attributes.get("mode", "constant") == "constant"
    if pads is None or axes is None or not rank or (constant and (value is None or np.any(value != 0))):
        flow.pin_inputs(node, "Pad by something else than zeros")
        return
    flat = pads.reshape(-1)
    before, after = 0, 0
    for place, axis in enumerate(axes):
        if axis % rank == found.axis:
            before, after = int(flat[place]), int(flat[place + len(axes)])
    if before < 0 or after < 0 or (not constant and (before or after)):
        flow.pin_inputs(node, "Pad of channels by other channels")
        return
    ids = np.concatenate([flow.groups.fresh(before), found.ids, flow.groups.fresh(after)])
    flow.put(node.outputs[0], found.axis, ids)


def _split(flow: Flow, node: NodeInfo) -> None:
    found = _first(flow, node)
    if found is None:
        return
    rank, axis = flow.rank(node.inputs[0]), node.attributes.get("axis", 0)
    if rank is None or not isinstance(axis, int):
        flow.pin_inputs(node, "Split of unknown rank")
        return
    if axis % rank != found.axis:
        for name in node.outputs:
            flow.put(name, found.axis, found.ids)
        return
    sizes = [flow.size(name, found.axis) if name else None for name in node.outputs]
    if any(size is None for size in sizes) or sum(size or 0 for size in sizes) != len(found.ids):
        flow.pin_inputs(node, "Split into unknown sizes")
        return
    start = 0
    for name, size in zip(node.outputs, sizes, strict=True):
        flow.put(name, found.axis, found.ids[start : start + (size or 0)])
        start += size or 0


def _gather(flow: Flow, node: NodeInfo) -> None:
    """A choice of channels by constants, or of anything else on another axis."""
    found = _first(flow, node)
    if found is None:
        return
    rank, added = flow.rank(node.inputs[0]), flow.rank(node.input(1))
    axis, chosen = node.attributes.get("axis", 0), flow.array(node.input(1))
    if rank is None or added is None or not isinstance(axis, int):
        flow.pin_inputs(node, "Gather of unknown rank")
    elif axis % rank != found.axis:
        flow.put(node.outputs[0], found.axis + (added - 1 if axis % rank < found.axis else 0), found.ids)
    elif chosen is not None and chosen.ndim == 1:
        flow.put(node.outputs[0], found.axis, found.ids[chosen])
    else:
        flow.pin_inputs(node, "Gather over channels")


RULES: dict[str, Rule] = {
    "Conv": channel_layers.convolution,
    "ConvTranspose": channel_layers.convolution,
    "Gemm": channel_layers.gemm,
    "MatMul": channel_layers.matmul,
    "BatchNormalization": channel_layers.batch_normalization,
    **dict.fromkeys(
        ("LayerNormalization", "RMSNormalization", "InstanceNormalization"), channel_layers.normalization
    ),
    **dict.fromkeys(("Relu", "LeakyRelu", "Abs", "Neg", "Identity", "Dropout"), _same),
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"), _pool
    ),
    **dict.fromkeys(("Shape", "Size"), _ignore),
    "Resize": _resize,
    "PRelu": _prelu,
    "Clip": _clip,
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"), _reduce),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    "Slice": _slice,
    "Pad": _pad,
    "Split": _split,
    "Gather": _gather,
    "Concat": channel_joins.concat,
    **dict.fromkeys(("Add", "Sub", "Sum", "Mean", "Max", "Min"), channel_joins.elementwise_sum),
    "Mul": channel_joins.mul,
    "Div": channel_joins.div,
}
"""Rules for operators of ai.onnx; all others pin what they read."""
