"""Convert: plan, ranges, parameters, edits, verification, file, report."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from quantcli._version import __version__
from quantcli.algorithms.effort import EFFORTS
from quantcli.calibration.estimators import parse_method
from quantcli.calibration.file_format import encode
from quantcli.calibration.trial import made_up
from quantcli.errors import UsageError
from quantcli.graph.metadata import provenance, set_provenance
from quantcli.graph.model_io import model_size, save_model
from quantcli.pipeline.already_quantized import already_notes
from quantcli.pipeline.carry_out import EMITTERS, Made, carry_out
from quantcli.pipeline.contest import best_of
from quantcli.pipeline.forms import Outcome, maker_of
from quantcli.pipeline.legal import scheme_of, target_notes
from quantcli.pipeline.placed import measured_placement, prepared_for, with_choices
from quantcli.pipeline.placement_verdict import PlacementVerdict
from quantcli.pipeline.reporting import check_report_forms, convert_report, write_reports
from quantcli.pipeline.samples import check_mask, open_samples
from quantcli.pipeline.saved_plan import plan_of, read_plan
from quantcli.pipeline.source import FloatModel, load_float_model, runnable
from quantcli.pipeline.types import ConvertRequest, ConvertResult, DataOptions
from quantcli.pipeline.verify import verify
from quantcli.pipeline.workbench import equalized, open_workbench, stored_statistics
from quantcli.pipeline.write_large import write_large
from quantcli.pipeline.writing import check_outputs, data_files, write_text
from quantcli.progress import Progress
from quantcli.quantize.form import Form
from quantcli.quantize.legality import check_scheme
from quantcli.quantize.plan import Plan
from quantcli.quantize.planner import make_plan
from quantcli.quantize.solve import Solution
from quantcli.quantize.widths import opset_need, opset_need_of, possible_recipe
from quantcli.runtime.kernel_report import KernelReport

QUICK_SAMPLES = 8
"""Calibration samples on which fidelity is shown when no others are given."""


def convert(request: ConvertRequest, progress: Progress) -> ConvertResult:
    """Quantize a model.

    Raises:
        UsageError: U201, neither calibration nor data are given.
        ConfigError: A selector, plan or method is wrong.
        ModelError: The model is unreadable, unsupported, or nothing in it can be quantized (M304).
        DataError, StaleCalibrationError: Samples or statistics do not fit.
        OutputError: A file exists (O101), or the result does not hold (O301).
    """
    output = request.output or request.model.with_name(f"{request.model.stem}.{request.recipe.label}.onnx")
    _check_request(request, output)
    parse_method(request.recipe.method)  # so that a wrong one is told before any work
    saved = None if request.plan is None else read_plan(request.plan)
    if saved is not None:
        request = replace(request, recipe=replace(request.recipe, target=saved.target))
    form = request.recipe.form if saved is None else saved.form
    if form is not Form.STATIC:
        return _convert_otherwise(request, form, saved, output, progress)
    _require_ranges(request)
    source = load_float_model(
        request.model,
        request.recipe.target,
        opset=request.opset,
        need=opset_need(request.recipe) if saved is None else opset_need_of(saved),
        threads=request.run.threads,
        choices=request.recipe.choices if saved is None else saved.choices,
    )
    stated = replace(request, recipe=possible_recipe(request.recipe, source.view.opset))
    request = stated if saved is None else with_choices(stated, saved.choices)
    check_mask(request.mask, source.inputs)
    if request.dry_run:
        plan = make_plan(source.whole, request.recipe) if saved is None else plan_of(request, saved, source.whole)
        _write_plan(request, plan)
        notes = (*source.notes, *already_notes(plan), *plan.remarks)
        return ConvertResult(plan=plan, source_bytes=source.bytes, notes=notes)
    if request.eval_data.specs:
        # So that what does not fit is told before any work.
        open_samples(request.eval_data, source.inputs, source.path)
    made, verdict = _make(request, saved, source, progress)
    return _finish(stated, _outcome(made), verdict, output, progress)


def _convert_otherwise(
    request: ConvertRequest, form: Form, saved: Plan | None, output: Path, progress: Progress
) -> ConvertResult:
    """A conversion by a form other than the static one."""
    maker = maker_of(form)
    if request.dry_run:
        source, plan = maker.plan(request)
        _write_plan(request, plan)
        notes = (*source.notes, *already_notes(plan))
        return ConvertResult(plan=plan, source_bytes=source.bytes, notes=notes)
    return _finish(request, maker.make(request, saved, progress), None, output, progress)


def _outcome(made: Made) -> Outcome:
    """What a static conversion made."""
    statistics = made.bench.statistics
    return Outcome(
        source=made.bench.source,
        plan=made.plan,
        model=made.model,
        sample=made_up(statistics.inputs),
        facts=made.facts,
        digests=statistics.sample_digests,
        provenance={
            "calibration_sha256": hashlib.sha256(encode(statistics)).hexdigest(),
            "data_fingerprint": statistics.data_fingerprint,
            "data_samples": str(statistics.samples),
            "data_synthetic": str(statistics.synthetic).lower(),
        },
        notes=(*made.bench.notes, *made.notes, *_solution_notes(made.solution), *statistics.notes),
    )


def _make(
    request: ConvertRequest, saved: Plan | None, source: FloatModel, progress: Progress
) -> tuple[Made, PlacementVerdict | None]:
    """The model in memory, by a plan from a file or by one that is made here."""
    effort, method = EFFORTS[request.effort], parse_method(request.recipe.method)
    statistics = stored_statistics(request, source)
    if saved is not None:
        bench = open_workbench(request, source, statistics, effort.samples, progress)
        bench = equalized(bench, request, saved.equalization, progress)
        if saved.nearest:
            bench = replace(bench, samples=())
        return carry_out(
            bench, plan_of(request, saved, bench.source.whole), request, effort, method, progress
        ), None
    verdict = measured_placement(request, source, statistics, progress)
    if verdict is not None:
        request = with_choices(request, verdict.float_choices if request.float_if_faster else verdict.choices)
        source = prepared_for(request, source, verdict.choices)
    bench = open_workbench(request, source, statistics, effort.samples, progress)
    return best_of(bench, request, effort, method, progress), verdict


def _finish(
    request: ConvertRequest, made: Outcome, verdict: PlacementVerdict | None, output: Path, progress: Progress
) -> ConvertResult:
    """Verify the model and write it, its plan and its reports."""
    source, plan = made.source, made.plan
    _stamp(made, request)
    kernels: KernelReport | None
    if source.large:
        kernels, files = write_large(made, output, threads=request.run.threads, overwrite=request.overwrite)
    else:
        with runnable(made.model) as loadable:
            kernels = verify(loadable, source, plan, made.sample, threads=request.run.threads)
        files = save_model(made.model, output, overwrite=request.overwrite)
    _write_plan(request, plan)
    data, fidelity_on = _quick_data(request)
    report = convert_report(request, source, output, plan, kernels, data, made.digests, progress)
    told = made.notes
    if plan.form is Form.WEIGHT_ONLY:  # what its kernels do with activations belongs into the report
        report, told = replace(report, notes=(*report.notes, *told)), ()
    written = write_reports(report, request.reports, overwrite=request.overwrite)
    placed = () if verdict is None else verdict.sentences(float_wanted=request.float_if_faster)
    return ConvertResult(
        plan=plan,
        output=output,
        files=(*files, *written),
        source_bytes=source.bytes,
        output_bytes=model_size(output),
        kernels=kernels,
        fidelity={found.name: found.sqnr for found in report.outputs if found.sqnr is not None},
        fidelity_on=fidelity_on if report.data is not None else "",
        report=report,
        rounding=made.facts,
        placement=verdict,
        notes=(*report.notes, *already_notes(plan), *target_notes(plan), *placed, *told),
    )


def _require_ranges(request: ConvertRequest) -> None:
    """Refuse a static conversion that has nothing to take ranges from."""
    if not (request.dry_run or request.calibration is not None or request.data.specs):
        raise UsageError(
            "U201",
            "static quantization needs ranges: give a calibration file or samples",
            hint="add --calibration MODEL.calib, or --data SPEC",
        )


def _check_request(request: ConvertRequest, output: Path) -> None:
    """Everything that can be refused before any work."""
    if request.format not in EMITTERS:
        raise UsageError("U202", f"there is no format '{request.format}'", hint="formats: qdq, qoperator")
    check_scheme(scheme_of(request))
    check_report_forms(request.reports)
    if request.dry_run and (request.output is not None or request.reports or request.calibration is not None):
        raise UsageError(
            "U105",
            "a dry run only plans: it reads no calibration, and writes no model and no report",
            hint="keep --plan-out, or leave --dry-run out",
        )
    inputs = (request.model, request.calibration, request.plan, *data_files(request.data, request.eval_data))
    outputs = (request.plan_out,) if request.dry_run else (output, request.plan_out, *request.reports)
    check_outputs(outputs, request.overwrite, inputs=inputs)


# Plan ---------------------------------------------------------------------------------------------------


def _write_plan(request: ConvertRequest, plan: Plan) -> None:
    if request.plan_out is not None:
        write_text(request.plan_out, plan.to_json(), overwrite=request.overwrite)


# Result -------------------------------------------------------------------------------------------------


def _stamp(made: Outcome, request: ConvertRequest) -> None:
    """Provenance: what the result was made of. No time, host or path, so that the bytes depend on nothing else."""
    config = {
        "recipe": asdict(request.recipe),
        "format": request.format,
        "effort": request.effort,
        "mask": request.mask,
        "opset": request.opset,
        "plan": hashlib.sha256(made.plan.to_json().encode()).hexdigest(),
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()
    set_provenance(
        made.model.metadata,
        {
            **provenance(made.model.metadata),
            "version": __version__,
            "source_sha256": made.source.digest,
            "config_sha256": digest,
            **made.provenance,
            "method": request.recipe.method,
            "target": made.plan.target,
            "form": made.plan.form.value,
            "format": request.format,
        },
    )


def _quick_data(request: ConvertRequest) -> tuple[DataOptions | None, str]:
    """Samples on which fidelity is shown, and what to call them."""
    if request.eval_data.specs:
        return request.eval_data, "the evaluation samples"
    if request.data.specs:
        few = min(request.data.samples or QUICK_SAMPLES, QUICK_SAMPLES)
        told = f"{few} calibration samples (optimistic: the ranges were chosen on them)"
        return replace(request.data, samples=few), told
    return None, ""


def _solution_notes(solution: Solution) -> tuple[str, ...]:
    widened = {node: layer.widened for node, layer in solution.layers.items() if layer.widened}
    notes = []
    if widened:
        notes.append(
            f"{sum(widened.values())} channels of {len(widened)} layers have a wider weight scale, because their "
            f"bias would overflow int32 (first: '{next(iter(widened))}')"
        )
    if solution.kept:
        notes.append(
            f"{len(solution.kept)} Relu or Clip nodes stay, because the quantized range does not prove them "
            f"redundant (first: '{solution.kept[0]}')"
        )
    return tuple(notes)
