"""Runs that measure what every part of a conversion adds to the error of the worst output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from quantcli.algorithms.noise_parts import TENSOR, make_parts
from quantcli.algorithms.part_noise import SAME_SEED, PartNoise, make_seeds
from quantcli.algorithms.probes import PROBE_CONFIG, probe
from quantcli.data.base import Sample
from quantcli.errors import DataError, RuntimeFailure, UnsupportedModelError
from quantcli.graph.model import OnnxModel
from quantcli.graph.noise_probe import NoiseProbe, Part, noise_probe, raised, simulate
from quantcli.graph.observe import expose_shapes, float_values
from quantcli.pipeline.carry_out import Made
from quantcli.pipeline.source import runnable
from quantcli.progress import Progress
from quantcli.quantize.body_plans import main_part
from quantcli.runtime.session import Session, SessionSettings

FORWARD_SAMPLES = 16
"""Samples on which a part is run by itself where its gradient is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputErrors:
    """Outputs of the float and the quantized model.

    Attributes:
        samples: Complete feeds.
        reference: Outputs of the float model for each, float outputs only.
        quantized: The same of the quantized model.
    """

    samples: tuple[Sample, ...]
    reference: tuple[Mapping[str, np.ndarray], ...]
    quantized: tuple[Mapping[str, np.ndarray], ...]

    def energies(self, found: Sequence[Mapping[str, np.ndarray]]) -> dict[str, tuple[float, float]]:
        """Output → (Σ y², Σ (ŷ − y)²) of any model's outputs."""
        sums = {}
        for name in self.reference[0]:
            signal = error = 0.0
            for y, other in zip(self.reference, found, strict=True):
                signal += float(np.square(y[name], dtype=np.float64).sum())
                error += float(np.square(np.subtract(other[name], y[name], dtype=np.float64)).sum())
            sums[name] = (signal, error)
        return sums

    def worst(self) -> str:
        """The output with the most noise to signal."""
        sums = self.energies(self.quantized)
        return max(sums, key=lambda name: sums[name][1] / sums[name][0] if sums[name][0] > 0 else 0.0)


class NoiseRuns:
    """Runs of one conversion and its parts on the same samples."""

    def __init__(self, made: Made, samples: Sequence[Sample], threads: int, progress: Progress) -> None:
        self._made, self._progress = made, progress
        self._settings = SessionSettings(threads=threads)
        source = made.bench.source
        session = self._session(source.prepared)
        names = [spec.name for spec in session.outputs if spec.dtype == "float32"]
        if not samples or not names:
            raise DataError(
                "D106", "there are no samples, or the model has no float32 output", hint="check --data"
            )
        self.names = names
        chosen = _of_one_shape(samples)
        self.skipped = len(samples) - len(chosen)
        self.outputs = OutputErrors(
            samples=chosen,
            reference=tuple(session.run(sample, names) for sample in chosen),
            quantized=self.run(made.model, chosen),
        )
        self.blocked: tuple[str, ...] = ()

    def run(
        self, model: OnnxModel, samples: Sequence[Sample] | None = None
    ) -> tuple[Mapping[str, np.ndarray], ...]:
        """Float outputs of a model."""
        session = self._session(model)
        return tuple(session.run(sample, self.names) for sample in samples or self.outputs.samples)

    def noise(self, model: OnnxModel) -> float:
        """Noise to signal of the worst output of a model."""
        sums = self.outputs.energies(self.run(model)).values()
        return max((error / signal for signal, error in sums if signal > 0), default=0.0)

    def measure(self) -> PartNoise:
        """The figures of all parts at the worst output."""
        made, outputs = self._made, self.outputs
        output = outputs.worst()
        signal, error = outputs.energies(outputs.quantized)[output]
        parts = make_parts(main_part(made.plan, made.bench.view), made.bench.view, made.solution)
        shape = outputs.reference[0][output].shape
        seeds = make_seeds(len(outputs.samples), shape)
        keys, along, random = self._by_gradients(output, parts, seeds)
        self.blocked = tuple(key for key in parts if key not in keys)
        more, more_random = self._one_by_one(output, self.blocked, seeds)
        return PartNoise(
            output=output,
            signal=signal,
            error=error,
            keys=(*keys, *self.blocked),
            along=np.concatenate([along, more], axis=1),
            seeds=np.concatenate([random, more_random], axis=1),
            linear=len(keys),
        )

    # Gradients --------------------------------------------------------------------------------------

    def _by_gradients(
        self, output: str, parts: Mapping[str, Part], seeds: np.ndarray
    ) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """(keys, a, u) of the parts whose gradients are known."""
        samples = self.outputs.samples
        nothing = np.zeros((len(samples), 0))
        built = self._build(output, parts)
        if built is None or not built.parts:
            return (), nothing, nothing
        try:
            session = self._session(built.model, PROBE_CONFIG)
        except RuntimeFailure:
            return (), nothing, nothing  # then every part is run by itself, which is told
        names = [built.along_error, built.along_seed]
        rows: list[list[np.ndarray]] = []
        with self._stage("sensitivity", len(samples)):
            for number, (sample, y) in enumerate(zip(samples, self.outputs.reference, strict=True)):
                fed = {**sample, built.reference: y[output], built.seed: seeds[number // SAME_SEED]}
                found = session.run(fed, names)
                rows.append([found[name] for name in names])
                self._progress.advance()
        a, u = (np.array([row[i] for row in rows], np.float64) for i in range(2))
        known = np.flatnonzero(np.isfinite(a + u).all(axis=0))
        return tuple(built.parts[column] for column in known), a[:, known], u[:, known]

    def _build(self, output: str, parts: Mapping[str, Part]) -> NoiseProbe | None:
        try:
            model = raised(self._made.bench.source.prepared)
        except UnsupportedModelError:
            return None  # the opset of the gradients cannot be reached
        rounded = simulate(model, parts)
        values = [name for name, _ in float_values(model)]
        exposed, shapes = expose_shapes(model, values)
        with runnable(exposed) as loadable:
            session = Session(loadable, replace(self._settings, optimization="disabled"))
        found = session.run(self.outputs.samples[0], shapes)
        sizes = {v: tuple(int(dim) for dim in found[name]) for v, name in zip(values, shapes, strict=True)}
        return noise_probe(model, rounded, sizes, output, parts)

    # One by one -------------------------------------------------------------------------------------

    def _one_by_one(self, output: str, keys: Sequence[str], seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(a, u) of parts in graphs of their own, on some samples, scaled to all of them."""
        made, outputs = self._made, self.outputs
        count = len(outputs.samples)
        along, random = np.zeros((count, len(keys))), np.zeros((count, len(keys)))
        if not keys:
            return along, random
        some = sorted({number * count // FORWARD_SAMPLES for number in range(FORWARD_SAMPLES)})
        source, weight = made.bench.source, count / len(some)
        with self._stage("sensitivity, one by one", len(keys)):
            for column, key in enumerate(keys):
                name = key.partition(":")[2]
                chosen = {"tensors": (name,)} if key.startswith(TENSOR) else {"constants": (name,)}
                model = probe(source.prepared, source.whole, made.plan, made.solution, **chosen)
                session = self._session(model, PROBE_CONFIG)
                for number in some:
                    y = outputs.reference[number][output]
                    mine = session.run(outputs.samples[number], [output])[output].astype(np.float64) - y
                    error = outputs.quantized[number][output].astype(np.float64) - y
                    along[number, column] = float((error * mine).sum()) * weight
                    random[number, column] = float((seeds[number // SAME_SEED] * mine).sum()) * weight**0.5
                self._progress.advance()
        return along, random

    def _session(self, model: OnnxModel, config: Mapping[str, str] | None = None) -> Session:
        with runnable(model) as loadable:
            return Session(loadable, replace(self._settings, config=config or {}))

    @contextmanager
    def _stage(self, name: str, total: int) -> Iterator[None]:
        self._progress.start(name, total)
        try:
            yield
        finally:
            self._progress.finish()


def _of_one_shape(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples of the commonest shapes: gradients are built for one."""
    by_shape: dict[tuple[tuple[str, tuple[int, ...]], ...], list[Sample]] = {}
    for sample in samples:
        key = tuple(sorted((name, np.shape(array)) for name, array in sample.items()))
        by_shape.setdefault(key, []).append(sample)
    groups = sorted(by_shape.values(), key=lambda group: -len(group))
    return tuple(groups[0]) if groups else ()
