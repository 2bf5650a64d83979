"""From a workbench and a plan to a model: parameters, rounding against the data, edits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from quantcli.algorithms.effort import Effort
from quantcli.algorithms.sweep import SweepResult
from quantcli.calibration.estimators import Method
from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel
from quantcli.graph.shapes import forget_types
from quantcli.pipeline.refine import refine
from quantcli.pipeline.saved_plan import carrying_out
from quantcli.pipeline.source import FloatModel, nothing_to_quantize
from quantcli.pipeline.types import ConvertRequest, RoundingFacts
from quantcli.pipeline.workbench import Workbench, mask_of
from quantcli.progress import Progress
from quantcli.quantize.body_plans import layers_in_bodies
from quantcli.quantize.emit_direct import DirectQdqEmitter
from quantcli.quantize.emit_qoperator import QOperatorEmitter
from quantcli.quantize.plan import Action, Plan
from quantcli.quantize.solve import Solution, solve
from quantcli.quantize.spared import spared_notes, with_spared

EMITTERS = {"qdq": DirectQdqEmitter, "qoperator": QOperatorEmitter}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A quantized model and what it was made of.

    Attributes:
        bench: Graph and statistics.
        plan: All decisions.
        solution: All parameters.
        model: The result.
        facts: How weights were rounded.
        notes: What the user should know of it.
    """

    bench: Workbench
    plan: Plan
    solution: Solution
    model: OnnxModel
    facts: RoundingFacts
    notes: tuple[str, ...] = ()


def carry_out(
    bench: Workbench, plan: Plan, request: ConvertRequest, effort: Effort, method: Method, progress: Progress
) -> Made:
    """Find all parameters of a plan and write the model.

    Raises:
        ModelError: M304, the plan quantizes nothing.
        ConfigError: C103, a plan from a file contradicts itself or the model.
    """
    if not plan.count(Action.QUANTIZE) and plan.choices.whole != "float":
        raise nothing_to_quantize(bench.source, plan)
    with carrying_out(request):
        solution = solve(plan, bench.source.whole, bench.ranges(method))
        facts = RoundingFacts(effort=effort.name, alpha=bench.alpha, scaled=bench.scaled)
        notes = bench.clipping(plan, method)
        inside = layers_in_bodies(plan)
        if bench.samples and inside:
            notes += (
                f"layers in bodies of If, Loop and Scan had their weights rounded to nearest: {len(inside)}",
            )
        if bench.samples and (len(inside) < len(plan.layers) or not inside):
            refined = refine(
                bench.source,
                plan,
                solution,
                bench.samples,
                effort,
                progress,
                masks=mask_of(bench.samples, request.mask),
                max_bytes=request.max_memory,
                threads=request.run.threads,
            )
            solution = refined.solution
            notes += _sweep_notes(refined.sweep, len(bench.samples))
            facts = replace(
                facts,
                samples=refined.sweep.samples,
                peak_bytes=refined.sweep.peak_bytes,
                variants=dict(sorted(Counter(refined.variants.values()).items())),
            )
        plan = with_spared(plan, bench.view, solution)
        notes += spared_notes(plan)
        model = emit(bench.source, plan, solution, request.format)
    return Made(bench=bench, plan=plan, solution=solution, model=model, facts=facts, notes=notes)


def _sweep_notes(found: SweepResult, wanted: int) -> tuple[str, ...]:
    """Samples that had no say, and why."""
    notes = []
    if found.given_up:
        notes.append(
            f"{len(found.given_up)} of {wanted} samples reach far beyond the ranges, and had no say in how "
            "weights were rounded"
        )
    short = wanted - found.samples - len(found.given_up)
    if short:
        notes.append(f"{short} of {wanted} samples were left out to stay below --max-memory")
    return tuple(notes)


def emit(source: FloatModel, plan: Plan, solution: Solution, form: str) -> OnnxModel:
    """The quantized model; ``form`` is a key of ``EMITTERS``."""
    model = source.prepared.clone()
    editor = GraphEditor(model, bodies=True)
    EMITTERS[form](editor, source.whole, plan, solution).emit()
    editor.finish()
    forget_types(model, source.stated)
    return model
