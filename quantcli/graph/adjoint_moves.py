"""Rules of reverse accumulation for operators that move, pick, add up or normalise values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from quantcli.graph.adjoint_rules import Back, Grads, NoRule, Rule, constant, is_variable, only, source, summed_to
from quantcli.graph.tape import Tape


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())


def _axes(node: ir.Node, index: int) -> list[int] | None:
    """Axes from an attribute or a constant input; None for all."""
    if "axes" in node.attributes:
        return [int(axis) for axis in node.attributes["axes"].as_ints()]
    found = constant(node, index)
    return None if found is None else [int(axis) for axis in found.reshape(-1)]


def _shaped(tape: Tape, grad: ir.Value, shape: Sequence[int]) -> ir.Value:
    return tape.op("Reshape", [grad, tape.ints(*shape)], allowzero=1)


def _reshape(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    return {0: _shaped(tape, only(grads), tape.shape(node.inputs[0]))}


def _transpose(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    rank = len(tape.shape(node.inputs[0]))
    perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else list(range(rank))[::-1]
    return {0: tape.op("Transpose", [only(grads)], perm=[int(place) for place in np.argsort(perm)])}


def _expand(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    return {0: summed_to(tape, only(grads), tape.shape(node.inputs[0]), tape.shape(node.outputs[0]))}


def _concat(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    g, axis = only(grads), _int(node, "axis", 0)
    back, start = {}, 0
    for index, value in enumerate(node.inputs):
        end = start + tape.shape(value)[axis]
        if is_variable(value):
            back[index] = tape.op("Slice", [g, tape.ints(start), tape.ints(end), tape.ints(axis)])
        start = end
    return back


def _split(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    parts = []
    for value, grad in zip(node.outputs, grads, strict=True):
        zeros = np.zeros(tape.shape(value), np.float32)
        parts.append(tape.constant(zeros) if grad is None else grad)
    return {0: tape.op("Concat", parts, axis=_int(node, "axis", 0))}


def _spread(tape: Tape, grad: ir.Value, shape: list[int], axis: int, step: int, size: int) -> ir.Value:
    """Zeros between the entries of an axis, and behind them up to ``size``."""
    count = shape[axis]
    if step > 1:
        opened = _shaped(tape, grad, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
        grad = _padded(tape, opened, axis + 1, 0, step - 1, len(shape) + 1)
        count *= step
        shape[axis] = count
        grad = _shaped(tape, grad, shape)
    shape[axis] = size
    if count > size:
        return tape.op("Slice", [grad, tape.ints(0), tape.ints(size), tape.ints(axis)])
    return _padded(tape, grad, axis, 0, size - count, len(shape)) if count < size else grad


def _padded(tape: Tape, grad: ir.Value, axis: int, before: int, behind: int, rank: int) -> ir.Value:
    pads = [0] * (2 * rank)
    pads[axis], pads[rank + axis] = before, behind
    return tape.op("Pad", [grad, tape.ints(*pads)])


def _slice(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    g, full, out = only(grads), tape.shape(node.inputs[0]), list(tape.shape(node.outputs[0]))
    if any(value is not None and is_variable(value) for value in node.inputs[1:]):
        return {0: _put_back(tape, node, g, full)}
    starts, axes, steps = constant(node, 1), constant(node, 3), constant(node, 4)
    if starts is None:
        raise NoRule
    where = range(starts.size) if axes is None else [int(axis) % len(full) for axis in axes]
    for place, axis in enumerate(where):
        step = 1 if steps is None else int(steps[place])
        if step < 1:
            return {0: _put_back(tape, node, only(grads), full)}
        first = min(max(int(starts[place]) + (full[axis] if starts[place] < 0 else 0), 0), full[axis])
        g = _spread(tape, g, out, axis, step, full[axis] - first)
        out[axis] = full[axis]
        g = _padded(tape, g, axis, first, 0, len(full)) if first else g
    return {0: g}


def _put_back(tape: Tape, node: ir.Node, grad: ir.Value, full: Sequence[int]) -> ir.Value:
    """What a Slice of any bounds took goes back to where it was, which a Slice of all positions tells."""
    size = int(np.prod(full))
    positions = tape.constant(np.arange(size, dtype=np.int64).reshape(full))
    taken = tape.like("Slice", [positions, *node.inputs[1:]], list(node.attributes.values()))
    flat = [tape.op("Reshape", [value, tape.ints(-1)]) for value in (taken, grad)]
    zeros = tape.constant(np.zeros(size, np.float32))
    return _shaped(tape, tape.op("ScatterElements", [zeros, *flat], axis=0, reduction="add"), full)


def _pad(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    pads, axes, full = constant(node, 1), constant(node, 3), tape.shape(node.inputs[0])
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    if pads is None or axes is not None or mode != "constant" or (pads < 0).any():
        raise NoRule
    begin = [int(pad) for pad in pads[: len(full)]]
    ends = [first + size for first, size in zip(begin, full, strict=True)]
    every = tape.ints(*range(len(full)))
    return {0: tape.op("Slice", [only(grads), tape.ints(*begin), tape.ints(*ends), every])}


def _gather(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    """Of constant indices: what was picked goes back to where it was, as a product with zeros and ones."""
    shape, axis = tape.shape(node.inputs[0]), _int(node, "axis", 0)
    picked = constant(node, 1)
    if picked is None or not is_variable(node.inputs[0]):
        raise NoRule
    axis %= len(shape)
    indices = picked.reshape(-1).astype(np.int64) % shape[axis]
    places = np.zeros((indices.size, shape[axis]), np.float32)
    places[np.arange(indices.size), indices] = 1
    before, behind = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    flat = _shaped(tape, only(grads), [before, indices.size, behind])
    spread = tape.op("MatMul", [tape.constant(np.ascontiguousarray(places.T)), flat])
    return {0: _shaped(tape, spread, shape)}


def _resize(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    """Of nearest neighbours by whole numbers: the copies are added up. Linear: Aᵀ along each axis, y = A·x."""
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "nearest"
    small, large = tape.shape(node.inputs[0]), tape.shape(node.outputs[0])
    if mode == "linear":
        grad = only(grads)
        for axis, (before, after) in enumerate(zip(small, large, strict=True)):
            if before != after:
                grad = _along(tape, grad, axis, _linear(node, before, after), len(small))
        return {0: grad}
    if mode != "nearest" or any(b % a for a, b in zip(small, large, strict=True)):
        raise NoRule
    split = [dim for a, b in zip(small, large, strict=True) for dim in (a, b // a)]
    copies = tape.ints(*range(1, 2 * len(small), 2))
    return {0: tape.op("ReduceSum", [_shaped(tape, only(grads), split), copies], keepdims=0)}


def _along(tape: Tape, grad: ir.Value, axis: int, matrix: np.ndarray, rank: int) -> ir.Value:
    """The product of ``matrix`` transposed with one axis."""
    last = [item for item in range(rank) if item != axis] + [axis]
    back = [last.index(item) for item in range(rank)]
    moved = tape.op("Transpose", [grad], perm=last)
    return tape.op("Transpose", [tape.op("MatMul", [moved, tape.constant(matrix)])], perm=back)


def _linear(node: ir.Node, before: int, after: int) -> np.ndarray:
    """float32 (after, before): weights of linear interpolation along one axis (ai.onnx, Resize).

    The scale is that of the sizes, which is what onnxruntime takes where sizes are given; given scales that are
    not their quotient have no rule.
    """
    given = constant(node, 2)
    if given is not None and given.size and not np.isclose(given, after / before, rtol=1e-6).any():
        raise NoRule
    for name, usual in (("antialias", 0), ("exclude_outside", 0)):
        if _int(node, name, usual) != usual:
            raise NoRule
    at = np.arange(after, dtype=np.float64)
    found = node.attributes.get("coordinate_transformation_mode")
    match "half_pixel" if found is None else found.as_string():
        case "half_pixel":
            x = (at + 0.5) * before / after - 0.5
        case "pytorch_half_pixel":
            x = (at + 0.5) * before / after - 0.5 if after > 1 else np.zeros(1)
        case "asymmetric":
            x = at * before / after
        case "align_corners":
            x = at * (before - 1) / max(after - 1, 1)
        case _:
            raise NoRule
    x = np.clip(x, 0, before - 1)
    low = np.floor(x).astype(int)
    high = np.minimum(low + 1, before - 1)
    matrix = np.zeros((after, before), np.float32)
    np.add.at(matrix, (np.arange(after), low), 1 - (x - low))
    np.add.at(matrix, (np.arange(after), high), x - low)
    return matrix


# Sums and norms -------------------------------------------------------------------------------------------


def _kept(tape: Tape, node: ir.Node) -> tuple[list[int], list[int]]:
    """Shape of a reduction's result with the reduced axes kept, and these axes."""
    shape = list(tape.shape(node.inputs[0]))
    axes = _axes(node, 1)
    wanted = list(range(len(shape))) if axes is None else [axis % len(shape) for axis in axes]
    return [1 if axis in wanted else dim for axis, dim in enumerate(shape)], wanted


def _reduce(*, mean: bool) -> Rule:
    def rule(tape: Tape, node: ir.Node, grads: Grads) -> Back:
        kept, axes = _kept(tape, node)
        shape = tape.shape(node.inputs[0])
        g = _shaped(tape, only(grads), kept)
        if mean:
            g = tape.op("Mul", [g, tape.constant(1 / math.prod(shape[axis] for axis in axes))])
        return {0: tape.op("Expand", [g, tape.ints(*shape)])}

    return rule


def _reduce_l2(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    kept, _ = _kept(tape, node)
    ratio = tape.op("Div", [only(grads), node.outputs[0]])
    return {0: tape.op("Mul", [node.inputs[0], _shaped(tape, ratio, kept)])}


def _reduce_max(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    kept, _ = _kept(tape, node)
    taken = tape.op("Equal", [node.inputs[0], _shaped(tape, node.outputs[0], kept)])
    return {0: tape.op("Where", [taken, _shaped(tape, only(grads), kept), tape.constant(0.0)])}


def _global_average(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    shape = tape.shape(node.inputs[0])
    g = tape.op("Mul", [only(grads), tape.constant(1 / math.prod(shape[2:]))])
    return {0: tape.op("Expand", [g, tape.ints(*shape)])}


def _global_max(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    taken = tape.op("Equal", [node.inputs[0], node.outputs[0]])
    return {0: tape.op("Where", [taken, only(grads), tape.constant(0.0)])}


def _softmax(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    """y·(g − Σ g·y)."""
    y, axis = node.outputs[0], _int(node, "axis", -1)
    product = tape.op("Mul", [only(grads), y])
    total = tape.op("ReduceSum", [product, tape.ints(axis)], keepdims=1)
    return {0: tape.op("Sub", [product, tape.op("Mul", [y, total])])}


def _layer_norm(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    """With x̂ = (x − mean)/σ and h = g·scale: (h − mean h − x̂·mean(h·x̂)) / σ."""
    x, scale = source(node), constant(node, 1)
    rank = len(tape.shape(x))
    axis = _int(node, "axis", -1) % rank
    if scale is None:
        raise NoRule
    axes = tape.ints(*range(axis, rank))
    epsilon = node.attributes.get("epsilon")
    eps = tape.constant(1e-5 if epsilon is None else float(epsilon.as_float()))

    def mean(value: ir.Value) -> ir.Value:
        return tape.op("ReduceMean", [value, axes], keepdims=1)

    centred = tape.op("Sub", [x, mean(x)])
    variance = mean(tape.op("Mul", [centred, centred]))
    inverse = tape.op("Reciprocal", [tape.op("Sqrt", [tape.op("Add", [variance, eps])])])
    normal = tape.op("Mul", [centred, inverse])
    h = tape.op("Mul", [only(grads), node.inputs[1]])
    along = tape.op("Mul", [normal, mean(tape.op("Mul", [h, normal]))])
    rest = tape.op("Sub", [tape.op("Sub", [h, mean(h)]), along])
    return {0: tape.op("Mul", [rest, inverse])}


MOVES: Mapping[str, Rule] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    "Expand": _expand,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Resize": _resize,
    "ReduceSum": _reduce(mean=False),
    "ReduceMean": _reduce(mean=True),
    "ReduceL2": _reduce_l2,
    "ReduceMax": _reduce_max,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "Softmax": _softmax,
    "LayerNormalization": _layer_norm,
}
