"""How each tensor is to be observed, found out by running the model on the first samples.

Shapes are those that the model declares; where it leaves one open, as shape inference does behind operators
that it does not know, the model runs once to tell. From the shape follows
the *stride* of the subsample: about 1 in 32 elements of a sample, but at least ``FEWEST`` and at most ``MOST``
of them, and coprime to every dimension, so that walking through the tensor with it visits all channels and
all positions alike. It depends on one sample's shape only, not on the batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from quantcli.data.base import Sample
from quantcli.graph.model import OnnxModel
from quantcli.graph.observe import Observed, expose, expose_shapes
from quantcli.graph.view import GraphView

FEWEST = 256
MOST = 1024
SHARE = 32

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


class Typed(Protocol):
    """Name and element type of an output."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def dtype(self) -> str:
        """Name of numpy's type."""


class Runs(Protocol):
    """What is asked of a session; ``quantcli.runtime.session.Session`` is one."""

    @property
    def outputs(self) -> Sequence[Typed]:
        """All outputs of the model."""

    def run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Values of the outputs ``names`` by name."""


MakeSession = Callable[[OnnxModel], Runs]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedTensor:
    """A tensor that calibration is to look at.

    Attributes:
        name: A value of the main graph, no constant.
        channel_axis: Axis whose channels get extremes of their own, not negative; None for none.
        stride: Distance of the elements to be sampled; 0 to choose one by the tensor's shape.
    """

    name: str
    channel_axis: int | None = None
    stride: int = 0


def joined(samples: Sequence[Sample]) -> Sample:
    """One feed of several samples, stacked along axis 0."""
    if len(samples) == 1:
        return samples[0]
    return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}


def element_types(
    model: OnnxModel, view: GraphView, names: Sequence[str], make_session: MakeSession
) -> dict[str, str]:
    """Element types (numpy names) of the values ``names``; onnxruntime is asked where the model does not say.

    Raises:
        ValueError: One of them is no value of the main graph.
    """
    tensors = view.tensors
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ValueError(f"there is no value '{missing[0]}'")
    types = {name: tensors[name].dtype or "" for name in names}
    unknown = [name for name, dtype in types.items() if not dtype]
    if unknown:
        found = {spec.name: spec.dtype for spec in make_session(expose(model, unknown)).outputs}
        types.update({name: found[name] for name in unknown})
    return types


def plan_observation(
    model: OnnxModel,
    view: GraphView,
    tensors: Sequence[ObservedTensor],
    types: Mapping[str, str],
    samples: Sequence[Sample],
    *,
    make_session: MakeSession,
    extremes_only: Sequence[str] = (),
) -> list[Observed] | None:
    """How to observe ``tensors``, and of the values ``extremes_only`` nothing but their extremes.

    Args:
        model: Float model.
        view: Its picture.
        tensors: Float tensors.
        types: Element types of all of them.
        samples: The first batch: one sample, or several of the same shapes.
        make_session: Makes sessions.
        extremes_only: Float values of which no elements are sampled.

    Returns:
        Those with a row per sample first, else in the order given; None when the shapes say that samples of a
        batch do not stay apart.
    """
    bounded = nonnegative(view)
    names = [*(tensor.name for tensor in tensors), *extremes_only]
    feeds = [samples[0], joined(samples)] if len(samples) > 1 else [samples[0]]
    shapes = [declared_shapes(view, names, feed) for feed in feeds]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        known = _measured_shapes(model, names, feeds, make_session)
    single, batch = known[0], known[-1]
    planned = []
    for index, name in enumerate(names):
        kind = _batch_kind(single[index], batch[index], len(samples))
        if kind is None:
            return None
        sampled = index < len(tensors)
        axis = tensors[index].channel_axis if sampled else None
        if axis is not None and not (axis < len(single[index]) and single[index][axis]):
            axis = None  # there is no such axis, or nothing on it
        planned.append(
            Observed(
                name=name,
                rank=len(single[index]),
                stride=tensors[index].stride or stride_for(single[index]) if sampled else 0,
                dtype=types[name],
                nonnegative=name in bounded,
                per_sample=kind[0],
                batch_axis=kind[1],
                channel_axis=axis,
                channels=0 if axis is None else single[index][axis],
                positions=0 if axis is None else math.prod(single[index]) // single[index][axis],
            )
        )
    return sorted(planned, key=lambda tensor: not tensor.per_sample)


def nonnegative(view: GraphView) -> frozenset[str]:
    """Outputs of Relu, and of Clip from 0: 0 is their minimum, or as good as that for any range."""
    found = set()
    for node in view.nodes:
        low = node.attributes.get("min") if node.op == "Clip" else None
        if node.op == "Clip" and view.is_constant(node.input(1)):
            low = float(view.constant(node.input(1)).reshape(-1)[0])
        if node.op == "Relu" or low == 0:
            found.add(node.outputs[0])
    return frozenset(found)


def stride_for(shape: Sequence[int]) -> int:
    """Stride of the subsample of a tensor whose shape for one sample is ``shape``."""
    size = math.prod(shape)
    stride = -(-size // min(MOST, max(FEWEST, size // SHARE)))
    while stride > 1 and any(math.gcd(stride, dim) > 1 for dim in shape):
        stride += 1
    return max(1, stride)


def declared_shapes(view: GraphView, names: Sequence[str], feed: Sample) -> list[tuple[int, ...]] | None:
    """Shapes of the values ``names`` as the model states them, with the symbols that ``feed`` settles.

    None where the model leaves one of them open.
    """
    settled: dict[str, int] = {}
    for name in view.inputs:
        shape, array = view.tensors[name].shape, feed.get(name)
        if shape is None or array is None or len(shape) != array.ndim:
            return None
        for dim, size in zip(shape, array.shape, strict=True):
            if isinstance(dim, str) and settled.setdefault(dim, size) != size:
                return None
    shapes = []
    for name in names:
        shape = view.tensors[name].shape
        sizes = None if shape is None else [settled.get(dim) if isinstance(dim, str) else dim for dim in shape]
        if sizes is None or None in sizes:
            return None
        shapes.append(tuple(size for size in sizes if size is not None))
    return shapes


def _measured_shapes(
    model: OnnxModel, names: Sequence[str], feeds: Sequence[Sample], make_session: MakeSession
) -> list[list[tuple[int, ...]]]:
    """Shapes of the values ``names`` for each of ``feeds``."""
    shaped, outputs = expose_shapes(model, names)
    session = make_session(shaped)
    runs = [session.run(feed, outputs) for feed in feeds]
    return [[tuple(int(dim) for dim in found[output]) for output in outputs] for found in runs]


def _batch_kind(single: tuple[int, ...], batch: tuple[int, ...], samples: int) -> tuple[bool, bool] | None:
    """Whether a tensor's rows are samples and whether its axis 0 counts them; None for neither.

    A tensor whose shape does not depend on the batch counts as the same for all samples.
    """
    if samples == 1:
        return False, bool(single) and single[0] == 1
    if batch == single:
        return False, False
    if single and batch[1:] == single[1:] and batch[0] == samples * single[0]:
        return True, single[0] == 1
    return None
