"""What observers measured in one run, as rows of samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quantcli.graph.observe import ObserverGroup, ObserverLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Measurements of T tensors in n samples.

    Attributes:
        minima: float32 (n, T); +inf where a tensor has no elements.
        maxima: float32 (n, T); −inf where a tensor has no elements.
        sums: float32 (n, T); NaN wherever a tensor holds a NaN.
        values: float32 (n, Σ (lengths + 1)): sampled elements, a separator after each tensor's.
        lengths: int64 (T,): how many elements were sampled; the same in all samples of a run.
        channels: float32 (2·Σ channels,): minima of channels, then maxima.
    """

    minima: np.ndarray
    maxima: np.ndarray
    sums: np.ndarray
    values: np.ndarray
    lengths: np.ndarray
    channels: np.ndarray

    @property
    def empty(self) -> np.ndarray:
        """Bool (n, T): tensors without elements."""
        return np.asarray(self.minima > self.maxima)

    @property
    def infinite(self) -> np.ndarray:
        """Bool (n, T): tensors that hold an infinity for certain; those with a NaN, too, may show it or not."""
        return np.asarray((np.isinf(self.minima) | np.isinf(self.maxima)) & ~self.empty)


class Reader:
    """Reads the outputs of a graph with observers."""

    def __init__(self, layout: ObserverLayout) -> None:
        self._layout = layout
        self._tensors = sum(group.tensors for group in layout.groups)
        self._lengths = np.full(self._tensors, -1, dtype=np.int64)
        self._separators = np.zeros(0, dtype=np.int64)

    def read(self, outputs: Mapping[str, np.ndarray], samples: int) -> Reading | None:
        """Rows of the outputs of one run of ``samples`` samples.

        None where NaNs among the values hide how many each tensor has.
        """
        parts = [self._split(outputs[group.output], group, samples) for group in self._layout.groups]
        extremes, values = parts[0][0], parts[0][1]
        if len(parts) > 1:
            extremes = np.concatenate([part[0] for part in parts], axis=2)
            values = np.concatenate([part[1] for part in parts], axis=1)
        if not self._fits(values) and not self._measure(values[0]):
            return None
        return Reading(
            minima=extremes[:, 0],
            maxima=extremes[:, 1],
            sums=extremes[:, 2],
            values=values,
            lengths=self._lengths,
            channels=parts[-1][2],
        )

    @staticmethod
    def _split(
        output: np.ndarray, group: ObserverGroup, samples: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Extremes (samples, 3, T), values (samples, any) and channels of one group."""
        begin = 3 * group.tensors
        end = begin + 2 * group.channels
        channels = output[0, begin:end]
        if len(output) != samples:  # what does not depend on the batch counts for each of its samples
            output = np.broadcast_to(output, (samples, output.shape[1]))
        return output[:, :begin].reshape(samples, 3, group.tensors), output[:, end:], channels

    def _fits(self, row: np.ndarray) -> bool:
        """Whether the tensors have as many values as last time."""
        at = self._separators
        return bool(at.size and row.shape[1] == at[-1] + 1 and np.isnan(row[0, at]).all())

    def _measure(self, row: np.ndarray) -> bool:
        at = np.flatnonzero(np.isnan(row))
        if at.size != self._tensors:
            return False
        self._separators = at
        self._lengths = np.diff(at, prepend=-1) - 1
        return True
