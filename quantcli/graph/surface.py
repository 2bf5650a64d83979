"""Values of bodies made visible in the main graph, for calibration.

A value x of a body exists once per iteration, or not at all where its branch is not taken, and nothing outside
can read it. So the body makes a *record* of it, of fixed length whatever the size of x,

    [any, s_1 … s_K, min, max],    s_k = x[⌊u_k·n⌋],    n = size of x,  any = 1 where n > 0 and else 0,

which its owner hands out as one more output. An If gives a record of zeros for the branch that does not have x. A
Loop or Scan stacks the records of all iterations, and the graph around it makes one record of them again: of
their minima, maxima and samples. In the main graph the record becomes [s_1, min, s_2, max, s_3, min, …] under the
name of x, or nothing where ``any`` is 0: its extremes are those of x, and every second element is a sample.
Memory does not depend on the number of iterations, but for K numbers of each.

Positions: u_k = (k + ½)/K where x is known to have K elements, so that each is taken once; otherwise
u_k = k·φ mod 1, φ = (√5 − 1)/2, which spreads evenly over any size without falling into step with a stride of x
(Weyl 1916, "Über die Gleichverteilung von Zahlen mod. Eins"). A NaN in x becomes the minimum NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantcli.graph.appending import Appender
from quantcli.graph.ir_types import tensor_shape
from quantcli.graph.model import OnnxModel
from quantcli.graph.traverse import graph_values, open_bodies

STRIDE = 2
"""Distance of the samples in a surfaced value."""

FEWEST = 256
MOST = 1024
SHARE = 32

_GOLDEN = (math.sqrt(5) - 1) / 2
_EXTRA = 3  # any, min and max


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a body is: the node that owns it, and the graph of that node."""

    owner: ir.Node
    graph: ir.Graph


def surface(model: OnnxModel, names: Sequence[str]) -> OnnxModel:
    """A copy of ``model`` whose main graph has float32 values of these names, made of those in open bodies.

    Args:
        model: Left as it is; no two of its graphs share a name.
        names: Float values of bodies.

    Raises:
        ValueError: There is no such value in an open body.
    """
    return _Surfacer(model.clone()).run(names)


class _Surfacer:
    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._places: dict[ir.Graph, _Place] = {}
        self._find(model.ir.graph)
        self._values = {value.name: (value, body) for body in self._places for value in graph_values(body)}
        self._appenders: dict[ir.Graph, Appender] = {}

    def _find(self, graph: ir.Graph) -> None:
        for node in graph:
            for _, body in open_bodies(node):
                self._places[body] = _Place(node, graph)
                self._find(body)

    def run(self, names: Sequence[str]) -> OnnxModel:
        for name in names:
            if name not in self._values:
                raise ValueError(f"there is no value '{name}' in a body")
            value, body = self._values[name]
            producer = value.producer()
            shape = tensor_shape(value)
            count = _samples(shape)
            graph = self._appender(body)
            value.name = graph.free_name(name)
            flat = graph.node("Reshape", [_as_float(graph, value), graph.ints([-1])])
            exact = shape is not None and count == math.prod(dim for dim in shape if isinstance(dim, int))
            record = _record(graph, flat, flat, flat, count, exact=exact and _fixed(shape))
            while body is not self._model.ir.graph:
                place = self._places[body]
                record, count = self._hand_out(record, count, body, place)
                body = place.graph
            self._name(record, count, name, producer)
        return self._model

    def _appender(self, graph: ir.Graph) -> Appender:
        if graph not in self._appenders:
            self._appenders[graph] = Appender(self._model, graph)
        return self._appenders[graph]

    def _hand_out(self, record: ir.Value, count: int, body: ir.Graph, place: _Place) -> tuple[ir.Value, int]:
        """The record in the graph of the body's owner, and its number of samples."""
        owner, size = place.owner, count + _EXTRA
        graph = self._appender(place.graph)
        for _, other in open_bodies(owner):
            given = record
            if other is not body:
                inside = self._appender(other)
                given = inside.node("ConstantOfShape", [inside.ints([size])])
            self._appender(other).output(given, ir.DataType.FLOAT)
            given.shape = ir.Shape([size])
        owner.resize_outputs(len(owner.outputs) + 1)
        found = owner.outputs[-1]
        found.name = graph.free_name("record")
        found.type = ir.TensorType(ir.DataType.FLOAT)
        if owner.op_type == "If":
            return found, count
        for name in ("scan_output_axes", "scan_output_directions"):
            if name in owner.attributes:
                owner.attributes[name] = ir.AttrInt64s(name, [*owner.attributes.get_ints(name, []), 0])
        any_ = graph.node("Cast", [graph.column(found, 0, 1)], to=int(ir.DataType.BOOL))
        kept = graph.node("Compress", [found, graph.node("Reshape", [any_, graph.ints([-1])])], axis=0)
        parts = ((1, count + 1), (count + 1, count + 2), (count + 2, size))
        pool, lows, highs = (
            graph.node("Reshape", [graph.column(kept, *part), graph.ints([-1])]) for part in parts
        )
        return _record(graph, pool, lows, highs, MOST, exact=False), MOST

    def _name(self, record: ir.Value, count: int, name: str, producer: ir.Node | None) -> None:
        """Make the value ``name`` of a record in the main graph, by a node that is called after ``producer``."""
        graph = self._appender(self._model.ir.graph)
        row = graph.node("Reshape", [record, graph.ints([1, -1])])
        samples = graph.node("Reshape", [graph.column(row, 1, count + 1), graph.ints([-1, 1])])
        ends = graph.node("Reshape", [graph.column(row, count + 1, count + _EXTRA), graph.ints([-1])])
        alternating = graph.constant(f"alternating_{count}", np.arange(count, dtype=np.int64)[:, None] % 2)
        pairs = graph.node("Concat", [samples, graph.node("Gather", [ends, alternating], axis=0)], axis=1)
        every = graph.node("Reshape", [pairs, graph.ints([-1])])
        any_ = graph.node("Cast", [graph.column(row, 0, 1)], to=int(ir.DataType.INT64))
        end = graph.node("Mul", [graph.node("Reshape", [any_, graph.ints([-1])]), graph.ints([2 * count])])
        value = graph.node("Slice", [every, graph.ints([0]), end, graph.ints([0])])
        node = value.producer()
        assert node is not None
        value.name, value.type, value.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape([None])
        if producer is not None:
            node.name, producer.name = producer.name, node.name


def _as_float(graph: Appender, value: ir.Value) -> ir.Value:
    if value.dtype == ir.DataType.FLOAT:
        return value
    return graph.node("Cast", [value], to=int(ir.DataType.FLOAT))


def _fixed(shape: Sequence[object] | None) -> bool:
    return shape is not None and all(isinstance(dim, int) for dim in shape)


def _samples(shape: Sequence[object] | None) -> int:
    """Number of samples of a value, as many as calibration takes of others; the most where its size is open."""
    if shape is None or not _fixed(shape):
        return MOST
    size = math.prod(dim for dim in shape if isinstance(dim, int))
    return max(1, min(size, MOST, max(FEWEST, size // SHARE)))


def _record(
    graph: Appender, pool: ir.Value, lows: ir.Value, highs: ir.Value, count: int, *, exact: bool
) -> ir.Value:
    """The record of vectors: samples of ``pool``, the least of ``lows``, the greatest of ``highs``."""
    size = graph.node("Shape", [pool])
    steps = (np.arange(count) + 0.5) / count if exact else np.arange(1, count + 1) * _GOLDEN % 1
    share = graph.constant(f"{'each' if exact else 'spread'}_{count}", steps.astype(np.float64))
    zero = graph.constant("zero", np.zeros(1, np.float32))
    at = graph.node("Mul", [share, graph.node("Cast", [size], to=int(ir.DataType.DOUBLE))])
    index = graph.node("Cast", [at], to=int(ir.DataType.INT64))
    taken = graph.node("Gather", [graph.node("Concat", [pool, zero], axis=0), index], axis=0)
    # 0 / (1 − [a NaN is there]) is 0 or NaN; ReduceMin steps over NaN.
    nans = graph.node("Cast", [graph.node("IsNaN", [lows])], to=int(ir.DataType.FLOAT))
    worst = graph.node("ReduceMax", [graph.node("Concat", [nans, zero], axis=0)], keepdims=1)
    poison = graph.node("Div", [zero, graph.node("Sub", [graph.constant("one", np.ones(1, np.float32)), worst])])
    low = graph.node("Add", [graph.node("ReduceMin", [lows], keepdims=1), poison])
    high = graph.node("ReduceMax", [highs], keepdims=1)
    some = graph.node("Cast", [graph.node("Cast", [size], to=int(ir.DataType.BOOL))], to=int(ir.DataType.FLOAT))
    return graph.node("Concat", [some, taken, low, high], axis=0)
