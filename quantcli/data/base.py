"""What data looks like to the rest of quantcli: inputs, samples, sources and datasets.

A *sample* is the complete feed of one call of the model: every input by name, batch axis included. A
*source* gives some of the inputs (one file, one folder, one function); a *dataset* zips sources together so
that every input has a value. Both are re-iterable and stream: they hold one sample at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Sample = Mapping[str, np.ndarray]
"""The complete feed of one call: arrays by input name. Arrays may be read-only."""

Dim = int | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """An input of a model.

    Attributes:
        name: Its name.
        dtype: numpy name ("float32", "int64", "bool", "str", …).
        shape: int, symbolic name or None per axis; None where the rank is not known.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None

    @property
    def rank(self) -> int | None:
        """Number of axes, None where not known."""
        return None if self.shape is None else len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype} {shape_text(self.shape)}"


def shape_text(shape: Sequence[Dim] | None) -> str:
    """A shape for people: "[N,3,224,224]", "?" for an unknown dimension, "[…]" for an unknown rank."""
    if shape is None:
        return "[…]"
    return "[" + ",".join("?" if dim is None else str(dim) for dim in shape) + "]"


class _Described(Protocol):
    """What sources and datasets say of themselves."""

    @property
    def length(self) -> int | None:
        """Number of samples, None where only iterating tells (Python generators)."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know: casts, dropped rows, keys that are not used."""

    @property
    def synthetic(self) -> bool:
        """Whether any value is made up."""

    @property
    def executes_code(self) -> bool:
        """Whether reading runs code of the user."""


class Source(_Described, Protocol):
    """Gives some of a model's inputs."""

    @property
    def label(self) -> str:
        """Printable name, without directories."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that it gives."""

    def read(self, indices: Sequence[int] | None) -> Iterator[Sample]:
        """Samples ``indices`` in this order; all of them, in order, for None.

        A source of unknown length takes only None.

        Raises:
            DataError: A file is damaged or changed, or code of the user failed.
        """


class Dataset(_Described, Protocol):
    """Samples for a model; iterate as often as wanted. Opened by ``dataset.open_dataset``."""

    @property
    def name(self) -> str:
        """Printable name, without directories."""

    def __len__(self) -> int:
        """Number of samples.

        Raises:
            TypeError: ``length`` is None.
        """

    def __iter__(self) -> Iterator[Sample]:
        """Every sample, each a complete feed.

        Raises:
            DataError: A sample holds NaN or Inf, a file is damaged, code of the user failed.
        """
