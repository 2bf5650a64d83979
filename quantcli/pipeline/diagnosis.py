"""What makes a layer's error, the figures that say so, and what to type against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantcli.algorithms.causes import (
    CONSTANT_SHARE,
    OUTLIER_RATIO,
    Cause,
    clipping_energy,
    farthest_channel,
)
from quantcli.algorithms.noise_parts import TENSOR
from quantcli.algorithms.part_noise import PartNoise
from quantcli.core.affine import dequantize
from quantcli.core.metrics import sqnr_db
from quantcli.pipeline.carry_out import Made
from quantcli.pipeline.types import ConvertRequest
from quantcli.pipeline.workbench import observed_name, usable_statistics
from quantcli.quantize.recipe import node_selector


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Cause, evidence and remedy of one layer's error."""

    cause: Cause
    evidence: str
    remedy: str


class Doctor:
    """Diagnoses layers of one conversion."""

    def __init__(self, made: Made, noise: PartNoise, request: ConvertRequest) -> None:
        self._made, self._noise, self._request = made, noise, request
        self._statistics = usable_statistics(made.bench.statistics)
        self._layers = {layer.node: layer for layer in made.plan.layers}

    def diagnose(self, node: str, parts: Sequence[str], *, worth: bool) -> Diagnosis:
        """Of a node that adds ``parts``; ``worth`` says whether leaving it in float gains anything."""
        tensors = [part for part in parts if part.startswith(TENSOR)]
        weights = [part for part in parts if not part.startswith(TENSOR)]
        alone = {part: self._noise.alone((part,)) for part in parts}
        total = sum(alone.values())
        last = (
            f"--exclude '{node_selector(node)}'"
            if worth
            else "keep it: in float it would not make up for the errors of others"
        )
        if total == 0:
            return Diagnosis(cause="rounding", evidence="it adds no error of its own", remedy="nothing")
        constant = self._noise.constant_share(parts)
        if constant >= CONSTANT_SHARE:
            return Diagnosis(
                cause="bias",
                evidence=f"{constant:.0%} of its error at the output is the same for all samples",
                remedy=self._against_bias(last),
            )
        share = sum(alone[part] for part in weights) / total
        if share > 0.5:
            return self._of_weights(node, share, last)
        loudest = max(tensors, key=alone.__getitem__)
        return self._of_tensor(loudest.removeprefix(TENSOR), alone[loudest] / total, last)

    def _against_bias(self, last: str) -> str:
        if not self._made.facts.samples:
            return "give samples with --data: biases are then corrected"
        if self._made.facts.samples < self._made.bench.statistics.samples:
            return "--effort max: biases are corrected on more samples"
        return f"more calibration samples, or {last}"

    def _of_weights(self, node: str, share: float, last: str) -> Diagnosis:
        recipe = self._request.recipe
        evidence = f"its constants make {share:.0%} of its error"
        layer = self._layers.get(node)
        if layer is not None:
            found = self._made.solution.layers[node]
            weight = self._made.bench.source.whole.constant(layer.weight)
            error = dequantize(found.weight, found.weight_params).astype(float) - weight
            value = sqnr_db(float((weight.astype(float) ** 2).sum()), float((error**2).sum()))
            bits = layer.weight_spec.dtype.bits
            evidence += f"; the weight has {value:.1f} dB at {bits} bits"
            if bits < 8:
                return Diagnosis(cause="weights", evidence=evidence, remedy="--weight-bits 8")
            if not recipe.per_channel:
                return Diagnosis(cause="weights", evidence=evidence, remedy="--granularity channel")
        if self._request.effort == "fast":
            return Diagnosis(cause="weights", evidence=evidence, remedy=f"--effort balanced, or {last}")
        return Diagnosis(cause="weights", evidence=evidence, remedy=last)

    def _of_tensor(self, name: str, share: float, last: str) -> Diagnosis:
        made = self._made
        params = made.solution.tensors[name]
        told = f"'{name}' makes {share:.0%} of its error"
        known = observed_name(made.bench.source.whole, name, self._statistics)
        stats = None if known is None else self._statistics[known]
        if stats is not None:
            clipping = clipping_energy(stats, params)
            if clipping.part > 0.5:
                evidence = (
                    f"{told}; {clipping.share:.2%} of its values are clipped, {clipping.part:.0%} of that error"
                )
                method = self._request.recipe.method
                remedy = "--method minmax" if method != "minmax" else last
                return Diagnosis(cause="clipping", evidence=evidence, remedy=f"{remedy}, or {last}")
            if stats.channel_minimum is not None and stats.channel_maximum is not None:
                found = farthest_channel(stats.channel_minimum, stats.channel_maximum)
                if found is not None and found.ratio >= OUTLIER_RATIO:
                    evidence = (
                        f"{told}; its channel {found.channel} reaches {found.amplitude:.3g}, the median one "
                        f"{found.median:.3g}"
                    )
                    remedy = last if self._request.effort == "max" else f"--effort max, or {last}"
                    return Diagnosis(cause="outlier channels", evidence=evidence, remedy=remedy)
        step = float(params.scale)
        return Diagnosis(cause="rounding", evidence=f"{told}; one step is {step:.3g}", remedy=last)
