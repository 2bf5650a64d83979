"""The weight-only form: weights as integers, arithmetic in float. Nothing is calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quantcli.algorithms.effort import EFFORTS
from quantcli.data.fingerprint import Fingerprint
from quantcli.data.overlap import SampleDigests
from quantcli.errors import ModelError
from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel
from quantcli.graph.shapes import forget_types
from quantcli.pipeline.forms import Maker, Outcome
from quantcli.pipeline.refine_weights import refine_weights
from quantcli.pipeline.samples import check_mask, open_samples
from quantcli.pipeline.saved_plan import carrying_out, plan_of
from quantcli.pipeline.source import FloatModel, load_float_model, nothing_to_quantize
from quantcli.pipeline.trial_feed import trial_feed
from quantcli.pipeline.types import ConvertRequest, RoundingFacts
from quantcli.pipeline.workbench import SampleKeeper
from quantcli.progress import Progress
from quantcli.quantize.choices import Choices
from quantcli.quantize.emit_nbits import NBitsEmitter
from quantcli.quantize.emit_weight_only import WeightOnlyEmitter
from quantcli.quantize.plan import Action, Plan
from quantcli.quantize.plan_weight_only import make_weight_only_plan
from quantcli.quantize.solve_weight_only import StoredWeight, solve_weight_only

PLAIN = Choices(silu="integer", residual_norm="add")
"""Preparation that writes nothing for the sake of integer kernels."""

DEFAULT_LEVEL = 4
"""Accuracy level of MatMulNBits at which it is fast."""

SLOW_IN_FLOAT = frozenset({2, 8})
"""Bits for which onnxruntime 1.32 has no fast kernel at the other levels (one row: 7 and 9 times float)."""

EMITTERS = {"qdq": WeightOnlyEmitter, "qoperator": NBitsEmitter}


def plan_weight_only(request: ConvertRequest, saved: Plan | None = None) -> tuple[FloatModel, Plan]:
    """The source, prepared at the opset that the plan needs, and the plan.

    Raises:
        ConfigError: C104, a saved plan is of another model.
        ModelError: M303, an opset is asked for that is too low; M304, there is nothing to quantize.
    """
    lowest = 0
    while True:
        source = load_float_model(
            request.model,
            request.recipe.target,
            opset=request.opset,
            threads=request.run.threads,
            choices=PLAIN,
            lowest=lowest,
        )
        check_mask(request.mask, source.inputs)
        plan = make_weight_only_plan(source.whole, request.recipe) if saved is None else saved
        plan_of(request, plan, source.whole)
        if not (plan.layers or plan.constants or plan.tables):
            raise nothing_to_quantize(source, plan)
        model = source.prepared.clone()
        needed = EMITTERS[request.format](GraphEditor(model, bodies=True), source.whole, plan, {}).lowest_opset()
        if needed <= source.whole.opset:
            return source, plan
        if request.opset is not None:
            raise ModelError(
                "M303",
                f"opset {request.opset} is asked for, but weights in this form exist from opset {needed} on",
                hint="leave --opset out, or give weights 8 bits and no blocks",
            )
        lowest = needed


def make_weight_only(request: ConvertRequest, saved: Plan | None, progress: Progress) -> Outcome:
    """Convert to the weight-only form.

    Raises:
        ModelError: M303 or M304 as ``plan_weight_only``, M301, a weight is not finite.
        ConfigError: C103, a plan from a file contradicts itself or the model.
    """
    source, plan = plan_weight_only(request, saved)
    trial = trial_feed(source, request)
    with carrying_out(request):
        made = _rounded(source, plan, request, progress)
        model = emit_weight_only(source, plan, made.weights, request.format)
    return Outcome(
        source=source,
        plan=plan,
        model=model,
        sample=trial.sample,
        facts=made.facts,
        digests=made.digests,
        provenance=made.provenance,
        notes=(*trial.notes, *made.notes, *_kernel_notes(plan, request.format)),
    )


def _kernel_notes(plan: Plan, form: str) -> tuple[str, ...]:
    """What the kernels do with activations."""
    if not plan.count(Action.QUANTIZE):
        return ()
    level = plan.accuracy_level
    if form != "qoperator":
        told = (
            "onnxruntime makes MatMulNBits of DequantizeLinear and MatMul, by default with accuracy level 4: "
            "activations are rounded to int8 inside (session.qdq_matmulnbits_accuracy_level changes it)"
        )
        return (told,)
    inside = "activations are rounded to int8 inside" if level == DEFAULT_LEVEL else "products are float32"
    told = f"MatMulNBits has accuracy level {level}: {inside}"
    bits = min(layer.weight_spec.dtype.bits for layer in plan.layers)
    if level < DEFAULT_LEVEL and any(layer.weight_spec.dtype.bits in SLOW_IN_FLOAT for layer in plan.layers):
        told += f"; with {bits} bits that takes 2 to 9 times as long as the float model (onnxruntime 1.32)"
    return (told,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rounded:
    """Weights, and what is told of them."""

    weights: Mapping[str, StoredWeight]
    facts: RoundingFacts
    digests: SampleDigests = field(default_factory=lambda: SampleDigests.of(()))
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _rounded(source: FloatModel, plan: Plan, request: ConvertRequest, progress: Progress) -> _Rounded:
    """The weights, rounded against the samples where there are any and the effort wants it."""
    nearest = solve_weight_only(plan, source.whole)
    effort = EFFORTS[request.effort]
    facts = RoundingFacts(effort=effort.name)
    if not (request.data.specs and effort.gptq and plan.layers) or plan.nearest:
        return _Rounded(weights=nearest, facts=facts)
    dataset = open_samples(request.data, source.inputs, request.model)
    kept, fingerprint = SampleKeeper(effort.samples), Fingerprint()
    count = sum(1 for _ in kept.watch(fingerprint.watch(dataset)))
    found = refine_weights(source, plan, nearest, kept.samples, request, progress)
    return _Rounded(
        weights=found.weights,
        facts=found.facts,
        digests=fingerprint.digests,
        provenance={
            "data_fingerprint": fingerprint.hexdigest(),
            "data_samples": str(count),
            "data_synthetic": str(dataset.synthetic).lower(),
        },
        notes=(*dataset.notes, *found.notes),
    )


def emit_weight_only(source: FloatModel, plan: Plan, weights: Mapping[str, StoredWeight], form: str) -> OnnxModel:
    """The model of a plan; ``form`` is a key of ``EMITTERS``."""
    model = source.prepared.clone()
    editor = GraphEditor(model, bodies=True)
    EMITTERS[form](editor, source.whole, plan, weights).emit()
    editor.finish()
    forget_types(model, source.stated)
    return model


WEIGHT_ONLY = Maker(plan_weight_only, make_weight_only)
