"""Large weights in slices of output channels, each small enough to be compared in float64.

What a slice is compared with is found by the code that reads whole weights (``quantized_weights``), from a picture
of the graph in which the constants behind the weight are cut down to the slice. That is known for MatMul and Gemm
whose weight is in float, behind one DequantizeLinear, or packed in MatMulNBits, and for MatMulInteger; every other
weight is one slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from quantcli.evaluate.quantized_weights import FoundWeight, constant_value, find_weight, scale_of_steps
from quantcli.evaluate.recurrent_weights import RECURRENT, find_recurrent
from quantcli.evaluate.structure import DEQUANTIZE_OPS
from quantcli.graph.view import GraphView, NodeInfo

SLICE_ELEMENTS = 2**20
"""Elements of a slice: 8 MB in float64."""

Slice = tuple[np.ndarray, FoundWeight]
"""The original's weight and the other one, as it is found."""


def weight_slices(
    original: GraphView, node: NodeInfo, slot: int, quantized: GraphView, partner: NodeInfo
) -> Iterator[Slice]:
    """The weight of ``node`` and that of ``partner``, slice by slice; nothing if none is found.

    Args:
        original: Graph of ``node``.
        node: A compute node.
        slot: Its input with the weight.
        quantized: Graph of ``partner``.
        partner: What became of it.
    """
    weight = constant_value(original, node.input(slot))
    assert weight is not None
    if node.op in RECURRENT:
        recurrent = find_recurrent(quantized, partner, slot)
        if recurrent is not None:
            yield weight, recurrent
        return
    cut = _cut_of(quantized, partner) if node.op_type in ("MatMul", "Gemm") and weight.ndim == 2 else None
    axis = 0 if node.attributes.get("transB") else 1
    if cut is None or slot != 1 or cut.channels != weight.shape[axis] or weight.size <= SLICE_ELEMENTS:
        found = find_weight(quantized, partner)
        if found is not None:
            yield weight, found
        return
    step = max(1, SLICE_ELEMENTS * cut.channels // weight.size)
    for start in range(0, cut.channels, step):
        stop = min(start + step, cut.channels)
        found = cut.slice(start, stop)
        if found is None:
            return
        yield (weight[start:stop] if axis == 0 else weight[:, start:stop]), found


class _Cut:
    """A weight of a quantized graph whose constants can be cut.

    Args:
        view: The graph.
        node: The node of the weight.
        axes: Name of each constant → the axis that holds the output channels, −1 for none.
        channels: Number of output channels.
    """

    def __init__(self, view: GraphView, node: NodeInfo, axes: Mapping[str, int], channels: int) -> None:
        self._view, self._node, self._axes = view, node, axes
        self.channels = channels
        self._arrays = {name: view.constant(name) for name in axes}  # mapped files, or unpacked once

    def slice(self, start: int, stop: int) -> FoundWeight | None:
        """The weight of channels ``start`` to ``stop``."""
        parts = {name: self._part(name, start, stop) for name in self._axes}
        node = self._node
        if node.op_type == "MatMulNBits":
            node = replace(node, attributes={**node.attributes, "N": stop - start})
        return find_weight(replace(self._view, read_constant=parts.__getitem__), node)

    def _part(self, name: str, start: int, stop: int) -> np.ndarray:
        array, axis = self._arrays[name], self._axes[name]
        if axis < 0:
            return array
        if array.ndim == 1 and array.size != self.channels:  # rows of channels, one behind the other
            return array.reshape(self.channels, -1)[start:stop].reshape(-1)
        return array[start:stop] if axis == 0 else array[:, start:stop]


def _cut_of(view: GraphView, node: NodeInfo) -> _Cut | None:
    """How the weight of ``node`` can be cut; None where that is not known."""
    if node.op == "com.microsoft.MatMulNBits":
        names = [name for name in node.inputs[1:4] if name]
        channels = node.attributes.get("N")
        if not isinstance(channels, int) or not all(_divides(view, name, channels) for name in names):
            return None
        return _Cut(view, node, dict.fromkeys(names, 0), channels)
    if node.op == "MatMulInteger":
        return _cut_of_integers(view, node)
    if node.op_type not in ("MatMul", "Gemm") or node.domain:
        return None
    axis = 0 if node.attributes.get("transB") else 1
    name = node.input(1)
    maker = view.producer(name)
    if maker is not None and maker.op in DEQUANTIZE_OPS:
        return _cut_of_dequantized(view, node, maker, axis)
    shape = _shape(view, name)
    return _Cut(view, node, {name: axis}, shape[axis]) if shape is not None and len(shape) == 2 else None


def _cut_of_dequantized(view: GraphView, node: NodeInfo, maker: NodeInfo, axis: int) -> _Cut | None:
    shape = _shape(view, maker.input(0))
    if shape is None or len(shape) != 2:
        return None
    axes = {maker.input(0): axis}
    for name in maker.inputs[1:3]:
        if not name:
            continue
        found = _shape(view, name)
        if found is None:
            return None
        along = maker.attributes.get("axis", 1)
        if len(found) == 2 and found[axis] == shape[axis]:
            axes[name] = axis
        elif found == (shape[axis],) and along in (axis, axis - 2):
            axes[name] = 0
        elif len(found) <= 1 and (not found or along in (1 - axis, -1 - axis)):
            axes[name] = -1
        else:
            return None
    return _Cut(view, node, axes, shape[axis])


def _cut_of_integers(view: GraphView, node: NodeInfo) -> _Cut | None:
    """The weight of MatMulInteger, perhaps the transpose of a table, its zero points, and its scales."""
    name, axis = node.input(1), 1
    maker = view.producer(name)
    if maker is not None and maker.op == "Transpose" and maker.attributes.get("perm") == (1, 0):
        name, axis = maker.input(0), 0
    shape = _shape(view, name)
    if shape is None or len(shape) != 2:
        return None
    axes = {name: axis}
    for other in filter(None, (node.input(3), scale_of_steps(view, node))):
        found = _shape(view, other)
        if found not in ((), (1,), (shape[axis],)):
            return None
        axes[other] = 0 if found == (shape[axis],) else -1
    return _Cut(view, node, axes, shape[axis])


def _shape(view: GraphView, name: str) -> tuple[int, ...] | None:
    """Shape of an initializer, None for anything else."""
    info = view.tensors.get(name)
    if info is None or not info.is_constant or info.shape is None:
        return None
    return tuple(dim for dim in info.shape if isinstance(dim, int))


def _divides(view: GraphView, name: str, channels: int) -> bool:
    shape = _shape(view, name)
    return shape is not None and channels > 0 and int(np.prod(shape)) % channels == 0
