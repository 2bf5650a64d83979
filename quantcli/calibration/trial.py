"""A made-up sample that a converted model can be tried on, when the real ones are not at hand.

Calibration files keep the form of the first sample's inputs (type, shape, smallest and largest value), not the
sample: a user's data do not belong into a file that is passed around. From the form a sample is made that the
model accepts: indices stay inside their tables, masks stay masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.data.base import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialInput:
    """The form of one input in one sample.

    Attributes:
        name: Its name.
        dtype: numpy name of its type.
        shape: Its shape, batch axis included.
        low: Smallest value; 0 for no elements.
        high: Largest value; 0 for no elements.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float


def describe(sample: Sample) -> tuple[TrialInput, ...]:
    """The form of a sample; inputs that are no numbers are left out, and with them the trial."""
    if any(array.dtype.kind not in "biuf" for array in sample.values()):
        return ()
    return tuple(
        TrialInput(
            name=name,
            dtype=array.dtype.name,
            shape=array.shape,
            low=float(array.min(initial=array.flat[0])) if array.size else 0.0,
            high=float(array.max(initial=array.flat[0])) if array.size else 0.0,
        )
        for name, array in sorted(sample.items())
    )


def made_up(inputs: Sequence[TrialInput]) -> dict[str, np.ndarray] | None:
    """A sample of this form: uniform between the bounds, the same one every time. None without inputs."""
    if not inputs:
        return None
    generator = np.random.default_rng(0)
    # onnxruntime takes arrays of rank 0, but not the scalars that numpy's arithmetic makes of them
    return {
        entry.name: np.asarray(_values(entry, generator.random(entry.shape)), dtype=entry.dtype)
        for entry in inputs
    }


def _values(entry: TrialInput, uniform: np.ndarray) -> np.ndarray:
    values = entry.low + uniform * (entry.high - entry.low)
    return values if np.dtype(entry.dtype).kind == "f" else np.rint(values)
