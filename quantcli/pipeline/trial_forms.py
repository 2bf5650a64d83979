"""Quantized forms of one model, made quickly so that they can be timed.

Ranges are the extremes of a few samples, weights are rounded to nearest, nothing is written. Time depends on
which kernels run, hardly on the numbers in them. Fidelity does: the noise of 8-bit weights rounded to nearest
hides that of activations, but rounding against the data takes most of it away (mobilenetv2 with quantized
weights alone: 18 → 35 dB). So there is a second session with float weights to be judged. Models that are
prepared differently are prepared and observed once each; values are observed when the first plan asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from quantcli.calibration.collector import collect
from quantcli.calibration.estimators import estimate, parse_method
from quantcli.core.spec import QuantSpec
from quantcli.core.stats import TensorStats
from quantcli.data.base import Sample
from quantcli.graph.model import OnnxModel
from quantcli.graph.view import GraphView
from quantcli.pipeline.carry_out import emit
from quantcli.pipeline.observation import observation
from quantcli.pipeline.source import FloatModel, load_for_recipe, runnable
from quantcli.pipeline.workbench import observed_name
from quantcli.quantize.choices import Choices
from quantcli.quantize.plan import Plan
from quantcli.quantize.planner import make_plan, observed_tensors
from quantcli.quantize.recipe import Recipe
from quantcli.quantize.solve import solve
from quantcli.quantize.widths import possible_recipe
from quantcli.runtime.session import Session, SessionSettings

_MINMAX = parse_method("minmax")

_FINE_BITS = 8
"""Bits from which on rounding against the data leaves little noise of weights."""

_AS_WRITTEN = {"session.disable_quant_qdq": "1"}
"""Otherwise onnxruntime quantizes float weights between DequantizeLinear and QuantizeLinear by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSessions:
    """A form, loaded.

    Attributes:
        timed: With integer kernels.
        judged: With the same rounded activations, and float weights where those of the final form will be good.
    """

    timed: Session
    judged: Session


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """A plan, the recipe that it was made with, and the prepared model that it is for."""

    source: FloatModel
    recipe: Recipe
    plan: Plan

    def same_as(self, other: TrialPlan) -> bool:
        """Whether both give the same model: the same nodes with the same fates and the same quantizers."""
        return _outcome(self) == _outcome(other)


def _outcome(trial: TrialPlan) -> tuple[object, ...]:
    plan = trial.plan
    nodes = tuple((node.name, node.op_type, node.action, node.into) for node in plan.nodes)
    return nodes, tuple(plan.tensors.items()), plan.layers, plan.activations, plan.constants, plan.integer_inputs


class TrialForms:
    """Makes forms of one model."""

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        samples: Sequence[Sample],
        settings: SessionSettings,
        *,
        source: FloatModel,
        opset: int | None = None,
        observed: Collection[str] | None = None,
    ) -> None:
        """Forms of the model at ``path``.

        Args:
            path: Float model.
            recipe: How it is to be quantized, but for the choices.
            samples: Complete feeds to take ranges from.
            settings: Of the forms' sessions.
            source: The model as prepared with the recipe's choices.
            opset: Wanted ai.onnx version.
            observed: Values that the final conversion has statistics of; None for all that a plan asks for.
        """
        self._allowed = None if observed is None else frozenset(observed)
        self._path, self._recipe, self._opset = path, recipe, opset
        self._samples, self._settings = tuple(samples), settings
        self._sources = {recipe.choices.preparation: source}
        self._statistics: dict[tuple[str, ...], dict[str, TensorStats]] = {}

    def plan(self, choices: Choices) -> TrialPlan:
        """What would become of the model with ``choices``."""
        source = self._source(choices)
        recipe = possible_recipe(replace(self._recipe, choices=choices), source.view.opset)
        allowed = self._allowed
        known = None if allowed is None else _knows(source.whole, dict.fromkeys(allowed))
        return TrialPlan(source=source, recipe=recipe, plan=make_plan(source.whole, recipe, known))

    def sessions(self, trial: TrialPlan) -> TrialSessions:
        """The quantized form, loaded.

        Raises:
            RuntimeFailure: R101, the runtime does not load it.
        """
        view = trial.source.whole
        known = self._observed(trial)

        def range_of(name: str, spec: QuantSpec) -> tuple[float, float]:
            found = estimate(known[observed_name(view, name, known) or name], spec, _MINMAX)
            return found.min, found.max

        plan = make_plan(view, trial.recipe, _knows(view, known))

        solution = solve(plan, view, range_of)
        timed = self._load(emit(trial.source, plan, solution, "qdq"), self._settings)
        if trial.recipe.weight_dtype.bits < _FINE_BITS:
            return TrialSessions(timed=timed, judged=timed)
        judged = emit(trial.source, replace(plan, layers=()), solution, "qdq")
        return TrialSessions(timed=timed, judged=self._load(judged, replace(self._settings, config=_AS_WRITTEN)))

    def _source(self, choices: Choices) -> FloatModel:
        if choices.preparation not in self._sources:
            self._sources[choices.preparation] = load_for_recipe(
                self._path, self._recipe, opset=self._opset, threads=self._settings.threads, choices=choices
            )
        return self._sources[choices.preparation]

    def _observed(self, trial: TrialPlan) -> Mapping[str, TensorStats]:
        """Statistics of all values that the plan quantizes and that have any."""
        known = self._statistics.setdefault(trial.plan.choices.preparation, {})
        missing = [name for name in observed_tensors(trial.plan) if name not in known]
        if missing:
            model, tensors = observation(trial.source, missing)
            found = collect(
                model,
                [replace(tensor, channel_axis=None) for tensor in tensors],
                self._samples,
                make_session=partial(self._load, settings=self._settings),
                on_nonfinite="ignore",
            )
            known |= found.tensors
        return {
            name: stats
            for name, stats in known.items()
            if stats.count > 0 and (self._allowed is None or name in self._allowed)
        }

    @staticmethod
    def _load(model: OnnxModel, settings: SessionSettings) -> Session:
        with runnable(model) as loadable:
            return Session(loadable, settings)


def _knows(view: GraphView, known: Mapping[str, object]) -> Callable[[str], bool]:
    return lambda name: observed_name(view, name, known) is not None
