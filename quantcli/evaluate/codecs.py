"""How integers of a quantized graph stand for numbers: x = scale · (q − zero_point).

The parameters of an integer value are those of the QuantizeLinear or QLinear operator that makes it; operators
that only move values hand them on. Who reads it must use the same ones: a difference between writer and reader is
a fault that needs no data to be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from quantcli.evaluate.quantized_weights import constant_value
from quantcli.evaluate.structure import DEQUANTIZE_OPS
from quantcli.graph.view import GraphView, NodeInfo

_WRITES: dict[str, tuple[int, int]] = {
    "QuantizeLinear": (1, 2), "com.microsoft.QuantizeLinear": (1, 2),
    "QLinearConv": (6, 7), "com.microsoft.QLinearConv": (6, 7),
    "QLinearMatMul": (6, 7), "com.microsoft.QLinearMatMul": (6, 7), "com.microsoft.QGemm": (7, 8),
    "com.microsoft.QLinearAdd": (6, 7), "com.microsoft.QLinearMul": (6, 7),
    "com.microsoft.QLinearSigmoid": (3, 4), "com.microsoft.QLinearLeakyRelu": (3, 4),
    "com.microsoft.QLinearSoftmax": (3, 4), "com.microsoft.QLinearAveragePool": (3, 4),
    "com.microsoft.QLinearGlobalAveragePool": (3, 4), "com.microsoft.QLinearConcat": (0, 1),
}  # fmt: skip
"""Operators that make integers: inputs with the scale and the zero point of their result."""

_READS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "DequantizeLinear": ((0, 1, 2),), "com.microsoft.DequantizeLinear": ((0, 1, 2),),
    "QLinearConv": ((0, 1, 2),), "com.microsoft.QLinearConv": ((0, 1, 2),),
    "QLinearMatMul": ((0, 1, 2), (3, 4, 5)), "com.microsoft.QLinearMatMul": ((0, 1, 2), (3, 4, 5)),
    "com.microsoft.QGemm": ((0, 1, 2),),
    "com.microsoft.QLinearAdd": ((0, 1, 2), (3, 4, 5)), "com.microsoft.QLinearMul": ((0, 1, 2), (3, 4, 5)),
    "com.microsoft.QLinearSigmoid": ((0, 1, 2),), "com.microsoft.QLinearLeakyRelu": ((0, 1, 2),),
    "com.microsoft.QLinearSoftmax": ((0, 1, 2),), "com.microsoft.QLinearAveragePool": ((0, 1, 2),),
    "com.microsoft.QLinearGlobalAveragePool": ((0, 1, 2),), "com.microsoft.MatMulIntegerToFloat": ((0, 2, 4),),
}  # fmt: skip
"""Operators that read integers: inputs with the integers, their scale and their zero point."""

_MOVES = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Expand", "Tile",
     "Split", "Identity", "DepthToSpace", "SpaceToDepth", "Resize", "Pad", "Clip", "Relu"}
)  # fmt: skip
"""Operators that hand integers on with their parameters."""

_RANGES = {
    "uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767), "uint4": (0, 15),
    "int4": (-8, 7), "uint2": (0, 3), "int2": (-2, 1),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """What integers stand for.

    Attributes:
        dtype: Integer type.
        scale: Step, the same for all.
        zero_point: Integer that stands for 0.
    """

    dtype: str
    scale: float
    zero_point: int

    @property
    def levels(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        return _RANGES[self.dtype]

    @property
    def low(self) -> float:
        """Smallest number."""
        return self.scale * (_RANGES[self.dtype][0] - self.zero_point)

    @property
    def high(self) -> float:
        """Largest number."""
        return self.scale * (_RANGES[self.dtype][1] - self.zero_point)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Numbers, float32."""
        values: np.ndarray = (codes.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A reader of integers that takes them for other numbers than their writer.

    Attributes:
        value: The integers.
        written: By the writer.
        read: By the reader.
        reader: Its node.
    """

    value: str
    written: Codec
    read: Codec
    reader: NodeInfo


class Codecs:
    """Parameters of the integer values of one graph."""

    def __init__(self, view: GraphView) -> None:
        self._view = view
        self._known: dict[str, Codec | None] = {}

    def of(self, value: str) -> Codec | None:
        """What ``value`` stands for; None where it is no integers, or not per tensor, or not constant."""
        if value not in self._known:
            self._known[value] = None  # ends cycles, which no valid graph has
            self._known[value] = self._find(value)
        return self._known[value]

    def _find(self, value: str) -> Codec | None:
        return self._written(value) or self._as_read(value)

    def _as_read(self, value: str) -> Codec | None:
        """What a DequantizeLinear takes ``value`` for that nothing quantizes: rows of an integer table."""
        maker = self._view.producer(value)
        if maker is None or maker.op != "Gather":
            return None
        for use in self._view.uses(value):
            if use.node.op in DEQUANTIZE_OPS:
                return self._codec(use.node.input(1), use.node.input(2))
        return None

    def _written(self, value: str) -> Codec | None:
        node = self._view.producer(value)
        if node is None:
            return None
        if node.op in _WRITES:
            scale, zero = _WRITES[node.op]
            found = self._codec(node.input(scale), node.input(zero), node.attributes.get("output_dtype"))
            return None if found is None else replace(found, dtype=self._clipped(value) or found.dtype)
        if node.op in _MOVES and value == node.outputs[0]:
            return self.of(node.input(0))
        if node.op == "Concat":
            joined = {self.of(name) for name in node.inputs}
            return joined.pop() if len(joined) == 1 else None
        return None

    def _clipped(self, value: str) -> str:
        """The narrower type to which the one reader of integers clips them (``quantize.widths``); "" for none."""
        uses = self._view.uses(value)
        if len(uses) != 1 or uses[0].node.op != "Clip":
            return ""
        bounds = [constant_value(self._view, uses[0].node.input(index)) for index in (1, 2)]
        ends = tuple(int(bound.reshape(())) for bound in bounds if bound is not None and bound.dtype.kind in "iu")
        return next((name for name, levels in _RANGES.items() if levels == ends), "")

    def _codec(self, scale: str, zero: str, output_dtype: object = None) -> Codec | None:
        step = constant_value(self._view, scale) if scale else None
        point = constant_value(self._view, zero) if zero else np.zeros((), dtype=np.uint8)
        if step is None or point is None or step.size != 1 or point.size != 1:
            return None
        info = self._view.tensors.get(zero)
        dtype = info.dtype if info is not None and info.dtype is not None else str(point.dtype)
        if dtype not in _RANGES or (not zero and output_dtype not in (None, 0, 2)):
            return None
        return Codec(dtype=dtype, scale=float(step.reshape(-1)[0]), zero_point=int(point.reshape(-1)[0]))

    def disagreements(self) -> Iterator[Disagreement]:
        """Readers that take integers for other numbers than was meant, in the graph's order."""
        for node in self._view.nodes:
            for slot, scale, zero in _READS.get(node.op, ()):
                written = self.of(node.input(slot))
                if written is None or self._view.is_constant(node.input(slot)):
                    continue
                read = self._codec(node.input(scale), node.input(zero))
                if read is not None and not _same(written, read):
                    yield Disagreement(value=node.input(slot), written=written, read=read, reader=node)


def _same(a: Codec, b: Codec) -> bool:
    return a.zero_point == b.zero_point and abs(a.scale - b.scale) <= 1e-3 * a.scale
