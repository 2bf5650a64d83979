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
        extremes: float32 (n, 3, T): minima, maxima and sums. A tensor without elements has maximum −inf; one
            that holds a NaN has the sum NaN.
        values: float32 (n, Σ (lengths + 1)): sampled elements, a separator after each tensor's.
        lengths: int64 (T,): how many elements were sampled; the same in all samples of a run.
        channels: float32 (2·Σ channels,): minima of channels, then maxima.
    """

    extremes: np.ndarray
    values: np.ndarray
    lengths: np.ndarray
    channels: np.ndarray

    @property
    def finite(self) -> bool:
        """Whether nothing needs a closer look: no tensor is empty or holds NaN, Inf or huge values."""
        return bool(np.isfinite(self.extremes).all())

    @property
    def empty(self) -> np.ndarray:
        """Bool (n, T): tensors without elements."""
        return np.asarray(self.extremes[:, 0] > self.extremes[:, 1])

    @property
    def infinite(self) -> np.ndarray:
        """Bool (n, T): tensors that hold an infinity for certain; those with a NaN, too, may show it or not."""
        return np.asarray(np.isinf(self.extremes[:, :2]).any(axis=1) & ~self.empty)


class Reader:
    """Reads the outputs of a graph with observers."""

    def __init__(self, layout: ObserverLayout) -> None:
        self._layout = layout
        self._tensors = sum(group.tensors for group in layout.groups)
        self._lengths = np.full(self._tensors, -1, dtype=np.int64)
        self._separators = np.zeros(0, dtype=np.int64)

    def read(self, outputs: Mapping[str, np.ndarray], samples: int) -> Reading | None:
        """Rows of the outputs of one run of ``samples`` samples.

        None where the number of channels has changed, or NaNs among the values hide how many there are of each
        tensor.
        """
        parts = [self._split(outputs[group.output], group, samples) for group in self._layout.groups]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            return None
        extremes, values = whole[0][0], whole[0][1]
        if len(whole) > 1:
            extremes = np.concatenate([part[0] for part in whole], axis=2)
            values = np.concatenate([part[1] for part in whole], axis=1)
        if not self._fits(values) and not self._measure(values[0]):
            return None
        return Reading(extremes=extremes, values=values, lengths=self._lengths, channels=whole[-1][2])

    @staticmethod
    def _split(
        output: np.ndarray, group: ObserverGroup, samples: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Extremes (samples, 3, T), values (samples, any) and channels of one group."""
        begin = end = 3 * group.tensors
        channels = output[0, :0]
        if group.channels:
            middle = begin + group.channels
            end = middle + 1 + group.channels + 1
            if end > output.shape[1] or not np.isnan(output[0, [middle, end - 1]]).all():
                return None
            channels = np.concatenate((output[0, begin:middle], output[0, middle + 1 : end - 1]))
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
