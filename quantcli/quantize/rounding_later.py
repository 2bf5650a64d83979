"""Weights whose integers are computed when they are asked for: their parameters are known at once.

Of a large model only the scales are kept. The integers of a weight are made where it is written, one weight after
the other, and forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from quantcli.core.spec import QuantParams
from quantcli.quantize.weight_grid import scale_shape

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Integers:
    """Integers of a weight, made or to be made.

    Attributes:
        dtype: numpy's name of their type.
        shape: Their shape.
        integers: Gives them; the same at each call.
        rule: How they follow from the weight: with equal scales, equal rules make equal integers of one weight. ""
            where only the integers themselves tell.
    """

    dtype: str
    shape: tuple[int, ...]
    integers: Callable[[], np.ndarray]
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding(Integers):
    """Integers with their parameters.

    Attributes:
        params: Scale and zero point.
    """

    params: QuantParams


def made(integers: np.ndarray, params: QuantParams) -> Rounding:
    """Integers that are in memory."""
    return Rounding(dtype=integers.dtype.name, shape=integers.shape, integers=lambda: integers, params=params)


def later(
    params: QuantParams, values: np.ndarray, name: str, integers: Callable[[], np.ndarray], rule: str
) -> Rounding:
    """Integers of the weight ``name`` with these ``values``, whose parameters are known.

    Raises:
        ValueError: The parameters do not fit the weight: a plan from a file may say anything.
    """
    if params.scale.shape != scale_shape(values.shape, params.spec):
        raise ValueError(f"the scales of '{name}' have shape {params.scale.shape}, which its form does not take")
    dtype = params.spec.dtype.storage.name
    return Rounding(dtype=dtype, shape=values.shape, integers=integers, rule=rule, params=params)


class Deferred(Mapping[str, T]):
    """What ``make`` makes of integers and parameters, by node; computed at each reading, and not kept.

    Args:
        roundings: By node.
        make: (integers, parameters) → the value.
    """

    def __init__(self, roundings: Mapping[str, Rounding], make: Callable[[np.ndarray, QuantParams], T]) -> None:
        self.roundings = roundings
        self._make = make

    def __getitem__(self, node: str) -> T:
        found = self.roundings[node]
        return self._make(found.integers(), found.params)

    def __iter__(self) -> Iterator[str]:
        return iter(self.roundings)

    def __len__(self) -> int:
        return len(self.roundings)
