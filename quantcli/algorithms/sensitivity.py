"""Which tensors make the noise: measured one at a time at the outputs, and added up.

With y the outputs of the float network and y_t those with only sharing group t quantized,

    N_t = Σ‖y_t − y‖² / Σ‖y‖²        noise to signal, summed over samples; one figure for each output,
    N_W the same with all integer weights and no other quantizer.

Rounding errors of different tensors are nearly uncorrelated, so noises add (Widrow and Kollár, "Quantization
Noise", 2008, chapter 5, for the model of independent errors):

    N(F) = N_W + Σ_{t ∉ F} N_t                 with the tensors F left in float,
    SQNR(F) = −10·log10 N(F) + c               dB.

What does not add (layers that are not linear, errors that are correlated, ranges that saturate) hardly
depends on F, so the constant c is found once, by measuring the real SQNR without float tensors.

A tensor in float takes the layers that read or make it along, and other tensors with them: so F stands for
everything that the plan leaves in float. Where N_W is a large part of the noise it is divided among the
layers, in the ratio of their noises measured one at a time, and only those that are still quantized count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from quantcli.core.metrics import PairSums, measure, merge
from quantcli.progress import Progress

Feed = Mapping[str, np.ndarray]
Run = Callable[[Feed], Mapping[str, np.ndarray]]
"""A loaded model: complete feed → outputs by name."""

Noise = tuple[float, ...]
"""Noise to signal of each output."""

WEIGHTS = ""
"""Stands for all weights where a part of a plan is named."""

LARGE_WEIGHTS = 0.05
"""Share of the noise from which on the weights' is divided among the layers: below, it hardly shows."""

KEPT_BYTES = 2**28
"""Bytes of reference outputs that are kept; a network with larger ones runs again for every probe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """What every part of a plan adds to the noise of the outputs.

    Attributes:
        outputs: Names of the outputs.
        tensors: Sharing group → N_t, in order of production.
        weights: N_W.
        layers: Node → noise of its integer constants alone; empty where N_W is not divided.
    """

    outputs: tuple[str, ...]
    tensors: Mapping[str, Noise]
    weights: Noise
    layers: Mapping[str, Noise] = field(default_factory=dict)

    def noise(self, groups: Collection[str], nodes: Collection[str]) -> Noise:
        """N with exactly ``groups`` quantized, and ``nodes`` with integer constants.

        Parts that were not measured add nothing.
        """
        parts = [self.weights_of(nodes), *(self.tensors[name] for name in groups if name in self.tensors)]
        return _total(parts)

    def weights_of(self, nodes: Collection[str]) -> Noise:
        """The share of ``nodes`` in N_W; all of it where it is not divided."""
        if not self.layers:
            return self.weights
        some = [self.layers[name] for name in self.layers if name in nodes]
        everything = _total(list(self.layers.values()))
        found = _total([tuple(0.0 for _ in self.outputs), *some])
        return tuple(
            whole * part / total if 0 < total < math.inf else whole
            for whole, part, total in zip(self.weights, found, everything, strict=True)
        )


def _total(parts: Sequence[Noise]) -> Noise:
    return tuple(sum(part) for part in zip(*parts, strict=True))


def decibels(noise: Noise) -> tuple[float, ...]:
    """SQNR of each output in dB, without the constant; inf where there is no noise."""
    return tuple(-10 * math.log10(part) if part > 0 else math.inf for part in noise)


class NoiseMeter:
    """Noise of models' outputs relative to one reference, over the same samples.

    Args:
        samples: Complete feeds; at least one.
        reference: The float network.
        outputs: Names of its float outputs.
    """

    def __init__(self, samples: Sequence[Feed], reference: Run, outputs: Sequence[str]) -> None:
        self.outputs = tuple(outputs)
        self._samples = samples
        self._reference = reference
        self._kept: list[Mapping[str, np.ndarray]] = []
        self._room = KEPT_BYTES

    def noise(self, run: Run) -> Noise:
        """Noise to signal of each output; inf where a value is not finite or there is noise but no signal."""
        sums = [PairSums() for _ in self.outputs]
        for expected, feed in zip(self._expected(), self._samples, strict=True):
            found = run(feed)
            pairs = ((expected[name], found[name]) for name in self.outputs)
            sums = [merge(total, measure(*pair, None)) for total, pair in zip(sums, pairs, strict=True)]
        return tuple(_ratio(total) for total in sums)

    def _expected(self) -> Iterable[Mapping[str, np.ndarray]]:
        for index, feed in enumerate(self._samples):
            if index < len(self._kept):
                yield self._kept[index]
                continue
            found = self._reference(feed)
            size = sum(found[name].nbytes for name in self.outputs)
            if index == len(self._kept) and size <= self._room:
                self._kept.append(found)
                self._room -= size
            yield found


def _ratio(sums: PairSums) -> float:
    if sums.nonfinite_differ or not math.isfinite(sums.ref_squared + sums.error_squared):
        return math.inf
    if sums.error_squared == 0:
        return 0.0
    return sums.error_squared / sums.ref_squared if sums.ref_squared > 0 else math.inf


def measure_sensitivity(
    groups: Sequence[str],
    nodes: Sequence[str],
    load: Callable[[str, str], Run],
    meter: NoiseMeter,
    progress: Progress,
    *,
    known: Mapping[tuple[str, str], Noise] | None = None,
    keep: Callable[[str, str, Noise], None] | None = None,
) -> Sensitivity:
    """Measure N_W and every N_t, and the noise of every layer where N_W is large; one loaded model at a time.

    Args:
        groups: Sharing groups, in order of production.
        nodes: Nodes with integer constants.
        load: Gives the probe of a part, which is named by its kind, "tensor" or "weight", and by its group or
            node (``WEIGHTS`` for all of them).
        meter: Samples and reference.
        progress: Told of each part.
        known: Noises that were measured before, by kind and name.
        keep: Told of each new one.
    """
    noises = dict(known or {})

    def measured(kind: str, name: str) -> Noise:
        if (kind, name) not in noises:
            noises[kind, name] = meter.noise(load(kind, name))
            if keep is not None:
                keep(kind, name, noises[kind, name])
        progress.advance()
        return noises[kind, name]

    progress.start("sensitivity", len(groups) + 1)
    weights = measured("weight", WEIGHTS)
    tensors = {name: measured("tensor", name) for name in groups}
    progress.finish()
    layers: dict[str, Noise] = {}
    if any(part > LARGE_WEIGHTS * sum(t[i] for t in tensors.values()) for i, part in enumerate(weights)):
        progress.start("sensitivity of weights", len(nodes))
        layers = {name: measured("weight", name) for name in nodes}
        progress.finish()
    return Sensitivity(outputs=meter.outputs, tensors=tensors, weights=weights, layers=layers)
