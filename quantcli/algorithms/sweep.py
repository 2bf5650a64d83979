"""One walk over the graph with two streams of the samples: float, and quantized as far as the walk has come.

The graph runs in segments (``algorithms.segments``). Before a segment runs, each of its layers is decided from the
layer's input in both streams, x and x̂; then the segment runs once per sample and stream, in the quantized stream
with the weights just decided and with activations rounded where the plan says so:

    x̂ = s·(clip(round(x/s) + z) − z)

A layer thus sees the error that everything before it really makes, and can compensate it
(``algorithms.rounding``).

Samples that a range gives up: a range method may leave the largest values of an unusual sample outside. Such a
sample would bend second moments and mean errors for all others (measured: one of 32 images, nine times as large as
the rest, costs mobilenetv2 9 dB), so it leaves the walk where it is found out, unless that is the fate of many.

Memory: a tensor is freed when the last segment that reads it has run. Where the streams agree bit for bit (in
front of the first rounding, and in shape computations) there is one stream. If the live tensors exceed the limit,
samples are dropped from the end; the walk goes on with the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from quantcli.algorithms.segments import (
    Segment,
    bias_reading,
    constant_readings,
    integer_readings,
    segments,
)
from quantcli.core.affine import dequantize, fake_quantize, representable_range
from quantcli.core.metrics import sqnr_db
from quantcli.core.spec import QuantParams
from quantcli.graph.extract import Extractor, Piece, Reading
from quantcli.graph.model import OnnxModel
from quantcli.graph.view import GraphView
from quantcli.progress import Progress
from quantcli.quantize.plan import LayerPlan, Plan
from quantcli.quantize.weights import QuantizedLayer

FEWEST_SAMPLES = 2
"""Samples that a sweep keeps, however little memory there is."""

Feed = Mapping[str, np.ndarray]

Run = Callable[[Iterable[Feed]], Iterator[Mapping[str, np.ndarray]]]
"""Runs one piece on many feeds, in order, lazily."""

Decide = Callable[[LayerPlan, Sequence[int], Sequence[np.ndarray], Sequence[np.ndarray]], QuantizedLayer]
"""The integers of a layer from its input in both streams, a tensor per sample each, and the samples' numbers."""

BEYOND = 1.25
"""A sample that reaches so many times as far as the range does is given up."""

MOST_GIVEN_UP = 0.25
"""Share of the samples that may be given up; ranges that clip more of them mean to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        layers: Integers of every layer, by node name.
        sqnr: SQNR in dB of each float output on the samples of the sweep.
        samples: Samples that were left at the end.
        given_up: Numbers of samples that reach far beyond the ranges.
        peak_bytes: Most bytes of tensors that were alive at a time.
    """

    layers: Mapping[str, QuantizedLayer]
    sqnr: Mapping[str, float]
    samples: int
    given_up: tuple[int, ...]
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepInput:
    """What a sweep walks over.

    Attributes:
        model: The float graph.
        view: Its picture.
        plan: What becomes of it.
        params: Parameters of the quantized activations by name.
        rounded: Rounds an activation that has none, because they are computed while the model runs.
        constants: Values that constants other than weights and biases have in the quantized model, by reading.
        samples: Complete feeds.
        max_bytes: Limit of the live tensors.
    """

    model: OnnxModel
    view: GraphView
    plan: Plan
    params: Mapping[str, QuantParams]
    samples: Sequence[Feed]
    constants: Mapping[Reading, np.ndarray] = field(default_factory=dict)
    max_bytes: int = 2**31
    rounded: Callable[[np.ndarray], np.ndarray] | None = None


def sweep(given: SweepInput, make_run: Callable[[Piece], Run], decide: Decide, progress: Progress) -> SweepResult:
    """Walk over the graph.

    Args:
        given: Graph, plan and samples.
        make_run: Makes a piece of the graph runnable.
        decide: Chooses the integers of a layer; called once for each layer, in topological order.
        progress: Told of every segment.

    Raises:
        RuntimeFailure: A piece does not load or run.
    """
    walk = _Walk(given, make_run, decide)
    progress.start("round", len(walk.parts))
    try:
        for number, segment in enumerate(walk.parts):
            walk.take(number, segment)
            progress.advance()
    finally:
        progress.finish()
    return SweepResult(
        layers=walk.layers,
        sqnr=walk.output_sqnr(),
        samples=len(walk.numbers),
        given_up=tuple(walk.given_up),
        peak_bytes=walk.peak_bytes,
    )


class _Walk:
    """The state of one sweep: tensors of both streams by value name, a list with one entry per sample each."""

    def __init__(self, given: SweepInput, make_run: Callable[[Piece], Run], decide: Decide) -> None:
        self._given, self._make_run, self._decide = given, make_run, decide
        view, plan = given.view, given.plan
        self._extractor = Extractor(given.model)
        self._rounded_at = integer_readings(view, plan)
        self._created = {
            (layer.node, 2) for layer in plan.layers if layer.may_create_bias and bias_reading(view, layer) is None
        }
        self.parts = segments(view, plan, constant_readings(plan, view, given.constants))
        self._last_use = self._find_last_uses()
        self._float: dict[str, list[np.ndarray]] = {}
        self._quantized: dict[str, list[np.ndarray]] = {}
        self._rounded: dict[str, list[np.ndarray]] = {}
        self._constants: dict[Reading, np.ndarray] = dict(given.constants)
        self.layers: dict[str, QuantizedLayer] = {}
        self.numbers = list(range(len(given.samples)))
        self.given_up: list[int] = []
        self.peak_bytes = 0
        for name in view.inputs:
            self._float[name] = self._quantized[name] = [sample[name] for sample in given.samples]

    def _find_last_uses(self) -> dict[str, int]:
        """Number of the last segment that reads a value; outputs are needed to the end."""
        view = self._given.view
        found: dict[str, int] = {}
        for number, segment in enumerate(self.parts):
            for name in segment.nodes:
                node = view.node_by_name[name]
                for value in (*node.inputs, *node.captures):
                    found[value] = number
        found.update(dict.fromkeys(view.outputs, len(self.parts)))
        return found

    # One segment ------------------------------------------------------------------------------------

    def take(self, number: int, segment: Segment) -> None:
        """Decide the layers of a segment, run it in both streams, free what nobody reads any more."""
        for layer in segment.layers:
            self._give_up_samples(layer.input)
            self._settle(layer)
        if segment.outputs:
            self._run(segment)
        self._measure()
        for store in (self._float, self._quantized, self._rounded):
            for name in [name for name in store if self._last_use.get(name, -1) <= number]:
                del store[name]

    def _settle(self, layer: LayerPlan) -> None:
        found = self._decide(layer, self.numbers, self._float[layer.input], self._rounded_values(layer.input))
        self.layers[layer.node] = found
        self._constants[layer.node, 1] = dequantize(found.weight, found.weight_params)
        reading = bias_reading(self._given.view, layer) or (layer.node, 2)
        if found.bias_values is not None:
            self._constants[reading] = found.bias_values

    def _rounded_values(self, name: str) -> list[np.ndarray]:
        """The quantized stream of a value as integers hold it, made when it is first asked for."""
        if name not in self._rounded:
            rounded = self._given.rounded
            if rounded is None:
                rounded = partial(fake_quantize, params=self._given.params[name])
            self._rounded[name] = [rounded(x) for x in self._quantized[name]]
        return self._rounded[name]

    def _run(self, segment: Segment) -> None:
        new = [(layer.node, 2) for layer in segment.layers if (layer.node, 2) in self._created]
        redirect = [*segment.redirect, *(reading for reading in new if reading in self._constants)]
        piece = self._extractor.piece(segment.nodes, segment.outputs, redirect)
        run = self._make_run(piece)
        plain = self._collect(run(self._feeds(piece, self._float, quantized=False)), piece)
        self._float.update(plain)
        if self._streams_agree(piece):
            self._quantized.update(plain)
        else:
            self._quantized.update(self._collect(run(self._feeds(piece, self._quantized, quantized=True)), piece))

    def _streams_agree(self, piece: Piece) -> bool:
        """Whether the segment reads the same in both streams."""
        if any(reading in self._rounded_at or reading in self._constants for reading in piece.redirected):
            return False
        return all(self._float[name] is self._quantized[name] for name in piece.inputs)

    def _feeds(self, piece: Piece, store: Mapping[str, list[np.ndarray]], *, quantized: bool) -> Iterator[Feed]:
        fixed: dict[str, np.ndarray] = {}
        varying: dict[str, list[np.ndarray]] = {name: store[name] for name in piece.inputs}
        for reading, name in piece.redirected.items():
            value = self._given.view.node_by_name[reading[0]].input(reading[1])
            if reading in self._rounded_at:
                varying[name] = self._rounded_values(value) if quantized else self._float[value]
            elif quantized and reading in self._constants:
                shape = self._given.view.constant(value).shape if value else (-1,)
                fixed[name] = self._constants[reading].reshape(shape)
            elif reading in self._created:
                fixed[name] = np.zeros_like(self._constants[reading])
            else:
                fixed[name] = self._given.view.constant(value)
        for index in range(len(self.numbers)):
            yield {**fixed, **{name: values[index] for name, values in varying.items()}}

    @staticmethod
    def _collect(results: Iterator[Mapping[str, np.ndarray]], piece: Piece) -> dict[str, list[np.ndarray]]:
        found: dict[str, list[np.ndarray]] = {name: [] for name in piece.outputs}
        for result in results:
            for name in piece.outputs:
                found[name].append(result[name])
        return found

    # Memory and results -----------------------------------------------------------------------------

    def _measure(self) -> None:
        """Count the live bytes, and drop samples while there are too many."""
        while True:
            live = sum(_bytes(values) for values in self._lists())
            self.peak_bytes = max(self.peak_bytes, live)
            count = len(self.numbers)
            if live <= self._given.max_bytes or count <= FEWEST_SAMPLES:
                return
            self._drop(range(max(FEWEST_SAMPLES, min(count - 1, count * 3 // 4)), count))

    def _give_up_samples(self, name: str) -> None:
        """Leave out samples whose values in the float stream lie far beyond the range of ``name``."""
        if name not in self._given.params:
            return
        low, high = representable_range(self._given.params[name])
        bound = BEYOND * max(-low, high)
        beyond = [i for i, x in enumerate(self._float[name]) if np.abs(x).max(initial=0) > bound]
        if beyond and len(self.given_up) + len(beyond) <= MOST_GIVEN_UP * len(self._given.samples):
            self.given_up += [self.numbers[index] for index in beyond]
            self._drop(beyond)

    def _drop(self, indices: Iterable[int]) -> None:
        """Leave out samples by their places."""
        for index in sorted(indices, reverse=True):
            for values in self._lists():
                del values[index]
            del self.numbers[index]

    def _lists(self) -> list[list[np.ndarray]]:
        """The lists of all stores, each once: where streams agree they share them."""
        stores = (self._float, self._quantized, self._rounded)
        return list({id(values): values for store in stores for values in store.values()}.values())

    def output_sqnr(self) -> dict[str, float]:
        """10·log10(Σ x² / Σ (x − x̂)²) over the samples, in dB, for each float output."""
        found = {}
        for name in self._given.view.outputs:
            plain, quantized = self._float.get(name), self._quantized.get(name)
            if plain is None or quantized is None or not _is_float(plain[0]):
                continue
            pairs = [(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(plain, quantized, strict=True)]
            signal = math.fsum(float(np.sum(x * x)) for x, _ in pairs)
            noise = math.fsum(float(np.sum((x - y) ** 2)) for x, y in pairs)
            found[name] = sqnr_db(signal, noise)
        return found


def _bytes(values: Sequence[np.ndarray]) -> int:
    """Bytes of tensors; sequences and maps of the runtime are not counted."""
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))


def _is_float(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"
