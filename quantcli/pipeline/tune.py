"""Tune: the recipe with the fewest or cheapest tensors in float that passes the gates."""

from __future__ import annotations

import hashlib

from quantcli._version import __version__
from quantcli.calibration.statistics import CalibrationStatistics
from quantcli.config.recipe_file import Value, recipe_text
from quantcli.errors import UsageError
from quantcli.evaluate.gate_syntax import Gate, parse_gate, require_measurable
from quantcli.pipeline.calibrate import collect_statistics
from quantcli.pipeline.evaluation import Evaluation, open_evaluation
from quantcli.pipeline.float_tensors import FloatTensorSearch, steering, with_float_tensors
from quantcli.pipeline.samples import open_samples
from quantcli.pipeline.source import FloatModel, load_float_model
from quantcli.pipeline.tune_state import TuneState
from quantcli.pipeline.tune_types import TuneRequest, TuneResult
from quantcli.pipeline.workbench_nearest import NearestWorkbench, Workbench
from quantcli.pipeline.writing import check_outputs, data_files, write_text
from quantcli.progress import Progress
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.session import runtime_version


def tune(request: TuneRequest, progress: Progress) -> TuneResult:
    """Search, and write the recipe; what was measured is in the state file from the first moment on.

    Raises:
        UsageError: A gate is wrong, asks for what is not given, or none steers the search.
        ConfigError: A selector, method or state file is wrong.
        ModelError, DataError: As ``convert``.
        OutputError: The recipe exists (O101), or cannot be written.
    """
    gates = tuple(parse_gate(text) for text in request.options.gates)
    check_gates(gates)
    output = request.output or request.model.with_suffix(".recipe.toml")
    state_path = request.state or output.with_name(f"{output.name}.state.json")
    inputs = (request.model, request.labels, *data_files(request.data, request.eval_data))
    check_outputs((output,), request.overwrite, inputs=inputs)
    check_outputs((output, state_path), overwrite=True, inputs=inputs)
    source = load_float_model(
        request.model,
        request.recipe.target,
        per_channel=request.recipe.per_channel,
        threads=request.run.threads,
    )
    evaluation = _evaluation(request, source, gates)
    statistics = collect_statistics(source, request.data, request.run, request.recipe.target, progress).statistics
    bench = NearestWorkbench(source, request.recipe, statistics, request.format)
    state = TuneState(state_path, _key(bench, evaluation, request.options.probe_samples))
    samples = open_samples(request.data, source.inputs)
    search = FloatTensorSearch(bench, samples, evaluation, gates, request.options, state, progress)
    found = search.search()
    recipe = with_float_tensors(bench.recipe, sorted(found.tensors))
    write_text(output, recipe_text(recipe_values(recipe, request.format)), overwrite=request.overwrite)
    return TuneResult(
        output=output,
        state=state_path,
        found=found,
        notes=(*source.notes, *_notes(request, state, evaluation, statistics), *found.notes),
    )


def check_gates(gates: tuple[Gate, ...]) -> None:
    """Refuse gates among which none steers the search.

    Raises:
        UsageError: U107.
    """
    if not steering(gates):
        raise UsageError(
            "U107",
            "no gate says what fidelity or accuracy to reach",
            hint="add one such as --gate 'sqnr>=22' or --gate 'accuracy_drop<=0.5pp'",
        )


def recipe_values(recipe: Recipe, form: str) -> dict[str, Value]:
    """A recipe as its file has it."""
    return {
        "target": recipe.target,
        "format": form,
        "method": recipe.method,
        "granularity": "channel" if recipe.per_channel else "tensor",
        "symmetric": recipe.symmetric,
        "include": recipe.include,
        "exclude": (*recipe.excluded_nodes, *recipe.excluded_tensors),
    }


def _evaluation(request: TuneRequest, source: FloatModel, gates: tuple[Gate, ...]) -> Evaluation:
    timed = any(gate.metric == "latency_ratio" for gate in gates) or request.options.minimize == "latency"
    found = open_evaluation(
        source,
        request.eval_data if request.eval_data.specs else request.data,
        request.run,
        labels=request.labels,
        labels_output=request.labels_output,
        timed_pairs=request.options.timed_pairs if timed else 0,
    )
    require_measurable(
        gates,
        data=True,
        labels=found.labels is not None,
        latency=bool(found.timed_pairs),
        synthetic=found.dataset.synthetic,
    )
    return found


def _key(bench: Workbench, evaluation: Evaluation, probe_samples: int) -> str:
    parts = (bench.digest, evaluation.digest, probe_samples, __version__, runtime_version())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _notes(
    request: TuneRequest, state: TuneState, evaluation: Evaluation, statistics: CalibrationStatistics
) -> tuple[str, ...]:
    notes = [*statistics.notes]
    if state.stale:
        notes.append("the state file was of another model, other samples or options: everything was measured anew")
    if not request.eval_data.specs:
        notes.append(
            "gates were held against the calibration samples, which flatters; give others with --eval-data"
        )
    if evaluation.dataset.synthetic:
        notes.append("the samples are made up: the figures say nothing about the model")
    return tuple(notes)
