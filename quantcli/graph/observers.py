"""The nodes that measure one tensor, by the kernels of onnxruntime that are fast at it.

Measured on onnxruntime 1.32.0, one thread, µs for a tensor of 0.1 to 5 MB in the cache:

* Every pass over a tensor costs as much as the next: ReduceMin, ReduceMax, ReduceSum 19 to 22 for 0.8 MB. So a
  tensor that has extremes of its channels gets no extremes of its own besides (they follow from those, outside),
  and one with the lower bound 0 no minima at all.
* Reshape is free (1.2, no copy), a strided Slice of it takes 4 to 7, a Gather of the same elements 17 to 21.
* Extremes along the last axis but one, [1, T, C] → [1, C], are slow: 11 for 64 × 384, 207 for 64 × 1536 (rows
  that lie a multiple of 4096 bytes apart). MaxPool over groups of eight rows, repeated, takes 5 and 12; the
  minimum is the same of the negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantcli.graph.appending import Appender

_LAST = 2**31 - 1
_POOLED = 8  # rows that one MaxPool joins
_FEW = 16  # rows that ReduceMax takes as fast


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A tensor to be measured.

    Attributes:
        name: A float value of the main graph.
        rank: Number of its axes.
        stride: Distance of the elements that are sampled; 0 for none.
        dtype: numpy name of its type; what is not float32 is cast to it.
        nonnegative: It has the lower bound 0, which then stands for its minimum, and those of its channels,
            without being measured.
        per_sample: Its elements lie sample after sample, so that a batch of n is n rows; False where it does
            not depend on the batch, or there are no batches.
        batch_axis: Axis 0 counts the samples.
        channel_axis: Axis of channels that get extremes of their own, or None; not negative.
        channels: Their number; 0 for none.
        positions: About how many elements a channel has in a sample; for choosing kernels only.
    """

    name: str
    rank: int
    stride: int
    dtype: str = "float32"
    nonnegative: bool = False
    per_sample: bool = False
    batch_axis: bool = False
    channel_axis: int | None = None
    channels: int = 0
    positions: int = 0

    @property
    def keeps_rows(self) -> bool:
        """Whether extremes of channels are measured for each sample, not over all samples of a batch."""
        return self.batch_axis and self.channel_axis != 0

    @property
    def by_channel(self) -> bool:
        """Whether its own extremes are left to be found from those of its channels."""
        return self.channel_axis is not None and (self.keeps_rows or not self.per_sample)

    @property
    def width(self) -> int:
        """Number of minima that a row has, and of maxima."""
        return self.channels if self.by_channel else 1

    @property
    def loose(self) -> int:
        """Number of channels whose extremes are measured over all samples of a batch, apart from the rows."""
        return 0 if self.channel_axis is None or self.by_channel else self.channels


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Values that hold the measurements of one tensor.

    Attributes:
        total: Sum, (rows, 1).
        lows: Minima, (rows, width); None where 0 stands for them.
        highs: Maxima, (rows, width).
        values: Sampled elements, if any, (rows, any).
        loose: Minima (not where 0 stands for them) and maxima of loose channels, (1, channels) each.
    """

    total: ir.Value
    lows: ir.Value | None
    highs: ir.Value
    values: ir.Value | None
    loose: tuple[ir.Value, ...]


class ObserverBuilder:
    """Appends observers to a graph."""

    def __init__(self, graph: Appender) -> None:
        self._graph = graph
        self._rows: tuple[ir.Value, ...] = ()

    @property
    def row_inputs(self) -> tuple[str, ...]:
        """Inputs that were made, see ``graph.observe.ObserverLayout``."""
        return tuple(str(value.name) for value in self._rows)

    def row_values(self, per_sample: bool) -> tuple[ir.Value, ...]:
        """The target of Reshape, a column of NaN, and one of 0."""
        if not per_sample:
            return (
                self._graph.ints([1, -1]),
                self._graph.constant("nan", np.full((1, 1), np.nan, np.float32)),
                self._graph.constant("zero", np.zeros((1, 1), np.float32)),
            )
        if not self._rows:
            self._rows = (
                self._graph.input("rows", ir.DataType.INT64, [2]),
                self._graph.input("separator", ir.DataType.FLOAT, [None, 1]),
                self._graph.input("lower_bound", ir.DataType.FLOAT, [None, 1]),
            )
        return self._rows

    def measure(self, tensor: Observed) -> Measured:
        """Add the nodes for ``tensor``."""
        source = self._graph.value(tensor.name)
        if tensor.dtype != "float32":
            source = self._graph.node("Cast", [source], to=int(ir.DataType.FLOAT))
        flat = self._graph.node("Reshape", [source, self.row_values(tensor.per_sample)[0]])
        operators = ("ReduceMax",) if tensor.nonnegative else ("ReduceMin", "ReduceMax")
        if tensor.by_channel:
            extremes = [self._channels(tensor, source, operator) for operator in operators]
        else:
            extremes = [self._reduce(operator, flat, [1]) for operator in operators]
        loose = tuple(self._channels(tensor, source, operator) for operator in operators) if tensor.loose else ()
        return Measured(
            total=self._reduce("ReduceSum", flat, [1]),
            lows=None if tensor.nonnegative else extremes[0],
            highs=extremes[-1],
            values=self._strided(flat, tensor.stride) if tensor.stride else None,
            loose=loose,
        )

    def _channels(self, tensor: Observed, source: ir.Value, operator: str) -> ir.Value:
        """Extremes of the channels: (samples, channels), or (1, channels) where samples cannot be told apart."""
        axis = tensor.channel_axis
        kept = {0, axis} if tensor.keeps_rows else {axis}
        others = [index for index in range(tensor.rank) if index not in kept]
        if len(others) and axis == tensor.rank - 1 and tensor.positions > _FEW and self._graph.opset >= 10:
            return self._pooled(tensor, source, operator)
        found = self._reduce(operator, source, others, keepdims=0) if others else source
        return found if tensor.keeps_rows else self._graph.node("Reshape", [found, self._graph.ints([1, -1])])

    def _pooled(self, tensor: Observed, source: ir.Value, operator: str) -> ir.Value:
        """Extremes of the columns of a matrix (for each sample), by MaxPool; see the module."""
        rows = 0 if tensor.keeps_rows else 1  # Reshape takes 0 as "the same as before"
        found = self._graph.node("Reshape", [source, self._graph.ints([rows, 1, -1, tensor.channels])])
        if operator == "ReduceMin":
            found = self._graph.node("Neg", [found])
        left = tensor.positions
        while left > 1:
            shape = [_POOLED, 1]
            found = self._graph.node("MaxPool", [found], kernel_shape=shape, strides=shape, ceil_mode=1)
            left = -(-left // _POOLED)
        found = self._reduce("ReduceMax", found, [1, 2], keepdims=0)  # a longer sample leaves more than one row
        return self._graph.node("Neg", [found]) if operator == "ReduceMin" else found

    def _reduce(self, operator: str, source: ir.Value, axes: Sequence[int], keepdims: int = 1) -> ir.Value:
        """Axes are an input of ReduceSum from opset 13 on, of ReduceMin and ReduceMax from opset 18 on."""
        if self._graph.opset >= (13 if operator == "ReduceSum" else 18):
            return self._graph.node(operator, [source, self._graph.ints(axes)], keepdims=keepdims)
        return self._graph.node(operator, [source], axes=list(axes), keepdims=keepdims)

    def _strided(self, flat: ir.Value, stride: int) -> ir.Value:
        """Every ``stride``-th element of each row."""
        ints = self._graph.ints
        if self._graph.opset >= 10:
            return self._graph.node("Slice", [flat, ints([0]), ints([_LAST]), ints([1]), ints([stride])])
        channel = self._graph.node("Reshape", [flat, ints([0, 1, -1])])
        pooled = self._graph.node("MaxPool", [channel], kernel_shape=[1], strides=[stride])
        return self._graph.node("Reshape", [pooled, ints([0, -1])])
