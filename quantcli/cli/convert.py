"""``quantcli convert``: make a quantized model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantcli.algorithms.effort import DEFAULT_EFFORT, EFFORTS
from quantcli.cli.command import Command, option
from quantcli.cli.goals import convert_to_goal, goal_gates, goal_options
from quantcli.cli.kinds import Bytes, file_path
from quantcli.cli.options import (
    DATA,
    OUTPUT,
    RUNNING,
    data_option,
    data_options,
    eval_data_option,
    eval_data_options,
    force_option,
    json_option,
    refuse_sampling_without_data,
    report_option,
    run_options,
    run_settings,
    sampling_options,
    target_option,
    typed,
    typed_names,
)
from quantcli.cli.progress import show_progress
from quantcli.cli.scheme_options import SCHEME_OPTIONS, recipe_of, scheme_of, scheme_options
from quantcli.cli.screen import screen_of
from quantcli.cli.settings import global_options, settings_of
from quantcli.errors import EXIT_GATE_FAILED, EXIT_OK, UsageError
from quantcli.quantize.form import Form

if TYPE_CHECKING:
    from quantcli.pipeline.types import ConvertRequest

_HOW = "How to quantize"

_PLANNING = (
    "target", *SCHEME_OPTIONS, "exclude", "include", "recipe",
)  # fmt: skip


def _methods(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Names of range methods for the shell."""
    from quantcli.calibration.estimators import ESTIMATORS

    return [name for name in ESTIMATORS if name.startswith(incomplete)]


def _use_recipe(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Let the values of a recipe file take the place of the options' defaults."""
    if path is not None:
        from quantcli.config.recipe_file import read_recipe

        context.default_map = {**(context.default_map or {}), **read_recipe(path)}


_EPILOG = """\b
Examples:
  quantcli convert model.onnx --data calib.npz
  quantcli convert model.onnx --calibration model.calib --method percentile:99.99 --exclude 're:head/.*'
  quantcli convert model.onnx --dry-run -v
"""


@click.command(cls=Command, tells_origins=True, epilog=_EPILOG, short_help="Make a quantized model, verified.")
@click.argument("model", type=file_path())
@option(
    "--calibration",
    type=file_path(),
    metavar="FILE",
    section=DATA,
    help="Statistics made by quantcli calibrate. With --data, too, weights are rounded against those samples.",
)
@data_option(
    "Samples to calibrate on: an .npz, .npy, folder, images, FILE.py:FUNCTION or random:N, as "
    "[NAME=]PATH[?option=value&...]. Repeatable, one for each input."
)
@eval_data_option("the summary states the fidelity")
@sampling_options()
@scheme_options(_HOW)
@option(
    "--recipe",
    type=file_path(),
    is_eager=True,
    expose_value=False,
    callback=_use_recipe,
    metavar="FILE",
    section=_HOW,
    help="Options of this section from a file (TOML), such as quantcli tune writes; flags are stronger.",
)
@option(
    "--format",
    type=click.Choice(["qdq", "qoperator"]),
    default="qdq",
    show_default=True,
    section=_HOW,
    help="Float operators between Q/DQ pairs, or integer operators.",
)
@target_option(_HOW)
@option(
    "--effort",
    type=click.Choice(list(EFFORTS)),
    default=DEFAULT_EFFORT,
    show_default=True,
    section=_HOW,
    help="Seconds spent on accuracy: " + "; ".join(f"{e.name}: {e.summary}" for e in EFFORTS.values()) + ".",
)
@option(
    "--method",
    default="capped",
    show_default=True,
    metavar="NAME[:VALUE]",
    section=_HOW,
    help="How ranges follow from statistics; see: quantcli explain.",
    shell_complete=_methods,
)
@option(
    "--exclude",
    multiple=True,
    metavar="SEL",
    section=_HOW,
    help="Leave nodes in float: a name or glob, re:EXPR, or op:TYPE; or tensors: tensor:NAME, "
    "tensor:re:EXPR. Repeatable.",
)
@option("--include", multiple=True, metavar="SEL", section=_HOW, help="Quantize only such nodes. Repeatable.")
@goal_options(_HOW)
@option(
    "--opset", type=click.IntRange(min=1), metavar="N", section=_HOW, help="Raise the model to this ai.onnx opset."
)
@option(
    "--plan",
    type=file_path(),
    metavar="FILE",
    section=_HOW,
    help="Decisions from --plan-out, in place of planning.",
)
@option(
    "--placement",
    type=click.Choice(["measured", "static"]),
    section=_HOW,
    help="Time several placements on this machine and keep the fastest that is not less accurate, or follow the "
    "static rules.  [default: measured on ort-cpu from --effort balanced on]",
)
@option(
    "--float-if-faster",
    is_flag=True,
    section=_HOW,
    help="Leave the model in float where no integer form is faster.",
)
@option(
    "--mask",
    metavar="INPUT",
    section=DATA,
    help="Input that marks padding with 0 (attention_mask): padding then has no say in how weights are rounded.",
)
@run_options(calibrating=True)
@option(
    "--max-memory",
    type=Bytes(),
    default="2G",
    show_default=True,
    metavar="BYTES",
    section=RUNNING,
    help="Activations that rounding may hold at a time, as 500M or 2G; samples are left out to stay below.",
)
@option(
    "-o",
    "--output",
    type=file_path(),
    metavar="OUT",
    section=OUTPUT,
    help="Quantized model.  [default: MODEL.int8.onnx, MODEL.int4.onnx, … after the type of its weights]",
)
@option(
    "--plan-out", type=file_path(), metavar="FILE", section=OUTPUT, help="Write the plan: every decision, as JSON."
)
@option("--dry-run", is_flag=True, section=OUTPUT, help="Plan only: no data are needed, no model is written.")
@report_option()
@json_option("Print the report as JSON; with --dry-run, the plan.")
@force_option()
@global_options
@click.pass_context
def convert(context: click.Context, /, **options: Any) -> int:
    """Quantize a float model: by default 8-bit activations and weights where that pays on the target.

    The result is loaded, run and compared before it appears under its name; the model itself is never
    changed. Nodes that stay in float are listed with the reason.
    """
    request = convert_request(context, **options)
    gates = goal_gates(context, options)
    from quantcli.cli.summary import show_conversion, show_dry_run

    with show_progress(settings_of(context)) as progress:
        if gates:
            result, reached = convert_to_goal(request, gates, options, progress)
        else:
            from quantcli.pipeline.convert_or_rescue import convert_or_rescue

            result, reached = convert_or_rescue(request, progress), True
    screen = screen_of(context)
    for note in result.notes:
        screen.note(note)
    if options["json"]:
        from quantcli.report.to_json import to_json

        screen.emit(result.plan.to_json() if result.report is None else to_json(result.report))
    elif request.dry_run:
        show_dry_run(screen, request, result)
    elif not screen.settings.quiet:
        show_conversion(screen, request, result)
    return EXIT_OK if reached else EXIT_GATE_FAILED


def convert_request(
    context: click.Context,
    /,
    model: Path,
    output: Path | None,
    calibration: Path | None,
    data: tuple[str, ...],
    eval_data: tuple[str, ...],
    opset: int | None,
    plan: Path | None,
    plan_out: Path | None,
    dry_run: bool,
    report: tuple[Path, ...],
    force: bool,
    **shared: Any,
) -> ConvertRequest:
    """What the options of this command ask for.

    Raises:
        UsageError: U101, U102 or U105: something is missing, not available, or has no effect.
    """
    written = typed_names(context)
    scheme = scheme_of({**shared, "opset": opset}, typed=written, calibration=calibration is not None)
    _check_sources(context, scheme.form, calibration, data, eval_data, dry_run)
    if plan is not None:
        _refuse_planning(context)
    from quantcli.pipeline.types import ConvertRequest

    return ConvertRequest(
        model=model,
        output=output,
        calibration=calibration,
        data=data_options(data, shared),
        eval_data=eval_data_options(eval_data, shared),
        recipe=recipe_of(scheme, shared),
        format=shared["format"],
        effort=shared["effort"],
        placement=shared["placement"] or "",
        float_if_faster=shared["float_if_faster"],
        mask=shared["mask"],
        max_memory=shared["max_memory"],
        opset=opset,
        plan=plan,
        plan_out=plan_out,
        reports=report,
        dry_run=dry_run,
        run=run_settings(shared),
        overwrite=force,
    )


def _check_sources(
    context: click.Context,
    form: Form,
    /,
    calibration: Path | None,
    data: tuple[str, ...],
    eval_data: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Static quantization has a source of ranges, unless nothing is to be computed; no option without effect."""
    planned = context.params["plan"] is not None  # the plan says which form it is of
    if form is Form.STATIC and not (dry_run or data or planned or calibration is not None):
        raise UsageError(
            "U101",
            "there is nothing to calibrate with: ranges of activations come from samples",
            hint=f"add --data calib.npz (samples), or --calibration FILE, made by: quantcli calibrate "
            f"{context.params['model']} --data calib.npz",
        )
    if not (data or eval_data):
        refuse_sampling_without_data(context)


def _refuse_planning(context: click.Context) -> None:
    found = typed(context, _PLANNING)
    if found:
        verb = "has" if len(found) == 1 else "have"
        raise UsageError(
            "U105",
            f"--plan takes the place of planning, so {', '.join(found)} {verb} no effect",
            hint="leave --plan out, or make it again with --dry-run --plan-out",
        )


def conversion_without_files(
    model: Path, data: tuple[str, ...], eval_data: tuple[str, ...], shared: dict[str, Any]
) -> ConvertRequest:
    """The conversion that other commands make in order to measure it, from the options that they share with it.

    Raises:
        UsageError: U102 or U105, as ``scheme_of``; or the form is not static, which these commands measure.
    """
    from quantcli.pipeline.types import ConvertRequest

    recipe = recipe_of(scheme_of(shared), shared)
    if recipe.form is not Form.STATIC:
        raise UsageError(
            "U105",
            f"the form '{recipe.form}' has no ranges of activations, which this command measures",
            hint="leave the option for it out, or use convert and compare",
        )
    return ConvertRequest(
        model=model,
        calibration=shared.get("calibration"),
        data=data_options(data, shared),
        eval_data=eval_data_options(eval_data, shared),
        recipe=recipe,
        format=shared["format"],
        opset=shared["opset"],
        run=run_settings(shared),
        effort=shared["effort"],
        placement=shared["placement"] or "",
        mask=shared["mask"],
        max_memory=shared["max_memory"],
    )
