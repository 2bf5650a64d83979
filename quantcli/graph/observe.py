"""Graphs that measure their own activations while they run.

For every observed tensor x the graph gets, beside what it computes anyway,

* min x, max x and Σ x of each sample: ReduceMin, ReduceMax, ReduceSum over Reshape(x, [samples, −1]);
* every stride-th element of each sample: a Slice of the same;
* optionally the extremes of each channel;

and one Concat joins all of that, so that a run costs Python the same for one tensor and for a hundred.
Measured on onnxruntime 1.31.1 (one thread; squeezenet, mobilenet, resnet56, MiniLM, a GPT): 1.1 to 1.8 times
the time of the plain model, where handing the tensors out and reducing them in numpy takes over 3.

Order matters: onnxruntime's default order is a depth-first search from the last leaf, inputs with the highest
node index first. So the one Concat comes last and the observers of the *last* tensor come first; then each
tensor is measured right after it was made, while it is in the cache, and is freed as in the plain model.
(The other way round all measuring happens at the end: up to 1.4 times slower, with every activation alive.)

What the sums are for: onnxruntime's ReduceMin and ReduceMax step over NaN, but a sum with a NaN is NaN. So
*every* NaN makes its sum NaN and every infinity shows in an extreme; conversely a NaN sum may also come from
+inf and −inf overflows of large finite values, which the caller has to look at again. The sums are not used
for anything else, because their last bits depend on how the kernel adds.

A tensor without elements has max −inf, min +inf or 0, sum 0 and no values (as of onnxruntime 1.31.1, all
opsets; below opset 10 a Slice has no steps and MaxPool stands in for it, which fails on empty tensors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantcli.graph.ir_types import tensor_dtype
from quantcli.graph.model import OnnxModel
from quantcli.graph.traverse import graph_values, nested_graphs

_LAST = 2**31 - 1
_OPSET_WITHOUT_ANY = 17  # for models that only import other domains


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A tensor to be measured.

    Attributes:
        name: A float value of the main graph.
        rank: Number of its axes.
        stride: Distance of the elements that are sampled; 0 for none.
        dtype: numpy name of its type; what is not float32 is cast to it.
        nonnegative: It has the lower bound 0, which then stands for its minimum without being measured.
        per_sample: Its elements lie sample after sample, so that a batch of n is n rows; False where it does
            not depend on the batch, or there are no batches.
        batch_axis: Axis 0 counts the samples.
        channel_axis: Axis of channels that get extremes of their own, or None; not negative.
        channels: Their number; 0 for none.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverGroup:
    """The output for the tensors that have equally many rows.

    Attributes:
        output: float32 (rows, 3·T + 2·(C + 1) + Σ (length + 1)) for the group's T tensors: their minima, maxima
            and sums; minima of the channels and a NaN, maxima of the channels and a NaN (nothing where C is 0);
            sampled values, a NaN after each tensor's.
        tensors: T.
        channels: C, the number of channels of *all* groups' tensors together; 0 in all groups but one.
        per_sample: One row per sample; else one row per run.
    """

    output: str
    tensors: int
    channels: int
    per_sample: bool


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
    builder = _Builder(copy)
    measured = builder.measure(tensors)
    channels = sum(tensor.channels for tensor in tensors)
    groups = []
    for per_sample in (True, False):
        members = [tensor for tensor in tensors if tensor.per_sample == per_sample]
        # Channels are not per sample, so they go with what is not; last comes what is first in DFS.
        with_channels = channels if not per_sample else 0
        if members or with_channels:
            output = builder.join(
                [measured[tensor.name] for tensor in members],
                [part for part in measured.values() if part.channels] if with_channels else [],
            )
            groups.append(
                ObserverGroup(output=output, tensors=len(members), channels=with_channels, per_sample=per_sample)
            )
    return copy, ObserverLayout(groups=tuple(groups), row_inputs=builder.row_inputs)


def expose(model: OnnxModel, names: Sequence[str]) -> OnnxModel:
    """A copy of ``model`` with the values ``names`` as outputs, after its own."""
    copy = model.clone()
    values = _values(copy)
    present = {value.name for value in copy.ir.graph.outputs}
    copy.ir.graph.outputs.extend(_known(values, name) for name in names if name not in present)
    return copy


def expose_shapes(model: OnnxModel, names: Sequence[str]) -> tuple[OnnxModel, tuple[str, ...]]:
    """A copy of ``model`` with the shapes of the values ``names`` as int64 outputs, and what these are called."""
    copy = model.clone()
    builder = _Builder(copy)
    outputs = tuple(builder.node("Shape", [builder.value(name)]) for name in names)
    for value in outputs:
        builder.output(value, ir.DataType.INT64)
    return copy, tuple(str(value.name) for value in outputs)


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


def _values(model: OnnxModel) -> dict[str, ir.Value]:
    return {value.name: value for value in graph_values(model.ir.graph) if value.name}


def _known(values: dict[str, ir.Value], name: str) -> ir.Value:
    if name not in values:
        raise ValueError(f"there is no value '{name}'")
    return values[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """Values that hold the measurements of one tensor.

    Attributes:
        extremes: Minimum, maximum and sum, (rows, 1) each.
        values: Sampled elements, if any, and a separator, (rows, any).
        channels: Minima and maxima of channels, (1, channels); empty for none.
    """

    extremes: tuple[ir.Value, ir.Value, ir.Value]
    values: tuple[ir.Value, ...]
    channels: tuple[ir.Value, ...]


class _Builder:
    """Appends observers to a graph; all names it makes start with a prefix that the model does not use."""

    def __init__(self, model: OnnxModel) -> None:
        self._graph = model.ir.graph
        self._opset = model.ir.opset_imports.setdefault("", _OPSET_WITHOUT_ANY)
        self._values = _values(model)
        self._prefix = _free_prefix(model)
        self._count = 0
        self._constants: dict[str, ir.Value] = {}
        self._rows: tuple[ir.Value, ...] = ()

    @property
    def row_inputs(self) -> tuple[str, ...]:
        return tuple(str(value.name) for value in self._rows)

    # Parts of the observer ------------------------------------------------------------------------

    def measure(self, tensors: Sequence[Observed]) -> dict[str, _Measured]:
        """Add observers, those of the last tensor of the graph first; see the module."""
        position = {node: index for index, node in enumerate(self._graph)}
        producers = {tensor.name: self.value(tensor.name).producer() for tensor in tensors}
        at = {name: -1 if node is None else position[node] for name, node in producers.items()}
        found = {t.name: self._observer(t) for t in sorted(tensors, key=lambda t: at[t.name], reverse=True)}
        return {tensor.name: found[tensor.name] for tensor in tensors}

    def join(self, tensors: Sequence[_Measured], with_channels: Sequence[_Measured]) -> str:
        """An output with all measurements of ``tensors`` and the channels of ``with_channels``."""
        parts = [tensor.extremes[which] for which in range(3) for tensor in tensors]
        if with_channels:
            separator = self._row_values(per_sample=False)[1]
            for which in range(2):
                parts += [*(tensor.channels[which] for tensor in with_channels), separator]
        parts += [value for tensor in tensors for value in tensor.values]
        joined = self.node("Concat", parts, axis=1)
        self.output(joined, ir.DataType.FLOAT)
        return str(joined.name)

    def _observer(self, tensor: Observed) -> _Measured:
        rows, separator, zero = self._row_values(tensor.per_sample)
        source = self.value(tensor.name)
        if tensor.dtype != "float32":
            source = self.node("Cast", [source], to=int(ir.DataType.FLOAT))
        flat = self.node("Reshape", [source, rows])
        total = self._reduce("ReduceSum", flat, [1])
        sampled = (self._strided(flat, tensor.stride),) if tensor.stride else ()
        if tensor.channel_axis is not None:
            low, high, *channels = self._channels(tensor, source, flat)
        else:
            low = zero if tensor.nonnegative else self._reduce("ReduceMin", flat, [1])
            high, channels = self._reduce("ReduceMax", flat, [1]), []
        return _Measured(extremes=(low, high, total), values=(*sampled, separator), channels=tuple(channels))

    def _row_values(self, per_sample: bool) -> tuple[ir.Value, ...]:
        """The target of Reshape, the separator of values, and a 0."""
        if not per_sample:
            return (
                self._ints("one_row", [1, -1]),
                self._constant("nan", np.full((1, 1), np.nan, np.float32)),
                self._constant("no_value", np.zeros((1, 1), np.float32)),
            )
        if not self._rows:
            self._rows = (
                self._input("rows", ir.DataType.INT64, [2]),
                self._input("separator", ir.DataType.FLOAT, [None, 1]),
                self._input("lower_bound", ir.DataType.FLOAT, [None, 1]),
            )
        return self._rows

    def _channels(self, tensor: Observed, source: ir.Value, flat: ir.Value) -> list[ir.Value]:
        """Minimum and maximum (rows, 1), those of channels (1, channels); the former follow where they can."""
        axis = tensor.channel_axis
        keeps_rows = tensor.batch_axis and axis != 0
        kept = {0, axis} if keeps_rows else {axis}
        others = [index for index in range(tensor.rank) if index not in kept]
        own, channels = [], []
        for operator in ("ReduceMin", "ReduceMax"):
            matrix = self._reduce(operator, source, others, keepdims=0) if others else source
            if not keeps_rows:
                matrix = self.node("Reshape", [matrix, self._ints("one_row", [1, -1])])
            channels.append(self._reduce(operator, matrix, [0]) if keeps_rows else matrix)
            whole = matrix if keeps_rows or not tensor.per_sample else flat
            own.append(self._reduce(operator, whole, [1]))
        return [*own, *channels]

    def _reduce(self, operator: str, source: ir.Value, axes: Sequence[int], keepdims: int = 1) -> ir.Value:
        """Axes are an input of ReduceSum from opset 13 on, of ReduceMin and ReduceMax from opset 18 on."""
        if self._opset >= (13 if operator == "ReduceSum" else 18):
            given = self._ints("axes_" + "_".join(map(str, axes)), axes)
            return self.node(operator, [source, given], keepdims=keepdims)
        return self.node(operator, [source], axes=list(axes), keepdims=keepdims)

    def _strided(self, flat: ir.Value, stride: int) -> ir.Value:
        """Every ``stride``-th element of each row."""
        if self._opset >= 10:
            bounds = [self._ints("zero", [0]), self._ints("last", [_LAST]), self._ints("axes_1", [1])]
            return self.node("Slice", [flat, *bounds, self._ints(f"stride_{stride}", [stride])])
        channel = self.node("Reshape", [flat, self._ints("as_channel", [0, 1, -1])])
        pooled = self.node("MaxPool", [channel], kernel_shape=[1], strides=[stride])
        return self.node("Reshape", [pooled, self._ints("as_row", [0, -1])])

    # Elements of the graph ------------------------------------------------------------------------

    def value(self, name: str) -> ir.Value:
        return _known(self._values, name)

    def node(self, operator: str, inputs: Sequence[ir.Value], **attributes: int | list[int]) -> ir.Value:
        name = f"{self._prefix}{operator}_{self._count}"
        self._count += 1
        made = [
            ir.AttrInt64s(key, value) if isinstance(value, list) else ir.AttrInt64(key, value)
            for key, value in sorted(attributes.items())
        ]
        node = ir.Node("", operator, inputs, made, outputs=[ir.Value(name=name)], name=name)
        self._graph.append(node)
        return node.outputs[0]

    def output(self, value: ir.Value, dtype: ir.DataType) -> None:
        value.type = ir.TensorType(dtype)
        self._graph.outputs.append(value)

    def _input(self, name: str, dtype: ir.DataType, shape: list[int | None]) -> ir.Value:
        value = ir.Value(name=self._prefix + name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self._graph.inputs.append(value)
        return value

    def _ints(self, name: str, values: Sequence[int]) -> ir.Value:
        return self._constant(name, np.array(values, dtype=np.int64))

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        if name not in self._constants:
            full = self._prefix + name
            tensor = ir.tensor(array, name=full)
            value = ir.Value(
                name=full, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
            self._graph.register_initializer(value)
            self._constants[name] = value
        return self._constants[name]


def _free_prefix(model: OnnxModel) -> str:
    taken = {value.name or "" for graph in nested_graphs(model.ir.graph) for value in graph_values(graph)}
    taken |= {node.name or "" for graph in nested_graphs(model.ir.graph) for node in graph}
    number = 0
    while any(name.startswith(f"observer{number}_") for name in taken):
        number += 1
    return f"observer{number}_"
