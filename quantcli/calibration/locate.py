"""Looking closely at single samples: where NaN and Inf come from, and measuring without a graph's help.

Needed only when something is wrong, so it hands every float value of the graph out, at whatever cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.calibration.probe import FLOATS, MakeSession, Runs
from quantcli.data.base import Sample
from quantcli.graph.model import OnnxModel
from quantcli.graph.observe import Observed, expose, float_values


@dataclass(frozen=True, slots=True, kw_only=True)
class NonFinite:
    """The first value of a graph that is not finite, in topological order.

    Attributes:
        kind: "NaN" or "Inf".
        tensor: Its name.
        node: Name of the node that made it; "" for an input.
    """

    kind: str
    tensor: str
    node: str

    def __str__(self) -> str:
        origin = f"made by node '{self.node}'" if self.node else "an input"
        return f"{self.kind} first in '{self.tensor}', {origin}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One sample's T tensors, measured in numpy; see ``core.accumulator`` for the meaning of rows.

    Attributes:
        minima: float32 (1, T); NaN where a tensor is not finite.
        maxima: float32 (1, T).
        values: float32 (1, Σ (lengths + 1)).
        lengths: int64 (T,).
        nans: Whether each tensor holds a NaN.
        channels: float32 (2·Σ channels,): minima, then maxima of channels; NaN as above, and where ``varying``.
        varying: Whether each tensor has another number of channels than was expected.
    """

    minima: np.ndarray
    maxima: np.ndarray
    values: np.ndarray
    lengths: np.ndarray
    nans: np.ndarray
    channels: np.ndarray
    varying: np.ndarray


class Inspector:
    """Runs a model with its inside out; the session is made when it is first needed."""

    def __init__(self, model: OnnxModel, make_session: MakeSession) -> None:
        self._model = model
        self._make_session = make_session
        self._session: Runs | None = None
        self._producers = dict(float_values(model))

    def first(self, sample: Sample, kind: str) -> NonFinite | None:
        """The first value that holds a NaN ("NaN") or an infinity ("Inf")."""
        test = np.isnan if kind == "NaN" else np.isinf
        session = self._opened()
        types = {spec.name: spec.dtype for spec in session.outputs}
        names = [name for name in self._producers if types.get(name) in FLOATS]
        found = session.run(sample, names)
        for name in names:
            if test(_float32(found[name])).any():
                return NonFinite(kind=kind, tensor=name, node=self._producers[name])
        return None

    def measure(self, sample: Sample, tensors: Sequence[Observed]) -> Measured:
        """What the observers would have measured."""
        found = self._opened().run(sample, [tensor.name for tensor in tensors])
        arrays = [_float32(found[tensor.name]) for tensor in tensors]
        finite = np.array([bool(np.isfinite(array).all()) for array in arrays])
        parts = [
            array.ravel()[:: tensor.stride] if tensor.stride else array.ravel()[:0]
            for tensor, array in zip(tensors, arrays, strict=True)
        ]
        varying = np.array([_varies(tensor, array) for tensor, array in zip(tensors, arrays, strict=True)])
        separator = np.full(1, np.nan, dtype=np.float32)
        minima = np.array([array.min(initial=np.inf) for array in arrays], dtype=np.float32)
        bounded = [tensor.nonnegative and array.size > 0 for tensor, array in zip(tensors, arrays, strict=True)]
        minima = np.where(bounded, np.float32(0), minima)
        maxima = np.array([array.max(initial=-np.inf) for array in arrays], dtype=np.float32)
        return Measured(
            minima=np.where(finite, minima, np.float32(np.nan))[None],
            maxima=np.where(finite, maxima, np.float32(np.nan))[None],
            values=np.concatenate([piece for part in parts for piece in (part, separator)])[None],
            lengths=np.array([part.size for part in parts], dtype=np.int64),
            nans=np.array([bool(np.isnan(array).any()) for array in arrays]),
            channels=_channels(tensors, arrays, finite & ~varying),
            varying=varying,
        )

    def _opened(self) -> Runs:
        if self._session is None:
            self._session = self._make_session(expose(self._model, list(self._producers)))
        return self._session


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # a float64 beyond float32 counts as infinite, as in the graph
        return np.asarray(array, dtype=np.float32)


def _varies(tensor: Observed, array: np.ndarray) -> bool:
    axis = tensor.channel_axis
    return axis is not None and array.shape[axis : axis + 1] != (tensor.channels,)


def _channels(tensors: Sequence[Observed], arrays: Sequence[np.ndarray], usable: np.ndarray) -> np.ndarray:
    found: tuple[list[np.ndarray], ...] = ([np.zeros(0)], [np.zeros(0)])
    for tensor, array, known in zip(tensors, arrays, usable, strict=True):
        if tensor.channel_axis is None:
            continue
        low = high = np.full(tensor.channels, np.nan)
        if known:
            others = tuple(axis for axis in range(array.ndim) if axis != tensor.channel_axis)
            low, high = array.min(axis=others, initial=np.inf), array.max(axis=others, initial=-np.inf)
        found[0].append(np.zeros_like(low) if known and tensor.nonnegative else low)
        found[1].append(high)
    return np.concatenate([*found[0], *found[1]]).astype(np.float32)
