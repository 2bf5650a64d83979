"""How scales of channels flow through a graph: each value's variables, and the constants that depend on them.

Let value t be stored as t_c / s_c for channel c. A layer computes the same as before if its constants are
rewritten, W' = W·s_in / s_out (``Rewrite``), so its outputs get variables of their own. A homogeneous operator,
f(x/s) = f(x)/s, hands the variables of its input on. Whatever else reads a value pins it to s = 1. So does
being an input or output of the graph, or being read inside a body (If, Loop, Scan).

The rules for the operators are in ``channel_layers`` (those with weights), ``channel_joins`` (those of
several values) and ``channel_rules`` (the others).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from quantcli.algorithms.channel_groups import ONE, ChannelGroups
from quantcli.graph.view import GraphView, NodeInfo

FLOAT32 = "float32"
SPLIT_CHANNELS = "channels that do not stay together"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The variables of a value.

    Attributes:
        axis: Channel axis, not negative.
        ids: Variable of each channel, int64 (C,).
    """

    axis: int
    ids: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """Scales as they multiply a constant: ``s[ids][index]``.

    Attributes:
        ids: Variables, int64 (C,).
        index: Channel of every element, int64, of a shape that broadcasts with the constant.
    """

    ids: np.ndarray
    index: np.ndarray

    def values(self, scales: np.ndarray) -> np.ndarray:
        """float64, shape of ``index``; ``scales`` is float64 over all variables."""
        return np.asarray(scales[self.ids][self.index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """A constant that depends on scales: times ``multiply``, divided by ``divide``.

    Attributes:
        node: Name of the node that reads it.
        index: Input index.
        constant: Initializer.
        multiply: Scales of the input, None for none.
        divide: Scales of the output, None for none.
        source: The activation that a weight is multiplied with, "" for what is no weight of a layer.
    """

    node: str
    index: int
    constant: str
    multiply: Factor | None = None
    divide: Factor | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperBound:
    """Clip(x, 0, upper) with scaled channels: exact while upper·s_c is not below the largest value of channel c.

    Attributes:
        value: Output of the Clip.
        upper: The bound, > 0.
    """

    value: str
    upper: float


@dataclass(kw_only=True)
class Flow:
    """What is known while a graph is walked in topological order.

    Attributes:
        view: The graph.
        groups: The variables.
        channels: Value → its variables. Values that are left out have s = 1.
        reasons: Value → why it has s = 1.
        rewrites: Constants that depend on scales.
        bounds: Clips with an upper bound.
    """

    view: GraphView
    groups: ChannelGroups = field(default_factory=ChannelGroups)
    channels: dict[str, Channels] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    rewrites: list[Rewrite] = field(default_factory=list)
    bounds: list[UpperBound] = field(default_factory=list)

    def get(self, name: str) -> Channels | None:
        """The variables of ``name``, None where s = 1."""
        return self.channels.get(name)

    def put(self, name: str, axis: int, ids: np.ndarray) -> None:
        """Give ``name`` variables; where its type or its shape contradicts them, they are pinned."""
        if not name:
            return
        info = self.view.tensors[name]
        size = info.shape[axis] if info.shape is not None and axis < len(info.shape) else None
        if info.dtype != FLOAT32 or axis >= (info.rank if info.rank is not None else axis + 1):
            self.pin(ids, "not float32")
        elif isinstance(size, int) and size != len(ids):
            self.pin(ids, "a shape that does not keep channels together")
        else:
            self.channels[name] = Channels(axis=axis, ids=ids)

    def pin(self, ids: np.ndarray, reason: str) -> None:
        """Set variables to 1."""
        self.groups.pin(ids, reason)

    def pin_value(self, name: str, reason: str) -> None:
        """Set the variables of a value to 1, if it has any."""
        found = self.get(name)
        if found is not None:
            self.pin(found.ids, reason)

    def pin_inputs(self, node: NodeInfo, reason: str = "") -> None:
        """Set the variables of all inputs of ``node`` to 1, and remember that of its outputs."""
        why = reason or f"operator {node.op}"
        for name in node.inputs:
            self.pin_value(name, why)
        for name in node.outputs:
            self.reasons.setdefault(name, why)

    def reason(self, name: str) -> str:
        """Why ``name`` has s = 1."""
        return self.reasons.get(name, "unknown channels")

    def array(self, name: str) -> np.ndarray | None:
        """A constant; None where ``name`` is none."""
        return self.view.constant(name) if self.view.is_constant(name) else None

    def shape(self, name: str) -> tuple[int | str | None, ...] | None:
        """Shape of a value or constant, None where the rank is unknown."""
        info = self.view.tensors.get(name)
        return None if info is None else info.shape

    def rank(self, name: str) -> int | None:
        """Number of axes, None where unknown."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def size(self, name: str, axis: int) -> int | None:
        """Size of an axis, None where unknown."""
        shape = self.shape(name)
        size = shape[axis] if shape is not None and axis < len(shape) else None
        return size if isinstance(size, int) else None


def ones(count: int) -> np.ndarray:
    """Variables that are 1, (count,)."""
    return np.full(count, ONE, dtype=np.int64)
