"""From a configuration to the work on its models: the commands' own options and parsers make the requests.

Nothing about an option is said twice: a section gives the defaults of a command's context, what ``run`` decides
(samples, outputs) stands on a command line made here, and the command says what request that is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from quantcli.cli.calibrate import calibrate_request
from quantcli.cli.compare import compare_request
from quantcli.cli.convert import convert_request
from quantcli.cli.failures import failure_of
from quantcli.cli.goals import goal_gates
from quantcli.cli.options import SAMPLING_OPTIONS
from quantcli.cli.origins import GIVEN, origin_lines, value_text
from quantcli.cli.scheme_options import form_of
from quantcli.cli.sections import FILE_PART, PER_CALL, configured, defaults_of, install, is_file
from quantcli.cli.settings import Settings
from quantcli.config.load import Config, Setting
from quantcli.config.models import ModelSettings
from quantcli.config.problems import raise_problems
from quantcli.errors import ConfigError, QuantcliError, UsageError
from quantcli.quantize.form import Form

if TYPE_CHECKING:
    from quantcli.pipeline.run_types import Job, Step

BY_RUN = "default of run"
"""Origin of what neither the user nor a command has said."""

_WITHOUT_EFFECT = frozenset({
    "files", "model", "original", "quantized", "calibration", "data", "eval_data", "labels", "output", "plan",
    "plan_out", "report", "dry_run", "merge", "exit_zero", "json", "force", "undecided",
})  # fmt: skip
"""Values that are in a step's record in another form, or do not change its result."""

_SPEED = frozenset({"threads", "batch_size"})
"""Values that change neither statistics nor a quantized model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """A job, and where the values of its steps come from: a line each."""

    job: Job
    origins: tuple[str, ...]


def make_jobs(config: Config, models: Iterable[ModelSettings], settings: Settings) -> list[PlannedJob]:
    """The work on all models.

    Raises:
        ConfigError, UsageError: What ``make_job`` refuses; C210, where that are several things.
    """
    jobs: list[PlannedJob] = []
    problems: dict[tuple[str, str], QuantcliError] = {}
    for model in models:
        try:
            jobs.append(make_job(config, model, settings))
        except (QuantcliError, click.UsageError) as error:
            problem = error if isinstance(error, QuantcliError) else _of_click(error, model)
            problems.setdefault((problem.code, problem.message), problem)
    raise_problems(list(problems.values()), config.path.name)
    return jobs


def _of_click(error: click.UsageError, model: ModelSettings) -> UsageError:
    failure = failure_of(error)
    return UsageError(failure.code, f"model '{model.name}': {failure.message}", hint=failure.hint)


def make_job(config: Config, model: ModelSettings, settings: Settings) -> PlannedJob:
    """The work on one model.

    Raises:
        ConfigError: C204, it has no samples to calibrate on; C106 to C108, its recipe is wrong.
        UsageError: What a command refuses; a gate is wrong.
    """
    given = model.layer.keys.keys()
    contexts = _contexts(config, model, settings)
    static = _form(contexts["convert"]) is Form.STATIC
    if static and not {"data", "calibration"} & given:
        raise ConfigError(
            "C204",
            f"{model.layer.place}: '{model.path}' has no samples to calibrate on",
            hint='add data = "calib.npz", or calibration = "FILE" with statistics that are there',
        )
    from quantcli.pipeline.run import check_job_request
    from quantcli.pipeline.run_types import Job, Step

    steps = {step: contexts[step.value] for step in Step}
    parameters = {step: context.params for step, context in steps.items()}
    request = convert_request(steps[Step.CONVERT], **parameters[Step.CONVERT])
    judged = {
        name: value for name, value in parameters[Step.COMPARE].items() if name not in ("exit_zero", "undecided")
    }
    merged = {name: value for name, value in parameters[Step.CALIBRATE].items() if name != "merge"}
    undecided = parameters[Step.COMPARE].get("undecided") == "fail"
    goal = goal_gates(steps[Step.CONVERT], parameters[Step.CONVERT])
    compare = compare_request(steps[Step.COMPARE], **judged)
    compare = replace(compare, gates=_with_goal(compare.gates, goal))
    options = {step: _options(step, parameters[step]) for step in Step}
    options[Step.COMPARE]["gate"] = value_text(compare.gates)
    job = Job(
        name=model.name,
        calibrate=calibrate_request(**merged) if static and "data" in given else None,
        convert=request,
        compare=compare,
        goal=goal,
        options=options,
        files={step: tuple(_files(context)) for step, context in steps.items()},
        failing=("fail", "undecided") if undecided else ("fail",),
    )
    try:
        check_job_request(job)
    except QuantcliError as error:
        message = f"{_place(error, model)}: {error.message}"
        raise type(error)(error.code, message, hint=error.hint) from error
    origins = tuple(f"{step}: {line}" for step, context in steps.items() for line in origin_lines(context))
    return PlannedJob(job=job, origins=origins)


def _with_goal(gates: Sequence[str], goal: Sequence[str]) -> tuple[str, ...]:
    """The gates, and those of a target whose metric none of them judges: what convert aims at, compare holds."""
    judged = {_metric_of(gate) for gate in gates}
    return (*gates, *(gate for gate in goal if _metric_of(gate) not in judged))


def _metric_of(gate: str) -> str:
    return re.split("[<>=]", gate, maxsplit=1)[0].strip()


def _place(error: QuantcliError, model: ModelSettings) -> str:
    """Where a wrong gate is written; for anything else, the model."""
    gates = [
        gate for gate in model.layer.gates.values() if any(f"'{text}'" in error.message for text in _listed(gate))
    ]
    return gates[0].origin if gates else f"model '{model.name}'"


def _contexts(config: Config, model: ModelSettings, settings: Settings) -> dict[str, click.Context]:
    """A parsed context for each step."""
    stated = {name: defaults_of(name, model.layer, Path()) for name in ("calibrate", "convert", "compare")}
    rounding = model.layer.sections.get("convert", {})
    for key in model.layer.sections.get("calibrate", {}):
        name = key.replace("-", "_")
        if name in SAMPLING_OPTIONS and key not in rounding:  # against the samples that are calibrated on
            stated["convert"][name] = stated["calibrate"][name]
    if "target" in stated["convert"]:
        stated["calibrate"].setdefault("target", stated["convert"]["target"])
    own = Settings(
        arguments=("run", "--config", config.path.name, "--only", model.name),
        verbose=settings.verbose,
        quiet=settings.quiet,
        no_color=settings.no_color,
    )
    judged = {"target_sqnr", "target_drop"} & stated["convert"].keys() != set()
    bare = _parsed("convert", ["--", str(model.path)], stated["convert"], own)
    if _form(bare) is Form.STATIC:
        stated["convert"].setdefault("placement", Setting(value="static", origin=BY_RUN))
    found = {}
    for name, arguments in _command_lines(model, judged=judged, static=_form(bare) is Form.STATIC).items():
        context = _parsed(name, arguments, stated[name], own)
        context.meta[GIVEN] = {
            str(param.name): _origin(model, name, str(param.name)) for param in context.command.params
        }
        found[name] = context
    return found


def _form(context: click.Context) -> Form:
    """The form that the options of convert ask for; static where they contradict each other, told later."""
    try:
        return form_of(context.params)
    except UsageError:
        return Form.STATIC


def _command_lines(model: ModelSettings, *, judged: bool, static: bool) -> dict[str, list[str]]:
    """What stands on the command line of each step: all that a section cannot say.

    With ``judged``, convert has a target, which is held against the samples of evaluation and their labels. Only
    static quantization reads a calibration.
    """
    path, calibration, output = str(model.path), str(model.calibration), str(model.output)
    data = _repeated("--data", _texts(model, "data"))
    labels = [
        *_repeated("--labels", _texts(model, "labels")),
        *_repeated("--labels-output", _texts(model, "labels-output")),
    ]
    truth = [*_repeated("--eval-data", _texts(model, "eval-data")), *labels]
    return {
        "calibrate": [*data, "-o", calibration, "-f", "--", path],
        "convert": [
            *data,
            *(truth if judged else []),
            *(["--calibration", calibration] if static else []),
            *("-o", output, "--plan-out", str(model.plan), "-f", "--", path),
        ],
        "compare": [
            *_repeated("--data", _texts(model, "eval-data")),
            *labels,
            *_repeated("--gate", model.layer.expressions),
            *_repeated("--report", [str(path) for path in model.reports]),
            *("-f", "--", path, output),
        ],
    }


def _origin(model: ModelSettings, step: str, name: str) -> str:
    """Where the configuration says what stands on a command line."""
    if name == "gate":
        return ", ".join(dict.fromkeys(gate.origin for gate in model.layer.gates.values()))
    key = {
        "files": "path", "model": "path", "original": "path", "quantized": "output", "plan_out": "plan",
        "report": "reports", "data": "eval-data" if step == "compare" else "data",
        "output": "calibration" if step == "calibrate" else "output",
    }.get(name, name.replace("_", "-"))  # fmt: skip
    return model.layer.keys[key].origin if key in model.layer.keys else BY_RUN


def _parsed(
    name: str, arguments: Sequence[str], defaults: Mapping[str, Setting], settings: Settings
) -> click.Context:
    """The context of a command for such a command line; flags > environment > file > default, as ever.

    Variables about a single call, such as QUANTCLI_CONVERT_REPORT, say nothing of the models of a run.
    """
    context = _context(name, arguments, defaults, settings, f"QUANTCLI_{name.upper()}")
    bare = _context(name, arguments, defaults, settings, None)
    for label in PER_CALL & context.params.keys():
        if context.get_parameter_source(label) is ParameterSource.ENVIRONMENT:
            context.params[label] = bare.params[label]
            context.set_parameter_source(label, ParameterSource.DEFAULT)
    return context


def _context(
    name: str, arguments: Sequence[str], defaults: Mapping[str, Setting], settings: Settings, variables: str | None
) -> click.Context:
    command = configured()[name]
    context = click.Context(
        command,
        info_name=f"quantcli {name}",
        auto_envvar_prefix=variables,
        help_option_names=["-h", "--help"],  # click keeps the first that it makes with the command
        obj=settings,
    )
    install(context, defaults)
    with context.scope(cleanup=False):
        command.parse_args(context, list(arguments))
    return context


def _texts(model: ModelSettings, key: str) -> tuple[str, ...]:
    setting = model.layer.keys.get(key)
    return () if setting is None else _listed(setting)


def _listed(setting: Setting) -> tuple[str, ...]:
    return setting.value if isinstance(setting.value, tuple) else (str(setting.value),)


def _repeated(flag: str, values: Sequence[str]) -> list[str]:
    return [f"{flag}={value}" for value in values]


def _options(step: Step, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Names and values of options that decide the result of a step; without folders, which do not."""
    left_out = _WITHOUT_EFFECT if step.value == "compare" else _WITHOUT_EFFECT | _SPEED
    return {
        name.replace("_", "-"): value.name if isinstance(value, Path) else value_text(value)
        for name, value in parameters.items()
        if name not in left_out
    }


def _files(context: click.Context) -> Iterator[Path]:
    """Files that options name, also within a text ("FILE.py:FUNCTION", "segmentation?truth=maps.npy").

    Those that have a part of their own in a record are left out.
    """
    own = _WITHOUT_EFFECT - {"labels"}
    for param in context.command.params:
        value = context.params.get(str(param.name))
        if param.name in own or value is None:
            continue
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Path):
                yield item
            elif isinstance(item, str):
                yield from (Path(part) for part in FILE_PART.findall(item) if is_file(Path(), part))
