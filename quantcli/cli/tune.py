"""``quantcli tune``: find the tensors to leave in float, and write the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from quantcli.cli.command import Command, option
from quantcli.cli.convert import conversion_without_files, convert
from quantcli.cli.kinds import file_path
from quantcli.cli.options import (
    DATA,
    OUTPUT,
    RUNNING,
    data_option,
    eval_data_option,
    force_option,
    json_option,
    refuse_without,
    run_options,
    sampling_options,
)
from quantcli.cli.progress import show_progress
from quantcli.cli.screen import screen_of
from quantcli.cli.settings import global_options, settings_of
from quantcli.errors import EXIT_GATE_FAILED, EXIT_OK, UsageError

_AS_IN_CONVERT = (
    "recipe", "format", "target", "effort", "method", "granularity", "symmetric", "exclude", "include", "opset",
    "bits", "weight_bits", "activation_bits", "weight_symmetric", "pow2_scales", "contrib_qdq", "placement",
    "mask", "max_memory",
)  # fmt: skip

_GOAL = "Goal"

_EPILOG = """\b
Examples:
  quantcli tune model.onnx --data calib.npz --eval-data eval.npz --gate 'sqnr>=22'
  quantcli tune model.onnx --data calib.npz --eval-data eval.npz --labels eval_labels.npy \\
      --gate 'accuracy_drop<=0.5pp' --gate 'latency_ratio<=0.8' -o model.toml
"""


@click.command(
    cls=Command,
    tells_origins=True,
    epilog=_EPILOG,
    short_help="Find what to leave in float.",
    params=[param for param in convert.params if param.name in _AS_IN_CONVERT],
)
@click.argument("model", type=file_path())
@option(
    "--gate",
    multiple=True,
    metavar="EXPR",
    section=_GOAL,
    help="A condition to reach, such as 'sqnr>=22', 'top1_agreement>=99%' or 'accuracy_drop<=0.5pp'. Those on "
    "size, time or counts only judge the result. Metrics: quantcli explain. Repeatable.",
)
@option(
    "--minimize",
    type=click.Choice(["latency", "layers"]),
    default="latency",
    show_default=True,
    section=_GOAL,
    help="What a tensor in float costs: the time of the layers that it makes float, or their number.",
)
@option("--exit-zero", is_flag=True, section=_GOAL, help="Exit with 0 although a gate failed.")
@data_option("Samples to calibrate on. Forms as for convert. Repeatable, one for each input.")
@eval_data_option("noise is measured and gates are judged")
@option(
    "--labels",
    type=file_path(),
    metavar="FILE",
    section=DATA,
    help="True classes of the samples that gates are judged on (.npy, .txt, .csv), for accuracy.",
)
@option("--labels-output", metavar="NAME", section=DATA, help="Output that the labels belong to.")
@option(
    "--probe-samples",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    metavar="N",
    section=RUNNING,
    help="Samples of --eval-data on which the noise of every tensor is measured.",
)
@sampling_options()
@run_options(calibrating=True)
@option(
    "-o",
    "--output",
    type=file_path(),
    metavar="RECIPE",
    section=OUTPUT,
    help="Recipe for convert --recipe.  [default: MODEL.recipe.toml]",
)
@option(
    "--state-file",
    type=file_path(),
    metavar="FILE",
    section=OUTPUT,
    help="What was measured, so that an interrupted search goes on.  [default: RECIPE.state.json]",
)
@json_option("Print everything that was found as JSON.")
@force_option()
@global_options
@click.pass_context
def tune(
    context: click.Context,
    /,
    model: Path,
    gate: tuple[str, ...],
    exit_zero: bool,
    data: tuple[str, ...],
    eval_data: tuple[str, ...],
    labels: Path | None,
    labels_output: str | None,
    output: Path | None,
    state_file: Path | None,
    force: bool,
    **shared: Any,
) -> int:
    """Find the tensors to leave in float so that the quantized model passes the gates, at the least cost.

    The noise of every tensor is measured at the outputs, an order follows from it and from the times of the
    layers, and real conversions along that order decide. The result is a recipe file.
    """
    if not gate:
        raise UsageError("U101", "there is nothing to reach", hint="add a gate, such as --gate 'sqnr>=22'")
    if not data:
        raise UsageError("U101", "there are no samples to calibrate on", hint="add --data calib.npz")
    if labels is None:
        refuse_without(context, ("labels_output",), "--labels")
    from quantcli.cli.tune_view import show_tuning, tuning_json
    from quantcli.pipeline.tune import tune as run
    from quantcli.pipeline.tune_types import TuneOptions, TuneRequest

    settings = settings_of(context)
    request = TuneRequest(
        conversion=conversion_without_files(model, data, eval_data, shared),
        options=TuneOptions(gates=gate, minimize=shared["minimize"], probe_samples=shared["probe_samples"]),
        labels=labels,
        labels_output=labels_output,
        output=output,
        state=state_file,
        overwrite=force,
    )
    with show_progress(settings) as progress:
        result = run(request, progress)
    screen = screen_of(context)
    for note in result.notes:
        screen.note(note)
    if shared["json"]:
        screen.emit(tuning_json(result))
    elif not settings.quiet:
        show_tuning(screen, request.conversion, result)
    return EXIT_OK if result.found.reached or exit_zero else EXIT_GATE_FAILED
