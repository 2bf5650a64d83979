"""Convert: plan, ranges, parameters, edits, verification, file, report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from quantcli._version import __version__
from quantcli.calibration.estimators import Method, estimate, parse_method
from quantcli.calibration.file_format import encode, load_statistics
from quantcli.calibration.statistics import CalibrationStatistics, check_model
from quantcli.calibration.trial import made_up
from quantcli.core.spec import QuantSpec
from quantcli.errors import ConfigError, UsageError
from quantcli.graph.edit import GraphEditor
from quantcli.graph.metadata import provenance, set_provenance
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import model_size, save_model
from quantcli.graph.shapes import forget_types
from quantcli.graph.view import GraphView
from quantcli.ops.spec import Trait
from quantcli.ops.table import lookup
from quantcli.pipeline.calibrate import collect_statistics
from quantcli.pipeline.reporting import check_report_forms, convert_report, write_reports
from quantcli.pipeline.samples import open_samples
from quantcli.pipeline.source import PER_CHANNEL_OPSET, FloatModel, load_float_model, nothing_to_quantize, runnable
from quantcli.pipeline.types import ConvertRequest, ConvertResult, DataOptions
from quantcli.pipeline.verify import verify
from quantcli.pipeline.writing import check_outputs, data_files, write_text
from quantcli.progress import Progress
from quantcli.quantize.emit_qdq import QdqEmitter
from quantcli.quantize.emit_qoperator import QOperatorEmitter
from quantcli.quantize.plan import Action, Plan, plan_from_json
from quantcli.quantize.planner import make_plan
from quantcli.quantize.recipe import Recipe
from quantcli.quantize.solve import RangeOf, Solution, solve

_EMITTERS = {"qdq": QdqEmitter, "qoperator": QOperatorEmitter}

QUICK_SAMPLES = 8
"""Calibration samples on which fidelity is shown when no others are given."""


def convert(request: ConvertRequest, progress: Progress) -> ConvertResult:
    """Quantize a model.

    Raises:
        UsageError: U201, neither calibration nor data are given, or both.
        ConfigError: A selector, plan or method is wrong.
        ModelError: The model is unreadable, unsupported, or nothing in it can be quantized (M304).
        DataError, StaleCalibrationError: Samples or statistics do not fit.
        OutputError: A file exists (O101), or the result does not hold (O301).
    """
    output = request.output or request.model.with_name(f"{request.model.stem}.int8.onnx")
    _check_request(request, output)
    method = parse_method(request.recipe.method)
    source = load_float_model(
        request.model,
        request.recipe.target,
        opset=request.opset,
        per_channel=request.recipe.per_channel,
        threads=request.run.threads,
    )
    recipe = _possible(request.recipe, source)
    if request.dry_run:
        plan = _plan(source, recipe, None) if request.plan is None else _saved_plan(request.plan, source.view)
        _write_plan(request, plan)
        return ConvertResult(plan=plan, source_bytes=source.bytes, notes=source.notes)
    saved = None if request.plan is None else _saved_plan(request.plan, source.view)
    if request.eval_data.specs:
        open_samples(request.eval_data, source.inputs)  # so that what does not fit is told before any work
    statistics = _statistics(request, source, progress)
    plan = saved or _plan(source, recipe, statistics)
    if not plan.count(Action.QUANTIZE):
        raise nothing_to_quantize(source, plan)
    ranges = _ranges(source.view, statistics, method)
    if saved is None:
        solution, model = _carry_out(source, plan, ranges, request.format)
    else:
        solution, model = _carry_out_saved(request, source, plan, ranges)
    _stamp(model, source, statistics, request, plan)
    with runnable(model) as loadable:
        kernels = verify(loadable, source, plan, made_up(statistics.inputs), threads=request.run.threads)
    files = save_model(model, output, overwrite=request.overwrite)
    _write_plan(request, plan)
    data, fidelity_on = _quick_data(request)
    report = convert_report(request, source, output, plan, kernels, data, statistics.sample_digests, progress)
    written = write_reports(report, request.reports, overwrite=request.overwrite)
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
        notes=(*report.notes, *_solution_notes(solution), *statistics.notes),
    )


def _check_request(request: ConvertRequest, output: Path) -> None:
    """Everything that can be refused before any work."""
    if request.format not in _EMITTERS:
        raise UsageError("U202", f"there is no format '{request.format}'", hint="formats: qdq, qoperator")
    check_report_forms(request.reports)
    if request.dry_run:
        if request.output is not None or request.reports or request.calibration is not None:
            raise UsageError(
                "U105",
                "a dry run only plans: it reads no calibration, and writes no model and no report",
                hint="keep --plan-out, or leave --dry-run out",
            )
    else:
        if request.calibration is None and not request.data.specs:
            raise UsageError(
                "U201",
                "static quantization needs ranges: give a calibration file or samples",
                hint="add --calibration MODEL.calib, or --data SPEC",
            )
        if request.calibration is not None and request.data.specs:
            raise UsageError(
                "U201", "both a calibration file and samples are given", hint="leave one of the two out"
            )
    inputs = (request.model, request.calibration, request.plan, *data_files(request.data, request.eval_data))
    outputs = (request.plan_out,) if request.dry_run else (output, request.plan_out, *request.reports)
    check_outputs(outputs, request.overwrite, inputs=inputs)


def _possible(recipe: Recipe, source: FloatModel) -> Recipe:
    """The recipe, with per-tensor weights where the opset has no others."""
    if source.view.opset >= PER_CHANNEL_OPSET or not recipe.per_channel:
        return recipe
    return replace(recipe, per_channel=False)


# Plan ---------------------------------------------------------------------------------------------------


def _plan(source: FloatModel, recipe: Recipe, statistics: CalibrationStatistics | None) -> Plan:
    if statistics is None:
        return make_plan(source.view, recipe)
    usable = _usable(statistics)
    return make_plan(source.view, recipe, lambda name: _statistics_name(source.view, name, usable) is not None)


def _carry_out(source: FloatModel, plan: Plan, ranges: RangeOf, form: str) -> tuple[Solution, OnnxModel]:
    solution = solve(plan, source.view, ranges)
    return solution, _emit(source, plan, solution, form)


def _carry_out_saved(
    request: ConvertRequest, source: FloatModel, plan: Plan, ranges: RangeOf
) -> tuple[Solution, OnnxModel]:
    """Carry out a plan from a file, which a hand may have changed.

    Raises:
        ConfigError: C103, its parts contradict each other or the model.
    """
    try:
        return _carry_out(source, plan, ranges, request.format)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        name = request.plan.name if request.plan is not None else ""
        raise ConfigError(
            "C103",
            f"plan '{name}' contradicts itself or the model: {error}",
            hint="make it again with: quantcli convert MODEL --dry-run --plan-out FILE",
        ) from error


def _saved_plan(path: Path, view: GraphView) -> Plan:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            "C103", f"plan '{path.name}' cannot be read: {error.strerror or error}", hint="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("C103", f"plan '{path.name}' is no text", hint="name a file of --plan-out") from error
    plan = plan_from_json(text)
    names, planned = {node.name for node in view.nodes}, {node.name for node in plan.nodes}
    missing = sorted(planned ^ names)
    if missing:
        raise ConfigError(
            "C104",
            f"plan '{path.name}' is of another model: node '{missing[0]}' is not in both",
            hint="make it again with: quantcli convert MODEL --dry-run --plan-out FILE",
        )
    return plan


def _write_plan(request: ConvertRequest, plan: Plan) -> None:
    if request.plan_out is not None:
        write_text(request.plan_out, plan.to_json(), overwrite=request.overwrite)


# Ranges -------------------------------------------------------------------------------------------------


def _statistics(request: ConvertRequest, source: FloatModel, progress: Progress) -> CalibrationStatistics:
    if request.calibration is None:
        return collect_statistics(source, request.data, request.run, request.recipe.target, progress).statistics
    statistics = load_statistics(request.calibration)
    check_model(statistics, source.digest)
    return statistics


def _usable(statistics: CalibrationStatistics) -> Mapping[str, object]:
    broken = set(statistics.unusable)
    return {name: stats for name, stats in statistics.tensors.items() if name not in broken and stats.count > 0}


def _statistics_name(view: GraphView, name: str, known: Mapping[str, object]) -> str | None:
    """``name``, or the value that it was moved from: moving widens no range."""
    while name not in known:
        maker = view.producer(name)
        row = None if maker is None else lookup(maker.domain, maker.op_type)
        if maker is None or row is None or row.trait is not Trait.PASSTHROUGH:
            return None
        name = maker.inputs[0]
    return name


def _ranges(view: GraphView, statistics: CalibrationStatistics, method: Method) -> RangeOf:
    usable = _usable(statistics)

    def range_of(name: str, spec: QuantSpec) -> tuple[float, float]:
        found = _statistics_name(view, name, usable)
        if found is None:
            raise ConfigError(
                "C105",
                f"the plan quantizes '{name}', but the calibration has no statistics of it",
                hint="calibrate for the same target, or leave --plan out",
            )
        result = estimate(statistics.tensors[found], spec, method)
        return result.min, result.max

    return range_of


# Result -------------------------------------------------------------------------------------------------


def _emit(source: FloatModel, plan: Plan, solution: Solution, form: str) -> OnnxModel:
    model = source.prepared.clone()
    editor = GraphEditor(model)
    _EMITTERS[form](editor, source.view, plan, solution).emit()
    editor.finish()
    forget_types(model, source.stated)
    return model


def _stamp(
    model: OnnxModel,
    source: FloatModel,
    statistics: CalibrationStatistics,
    request: ConvertRequest,
    plan: Plan,
) -> None:
    """Provenance: what the result was made of. No time, host or path, so that the bytes depend on nothing else."""
    config = {
        "recipe": asdict(request.recipe),
        "format": request.format,
        "opset": request.opset,
        "plan": hashlib.sha256(plan.to_json().encode()).hexdigest(),
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()
    set_provenance(
        model.metadata,
        {
            **provenance(model.metadata),
            "version": __version__,
            "source_sha256": source.digest,
            "config_sha256": digest,
            "calibration_sha256": hashlib.sha256(encode(statistics)).hexdigest(),
            "data_fingerprint": statistics.data_fingerprint,
            "data_samples": str(statistics.samples),
            "data_synthetic": str(statistics.synthetic).lower(),
            "method": request.recipe.method,
            "target": plan.target,
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
