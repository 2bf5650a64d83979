"""Statistics of many tensors at once, while samples stream by.

One model has about a hundred activations and may run in a fraction of a millisecond, so nothing here is done
per tensor and run: extremes of all tensors are one row, sampled values of all tensors are another, rows are
gathered until ``FLUSH_VALUES`` values wait, and then all of them are binned in one pass. What a tensor needs
of its own happens only when its range grows, which becomes rare quickly.

Internally each tensor owns a window of ``WINDOW`` bins, wider than a histogram's ``BINS``, so that a range
may grow a little without moving counts; ``results`` coarsens to the one width that the definition of
``Histogram`` prescribes. Memory depends on the number of tensors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.core.histogram import BINS, EMPTY, Histogram, scalar_span, span
from quantcli.core.stats import DECAY, MovingRange, TensorStats

WINDOW = BINS + BINS // 4
FLUSH_VALUES = 2**18
CHUNK_VALUES = 2**15

_IGNORED = np.finfo(np.float32).tiny  # not zero, and in bin 0 or 1 of every width


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A tensor to be observed.

    Attributes:
        dtype: numpy name of its type in the model.
        stride: Elements that each sampled value stands for.
        channel_axis: Axis of its channels, or None.
        channels: Their number; 0 without an axis.
    """

    dtype: str = "float32"
    stride: int = 1
    channel_axis: int | None = None
    channels: int = 0


class Accumulator:
    """Grows statistics of the tensors ``slots``; T is their number, in their order."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = tuple(slots)
        size = len(self._slots)
        self._samples = np.zeros(size, dtype=np.int64)
        self._nonfinite = np.zeros(size, dtype=np.int64)
        self._low = np.full(size, np.inf, dtype=np.float32)
        self._high = np.full(size, -np.inf, dtype=np.float32)
        self._average = np.zeros((2, size), dtype=np.float64)
        self._amplitudes = np.zeros(size, dtype=np.float64)
        self._exponent = np.zeros(size, dtype=np.int64)
        self._base = np.zeros(size, dtype=np.int64)
        self._started = np.zeros(size, dtype=np.bool_)
        # One bin more than the windows takes what must not be counted.
        self._counts = np.zeros(size * WINDOW + 1, dtype=np.int64)
        self._zeros = np.zeros(size, dtype=np.int64)
        channels = sum(slot.channels for slot in self._slots)
        self._channel_low = np.full(channels, np.inf, dtype=np.float32)
        self._channel_high = np.full(channels, -np.inf, dtype=np.float32)
        self._rows: list[np.ndarray] = []
        self._values: list[np.ndarray] = []
        self._waiting = 0
        self._lengths: np.ndarray | None = None
        self._layout: _Layout | None = None
        self._memory = np.zeros(0, dtype=np.float32)

    def add(self, minima: np.ndarray, maxima: np.ndarray, values: np.ndarray, lengths: np.ndarray) -> None:
        """Observe some samples. The arrays are taken over: they must not be used or changed afterwards.

        Args:
            minima: float32 (samples, T), smallest element; +inf where a tensor has no elements, NaN where it
                holds NaN or Inf and is to be passed over.
            maxima: float32 (samples, T), largest element; −inf and NaN as in ``minima``.
            values: float32 (samples, Σ (lengths + 1)), every stride-th element, tensor after tensor, each
                tensor's followed by a separator. Separators, and the values of tensors that are passed over,
                may be any number and NaN.
            lengths: int64 (T,), how many values each tensor has in a sample.
        """
        known = self._lengths
        if known is None or not (known is lengths or np.array_equal(known, lengths)):
            self._flush()
            self._lengths, self._layout = lengths, None
        self._rows.append(np.stack((minima, maxima), axis=1))
        self._values.append(values)
        self._waiting += values.size + 2 * minima.size
        if self._waiting >= FLUSH_VALUES:
            self._flush()

    def add_channels(self, minima: np.ndarray, maxima: np.ndarray) -> None:
        """Observe extremes of channels: float32 (Σ channels,), tensor after tensor."""
        np.fmin(self._channel_low, minima, out=self._channel_low)
        np.fmax(self._channel_high, maxima, out=self._channel_high)

    def results(self) -> tuple[TensorStats, ...]:
        """Statistics of everything observed so far, one per slot."""
        self._flush()
        stats = []
        at = 0
        for index, slot in enumerate(self._slots):
            axis, channels = slot.channel_axis, slice(at, at + slot.channels)
            at += slot.channels
            samples = int(self._samples[index])
            stats.append(
                TensorStats(
                    dtype=slot.dtype,
                    samples=samples,
                    nonfinite=int(self._nonfinite[index]),
                    minimum=float(self._low[index]),
                    maximum=float(self._high[index]),
                    histogram=self._histogram(index),
                    average=MovingRange(
                        samples=samples,
                        low=float(self._average[0, index]),
                        high=float(self._average[1, index]),
                    ),
                    amplitudes=float(self._amplitudes[index]),
                    channel_axis=axis,
                    channel_minimum=None if axis is None else self._channel_low[channels],
                    channel_maximum=None if axis is None else self._channel_high[channels],
                )
            )
        return tuple(stats)

    # Inside ---------------------------------------------------------------------------------------

    def _flush(self) -> None:
        if not self._rows:
            return
        rows = np.concatenate(self._rows)
        values = self._joined_values()
        self._rows, self._values, self._waiting = [], [], 0
        broken = np.isnan(rows[:, 0])
        seen = rows[:, 0] <= rows[:, 1]
        self._nonfinite += broken.sum(axis=0)
        self._samples += seen.sum(axis=0)
        self._average_rows(rows, seen)
        for row in np.where(seen, np.maximum(-rows[:, 0], rows[:, 1]), 0):
            self._amplitudes += row
        low = np.fmin.reduce(rows[:, 0], axis=0, initial=np.inf)
        high = np.fmax.reduce(rows[:, 1], axis=0, initial=-np.inf)
        self._grow(np.minimum(self._low, low), np.maximum(self._high, high))
        self._count(values, broken if broken.any() else None)

    def _joined_values(self) -> np.ndarray:
        """All rows that wait, in memory that is used again: fresh megabytes cost more than what is done here."""
        shape = (sum(len(part) for part in self._values), self._values[0].shape[1])
        size = shape[0] * shape[1]
        if self._memory.size < size:
            self._memory = np.empty(size, dtype=np.float32)
        return np.concatenate(self._values, out=self._memory[:size].reshape(shape))

    def _average_rows(self, rows: np.ndarray, seen: np.ndarray) -> None:
        """One step of the moving average per sample, so that batches do not show in it."""
        complete = bool(seen.all())
        for row, mask in zip(rows.astype(np.float64), seen, strict=True):
            if complete:
                self._average *= DECAY
                self._average += row * (1 - DECAY)
            else:
                new = self._average * DECAY + row * (1 - DECAY)
                self._average = np.where(mask, new, self._average)

    def _grow(self, low: np.ndarray, high: np.ndarray) -> None:
        """Move windows that do not hold [low, high] any more."""
        changed = np.flatnonzero((low < self._low) | (high > self._high))
        self._low, self._high = low, high
        if not changed.size:
            return
        lo, hi = low[changed].astype(np.float64), high[changed].astype(np.float64)
        scale = -self._exponent[changed]
        first = np.floor(np.ldexp(lo, scale)) - self._base[changed]
        last = np.floor(np.ldexp(hi, scale)) - self._base[changed]
        moving = ~self._started[changed] | (first < 0) | (last >= WINDOW)
        changed, lo, hi = changed[moving], lo[moving], hi[moving]
        if not changed.size:
            return
        exponent, begin, end = span(lo, hi)
        base = begin - (WINDOW - (end - begin + 1)) // 2
        for where, index in enumerate(changed):
            if self._started[index]:
                self._move(int(index), int(exponent[where]), int(base[where]))
        self._exponent[changed], self._base[changed] = exponent, base
        self._started[changed] = True
        self._layout = None

    def _move(self, index: int, exponent: int, base: int) -> None:
        counts = self._counts[index * WINDOW : (index + 1) * WINDOW]
        filled = np.flatnonzero(counts)
        amounts = counts[filled]
        bins = (filled + self._base[index]) >> min(exponent - int(self._exponent[index]), 62)
        counts[:] = 0
        np.add.at(counts, bins - base, amounts)

    def _count(self, values: np.ndarray, broken: np.ndarray | None) -> None:
        if not values.size or self._lengths is None:
            return
        if self._layout is None:
            self._layout = _Layout(self._lengths, self._exponent, self._base)
        layout = self._layout
        values[:, layout.separators] = _IGNORED
        if broken is not None:
            ignored = broken[:, layout.owner]
            values[ignored] = _IGNORED
        zeros = np.zeros(values.shape[1], dtype=np.int64)
        step = max(1, min(255, CHUNK_VALUES // values.shape[1]))
        for at in range(0, len(values), step):
            part = values[at : at + step]
            # At most 255 rows, so that bytes can hold their sums.
            zeros += np.add.reduce((part == 0).view(np.uint8), axis=0, dtype=np.uint8)
            scaled = np.multiply(part, layout.scale)
            np.floor(scaled, out=scaled)
            bins = scaled.astype(np.int64)
            bins += layout.shift
            if broken is not None:
                bins[ignored[at : at + step]] = self._counts.size - 1
            np.add.at(self._counts, bins, 1)  # faster than bincount, which makes an array of all bins
        sums = np.concatenate(([0], np.cumsum(zeros)))
        self._zeros += np.diff(sums[layout.ends], prepend=0)

    def _histogram(self, index: int) -> Histogram:
        if not self._started[index]:
            return EMPTY
        stride = self._slots[index].stride
        counts = self._counts[index * WINDOW : (index + 1) * WINDOW]
        exponent, first, last = scalar_span(float(self._low[index]), float(self._high[index]))
        filled = np.flatnonzero(counts)
        result = np.zeros(last - first + 1, dtype=np.int64)
        shift = min(exponent - int(self._exponent[index]), 62)
        np.add.at(result, ((filled + self._base[index]) >> shift) - first, counts[filled] * stride)
        return Histogram(exponent=exponent, first=first, counts=result, zeros=int(self._zeros[index]) * stride)


class _Layout:
    """Where the values of a row go, while neither lengths nor windows change."""

    def __init__(self, lengths: np.ndarray, exponent: np.ndarray, base: np.ndarray) -> None:
        self.ends = np.cumsum(lengths + 1)
        self.separators = self.ends - 1
        self.owner = np.repeat(np.arange(lengths.size), lengths + 1)
        # Scaling by a power of two is exact in float32 while it does not scale down: then small values could
        # underflow, and a tiny negative number would land on the wrong side of 0.
        dtype = np.float32 if int(exponent.max(initial=0)) <= 0 else np.float64
        self.scale = np.ldexp(np.ones(1, dtype), -exponent).astype(dtype)[self.owner]
        self.shift = (np.arange(lengths.size) * WINDOW - base)[self.owner]
        self.scale[self.separators] = 0
        self.shift[self.separators] = lengths.size * WINDOW
