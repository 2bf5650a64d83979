"""Graphs that measure their own activations while they run.

For every observed tensor x the graph gets, beside what it computes anyway,

* min x, max x and Σ x of each sample: ReduceMin, ReduceMax, ReduceSum over Reshape(x, [samples, −1]);
* or, where x has channels, the extremes of each channel, from which those of x follow outside;
* every stride-th element of each sample: a Slice of the same;

and one Concat joins all of that, so that a run costs Python the same for one tensor and for a hundred. Which
kernels measure is up to ``graph.observers``.

Order matters: onnxruntime's default order is a depth-first search from the last leaf, inputs with the highest
node index first. So the one Concat comes last and the observers of the *last* tensor come first; then each
tensor is measured right after it was made, while it is in the cache, and is freed as in the plain model.
(The other way round all measuring happens at the end: up to 1.4 times slower, with every activation alive.)

What the sums are for: onnxruntime's ReduceMin and ReduceMax step over NaN, but a sum with a NaN is NaN. So
*every* NaN makes its sum NaN and every infinity shows in an extreme; conversely a NaN sum may also come from
+inf and −inf overflows of large finite values, which the caller has to look at again. The sums are not used
for anything else, because their last bits depend on how the kernel adds.

A tensor without elements has max −inf, min +inf or 0, sum 0 and no values (as of onnxruntime 1.31.1, all
opsets; MaxPool, which stands in for a Slice below opset 10 and for slow reductions, fails on empty tensors).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantcli.graph.appending import Appender, known_value, values_by_name
from quantcli.graph.ir_types import tensor_dtype
from quantcli.graph.model import OnnxModel
from quantcli.graph.observers import Measured, Observed, ObserverBuilder

__all__ = ["Observed", "ObserverGroup", "ObserverLayout", "expose", "expose_shapes", "float_values", "observe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverGroup:
    """The output for the tensors that have equally many rows.

    Its columns, for the group's T tensors: T sums; a 0; for each tensor its minima and a NaN, where they are
    measured; for each its maxima and a NaN; the same twice for loose channels; sampled values, a NaN after each
    tensor's.

    Attributes:
        output: float32 (rows, columns).
        tensors: T tensors.
        loose: Those with loose channels, of *all* groups; none in groups with a row per sample.
        per_sample: One row per sample; else one row per run.
    """

    output: str
    tensors: tuple[Observed, ...]
    loose: tuple[Observed, ...]
    per_sample: bool

    def blocks(self) -> Iterator[tuple[Observed, int]]:
        """All stretches of extremes in order: tensor, and number of columns before its NaN."""
        for members, loose in ((self.tensors, False), (self.loose, True)):
            for low in (True, False):
                for tensor in members:
                    if not (low and tensor.nonnegative):
                        yield tensor, tensor.loose if loose else tensor.width


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverLayout:
    """Where the measurements are.

    Attributes:
        groups: One or two, in the order of the tensors.
        row_inputs: Inputs that depend on the number of samples, none where no group is per sample: int64 (2,),
            [samples, −1]; float32 (samples, 1), NaN; float32 (samples, 1), 0.
    """

    groups: tuple[ObserverGroup, ...]
    row_inputs: tuple[str, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Outputs to ask for."""
        return tuple(group.output for group in self.groups)

    def feeds(self, samples: int) -> dict[str, np.ndarray]:
        """What must be fed besides the model's own inputs, for a batch of ``samples``."""
        if not self.row_inputs:
            return {}
        shape = np.array([samples, -1], dtype=np.int64)
        nan, zero = (np.full((samples, 1), value, dtype=np.float32) for value in (np.nan, 0.0))
        return dict(zip(self.row_inputs, (shape, nan, zero), strict=True))


def observe(model: OnnxModel, tensors: Sequence[Observed]) -> tuple[OnnxModel, ObserverLayout]:
    """A copy of ``model`` that measures ``tensors``, and where to find what it measured.

    Args:
        model: Left as it is.
        tensors: At least one; those with a row per sample come first.

    Raises:
        ValueError: A tensor is no value of the main graph, or their order is wrong.
    """
    if list(tensors) != sorted(tensors, key=lambda tensor: not tensor.per_sample):
        raise ValueError("tensors with a row per sample must come first")
    copy = model.clone()
    graph = Appender(copy)
    builder = ObserverBuilder(graph)
    at = graph.positions([tensor.name for tensor in tensors])
    measured = {
        tensor.name: builder.measure(tensor)
        for tensor in sorted(tensors, key=lambda tensor: at[tensor.name], reverse=True)
    }
    groups = []
    for per_sample in (True, False):
        members = tuple(tensor for tensor in tensors if tensor.per_sample == per_sample)
        # Loose channels have one row, so they go with what has one; last comes what is first in DFS.
        loose = () if per_sample else tuple(tensor for tensor in tensors if tensor.loose)
        if members or loose:
            parts = list(_columns(members, loose, measured, builder.row_values(per_sample)))
            output = graph.output(graph.node("Concat", parts, axis=1), ir.DataType.FLOAT)
            groups.append(ObserverGroup(output=output, tensors=members, loose=loose, per_sample=per_sample))
    return copy, ObserverLayout(groups=tuple(groups), row_inputs=builder.row_inputs)


def _columns(
    members: Sequence[Observed],
    loose: Sequence[Observed],
    measured: dict[str, Measured],
    row_values: Sequence[ir.Value],
) -> Iterator[ir.Value]:
    """Columns of an ``ObserverGroup`` in its order."""
    _, separator, zero = row_values
    found = [measured[tensor.name] for tensor in members]
    yield from (part.total for part in found)
    yield zero
    lows = [part.lows for part in found if part.lows is not None]
    apart = [measured[tensor.name].loose for tensor in loose]
    loose_lows = [part[0] for part in apart if len(part) > 1]
    for extremes in (lows, [part.highs for part in found], loose_lows, [part[-1] for part in apart]):
        for values in extremes:
            yield from (values, separator)
    for part in found:
        yield from (separator,) if part.values is None else (part.values, separator)


def expose(model: OnnxModel, names: Sequence[str]) -> OnnxModel:
    """A copy of ``model`` with the values ``names`` as outputs, after its own."""
    copy = model.clone()
    values = values_by_name(copy)
    present = {value.name for value in copy.ir.graph.outputs}
    copy.ir.graph.outputs.extend(known_value(values, name) for name in names if name not in present)
    return copy


def expose_shapes(model: OnnxModel, names: Sequence[str]) -> tuple[OnnxModel, tuple[str, ...]]:
    """A copy of ``model`` with the shapes of the values ``names`` as int64 outputs, and what these are called."""
    copy = model.clone()
    graph = Appender(copy)
    shapes = [graph.node("Shape", [graph.value(name)]) for name in names]
    return copy, tuple(graph.output(shape, ir.DataType.INT64) for shape in shapes)


def float_values(model: OnnxModel) -> tuple[tuple[str, str], ...]:
    """Values that may hold NaN, with the names of their producers ("" for inputs), in topological order.

    Left out are constants and what is known not to be a float tensor.
    """
    graph = model.ir.graph
    found = [(value, "") for value in graph.inputs if value.name not in graph.initializers]
    found += [(value, node.name or "") for node in graph for value in node.outputs if value.name]
    floats = ("float16", "bfloat16", "float32", "float64", None)
    return tuple(
        (str(value.name), producer)
        for value, producer in found
        if tensor_dtype(value) in floats and isinstance(value.type, (ir.TensorType, type(None)))
    )
