"""How good and how fast a model is, next to its float original. Written apart from quantcli, to check it."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from logits import with_logits
from models import Case, Feed, feeds
from sessions import float_outputs, input_dtypes, open_session

ROUNDS_AT_LEAST = 30

_MEASUREMENT_S = 0.001
"""A timed measurement takes at least this long, repeated runs included."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Outputs of a model against those of the float model, over all samples.

    The SQNR is 10·log10(Σ ref² / Σ (ref − q)²) over all samples and elements; dB.

    Attributes:
        sqnr: Of every output that holds floats, by name, the judged one first.
        logits: SQNR of the value before a final Softmax of the judged output; None where there is none.
        cosine: Mean over samples of the cosine of the judged output.
        agreement: Part of the decisions that are as the float model's, 0 to 1; None where nothing is decided.
        top1: Right answers among all, 0 to 1; None without labels.
        float_top1: The same of the float model.
    """

    sqnr: dict[str, float]
    logits: float | None
    cosine: float
    agreement: float | None = None
    top1: float | None = None
    float_top1: float | None = None

    @property
    def judged(self) -> float:
        """SQNR by which a model is judged: before a final Softmax where there is one."""
        return next(iter(self.sqnr.values())) if self.logits is None else self.logits

    @property
    def drop(self) -> float | None:
        """Loss of top-1 in percentage points."""
        if self.top1 is None or self.float_top1 is None:
            return None
        return 100 * (self.float_top1 - self.top1)


@dataclass(kw_only=True)
class _Noise:
    """Sums of squares of a reference and of what another differs from it."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, reference: np.ndarray, other: np.ndarray) -> None:
        """Another sample."""
        x, y = (values.astype(np.float64).reshape(-1) for values in (reference, other))
        self.signal += float(x @ x)
        self.noise += float((x - y) @ (x - y))

    @property
    def sqnr(self) -> float:
        """10·log10(signal / noise)."""
        if self.noise == 0:
            return math.inf
        return -math.inf if self.signal == 0 else 10 * math.log10(self.signal / self.noise)


def quality(case: Case, model: Path) -> Quality:
    """Run the float model and ``model`` over all evaluation samples.

    Outputs of ``model`` are taken by position: some tools rename them.
    """
    places = float_outputs(open_session(case.model))
    judged = case.output or next(iter(places))
    places = {judged: places[judged], **places}
    sides = [with_logits(path, places[judged]) for path in (case.model, model)]
    if None in sides:
        sides = [None, None]
    sessions = [
        open_session(side[0] if side else path) for side, path in zip(sides, (case.model, model), strict=True)
    ]
    noise = {name: _Noise() for name in places}
    before = _Noise()
    cosines: list[float] = []
    answers: list[tuple[np.ndarray, np.ndarray]] = []
    dtypes = input_dtypes(sessions[0])
    for feed in feeds(case.eval, case.complete, dtypes):
        a, b = (session.run(None, feed) for session in sessions)
        for name, place in places.items():
            noise[name].add(a[place], b[place])
        x, y = a[places[judged]], b[places[judged]]
        cosines.append(_cosine(x, y))
        if sides[0]:
            before.add(a[-1], b[-1])
        if case.decision:
            answers.append((_decided(case.decision, x), _decided(case.decision, y)))
    found: dict[str, Any] = {}
    if answers:
        theirs, ours = (np.stack(side) for side in zip(*answers, strict=True))
        found["agreement"] = float((theirs == ours).mean())
        if case.labels is not None:
            truth = np.load(case.labels)
            found["float_top1"] = float((theirs.reshape(truth.shape) == truth).mean())
            found["top1"] = float((ours.reshape(truth.shape) == truth).mean())
    return Quality(
        sqnr={name: part.sqnr for name, part in noise.items()},
        logits=before.sqnr if sides[0] else None,
        cosine=statistics.fmean(cosines),
        **found,
    )


def _decided(decision: str, values: np.ndarray) -> np.ndarray:
    """Decisions: the largest class (axis −1, or all axes where the last has one element), or whether above 0.5."""
    if decision == "half":
        return np.asarray(values > 0.5)
    flat = values.reshape(-1) if values.shape[-1] == 1 else values
    return np.asarray(flat.argmax(axis=-1))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.astype(np.float64).reshape(-1), b.astype(np.float64).reshape(-1)
    return float(x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), np.finfo(np.float64).tiny))


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Times of several models, measured in turn.

    Attributes:
        rounds: Rounds, each of which times every model once.
        milliseconds: Median time of a run of each model.
        ratios: (a, b) → median over rounds of a / b.
        intervals: (a, b) → 95 % interval of that median, from order statistics.
    """

    rounds: int
    milliseconds: dict[str, float]
    ratios: dict[tuple[str, str], float]
    intervals: dict[tuple[str, str], tuple[float, float]]


def latency(models: Mapping[str, Path], case: Case, seconds: float, kept: int = 8) -> Latency:
    """Time models in turn in one process, on one thread, for about ``seconds`` in all.

    A round times every model once on the same sample, in random order. The ratio of two models is the median of
    their ratios within a round: what else the machine does hits both alike. Processor time of the thread, not
    wall time: with one thread they are the same on a quiet machine, and on a busy one waiting does not count.
    """
    sessions = {name: open_session(path) for name, path in models.items()}
    first = next(iter(sessions.values()))
    samples = []
    for feed in feeds(case.eval, case.complete, input_dtypes(first)):
        samples.append(feed)
        if len(samples) == kept:
            break
    names = list(sessions)
    for name in names:
        _timed(sessions[name], samples[0], 3)
    fastest = min(min(_timed(sessions[name], samples[0], 1) for _ in range(3)) for name in names)
    runs = max(1, math.ceil(_MEASUREMENT_S / fastest))
    times: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    until = time.perf_counter() + seconds
    index = 0
    while index < ROUNDS_AT_LEAST or time.perf_counter() < until:
        for name in order.sample(names, len(names)):
            times[name].append(_timed(sessions[name], samples[index % len(samples)], runs))
        index += 1
    pairs = [(a, b) for a in names for b in names if a != b]
    ratios = {(a, b): [x / y for x, y in zip(times[a], times[b], strict=True)] for a, b in pairs}
    return Latency(
        rounds=index,
        milliseconds={name: 1000 * statistics.median(times[name]) for name in names},
        ratios={pair: statistics.median(values) for pair, values in ratios.items()},
        intervals={pair: _interval(values) for pair, values in ratios.items()},
    )


def _timed(session: Any, feed: Feed, runs: int) -> float:
    started = time.thread_time()
    for _ in range(runs):
        session.run(None, feed)
    return (time.thread_time() - started) / runs


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """About 95 % interval of the median: order statistics n/2 ± 0.98·√n."""
    ordered = sorted(values)
    half = 0.98 * math.sqrt(len(ordered))
    low = max(0, math.floor(len(ordered) / 2 - half))
    high = min(len(ordered) - 1, math.ceil(len(ordered) / 2 + half) - 1)
    return ordered[low], ordered[high]


def file_bytes(model: Path) -> int:
    """Size of a model with its external data."""
    import onnx

    proto = onnx.load(model, load_external_data=False)
    places = {
        entry.value
        for tensor in proto.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return model.stat().st_size + sum((model.parent / place).stat().st_size for place in places)


def as_json(value: Any) -> Any:
    """Something that json can write."""
    if hasattr(value, "__dataclass_fields__"):
        value = asdict(value)
    if isinstance(value, dict):
        return {" / ".join(k) if isinstance(k, tuple) else k: as_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(v) for v in value]
    if isinstance(value, Path):
        return value.name
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
