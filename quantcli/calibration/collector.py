"""One streaming pass over the samples.

The graph measures itself (``graph.observe``); what leaves it are a few arrays per run, whatever the number of
tensors, and these are read in blocks of some runs. Memory does not depend on the number of samples.

What is found: every NaN and every Inf in an observed tensor and in a float output of the graph. A NaN
anywhere, and an Inf in an output, is an error: the samples are named, and the first tensor in the graph
that goes wrong, with its node. An Inf inside the graph alone is not (attention masks are made of −inf): such
tensors are noted, and nothing else is known of them in these samples.

Reproducible: on the CPU provider the number of threads does not change any bit (measured on all shared
models). The batch size can change last bits where a model's matrix products have other shapes then, so it is
an explicit choice, and 1 by default: on one thread larger batches bring 0 to 20 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal

import numpy as np

from quantcli.calibration.convergence import HistoryRecorder, RangeHistory
from quantcli.calibration.locate import Inspector, Measured, NonFinite
from quantcli.calibration.probe import (
    FLOATS,
    MakeSession,
    ObservedTensor,
    element_types,
    joined,
    plan_observation,
)
from quantcli.calibration.reading import Reader, Reading
from quantcli.calibration.statistics import Collected
from quantcli.core.accumulator import Accumulator, Slot
from quantcli.core.stats import TensorStats
from quantcli.data.base import Sample
from quantcli.errors import DataError, RuntimeFailure
from quantcli.graph.model import OnnxModel
from quantcli.graph.observe import Observed, observe
from quantcli.progress import Progress, SilentProgress

MOST_PROBLEMS = 10
"""Samples that go wrong before calibration stops."""

BLOCK_RUNS = 32
"""Runs that are read together: what Python does per run costs more than a small model."""

BLOCK_BYTES = 2**22
"""Most that such runs take and give."""

_SAME = 1e-3  # tolerance, relative to a tensor's extremes, of rows of a batch against single samples


def collect(
    model: OnnxModel,
    tensors: Sequence[ObservedTensor],
    samples: Iterable[Sample],
    *,
    make_session: MakeSession,
    batch_size: int = 1,
    progress: Progress | None = None,
    on_nonfinite: Literal["error", "ignore"] = "error",
    total: int | None = None,
) -> Collected:
    """Run ``model`` on ``samples`` and keep statistics of ``tensors``.

    Args:
        model: Prepared float model; not changed.
        tensors: What to look at; values that are no float tensors are left out with a note.
        samples: Complete feeds.
        make_session: Makes a session of a model.
        batch_size: Samples in a run, at least 1. More than 1 only where all inputs can be stacked along axis 0
            (``data.batching.can_batch``); where the model then turns out to mix samples, they run one by one.
        progress: Told of every sample.
        on_nonfinite: "ignore" passes over the samples of a tensor in which it is not finite.
        total: Number of samples, if known; for ``progress``.

    Raises:
        DataError: There are no samples (D106), or NaN or Inf came up (K101).
        RuntimeFailure: The model does not load or run (R101, R102).
        ValueError: A tensor is no value of the main graph.
    """
    progress = progress or SilentProgress()
    groups = _groups(samples, batch_size)
    first = next(groups, None)
    if first is None:
        raise DataError("D106", "the data holds no samples", hint="calibration needs some; 32 to 128 are usual")
    collection = _Collection(model, tensors, first, make_session, strict=on_nonfinite == "error")
    progress.start("calibrate", total)
    try:
        for group in chain([first], groups):
            for part in [group] if collection.batched else [[sample] for sample in group]:
                collection.take(part)
                progress.advance(len(part))
    finally:
        progress.finish()
    return collection.result()


def _groups(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Up to ``size`` consecutive samples of the same shapes and types."""
    held: list[Sample] = []
    for sample in samples:
        if held and not _alike(held[0], sample):
            yield held
            held = []
        held.append(sample)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held


def _alike(a: Sample, b: Sample) -> bool:
    return a.keys() == b.keys() and all(
        array.ndim > 0 and array.shape == b[name].shape and array.dtype == b[name].dtype
        for name, array in a.items()
    )


class _Collection:
    """The state of one pass.

    Attributes:
        batched: Whether samples may run together.
    """

    def __init__(
        self,
        model: OnnxModel,
        tensors: Sequence[ObservedTensor],
        first: Sequence[Sample],
        make_session: MakeSession,
        *,
        strict: bool,
    ) -> None:
        self._model, self._make_session, self._strict = model, make_session, strict
        self._notes: list[str] = []
        self._view = model.view()
        self._choose(tensors)
        self._inspector = Inspector(model, make_session)
        self.batched = len(first) > 1 and self._open(first) and self._apart(first)
        if not self.batched:
            self._open(first[:1])
            if len(first) > 1:
                self._notes.append("samples ran one by one: the model does not keep those of a batch apart")
        self._accumulator = Accumulator(
            [
                Slot(
                    dtype=tensor.dtype,
                    stride=max(1, tensor.stride),
                    channel_axis=tensor.channel_axis,
                    channels=tensor.channels,
                )
                for tensor in self._observed
            ]
        )
        self._owner = np.repeat(np.arange(len(self._observed)), [tensor.channels for tensor in self._observed])
        self._varying = np.zeros(len(self._observed), dtype=np.bool_)  # in their number of channels
        self._kept: np.ndarray | None = None  # channels that are still measured, where not all are
        self._history = HistoryRecorder(len(self._observed))
        self._samples = 0
        self._waiting: list[tuple[Sequence[Sample], Mapping[str, np.ndarray]]] = []
        self._waiting_bytes = 0
        self._problems: list[tuple[int, NonFinite | None]] = []

    # Setting up -----------------------------------------------------------------------------------

    def _choose(self, tensors: Sequence[ObservedTensor]) -> None:
        """Sort out what can be observed, and which outputs are watched besides."""
        outputs = self._view.outputs
        names = [tensor.name for tensor in tensors]
        self._types = element_types(self._model, self._view, [*names, *outputs], self._make_session)
        unique = {tensor.name: tensor for tensor in tensors}
        self._tensors = [unique[name] for name in sorted(unique) if self._types[name] in FLOATS]
        for name in sorted(set(unique) - {tensor.name for tensor in self._tensors}):
            self._notes.append(f"'{name}' is {self._types[name]}, not float, and was not observed")
        self._watched = [name for name in outputs if self._types[name] in FLOATS and name not in unique]
        self._outputs = frozenset(outputs)

    def _open(self, first: Sequence[Sample]) -> bool:
        """Make the session with observers; False where the shapes forbid batches."""
        planned = plan_observation(
            self._model,
            self._view,
            self._tensors,
            self._types,
            first,
            make_session=self._make_session,
            extremes_only=self._watched,
        )
        if planned is None:
            return False
        self._observed = planned
        if planned:
            self._measure_inside(planned)
        return True

    def _measure_inside(self, planned: Sequence[Observed]) -> None:
        observing, self._layout = observe(self._model, planned)
        self._session = self._make_session(observing)
        self._reader = Reader(self._layout)

    def _apart(self, first: Sequence[Sample]) -> bool:
        """Whether rows of a batch are what the samples give by themselves."""
        if not self._observed:
            return True
        together = self._read(first)
        for index, sample in enumerate(first[:2]):
            alone = self._read([sample])
            if together is None or alone is None or not np.array_equal(alone.lengths, together.lengths):
                return False
            extremes = alone.extremes[0, :2]
            scale = np.abs(np.where(np.isfinite(extremes), extremes, 0)).max(axis=0) * _SAME
            pairs = [
                (extremes, together.extremes[index, :2], scale),
                (alone.values[0], together.values[index], np.repeat(scale, alone.lengths + 1)),
            ]
            if not all(np.isclose(a, b, rtol=0, atol=atol, equal_nan=True).all() for a, b, atol in pairs):
                return False
        return True

    # Streaming ------------------------------------------------------------------------------------

    def take(self, samples: Sequence[Sample]) -> None:
        """Run ``samples`` together and take in what was measured."""
        if not self._observed:
            self._samples += len(samples)
            self._history.add(*(np.zeros((len(samples), 0), dtype=np.float32) for _ in range(2)))
            return
        try:
            outputs = self._run(samples)
        except RuntimeFailure:
            # Observers have no answer to some empty tensors; if the model itself fails, it fails again here.
            self.flush()
            self._take_exactly(samples)
        else:
            calm = self._reader.calm(outputs)
            if not calm:
                self.flush()
            self._waiting.append((samples, outputs))
            self._waiting_bytes += sum(array.nbytes for part in (*samples, outputs) for array in part.values())
            if not calm or len(self._waiting) == BLOCK_RUNS or self._waiting_bytes >= BLOCK_BYTES:
                self.flush()
        if len(self._problems) >= MOST_PROBLEMS:
            self._refuse()

    def flush(self) -> None:
        """Take in the runs that wait."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        reader = self._reader
        if not waiting or self._take_in(waiting):
            return
        for samples, outputs in waiting:  # one of them is not like the others
            if self._reader is not reader:
                self.take(samples)
            elif not self._take_in([(samples, outputs)]):
                self._take_exactly(samples)
        self.flush()

    def _take_in(self, runs: Sequence[tuple[Sequence[Sample], Mapping[str, np.ndarray]]]) -> bool:
        """Take in runs together; False where their outputs cannot be read."""
        samples = [sample for run, _ in runs for sample in run]
        reading = self._reader.read([outputs for _, outputs in runs], [len(run) for run, _ in runs])
        if reading is None:
            return False
        if reading.finite:
            channels = self._all_channels(reading)
            self._add(reading.extremes[:, 0], reading.extremes[:, 1], reading.values, reading.lengths, channels)
        else:
            self._take_suspicious(samples, reading)
        return True

    def _run(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        feed = {**joined(samples), **self._layout.feeds(len(samples))}
        return self._session.run(feed, self._layout.outputs)

    def _read(self, samples: Sequence[Sample]) -> Reading | None:
        return self._reader.read([self._run(samples)], [len(samples)])

    def _add(
        self, minima: np.ndarray, maxima: np.ndarray, values: np.ndarray, lengths: np.ndarray, channels: np.ndarray
    ) -> None:
        self._samples += len(minima)
        self._history.add(minima, maxima)
        self._accumulator.add(minima, maxima, values, lengths)
        if channels.size:
            self._accumulator.add_channels(channels[: self._owner.size], channels[self._owner.size :])

    def _take_suspicious(self, samples: Sequence[Sample], reading: Reading) -> None:
        """Some sum or extreme is not finite."""
        infinite, empty = reading.infinite, reading.empty
        broken: np.ndarray = np.array(infinite)
        for row, sample in enumerate(samples):
            nans = np.zeros(broken.shape[1], dtype=np.bool_)
            if np.isnan(reading.extremes[row, 2]).any():  # a NaN, or large finite values of both signs
                nans = self._inspector.measure(sample, self._observed).nans
            broken[row] |= nans
            self._judge(self._samples + row, sample, nans, infinite[row])
        neutral = np.where(broken, np.float32(np.nan), np.float32(np.inf))
        minima = np.where(broken | empty, neutral, reading.extremes[:, 0])
        maxima = np.where(broken | empty, -neutral, reading.extremes[:, 1])
        unusable = np.tile(np.logical_or.reduce(broken, axis=0)[self._owner], 2)
        channels = np.where(unusable, np.float32(np.nan), self._all_channels(reading))
        self._add(minima, maxima, reading.values, reading.lengths, channels)

    def _take_exactly(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            measured: Measured = self._inspector.measure(sample, self._observed)
            infinite = np.isnan(measured.minima[0]) & ~measured.nans
            self._judge(self._samples, sample, measured.nans, infinite)
            self._add(measured.minima, measured.maxima, measured.values, measured.lengths, measured.channels)
            if (measured.varying & ~self._varying).any():
                self._stop_channels(measured.varying)

    def _all_channels(self, reading: Reading) -> np.ndarray:
        """Extremes of channels; NaN for those that are not measured any more."""
        if self._kept is None:
            return reading.channels
        channels = np.full((2, self._owner.size), np.nan, dtype=np.float32)
        channels[:, self._kept] = reading.channels.reshape(2, -1)
        return channels.reshape(-1)

    def _stop_channels(self, varying: np.ndarray) -> None:
        """Look no more at the channels of tensors whose number of channels is not the same in all samples."""
        self._varying |= varying
        self._kept = np.flatnonzero(~self._varying[self._owner])
        self._measure_inside(
            [
                replace(tensor, channel_axis=None, channels=0) if stopped else tensor
                for tensor, stopped in zip(self._observed, self._varying, strict=True)
            ]
        )

    def _judge(self, number: int, sample: Sample, nans: np.ndarray, infinite: np.ndarray) -> None:
        """Note a problem where there is one: a NaN anywhere, an infinity in an output."""
        if not self._strict:
            return
        outputs = np.array([tensor.name in self._outputs for tensor in self._observed])
        if nans.any():
            self._problems.append((number, self._inspector.first(sample, "NaN")))
        elif (infinite & outputs).any():
            self._problems.append((number, self._inspector.first(sample, "Inf")))

    # Ending ---------------------------------------------------------------------------------------

    def result(self) -> Collected:
        """Everything that was seen.

        Raises:
            DataError: K101, samples went wrong.
        """
        if self._observed:
            self.flush()
        if self._problems:
            self._refuse()
        names = [tensor.name for tensor in self._observed]
        found = dict(zip(names, self._accumulator.results(), strict=True))
        for name in (name for name, varying in zip(names, self._varying, strict=True) if varying):
            found[name] = replace(found[name], channel_axis=None, channel_minimum=None, channel_maximum=None)
        kept = [tensor.name for tensor in self._tensors]
        columns = [names.index(name) for name in kept]
        history = self._history.history()
        return Collected(
            samples=self._samples,
            tensors={name: found[name] for name in kept},
            history=RangeHistory(
                samples=history.samples,
                minimum=history.minimum[:, columns],
                maximum=history.maximum[:, columns],
            ),
            notes=(*self._notes, *self._tensor_notes({name: found[name] for name in kept})),
        )

    def _tensor_notes(self, found: Mapping[str, TensorStats]) -> Iterator[str]:
        for name, stats in found.items():
            if stats.nonfinite:
                yield f"'{name}' held Inf or NaN in {stats.nonfinite} of {self._samples} samples"
        empty = [name for name, stats in found.items() if not stats.nonfinite and not stats.samples]
        if len(empty) == 1:
            yield f"'{empty[0]}' had no elements in any sample"
        elif empty:
            yield f"{len(empty)} values had no elements in any sample (first: '{empty[0]}')"

    def _refuse(self) -> None:
        causes = dict.fromkeys(str(cause) for _, cause in self._problems if cause is not None)
        numbers = ", ".join(str(number) for number, _ in self._problems)
        at_least = "at least " if len(self._problems) >= MOST_PROBLEMS else ""
        raise DataError(
            "K101",
            f"the model gives values that are not finite in {at_least}{len(self._problems)} samples "
            f"(numbers {numbers}, counted from 0): {'; '.join(causes)}",
            hint="leave these samples out if they are at fault; else the float model itself needs mending",
        )
