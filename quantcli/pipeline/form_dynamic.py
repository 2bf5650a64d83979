"""Conversions by the dynamic form: integer weights, and activations that are rounded while the model runs.

No data are needed. With samples, the channels of activations are balanced first (``algorithms.equalization``; the
range of an activation is that of its largest channel in any form), and weights are rounded against the samples,
as far as no output becomes worse by it (``dynamic_contest``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from quantcli.algorithms.effort import EFFORTS, Effort
from quantcli.calibration.statistics import CalibrationStatistics
from quantcli.data.base import Dataset, Sample
from quantcli.errors import ConfigError, ModelError, UnsupportedModelError
from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel
from quantcli.graph.shapes import forget_types
from quantcli.pipeline.calibrate import collect_statistics
from quantcli.pipeline.contest import FEWEST_JUDGES, Judge, SampleSet, apart, judged_values
from quantcli.pipeline.dynamic_channels import balanced
from quantcli.pipeline.dynamic_contest import AS_WITHOUT, Judged, Way, best_way, told, ways
from quantcli.pipeline.forms import Maker, Outcome
from quantcli.pipeline.refine import refine
from quantcli.pipeline.samples import open_samples
from quantcli.pipeline.saved_plan import carrying_out, plan_name, plan_of
from quantcli.pipeline.source import FloatModel, load_float_model, nothing_to_quantize
from quantcli.pipeline.trial_feed import trial_feed
from quantcli.pipeline.types import ConvertRequest, RoundingFacts
from quantcli.pipeline.workbench import SampleKeeper, mask_of
from quantcli.progress import Progress, SilentProgress
from quantcli.quantize.body_plans import layers_in_bodies
from quantcli.quantize.emit_dynamic import DynamicEmitter
from quantcli.quantize.plan import Action, Plan
from quantcli.quantize.plan_dynamic import LSTM_OFFERED, make_dynamic_plan
from quantcli.quantize.recipe import node_selector
from quantcli.quantize.solve import Solution
from quantcli.quantize.solve_dynamic import (
    fake_quantize_dynamically,
    solve_dynamic,
    solve_recurrent,
    tied_layers,
)
from quantcli.quantize.spared import spared_notes, with_spared

DYNAMIC_OPSET = 11
"""First ai.onnx version with DynamicQuantizeLinear."""


def plan_dynamic(request: ConvertRequest) -> tuple[FloatModel, Plan]:
    """The prepared model and its plan, for a dry run.

    Raises:
        ConfigError: A selector is wrong.
        ModelError: The model is unreadable, or its opset cannot be raised.
    """
    source = _load(request, None)
    return source, make_dynamic_plan(source.whole, request.recipe)


def make_dynamic(request: ConvertRequest, saved: Plan | None, progress: Progress) -> Outcome:
    """Make a model of the dynamic form, by a plan from a file or by one that is made here.

    Raises:
        ConfigError: A selector is wrong; C103 or C104, the plan is not of this model.
        ModelError: The model is unreadable, has weights that are not finite (M301), or nothing in it can be
            quantized (M304).
        DataError: Samples do not fit.
    """
    source = _load(request, saved)
    facts = RoundingFacts(effort=EFFORTS[request.effort].name)
    if not request.data.specs:
        plan = _plan_of(request, saved, source)
        return _outcome(request, source, plan, _solved(request, source, plan), facts)
    bench = _Bench(request, source, saved, progress)
    return bench.outcome()


def _load(request: ConvertRequest, saved: Plan | None) -> FloatModel:
    """The prepared model, in an opset with DynamicQuantizeLinear."""
    recipe = request.recipe
    if request.opset is not None and request.opset < DYNAMIC_OPSET:
        raise ModelError(
            "M303",
            f"opset {request.opset} is asked for, but DynamicQuantizeLinear exists from opset {DYNAMIC_OPSET} on",
            hint="leave --opset out",
        )
    source = load_float_model(
        request.model,
        recipe.target if saved is None else saved.target,
        opset=request.opset,
        threads=request.run.threads,
        choices=recipe.choices if saved is None else saved.choices,
        lowest=DYNAMIC_OPSET,
    )
    if source.view.opset < DYNAMIC_OPSET:
        raise UnsupportedModelError(
            "M210",
            f"the dynamic form needs opset {DYNAMIC_OPSET}, and the model stays at {source.view.opset}: "
            + "; ".join(source.notes[-1:]),
            hint="use the static or the weight-only form",
        )
    return source


def _plan_of(request: ConvertRequest, saved: Plan | None, source: FloatModel) -> Plan:
    """The saved plan, if it fits, or a new one.

    Raises:
        ConfigError: C104, it is of another model.
        ModelError: M304, nothing is quantized.
    """
    plan = saved
    if plan is None:
        plan = make_dynamic_plan(source.whole, request.recipe)
    names, planned = {node.name for node in source.whole.nodes}, {node.name for node in plan.nodes}
    if names != planned and plan.equalization and not request.data.specs:
        raise ConfigError(
            "C104",
            f"plan '{plan_name(request)}' was made with samples, on which channels are "
            "balanced, and there are none",
            hint="give the samples with --data",
        )
    plan_of(request, plan, source.whole)
    if not plan.count(Action.QUANTIZE) and not plan.tables:
        raise nothing_to_quantize(source, plan)
    return plan


def _solved(request: ConvertRequest, source: FloatModel, plan: Plan) -> Solution:
    """Weights rounded to nearest."""
    with carrying_out(request):
        return solve_dynamic(plan, source.whole)


def _outcome(
    request: ConvertRequest, source: FloatModel, plan: Plan, solution: Solution, facts: RoundingFacts
) -> Outcome:
    """The model written down, and a feed to try it on."""
    trial = trial_feed(source, request)
    plan = with_spared(plan, source.whole, solution)
    with carrying_out(request):
        model = _emitted(source, plan, solution)
    return Outcome(
        source=source,
        plan=plan,
        model=model,
        sample=trial.sample,
        facts=facts,
        provenance={"data_samples": "0"},
        notes=(*trial.notes, *spared_notes(plan), *_offers(plan, source)),
    )


def _offers(plan: Plan, source: FloatModel) -> tuple[str, ...]:
    """That LSTM could have integer weights, where they are in float for want of the option."""
    view = source.whole
    left = [node.name for node in plan.nodes if node.reason is not None and node.reason.code == LSTM_OFFERED]
    weights = {name for node in left for name in view.node_by_name[node].inputs[1:3]}
    size = sum(view.tensors[name].nbytes for name in weights)
    if not left:
        return ()
    share = 100 * size / max(source.bytes, 1)
    told = f"{len(left)} LSTM nodes keep weights of {size:,} bytes in float, {share:.0f} % of the file"
    how = "--dynamic-lstm makes int8 of them, by an operator of onnxruntime (com.microsoft.DynamicQuantizeLSTM)"
    return (f"{told}: {how}",)


def _emitted(source: FloatModel, plan: Plan, solution: Solution) -> OnnxModel:
    model = source.prepared.clone()
    editor = GraphEditor(model, bodies=True)
    DynamicEmitter(editor, source.whole, plan, solution, solve_recurrent(plan, source.whole)).emit()
    editor.finish()
    forget_types(model, source.stated)
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class _Carried:
    """A way that was carried out: the graph with its channels balanced or not, its plan and its weights."""

    source: FloatModel
    plan: Plan
    solution: Solution
    facts: RoundingFacts

    @property
    def model(self) -> OnnxModel:
        return _emitted(self.source, self.plan, self.solution)


class _Bench:
    """A conversion with samples: channels balanced, weights rounded against the data, where that is better."""

    def __init__(
        self, request: ConvertRequest, source: FloatModel, saved: Plan | None, progress: Progress
    ) -> None:
        self._request, self._saved, self._progress = request, saved, progress
        self._effort: Effort = EFFORTS[request.effort]
        self._source = source
        # A quarter of these judges, and has no say in how weights are rounded.
        self._kept = SampleKeeper(self._effort.samples + self._effort.samples // 3)
        self._first = self._first_plan()
        self._statistics: CalibrationStatistics | None = None
        self._teachers: tuple[Sample, ...] = ()
        self._carried: dict[Way, _Carried] = {}

    def outcome(self) -> Outcome:
        """The model."""
        statistics = self._statistics = self._observed()
        teachers, judges = apart(self._kept.samples)
        self._teachers = tuple(teachers)
        if statistics is not None and judges and statistics.samples == len(self._kept.samples):
            # Extremes of few samples fit these better than others, so those that judge have no say in them.
            alone = SampleSet(name="", samples=teachers, synthetic=statistics.synthetic)
            self._statistics = self._collected(alone)
        if self._saved is None:
            way, notes = self._best(judges)
        else:
            fitted = self._effort.gptq and not self._saved.nearest
            way, notes = Way(alpha=self._saved.equalization, fitted=fitted), ()
        found = self._carry_out(way, self._progress)
        made = _outcome(self._request, found.source, found.plan, found.solution, found.facts)
        made = replace(made, notes=(*made.notes, *notes))
        if statistics is None:
            return made
        return replace(
            made,
            digests=statistics.sample_digests,
            provenance={
                "data_fingerprint": statistics.data_fingerprint,
                "data_samples": str(statistics.samples),
                "data_synthetic": str(statistics.synthetic).lower(),
            },
            notes=(*made.notes, *statistics.notes),
        )

    def _best(self, judges: Sequence[Sample]) -> tuple[Way, tuple[str, ...]]:
        """The way that is best on samples held out, and what to tell of it."""
        if self._statistics is None:
            return AS_WITHOUT, ()
        fit = self._effort.gptq and len(judges) >= FEWEST_JUDGES
        tried = ways(self._effort, fit=fit)
        samples = judges if len(judges) >= FEWEST_JUDGES else self._teachers
        view = self._source.view
        values = tuple(dict.fromkeys((*judged_values(view), *view.outputs)))
        run = Judge(self._source.prepared, values, samples, threads=self._request.run.threads)
        masks = mask_of(samples, self._request.mask)

        def judge(model: OnnxModel) -> Judged:
            whole = run(model)
            return Judged(whole=whole, counting=whole if masks is None else run(model, masks))

        def model_of(way: Way) -> OnnxModel | None:
            carried = self._carry_out(way, SilentProgress())
            same = way.alpha and not carried.facts.scaled  # nothing to balance
            return None if same else carried.model

        best = best_way(tried, model_of, judge, self._progress)
        return best, () if best == tried[0] else (told(best, fit=fit),)

    def _carry_out(self, way: Way, progress: Progress) -> _Carried:
        """The graph, the plan and the weights of a way; made once."""
        if way in self._carried:
            return self._carried[way]
        request, saved = self._request, self._saved
        source, scaled = balanced(self._source, self._first, self._statistics, way.alpha)
        plan = _plan_of(request, saved, source)
        if saved is None:
            plan = replace(plan, equalization=way.alpha if scaled else 0.0, nearest=not way.fitted)
        facts = RoundingFacts(effort=self._effort.name, alpha=plan.equalization, scaled=scaled)
        solution = _solved(request, source, plan)
        if way.fitted:
            solution, facts = self._rounded(source, plan, solution, facts, progress)
        self._carried[way] = _Carried(source=source, plan=plan, solution=solution, facts=facts)
        return self._carried[way]

    def _first_plan(self) -> Plan:
        """The plan of the graph as it is before channels are balanced; of a saved plan, what that quantizes."""
        view, recipe, saved = self._source.whole, self._request.recipe, self._saved
        if saved is not None:
            meant = [layer.node for layer in saved.layers if layer.node in view.node_by_name]
            if not meant:
                return replace(saved, layers=(), tensors={}, integer_inputs=())
            recipe = replace(recipe, target=saved.target, include=tuple(map(node_selector, meant)))
        return make_dynamic_plan(view, recipe)

    def _observed(self) -> CalibrationStatistics | None:
        """Statistics of the activations that are rounded, while samples are kept; None without activations."""
        if not self._first.tensors:
            return None
        dataset = open_samples(self._request.data, self._source.inputs, self._source.path)
        return self._collected(dataset, self._progress, self._kept.watch)

    def _collected(
        self,
        dataset: Dataset,
        progress: Progress | None = None,
        watch: Callable[[Iterable[Sample]], Iterator[Sample]] = iter,
    ) -> CalibrationStatistics:
        first = self._first
        return collect_statistics(
            self._source,
            dataset,
            self._request.run,
            first.target,
            progress or SilentProgress(),
            watch=watch,
            tensors=tuple(first.tensors),
        ).statistics

    def _rounded(
        self, source: FloatModel, plan: Plan, nearest: Solution, facts: RoundingFacts, progress: Progress
    ) -> tuple[Solution, RoundingFacts]:
        """Weights rounded against the samples, padding included, and what to tell of it."""
        samples = self._teachers
        inside = len(layers_in_bodies(plan))  # these stay as they are
        if not samples or len(plan.layers) <= inside:
            return nearest, facts
        refined = refine(
            source,
            plan,
            nearest,
            samples,
            self._effort,
            progress,
            max_bytes=self._request.max_memory,
            threads=self._request.run.threads,
            rounded=fake_quantize_dynamically,
        )
        told = replace(
            facts,
            samples=refined.sweep.samples,
            peak_bytes=refined.sweep.peak_bytes,
            variants=dict(sorted(Counter(refined.variants.values()).items())),
        )
        # What is tied to a table stays as it is, so that it is stored once.
        kept = {node: nearest.layers[node] for node in tied_layers(plan, source.whole)}
        return replace(refined.solution, layers={**refined.solution.layers, **kept}), told


DYNAMIC = Maker(plan=plan_dynamic, make=make_dynamic)
"""The maker of the dynamic form."""
