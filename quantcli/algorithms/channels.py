"""Which axis of a value counts its channels.

Convolutions count channels on axis 1, matrix products and layer normalization on the last one; other operators
carry the axis from input to output: elementwise ones align shapes at their ends (numpy's broadcasting), Transpose
permutes, and Reshape keeps it where the channels stay together. For row-major order, let an input have C channels
on axis a and an output O elements on axis b, with equally many elements on the axes from a and from b on. Then
with S elements behind each step of a and T behind each of b, C·S = O·T, and where k = O/C = S/T is whole, element
(o, t) of the output lies at o·T + t, hence in channel ⌊(o·T + t)/S⌋ = ⌊o/k⌋: channel c becomes the k channels
c·k … c·k + k − 1.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quantcli.graph.view import Dim, GraphView, NodeInfo

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_LONGEST_SHAPE = 8
"""Axes that are tried where the rank is not known."""

_AXIS_ONE = (
    "Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN",
    "MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool",
)  # fmt: skip
_ELEMENTWISE = (
    "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Clip", "Sigmoid",
    "HardSigmoid", "Tanh", "HardSwish", "Swish", "Gelu", "Erf", "Softplus", "Softsign", "Mish", "Exp",
    "Log", "Sqrt", "Reciprocal", "Abs", "Neg", "Sin", "Cos", "Floor", "Ceil", "Round", "Identity",
    "Softmax", "LogSoftmax", "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Where",
    "QuantizeLinear", "DequantizeLinear", "LpNormalization",
)  # fmt: skip
_SAME_AXIS = (
    "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN", "LayerNormalization",
    "RMSNormalization", "MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool",
    "Dropout", "Resize", "Upsample", "Slice", "Pad", "Tile", "CumSum",
)  # fmt: skip
"""Operators whose first input and first output have the same axes; sizes may differ."""
_NORMALIZATIONS = ("LayerNormalization", "RMSNormalization")
_CONTRIB_ELEMENTWISE = ("QuickGelu", "Gelu", "FastGelu", "BiasGelu", "FusedGelu")
_REDUCTIONS = (
    "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare",
    "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip
_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    """How one axis leads to another.

    Attributes:
        source: Value with the axis that is given.
        target: Value with the axis that is found.
        carry: Axis of ``source`` → axis of ``target``, None where the channels do not stay together.
    """

    source: str
    target: str
    carry: Callable[[int], int | None]


def channel_axes(view: GraphView) -> dict[str, int]:
    """Channel axes of the float values of the main graph.

    Args:
        view: A graph; shapes may be unknown.

    Returns:
        Value → axis, not negative, in topological order. Values without a known axis are left out, and so are
        constants. Where a value's readers disagree, its producer decides.
    """
    known: dict[str, int] = {}
    links: dict[str, list[_Link]] = {}
    for node in view.nodes:
        for link in _links(view, node):
            links.setdefault(link.source, []).append(link)
            inverse = _Link(source=link.target, target=link.source, carry=_inverse(view, link))
            links.setdefault(link.target, []).append(inverse)
    for node in view.nodes:
        for value, axis in (*_output_axes(view, node), *_input_axes(view, node)):
            known.setdefault(value, axis)
    waiting = deque(known)
    while waiting:
        value = waiting.popleft()
        for link in links.get(value, ()):
            carried = link.carry(known[value])
            if carried is not None and link.target not in known:
                known[link.target] = carried
                waiting.append(link.target)
    order = (*view.inputs, *(name for node in view.nodes for name in node.outputs))
    return {name: known[name] for name in order if name in known and _counts(view, name, known[name])}


def reshaped_axis(before: Sequence[Dim] | None, after: Sequence[Dim] | None, axis: int) -> int | None:
    """Axis of a reshaped value on which the channels of ``axis`` stay together; see the module.

    Args:
        before: Shape of the input.
        after: Shape of the output.
        axis: Channel axis of the input.
    """
    if before is None or after is None or axis >= len(before):
        return None
    channels = before[axis]
    behind = _extent(before[axis + 1 :])
    if behind is None or channels is None:
        return None
    for position, size in enumerate(after):
        rest = _extent(after[position + 1 :])
        if size is None or rest is None:
            continue
        if size == channels and rest == behind:
            return position
        if not isinstance(size, int) or not isinstance(channels, int) or channels <= 1 or size % channels:
            continue
        if (rest[0] * size, rest[1]) == (behind[0] * channels, behind[1]):
            return position
    return None


def constant_axes(view: GraphView, node: NodeInfo, index: int) -> tuple[int, ...] | None:
    """Axes that ``node`` names by its attribute or by its constant input ``index``; None where it names none."""
    given = node.attributes.get("axes")
    if isinstance(given, tuple):
        return tuple(int(axis) for axis in given)
    name = node.input(index)
    return tuple(int(axis) for axis in view.constant(name).reshape(-1)) if view.is_constant(name) else None


def _counts(view: GraphView, name: str, axis: int) -> bool:
    """Whether ``name`` is a float activation that has ``axis``."""
    info = view.tensors.get(name)
    fits = info is not None and (info.rank is None or axis < info.rank)
    return fits and info is not None and info.dtype in _FLOATS and not info.is_constant


def _rank(view: GraphView, name: str) -> int | None:
    info = view.tensors.get(name)
    return None if info is None else info.rank


def _shape(view: GraphView, name: str) -> tuple[Dim, ...] | None:
    info = view.tensors.get(name)
    return None if info is None else info.shape


def _extent(dims: Sequence[Dim]) -> tuple[int, tuple[str, ...]] | None:
    """Number of elements as a product of a number and symbols, None where a dimension is unknown."""
    if any(dim is None for dim in dims):
        return None
    symbols = tuple(sorted(dim for dim in dims if isinstance(dim, str)))
    return math.prod(dim for dim in dims if isinstance(dim, int)), symbols


# Where channels come from ---------------------------------------------------------------------------


def _output_axes(view: GraphView, node: NodeInfo) -> Iterator[tuple[str, int]]:
    """Channel axes of outputs that the operator states."""
    if node.domain:
        return
    if node.op_type in (*_AXIS_ONE, "Gemm"):
        yield node.outputs[0], 1
    elif node.op_type in _NORMALIZATIONS or (_weighted(view, node) and _rank(view, node.input(1)) != 1):
        yield from _last(view, node.outputs[0])


def _input_axes(view: GraphView, node: NodeInfo) -> Iterator[tuple[str, int]]:
    """Channel axes of inputs that the operator states."""
    if node.domain or not node.inputs:
        return
    if node.op_type in _AXIS_ONE:
        yield node.inputs[0], 1
    elif node.op_type == "Gemm":
        yield node.inputs[0], 0 if node.attributes.get("transA", 0) else 1
    elif node.op_type in _NORMALIZATIONS or _weighted(view, node):
        yield from _last(view, node.inputs[0])


def _weighted(view: GraphView, node: NodeInfo) -> bool:
    """Whether ``node`` multiplies by a constant matrix from the right."""
    return node.op_type == "MatMul" and view.is_constant(node.input(1))


def _last(view: GraphView, name: str) -> Iterator[tuple[str, int]]:
    rank = _rank(view, name)
    if rank:
        yield name, rank - 1


# What carries them ----------------------------------------------------------------------------------


def _links(view: GraphView, node: NodeInfo) -> Iterator[_Link]:
    """How axes of the inputs of ``node`` lead to axes of its outputs."""
    elementwise = node.op_type in (_ELEMENTWISE if not node.domain else _CONTRIB_ELEMENTWISE)
    output = node.outputs[0]
    if elementwise:
        for name in node.inputs:
            if name and not view.is_constant(name):
                yield _Link(source=name, target=output, carry=_aligned(view, name, output, len(node.inputs) == 1))
    if node.domain or not node.inputs:
        return
    source = node.inputs[0]
    if node.op_type in _SAME_AXIS:
        yield _Link(source=source, target=output, carry=_same)
    elif node.op_type == "Split":
        yield from (_Link(source=source, target=name, carry=_same) for name in node.outputs if name)
    elif node.op_type == "Concat":
        yield from (_Link(source=name, target=output, carry=_same) for name in node.inputs if name)
    elif node.op_type in _RESHAPES:
        shapes = _shape(view, source), _shape(view, output)
        yield _Link(source=source, target=output, carry=lambda axis: reshaped_axis(*shapes, axis))
    elif node.op_type == "Transpose":
        yield _Link(source=source, target=output, carry=_permuted(view, node))
    elif node.op_type in _REDUCTIONS:
        yield _Link(source=source, target=output, carry=_reduced(view, node))
    elif node.op_type == "Gather":
        yield _Link(source=source, target=output, carry=_gathered(view, node))


def _inverse(view: GraphView, link: _Link) -> Callable[[int], int | None]:
    """The axis of the source that leads to an axis of the target."""
    rank = _rank(view, link.source)
    axes = range(_LONGEST_SHAPE if rank is None else rank)
    return lambda wanted: next((axis for axis in axes if link.carry(axis) == wanted), None)


def _same(axis: int) -> int:
    return axis


def _aligned(view: GraphView, source: str, target: str, only: bool) -> Callable[[int], int | None]:
    """Shapes aligned at their ends; an operand that is repeated over the channels has none itself."""
    before, after = _shape(view, source), _shape(view, target)
    if before is None or after is None:
        return lambda axis: axis if only else None
    shift = len(after) - len(before)

    def carry(axis: int) -> int | None:
        repeated = axis >= len(before) or (before[axis] == 1 and after[axis + shift] != 1)
        return None if repeated else axis + shift

    return carry


def _permuted(view: GraphView, node: NodeInfo) -> Callable[[int], int | None]:
    order = node.attributes.get("perm")
    rank = _rank(view, node.inputs[0])
    axes = tuple(order) if isinstance(order, tuple) else tuple(range(rank or 0))[::-1]
    return lambda axis: axes.index(axis) if axis in axes else None


def _reduced(view: GraphView, node: NodeInfo) -> Callable[[int], int | None]:
    rank = _rank(view, node.inputs[0])
    axes = constant_axes(view, node, 1)
    if axes is None or (rank is None and min(axes, default=0) < 0):
        return lambda _: None
    gone = {axis % rank if rank else axis for axis in axes}
    kept = bool(node.attributes.get("keepdims", 1))
    return lambda axis: None if axis in gone else axis if kept else axis - sum(other < axis for other in gone)


def _gathered(view: GraphView, node: NodeInfo) -> Callable[[int], int | None]:
    rank, indices = _rank(view, node.inputs[0]), _rank(view, node.input(1))
    given = node.attributes.get("axis", 0)
    if rank is None or indices is None or not isinstance(given, int):
        return lambda _: None
    gathered, added = given % rank, indices - 1
    return lambda axis: axis if axis < gathered else None if axis == gathered else axis + added
