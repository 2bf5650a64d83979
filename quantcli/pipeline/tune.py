"""Tune: the recipe with the fewest or cheapest tensors in float that passes the gates."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

from quantcli._version import __version__
from quantcli.algorithms.effort import EFFORTS
from quantcli.config.recipe_file import recipe_text
from quantcli.config.schema import Value
from quantcli.data.fingerprint import Fingerprint
from quantcli.errors import UsageError
from quantcli.evaluate.gate_list import parse_gates
from quantcli.evaluate.gate_syntax import Gate, require_measurable
from quantcli.pipeline.convert import convert
from quantcli.pipeline.evaluation import Evaluation, open_evaluation
from quantcli.pipeline.float_tensors import FloatTensorSearch, steering
from quantcli.pipeline.placed import measured_placement, prepared_for, with_choices
from quantcli.pipeline.real_runs import with_float_tensors
from quantcli.pipeline.samples import open_samples
from quantcli.pipeline.source import FloatModel, load_for_recipe
from quantcli.pipeline.tune_state import TuneState
from quantcli.pipeline.tune_types import Fallback, TuneRequest, TuneResult
from quantcli.pipeline.tuning_bench import TuningBench
from quantcli.pipeline.types import ConvertRequest, ConvertResult
from quantcli.pipeline.workbench import open_workbench, stored_statistics
from quantcli.pipeline.writing import check_outputs, data_files, write_text
from quantcli.progress import Progress
from quantcli.quantize.widths import possible_recipe
from quantcli.runtime.session import runtime_version


def tune(request: TuneRequest, progress: Progress) -> TuneResult:
    """Search, and write the recipe; what was measured is in the state file from the first moment on.

    Raises:
        UsageError: A gate is wrong, asks for what is not given, or none steers the search.
        ConfigError: A selector, method or state file is wrong.
        ModelError, DataError: As ``convert``.
        OutputError: The recipe exists (O101), or cannot be written.
    """
    asked = request.conversion
    output = request.output or asked.model.with_suffix(".recipe.toml")
    state_path = request.state or output.with_name(f"{output.name}.state.json")
    inputs = (asked.model, asked.calibration, request.labels, *data_files(asked.data, asked.eval_data))
    check_outputs((output,), request.overwrite, inputs=inputs)
    check_outputs((output, state_path), overwrite=True, inputs=inputs)
    bench, found, notes = search(request, state_path, progress)
    recipe = with_float_tensors(bench.recipe, found.tensors)
    text = recipe_text(recipe_values(replace(asked, recipe=recipe)))
    write_text(output, text, overwrite=request.overwrite)
    return TuneResult(
        output=output, state=state_path, found=found, notes=(*bench.source.notes, *notes, *found.notes)
    )


def convert_to_target(request: TuneRequest, progress: Progress) -> tuple[ConvertResult, Fallback]:
    """Search, and convert with what was found, in one go; the state is kept only where a file is named.

    Raises:
        As ``tune`` and ``convert``.
    """
    asked = request.conversion
    output = asked.output or asked.model.with_name(f"{asked.model.stem}.int8.onnx")
    inputs = (asked.model, asked.calibration, request.labels, *data_files(asked.data, asked.eval_data))
    check_outputs((output, *asked.reports, asked.plan_out), asked.overwrite, inputs=inputs)
    bench, found, notes = search(request, request.state, progress)
    recipe = with_float_tensors(bench.recipe, found.tensors)
    result = convert(replace(asked, recipe=recipe, placement="static"), progress)  # as it was found
    return replace(result, notes=(*told(found), *notes, *found.notes, *result.notes)), found


def told(found: Fallback) -> tuple[str, ...]:
    """What a conversion says of its search."""
    names = ", ".join(f"'{name}'" for name in found.tensors)
    left = f"{len(found.tensors)} tensors are left in float for the target: {names}"
    failed = [gate.sentence for gate in found.gates if gate.status in ("fail", "not-measured")]
    missed = [f"the target was not reached: {sentence}" for sentence in failed]
    return (*([left] if names else []), *missed)


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


def recipe_values(request: ConvertRequest) -> dict[str, Value]:
    """What a recipe file says of a conversion."""
    recipe = request.recipe
    integers = recipe.weight_dtype.format is None and recipe.activation_dtype.format is None
    values: dict[str, Value | None] = {
        "target": recipe.target,
        "format": request.format,
        "opset": request.opset,
        "effort": request.effort,
        "placement": request.placement or None,
        "bits": None if integers else "fp8",
        "weight-bits": recipe.weight_dtype.bits if integers else None,
        "activation-bits": recipe.activation_dtype.bits if integers else None,
        "mask": request.mask,
        "method": recipe.method,
        "granularity": "channel" if recipe.per_channel else "tensor",
        "symmetric": recipe.symmetric,
        "weight-symmetric": None if recipe.weight_symmetric else False,
        "pow2-scales": recipe.pow2_scales or None,
        "contrib-qdq": recipe.contrib_qdq or None,
        "include": recipe.include,
        "exclude": (*recipe.excluded_nodes, *recipe.excluded_tensors),
    }
    return {key: value for key, value in values.items() if value is not None}


def search(
    request: TuneRequest, state_path: Path | None, progress: Progress
) -> tuple[TuningBench, Fallback, tuple[str, ...]]:
    """The bench that was searched on, what was found, and what the user should know.

    Raises:
        As ``tune``.
    """
    gates = parse_gates(request.options.gates)
    check_gates(gates)
    asked = request.conversion
    source = load_for_recipe(asked.model, asked.recipe, opset=asked.opset, threads=asked.run.threads)
    asked = replace(asked, recipe=possible_recipe(asked.recipe, source.view.opset))
    timed = any(gate.metric == "latency_ratio" for gate in gates) or request.options.minimize == "latency"
    evaluation = open_evaluation(
        source,
        asked.eval_data if asked.eval_data.specs else asked.data,
        asked.run,
        labels=request.labels,
        labels_output=request.labels_output,
        timed_pairs=request.options.timed_pairs if timed else 0,
        gates=gates,
    )
    _check_measurable(gates, evaluation)
    state = TuneState(state_path, _key(asked, source, evaluation, request.options.probe_samples))
    bench = open_bench(asked, source, state, progress)
    found = FloatTensorSearch(bench, evaluation, gates, request.options, state, progress).search()
    return bench, found, _notes(asked, state, evaluation, bench.bench.statistics.notes)


def open_bench(request: ConvertRequest, source: FloatModel, state: TuneState, progress: Progress) -> TuningBench:
    """The bench for a request, placed as the state remembers, or as measuring says now."""
    statistics = stored_statistics(request, source)
    if state.choices is None:
        verdict = measured_placement(request, source, statistics, progress)
        state.keep_choices(request.recipe.choices if verdict is None else verdict.choices)
    assert state.choices is not None
    placed = with_choices(request, state.choices)
    prepared = prepared_for(placed, source, state.choices)
    samples = EFFORTS[request.effort].samples
    return TuningBench(request=placed, bench=open_workbench(placed, prepared, statistics, samples, progress))


def _check_measurable(gates: tuple[Gate, ...], evaluation: Evaluation) -> None:
    require_measurable(
        gates,
        data=True,
        labels=evaluation.labels is not None,
        latency=bool(evaluation.timed_pairs),
        synthetic=evaluation.dataset.synthetic,
    )


def _key(request: ConvertRequest, source: FloatModel, evaluation: Evaluation, probe_samples: int) -> str:
    """Digest of all that measurements depend on, but for placement, which is measured itself."""
    data = Fingerprint()
    for sample in open_samples(request.data, source.inputs, source.path):
        data.update(sample)
    calibration = b"" if request.calibration is None else request.calibration.read_bytes()
    options = (request.format, request.opset, request.effort, request.placement, request.mask, request.max_memory)
    versions = (__version__, runtime_version())
    parts = (
        source.digest,
        data.hexdigest(),
        hashlib.sha256(calibration).hexdigest(),
        asdict(request.recipe),
        options,
    )
    return hashlib.sha256(repr((parts, evaluation.digest, probe_samples, versions)).encode()).hexdigest()


def _notes(
    request: ConvertRequest, state: TuneState, evaluation: Evaluation, more: tuple[str, ...]
) -> tuple[str, ...]:
    notes = [*more]
    if state.stale:
        notes.append("the state file was of another model, other samples or options: everything was measured anew")
    if not request.eval_data.specs:
        notes.append(
            "gates were held against the calibration samples, which flatters; give others with --eval-data"
        )
    if evaluation.dataset.synthetic:
        notes.append("the samples are made up: the figures say nothing about the model")
    return tuple(notes)
