"""Whose error it is: that of the rounded weights, or that of the rounded activations.

Noise of small independent roundings adds up: 10^(−both/10) ≈ 10^(−weights_only/10) + 10^(−activations_only/10).
Three models are made of the quantized one (in its float form, ``graph.float_form``) and run without what the
runtime does to Q and DQ, for it would round float weights between them again (WeightBiasQuantization):

* weights only: without the rounding of activations;
* activations only: with the original's weights and biases (``float_weights``);
* neither: with both edits. It must give what the original gives; if it does not, weights were not put back
  rightly, and what activations cost is taken from the difference that their rounding makes behind the quantized
  weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantcli.core.metrics import PairSums, measure, merge
from quantcli.errors import ModelError, RuntimeFailure
from quantcli.evaluate.float_weights import FloatWeights, float_weights
from quantcli.evaluate.structure import compute_state
from quantcli.graph.float_form import float_form
from quantcli.graph.loadable import loadable
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model
from quantcli.graph.prepare import prepare
from quantcli.graph.read_view import read_view
from quantcli.graph.unround import with_constants, without_activation_rounding
from quantcli.graph.view import GraphView
from quantcli.report.schema import Attribution
from quantcli.runtime.session import Session, SessionSettings

Outputs = Sequence[Mapping[str, np.ndarray]]
"""Outputs by name, one mapping a sample."""

_APART_DB = 6.0
"""So much better than "activations only" the model with neither rounding has to be (its noise: a quarter)."""

_SAME_DB = 60.0
"""A model with neither rounding that is this close to the original is the original."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributionResult:
    """Shares of the error by output, and what the reader must know of how they were found."""

    outputs: tuple[Attribution, ...] = ()
    notes: tuple[str, ...] = ()


def attribute_error(
    original: Path,
    quantized: Path,
    feeds: Sequence[Mapping[str, np.ndarray]],
    pairs: Sequence[tuple[str, str]],
    reference: Outputs,
    both: Outputs,
    *,
    threads: int = 1,
) -> AttributionResult:
    """Measure the shares of weights and activations in the error.

    Args:
        original: The reference's file.
        quantized: The quantized model's file.
        feeds: Samples.
        pairs: Outputs: name in the original, name in the quantized model.
        reference: What the original gives for ``feeds``.
        both: What the quantized model gives, without the runtime's optimizations.
        threads: Intra-op threads.
    """
    layers = {
        node.name
        for view in (read_view(quantized),)
        for node in view.nodes
        if compute_state(view, node) in ("quantized", "weight-only")
    }
    if not layers:
        return AttributionResult()
    work = _Bench(feeds=feeds, pairs=pairs, reference=reference, threads=threads)
    form = float_form(load_model(quantized))
    try:
        prepared = _prepared(original).view()
        rounded = without_activation_rounding(form, _limits(prepared))
        weights_only = work.outputs(rounded, _float_settings(threads))
    except (ModelError, RuntimeFailure) as error:
        note = f"the shares of weights and activations in the error could not be separated: {error.message}"
        return AttributionResult(notes=(note,))
    best = _best_weights(work, prepared, form, rounded, layers)
    notes: list[str] = []
    if best is None:
        notes.append(
            "the original's weights could not be put back into the quantized model; what the activations cost is "
            "the difference that their rounding makes behind the quantized weights"
        )
    results: list[Attribution] = []
    for name, partner in pairs:
        activations = (
            work.sqnr(best, name, partner)
            if best is not None
            else _difference(reference, weights_only, both, name, partner)
        )
        results.append(
            Attribution(
                output=name,
                weights_only=work.sqnr(weights_only, name, partner),
                activations_only=activations,
                both=work.sqnr(both, name, partner),
            )
        )
    fitted = [item.output for item in results if _made_up_for(item)]
    if fitted:
        notes.append(
            f"output '{fitted[0]}' is better with both roundings than with that of activations alone: weights and "
            "biases were fitted to rounded activations"
        )
    return AttributionResult(outputs=tuple(results), notes=tuple(notes))


def _made_up_for(shares: Attribution) -> bool:
    """Whether the quantized weights make up for more than a decibel of what the activations lose."""
    both, alone = shares.both, shares.activations_only
    return both is not None and alone is not None and math.isfinite(both) and both > alone + 1.0


def plain_settings(threads: int) -> SessionSettings:
    """Every node as it stands in the file, computed by its own kernel."""
    return SessionSettings(threads=threads, optimization="disabled")


def _float_settings(threads: int) -> SessionSettings:
    """For models without rounded activations: all optimizations but those that know of Q and DQ."""
    return SessionSettings(threads=threads, config={"session.disable_quant_qdq": "1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """The samples, and the original's answers to them."""

    feeds: Sequence[Mapping[str, np.ndarray]]
    pairs: Sequence[tuple[str, str]]
    reference: Outputs
    threads: int

    def outputs(self, model: OnnxModel, settings: SessionSettings) -> Outputs:
        with loadable(model) as source:
            session = Session(source, settings)
            names = [partner for _, partner in self.pairs]
            return [session.run(feed, names) for feed in self.feeds]

    def sqnr(self, found: Outputs, name: str, partner: str) -> float | None:
        return sqnr_of(self.reference, found, name, partner)

    def worst(self, found: Outputs) -> float:
        """SQNR of the worst output."""
        values = [self.sqnr(found, *pair) for pair in self.pairs]
        return min((value for value in values if value is not None), default=math.inf)


def _best_weights(
    work: _Bench, original: GraphView, form: OnnxModel, rounded: OnnxModel, layers: set[str]
) -> Outputs | None:
    """Outputs with float weights and rounded activations; None where those weights do not give the original."""
    view = form.view()
    tried: list[FloatWeights] = []
    for rescale in (True, False):
        weights = float_weights(original, view, layers, rescale=rescale)
        if not weights.found or (tried and not tried[0].rescaled):
            break
        tried.append(weights)
        neither = work.worst(
            work.outputs(with_constants(rounded, weights.constants), _float_settings(work.threads))
        )
        if neither < _APART_DB:
            continue
        found = work.outputs(with_constants(form, weights.constants), plain_settings(work.threads))
        if neither >= min(_SAME_DB, work.worst(found) + _APART_DB):
            return found
    return None


def _difference(reference: Outputs, weights_only: Outputs, both: Outputs, name: str, partner: str) -> float | None:
    """SQNR of what rounding activations changes behind quantized weights, in dB of the original's output."""
    shifted = [
        {partner: ours[name] + (b[partner].reshape(-1) - w[partner].reshape(-1)).reshape(ours[name].shape)}
        if ours[name].dtype.kind == "f" and ours[name].size == b[partner].size == w[partner].size
        else {partner: b[partner]}
        for ours, w, b in zip(reference, weights_only, both, strict=True)
    ]
    return sqnr_of(reference, shifted, name, partner)


def sqnr_of(reference: Outputs, found: Outputs, name: str, partner: str) -> float | None:
    """SQNR of an output over all samples, in dB; None where no shapes fit."""
    total = PairSums()
    for ours, theirs in zip(reference, found, strict=True):
        a, b = ours[name], theirs[partner]
        if a.shape != b.shape:
            if a.size != b.size:
                continue
            b = b.reshape(a.shape)
        total = merge(total, measure(a, b))
    return total.sqnr


def _prepared(original: Path) -> OnnxModel:
    """The original with the folds that quantizers make."""

    def evaluate(model: bytes, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return Session(model, plain_settings(1)).run(feeds)

    return prepare(load_model(original), evaluate=evaluate).model


def _limits(view: GraphView) -> tuple[float, ...]:
    """Constant bounds of the Clip operators of a graph, sorted."""
    found: set[float] = set()
    for node in view.nodes:
        if node.op != "Clip":
            continue
        for name in node.inputs[1:3]:
            if view.is_constant(name) and view.constant(name).size == 1:
                found.add(float(view.constant(name).reshape(())))
        for key in ("min", "max"):
            value = node.attributes.get(key)
            if isinstance(value, float):
                found.add(value)
    return tuple(sorted(value for value in found if math.isfinite(value)))
