"""Both models over the samples with every matched value at hand, in bounded memory.

The quantized model runs without the runtime's integer fusions, so that each value is what the graph says. Values
are taken in groups that fit into the memory that is allowed; each group is a pass over the samples, in which the
original and the quantized model give the group's values, and the original's pieces (``local_pieces``) are run on
those of the quantized model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from quantcli.core.tensor_sums import PairByChannel, RangeSums
from quantcli.errors import RuntimeFailure
from quantcli.evaluate.local_pieces import Cut, LocalModel, cut_at, local_model
from quantcli.evaluate.outputs import SampleSource, feed_of
from quantcli.evaluate.tensor_matching import Match
from quantcli.graph.extract import Extractor
from quantcli.graph.model import OnnxModel
from quantcli.graph.observe import expose, expose_shapes
from quantcli.graph.view import GraphView
from quantcli.progress import Progress
from quantcli.runtime.session import Session, SessionSettings

PLAIN = {"session.disable_quant_qdq": "1"}
"""Session entries under which Q and DQ stay what the graph says."""

_WORK = 3e8
"""Elements that are looked at: larger models are looked at on fewer samples."""

_FEWEST = 4


@dataclass(slots=True)
class Measured:
    """What the samples said of one match.

    Attributes:
        match: The values.
        axis: Channel axis; None for tensors without one.
        scales: s of each channel: the quantized model holds r/s. (1,) for none.
        total: Against the original: r and q.
        local: Against the original's layer on the quantized model's inputs; None where it could not be run.
        range: Use of the integers.
        mismatches: Samples in which the shapes differ.
        readable: Whether numbers were found, not integers that nothing says the meaning of.
    """

    match: Match
    axis: int | None
    scales: np.ndarray
    total: PairByChannel | None = None
    local: PairByChannel | None = None
    range: RangeSums = field(default_factory=RangeSums)
    mismatches: int = 0
    readable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRun:
    """All of it.

    Attributes:
        samples: Samples that were looked at.
        measured: In the original's order.
        notes: What could not be done.
    """

    samples: int
    measured: tuple[Measured, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The two models and their graphs."""

    original: OnnxModel
    quantized: OnnxModel
    view: GraphView
    quantized_view: GraphView


def run_tensors(
    models: Models,
    measured: Sequence[Measured],
    dataset: SampleSource,
    *,
    samples: int,
    max_memory: int,
    threads: int,
    progress: Progress,
) -> TensorRun:
    """Measure ``measured`` in place.

    Args:
        models: The models.
        measured: One for each match, in the original's order.
        dataset: Complete feeds.
        samples: At most so many, evenly spaced.
        max_memory: Bytes that the values of a sample may take.
        threads: Intra-op threads.
        progress: Told of each sample.

    Raises:
        RuntimeFailure: R101 or R102, a model does not load or run.
        ModelError: M106, a model does not fit into one message.
    """
    settings = SessionSettings(threads=threads)
    first = next(iter(dataset))
    sizes = _sizes(models, measured, first, settings)
    measured = [item for item in measured if item.match.name in sizes]
    total = sum(sizes.values())
    count = min(samples, max(_FEWEST, int(_WORK / max(1, total))))
    chosen = _evenly(dataset.length, count)
    groups = list(_groups(measured, sizes, max_memory))
    notes: list[str] = []
    progress.start("tensors", len(chosen) * len(groups))
    extractor = Extractor(models.original)
    seen = 0
    for group in groups:
        runner = _Group(models, extractor, measured, group, settings)
        notes += [note for note in runner.notes if note not in notes]
        seen = 0
        for index, sample in enumerate(dataset):
            if index > chosen[-1]:
                break
            if index in chosen:
                runner.observe(sample, index)
                seen += 1
                progress.advance()
    progress.finish()
    return TensorRun(samples=seen, measured=tuple(measured), notes=tuple(notes))


def _sizes(
    models: Models, measured: Sequence[Measured], sample: Mapping[str, np.ndarray], settings: SessionSettings
) -> dict[str, int]:
    """Elements of each value, from one sample."""
    names = [item.match.name for item in measured]
    model, outputs = expose_shapes(models.original, names)
    session = Session(model.to_bytes(), settings)
    shapes = session.run(feed_of(session, sample, 0), outputs)
    return {name: int(np.prod(shapes[output])) for name, output in zip(names, outputs, strict=True)}


def _evenly(length: int | None, count: int) -> list[int]:
    """Which samples: ``count`` evenly spaced ones of ``length``, the first ones where that is not known."""
    if length is None or length <= count:
        return list(range(count if length is None else length))
    return sorted({int(index) for index in np.linspace(0, length - 1, count)})


def _groups(measured: Sequence[Measured], sizes: Mapping[str, int], max_memory: int) -> Iterator[list[Measured]]:
    """Consecutive values whose float32 arrays, four of each, fit into ``max_memory``."""
    group: list[Measured] = []
    used = 0
    for item in measured:
        size = 16 * sizes[item.match.name]
        if group and used + size > max_memory:
            yield group
            group, used = [], 0
        group.append(item)
        used += size
    if group:
        yield group


def widen_ranges(
    models: Models,
    measured: Sequence[Measured],
    dataset: SampleSource,
    *,
    threads: int,
    progress: Progress,
) -> None:
    """Take the extremes of ``measured`` from all samples, in place: a few values, and the original alone.

    Args:
        models: The models.
        measured: What is to be looked at again.
        dataset: Complete feeds.
        threads: Intra-op threads.
        progress: Told of each sample.
    """
    names = [item.match.name for item in measured if item.match.name not in models.view.inputs]
    session = Session(expose(models.original, names).to_bytes(), SessionSettings(threads=threads))
    for item in measured:
        item.range.lows, item.range.highs = [], []
    progress.start("ranges", dataset.length)
    for index, sample in enumerate(dataset):
        feed = feed_of(session, sample, index)
        values = _outputs(session, feed, names) | feed
        for item in measured:
            held = _in_steps(item, values[item.match.name])
            if held.size and np.isfinite(held).all():
                item.range.lows.append(float(held.min()))
                item.range.highs.append(float(held.max()))
        progress.advance()
    progress.finish()


class _Group:
    """The sessions of one group of values."""

    def __init__(
        self,
        models: Models,
        extractor: Extractor,
        everything: Sequence[Measured],
        group: Sequence[Measured],
        settings: SessionSettings,
    ) -> None:
        self.group = group
        self.by_name = {item.match.name: item for item in everything}
        self.view = models.quantized_view
        self.notes: list[str] = []
        names = [item.match.name for item in group]
        cut = cut_at(models.view, [name for name in names if name not in models.view.inputs], set(self.by_name))
        self.sources = [self.by_name[name] for name in cut.sources]
        self.original = Session(expose(models.original, names).to_bytes(), settings)
        reads = sorted({item.match.read for item in (*group, *self.sources)} - set(models.quantized_view.inputs))
        plain = SessionSettings(threads=settings.threads, optimization="basic", config=PLAIN)
        self.quantized = Session(expose(models.quantized, reads).to_bytes(), plain)
        self.reads = reads
        self.local = self._open_local(extractor, cut, settings) if cut.nodes else None

    def _open_local(
        self, extractor: Extractor, cut: Cut, settings: SessionSettings
    ) -> tuple[Session, LocalModel] | None:
        made = local_model(extractor, cut)
        try:
            return Session(made.model, settings), made
        except RuntimeFailure as error:
            self.notes.append(f"local errors were not measured: {error.message}")
            return None

    def observe(self, sample: Mapping[str, np.ndarray], index: int) -> None:
        """Add one sample."""
        feed = feed_of(self.original, sample, index)
        ours = _outputs(self.original, feed, [item.match.name for item in self.group]) | feed
        theirs = _outputs(self.quantized, feed_of(self.quantized, sample, index), self.reads) | feed
        held = {item.match.name: self._decoded(item, theirs) for item in (*self.group, *self.sources)}
        local = self._run_local(held, feed)
        for item in self.group:
            _add(item, ours[item.match.name], held[item.match.name], local.get(item.match.name))

    def _decoded(self, item: Measured, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """What the quantized model holds, in the original's unit, float32."""
        value = values[item.match.read]
        if item.match.integer and item.match.codec is not None:
            value = item.match.codec.decode(value)
        elif value.dtype.kind != "f":
            item.readable = False
        value = np.asarray(value, dtype=np.float32)
        if item.match.factor:
            value = value / self.view.constant(item.match.factor).astype(np.float32)
        if _fits(item, value.shape):
            value = value * _along(item.scales, value.ndim, item.axis)
        return value

    def _run_local(self, held: Mapping[str, np.ndarray], feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.local is None:
            return {}
        session, made = self.local
        feeds = {name: held[value] if value in held else feed[value] for name, value in made.feeds.items()}
        try:
            return session.run(feeds, made.outputs)
        except RuntimeFailure as error:
            self.notes.append(f"local errors were not measured: {error.message}")
            self.local = None
            return {}


def _outputs(session: Session, feed: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The values ``names`` as far as they are no inputs; onnxruntime takes no names for all outputs."""
    wanted = [name for name in names if name not in feed]
    return session.run(feed, wanted) if wanted else {}


def _in_steps(item: Measured, reference: np.ndarray) -> np.ndarray:
    """A value of the original in the unit of the quantized model's integers, float32."""
    held = reference.astype(np.float32, copy=False)
    return held / _along(item.scales, held.ndim, item.axis) if _fits(item, held.shape) else held


def _fits(item: Measured, shape: tuple[int, ...]) -> bool:
    """Whether the value has scales of its own, one for each channel."""
    place = -1 if item.axis is None else item.axis
    return item.scales.size > 1 and -len(shape) <= place < len(shape) and shape[place] == item.scales.size


def _along(scales: np.ndarray, ndim: int, axis: int | None) -> np.ndarray:
    """``scales`` shaped to multiply with an array of ``ndim`` axes, float32."""
    place = -1 if axis is None else axis
    shape = [1] * ndim
    shape[place] = scales.size
    return scales.reshape(shape).astype(np.float32)


def _add(item: Measured, reference: np.ndarray, other: np.ndarray, local: np.ndarray | None) -> None:
    """Add one sample of one value."""
    if reference.dtype.kind != "f" or reference.size == 0 or not item.readable:
        return
    if reference.size != other.size:
        item.mismatches += 1
        return
    other = other.reshape(reference.shape)
    a, b = _channels(reference, item.axis), _channels(other, item.axis)
    if item.total is None:
        item.total = PairByChannel.empty(a.shape[1])
    if item.total.aa.size != a.shape[1]:
        item.mismatches += 1
        return
    item.total.add(a, b)
    if local is not None and local.shape == reference.shape:
        if item.local is None:
            item.local = PairByChannel.empty(a.shape[1])
        item.local.add(_channels(local, item.axis), b)
    codec = item.match.codec
    held = _in_steps(item, reference)
    if codec is None:
        item.range.add(held, None, 0, (0, 0))
    else:
        item.range.add(held, codec.scale, codec.zero_point, codec.levels)


def _channels(array: np.ndarray, axis: int | None) -> np.ndarray:
    """float64 (outer, channels, inner); one channel where there is no axis."""
    values = array.astype(np.float64)
    if axis is None or array.ndim < 2 or not -array.ndim <= axis < array.ndim:
        return values.reshape(1, 1, -1)
    place = axis % array.ndim
    return values.reshape(int(np.prod(array.shape[:place])), array.shape[place], -1)
