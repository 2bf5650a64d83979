"""Whether tensors survive in a narrower float type, by numbers.

Rounding to nearest in a type of p significant bits gives a relative error of at most 2^−p for normal numbers: of
uniform spread, about 6.02·p + 7 dB, 73 dB for float16 (p = 11) and 55 dB for bfloat16 (p = 8). Below the smallest
normal number (2^−14 in float16) the *absolute* error is what stays, so a tensor that lies there loses bits; the
SQNR of rounding it tells how many. IEEE 754-2019; Higham (2002), "Accuracy and Stability of Numerical Algorithms".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quantcli.core.metrics import sqnr_db
from quantcli.graph.float_type import round_to

LARGEST: Mapping[str, float] = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}
"""Largest finite value."""

LOWEST_SQNR = 45.0
"""dB that rounding a tensor must keep; bfloat16 gives 55 to normal numbers, float16 73."""

HEADROOM = 2.0
"""How much farther than on the samples other data may reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFact:
    """What was measured of a tensor.

    Attributes:
        largest: Largest magnitude of its finite elements.
        sqnr: dB that rounding it to the narrow type keeps; inf where it is exact.
    """

    largest: float
    sqnr: float

    def refusal(self, name: str, dtype: str) -> str:
        """Why the tensor must stay float32, "" where it need not."""
        limit = LARGEST[dtype]
        if self.largest * HEADROOM > limit:
            return f"'{name}' reaches {self.largest:.3g} on the samples; {dtype} ends at {limit:.5g}"
        if self.sqnr < LOWEST_SQNR:
            return f"'{name}' is so small that {dtype} keeps it at {self.sqnr:.0f} dB only"
        return ""


class TensorWatch:
    """Gathers facts of tensors over samples."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._largest: dict[str, float] = {}
        self._sums: dict[str, tuple[float, float]] = {}

    def update(self, name: str, values: np.ndarray) -> None:
        """Take in one sample's values of tensor ``name`` (float32, any shape)."""
        finite = values[np.isfinite(values)]
        signal, noise = rounding_sums(finite, self._dtype)
        largest = float(np.abs(finite).max(initial=0.0))
        self._largest[name] = max(self._largest.get(name, 0.0), largest)
        before = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = before[0] + signal, before[1] + noise

    def facts(self) -> dict[str, TensorFact]:
        """What was seen, by tensor."""
        return {
            name: TensorFact(largest=self._largest[name], sqnr=sqnr_db(*sums))
            for name, sums in sorted(self._sums.items())
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What becomes of a constant that is rounded to a narrow type.

    Attributes:
        size: Number of its elements.
        over: The finite element of largest magnitude that becomes infinite, 0 for none.
        least_over: Smallest magnitude of those that become infinite, inf for none.
        lost: Elements that are not 0 and become 0.
        least: Smallest magnitude of elements that are not 0, inf for none.
        signal: Σ x² of finite elements up to the largest value of the type.
        noise: Σ (x − round(x))² of the same.
    """

    size: int = 0
    over: float = 0.0
    least_over: float = math.inf
    lost: int = 0
    least: float = math.inf
    signal: float = 0.0
    noise: float = 0.0

    def __add__(self, other: Survey) -> Survey:
        return Survey(
            size=self.size + other.size,
            over=max(self.over, other.over, key=abs),
            least_over=min(self.least_over, other.least_over),
            lost=self.lost + other.lost,
            least=min(self.least, other.least),
            signal=self.signal + other.signal,
            noise=self.noise + other.noise,
        )

    @property
    def overflows(self) -> bool:
        """Whether a finite element becomes infinite."""
        return self.over != 0

    @property
    def vanishes(self) -> bool:
        """Whether elements that are not 0 become 0, and there are few of them, or they all do."""
        return bool(self.lost) and (self.size <= _FEW or self.lost == self.size)

    @property
    def sqnr(self) -> float:
        """What rounding keeps, in dB."""
        return sqnr_db(self.signal, self.noise)


def survey(values: np.ndarray, dtype: str) -> Survey:
    """A look at float32 ``values`` (any shape), a part at a time: they may be as large as the model."""
    flat = values.reshape(-1)
    found = Survey()
    for start in range(0, flat.size, _PART_VALUES):
        found += _survey(flat[start : start + _PART_VALUES], dtype)
    return found


def _survey(values: np.ndarray, dtype: str) -> Survey:
    rounded = round_to(values, dtype).astype(np.float32)
    finite, magnitude = np.isfinite(values), np.abs(values)
    over = values[finite & ~np.isfinite(rounded)]
    signal, noise = rounding_sums(values[finite], dtype)
    return Survey(
        size=values.size,
        over=float(over[np.argmax(np.abs(over))]) if over.size else 0.0,
        least_over=float(np.abs(over).min(initial=np.inf)),
        lost=int(np.count_nonzero((values != 0) & (rounded == 0))),
        least=float(magnitude.min(initial=np.inf, where=values != 0)),
        signal=signal,
        noise=noise,
    )


def rounding_sums(values: np.ndarray, dtype: str) -> tuple[float, float]:
    """(Σ x², Σ (x − round(x))²) of finite float32 ``values``, those beyond the largest value left out."""
    inside = values[np.abs(values) <= LARGEST[dtype]]
    error = inside.astype(np.float64) - round_to(inside, dtype).astype(np.float64)
    return float(np.square(inside, dtype=np.float64).sum()), float(np.square(error).sum())


_FEW = 16
"""Up to so many elements, every one matters (an epsilon)."""

_PART_VALUES = 2**20
"""Elements that are looked at at a time: some 40 MB on the way."""
