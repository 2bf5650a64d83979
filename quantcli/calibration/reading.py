"""What observers measured in one run, as rows of samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.graph.observe import Observed, ObserverGroup, ObserverLayout


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
        self._groups = tuple(_Columns(group) for group in layout.groups)
        self._tensors = sum(len(group.tensors) for group in layout.groups)
        self._lengths = np.full(self._tensors, -1, dtype=np.int64)
        self._separators = np.zeros(0, dtype=np.int64)
        # Channels come group by group, the loose ones last; they are wanted in the order of the tensors.
        owners: list[int] = []
        loose: list[int] = []
        first = 0
        for group in layout.groups:
            for index, tensor in enumerate(group.tensors):
                owners += [first + index] * (tensor.channels if tensor.by_channel else 0)
            first += len(group.tensors)
        places = [index for group in layout.groups for index in group.tensors]
        for group in layout.groups:
            for tensor in group.loose:
                loose += [places.index(tensor)] * tensor.loose
        self._order = np.argsort(np.array(owners + loose, dtype=np.int64), kind="stable") if loose else None

    def calm(self, outputs: Mapping[str, np.ndarray]) -> bool:
        """Whether all sums of a run are finite: then nothing in it is NaN or infinite."""
        return all(columns.calm(outputs[columns.output]) for columns in self._groups)

    def read(self, runs: Sequence[Mapping[str, np.ndarray]], samples: Sequence[int]) -> Reading | None:
        """Rows of the outputs of some runs, of so many samples each.

        None where the number of channels has changed, or NaNs among the values hide how many there are of each
        tensor, or the runs are not alike.
        """
        parts = []
        for columns in self._groups:
            arrays = [outputs[columns.output] for outputs in runs]
            if any(array.shape[1] != arrays[0].shape[1] for array in arrays):
                return None
            block = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
            if not columns.fit(block):
                return None
            parts.append(columns.split(block, samples))
        extremes, values, lows, highs = parts[0]
        if len(parts) > 1:
            extremes = np.concatenate([part[0] for part in parts], axis=2)
            values = np.concatenate([part[1] for part in parts], axis=1)
            lows, highs = (np.concatenate([part[which] for part in parts]) for which in (2, 3))
        if not self._fits(values) and not (self._measure(values[0]) and self._fits(values)):
            return None
        if self._order is not None:
            lows, highs = lows[self._order], highs[self._order]
        channels = np.concatenate((lows, highs))
        return Reading(extremes=extremes, values=values, lengths=self._lengths, channels=channels)

    def _fits(self, rows: np.ndarray) -> bool:
        """Whether the tensors have as many values as last time."""
        at = self._separators
        return bool(at.size and rows.shape[1] == at[-1] + 1 and np.isnan(rows[:, at]).all())

    def _measure(self, row: np.ndarray) -> bool:
        at = np.flatnonzero(np.isnan(row))
        if at.size != self._tensors:
            return False
        self._separators = at
        self._lengths = np.diff(at, prepend=-1) - 1
        return True


class _Columns:
    """Where things are in the rows of one group's output.

    Attributes:
        output: Its name.
    """

    def __init__(self, group: ObserverGroup) -> None:
        self.output = group.output
        self._per_sample = group.per_sample
        self._tensors = len(group.tensors)
        self._zero = at = self._tensors
        at += 1
        begins: list[int] = []
        separators: list[int] = []
        for _, width in group.blocks():
            begins.append(at)
            at += width + 1
            separators.append(at - 1)
        self._values = at
        self._separators = np.array(separators, dtype=np.int64)
        starts = iter(begins)
        own = [self._indices(group.tensors, low, starts) for low in (True, False)]
        loose = [self._indices(group.loose, low, starts, loose=True) for low in (True, False)]
        self._lows, self._highs = (np.concatenate([np.zeros(0, np.int64), *found]) for found in own)
        self._loose = [np.concatenate([np.zeros(0, np.int64), *found]) for found in loose]
        widths = [tensor.width for tensor in group.tensors]
        self._starts = np.cumsum([0, *widths])[:-1]
        by_channel = np.repeat([tensor.by_channel for tensor in group.tensors], widths)
        self._channels = None if by_channel.all() else np.flatnonzero(by_channel)

    def _indices(
        self, tensors: Sequence[Observed], low: bool, starts: Iterator[int], *, loose: bool = False
    ) -> list[np.ndarray]:
        """Columns of each tensor's minima, or of its maxima; where 0 stands for them, that of the 0."""
        found = []
        for tensor in tensors:
            width = tensor.loose if loose else tensor.width
            if low and tensor.nonnegative:
                found.append(np.full(width, self._zero))
            else:
                found.append(next(starts) + np.arange(width))
        return found

    def calm(self, output: np.ndarray) -> bool:
        """Whether all sums are finite."""
        return bool(np.isfinite(output[:, : self._tensors]).all())

    def fit(self, output: np.ndarray) -> bool:
        """Whether all channels are where they were."""
        return output.shape[1] >= self._values and bool(np.isnan(output[:, self._separators]).all())

    def split(
        self, output: np.ndarray, samples: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Extremes (samples, 3, T), values (samples, any), minima and maxima of channels over all rows."""
        extremes = np.empty((len(output), 3, self._tensors), dtype=np.float32)
        channels = []
        for which, (columns, loose, extreme) in enumerate(
            ((self._lows, self._loose[0], np.minimum), (self._highs, self._loose[1], np.maximum))
        ):
            found = np.take(output, columns, axis=1)
            if self._tensors:
                extreme.reduceat(found, self._starts, axis=1, out=extremes[:, which])
            found = extreme.reduce(found, axis=0)
            found = found if self._channels is None else found[self._channels]
            channels.append(
                np.concatenate((found, extreme.reduce(output[:, loose], axis=0))) if loose.size else found
            )
        extremes[:, 2] = output[:, : self._tensors]
        values = output[:, self._values :]
        if not self._per_sample and max(samples) > 1:  # it counts for each sample of its run
            extremes, values = (np.repeat(part, samples, axis=0) for part in (extremes, values))
        return extremes, values, channels[0], channels[1]
