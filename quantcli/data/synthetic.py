"""Random samples, only when asked for: ``random:COUNT?seed=0&low=0&high=1``.

Values are uniform in [low, high). Defaults: floats 0 and 1; bool both values; uint8 and int8 their whole range;
other integers 0 and 2, since 0 and 1 are valid wherever integers are indices, masks or token ids. Sample i of
input j is drawn from its own generator, seeded with (seed, i, j): values do not depend on the order of reading.

Random data says nothing about a model's real ranges: the source is marked synthetic, and every report says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.data.base import Dim, InputSpec, Sample
from quantcli.data.candidate import Candidate, failed
from quantcli.data.problems import Problem
from quantcli.data.spec import DataSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """How one input is drawn."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    low: float
    high: float

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        if self.dtype.kind == "f":
            return generator.uniform(self.low, self.high, self.shape).astype(self.dtype)
        if self.dtype.kind == "b":
            return generator.integers(int(self.low), int(self.high), self.shape).astype(self.dtype)
        drawn = generator.integers(int(self.low), int(self.high), self.shape, dtype=self.dtype)
        return np.asarray(drawn)  # a scalar shape gives a Python-like scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSource:
    """Random samples.

    Attributes:
        label: "random:COUNT".
        length: Number of samples.
        seed: Of all of them.
        drawn: How each input is drawn.
    """

    label: str
    length: int
    seed: int
    drawn: tuple[_Drawn, ...]
    notes: tuple[str, ...] = ()
    synthetic: bool = True
    executes_code: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(drawn.name for drawn in self.drawn)

    def read(self, indices: Sequence[int] | None) -> Iterator[Sample]:
        """Samples ``indices`` in this order, all for None; see :class:`~quantcli.data.base.Source`."""
        for index in range(self.length) if indices is None else indices:
            yield {
                drawn.name: np.asarray(drawn.draw(np.random.default_rng((self.seed, int(index), number))))
                for number, drawn in enumerate(self.drawn)
            }


def open_random(
    spec: DataSpec, targets: tuple[InputSpec, ...], symbols: Mapping[str, int], seed: int
) -> Candidate:
    """Random values for every target.

    Args:
        spec: Of kind "random".
        targets: Inputs to feed.
        symbols: Values of symbolic dimensions that are known from elsewhere.
        seed: Used where the specification has none.
    """
    provides = frozenset(target.name for target in targets)
    if not targets:
        return failed(
            Problem(code="D107", message=f"'{spec.label}' is for no input: the other data feeds all of them")
        )
    drawn: list[_Drawn] = []
    problems: list[Problem] = []
    for target in targets:
        outcome = _drawn(spec, target, symbols)
        if isinstance(outcome, Problem):
            problems.append(outcome)
        else:
            drawn.append(outcome)
    if problems:
        return failed(*problems, provides=provides)
    source = RandomSource(
        label=spec.label,
        length=int(spec.target),
        seed=seed if spec.options.seed is None else spec.options.seed,
        drawn=tuple(drawn),
    )
    return Candidate(source=source, provides=provides)


def symbol_values(inputs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Values of symbolic dimensions that follow from the shapes that the user gave.

    Args:
        inputs: As the model declares them, symbols included.
        shapes: Shape by input name.
    """
    values: dict[str, int] = {}
    for spec in inputs:
        for want, dim in zip(spec.shape or (), shapes.get(spec.name, ()), strict=False):
            if isinstance(want, str):
                values.setdefault(want, dim)
    return values


def _drawn(spec: DataSpec, target: InputSpec, symbols: Mapping[str, int]) -> _Drawn | Problem:
    shape = _shape(target, symbols)
    if isinstance(shape, Problem):
        return shape
    try:
        dtype = np.dtype(target.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "fiub":
        return Problem(
            code="D110",
            message=f"input '{target.name}' takes {target.dtype}, for which there are no random values",
            hint="give this input real data",
        )
    low, high = _bounds(spec, dtype)
    valid = low < high
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        valid = valid and low == int(low) and high == int(high) and low >= info.min and high - 1 <= info.max
    elif dtype.kind == "b":
        valid = (low, high) in ((0, 1), (0, 2), (1, 2))
    if not valid:
        return Problem(
            code="D110",
            message=f"input '{target.name}' takes {target.dtype}, which cannot be drawn from "
            f"low={low:g} up to high={high:g}",
            hint="low is included, high is not; integers need whole numbers that fit their type",
        )
    return _Drawn(name=target.name, dtype=dtype, shape=shape, low=low, high=high)


def _bounds(spec: DataSpec, dtype: np.dtype) -> tuple[float, float]:
    low, high = 0.0, 1.0
    if dtype.kind in "iu" and dtype.itemsize == 1:
        info = np.iinfo(dtype)
        low, high = float(info.min), float(info.max) + 1
    elif dtype.kind in "iub":
        high = 2.0
    return (
        low if spec.options.low is None else spec.options.low,
        high if spec.options.high is None else spec.options.high,
    )


def _shape(target: InputSpec, symbols: Mapping[str, int]) -> tuple[int, ...] | Problem:
    """The shape of a feed: what is said, what a symbol is bound to, 1 for a dynamic first axis."""
    if target.shape is None:
        return Problem(
            code="D110",
            message=f"input '{target.name}' has no known shape for random values",
            hint=f"say it: --shape {target.name}=1x3x224x224",
        )
    shape: list[int] = []
    for axis, dim in enumerate(target.shape):
        known = symbols.get(dim) if isinstance(dim, str) else dim
        if known is None and axis == 0:
            known = 1
        if known is None:
            return Problem(
                code="D110",
                message=f"input '{target.name}' is {target}: axis {axis} has no fixed length for random values",
                hint=f"say it: --shape {target.name}={'x'.join(_asked(target.shape))}",
            )
        shape.append(known)
    return tuple(shape)


def _asked(shape: Sequence[Dim]) -> list[str]:
    """A shape to type: the fixed dimensions, 1 for the batch, the names of the others in capitals."""
    return [
        str(dim) if isinstance(dim, int) else "1" if axis == 0 else str(dim or f"D{axis}").upper()
        for axis, dim in enumerate(shape)
    ]
