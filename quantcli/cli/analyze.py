"""``quantcli analyze``: which layer makes the error, why, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from quantcli.cli.command import Command, option
from quantcli.cli.convert import conversion_without_files, convert
from quantcli.cli.kinds import file_path
from quantcli.cli.options import (
    OUTPUT,
    RUNNING,
    data_option,
    eval_data_option,
    force_option,
    json_option,
    report_option,
    run_options,
    sampling_options,
)
from quantcli.cli.progress import show_progress
from quantcli.cli.reproduce import command_line
from quantcli.cli.screen import screen_of
from quantcli.cli.settings import global_options, settings_of
from quantcli.errors import EXIT_OK, UsageError

_AS_IN_CONVERT = (
    "calibration", "recipe", "format", "target", "effort", "method", "granularity", "symmetric", "exclude",
    "include", "opset", "bits", "weight_bits", "activation_bits", "weight_symmetric", "pow2_scales", "contrib_qdq",
    "placement", "mask", "max_memory",
)  # fmt: skip

_EPILOG = """\b
Examples:
  quantcli analyze model.onnx --data calib.npz --eval-data eval.npz
  quantcli analyze model.onnx --data calib.npz --target-sqnr 30 --report why.md -o model.toml
"""


@click.command(
    cls=Command,
    tells_origins=True,
    epilog=_EPILOG,
    short_help="Find the layers that make the error.",
    params=[param for param in convert.params if param.name in _AS_IN_CONVERT],
)
@click.argument("model", type=file_path())
@data_option("Samples to calibrate on. Forms as for convert. Repeatable, one for each input.")
@eval_data_option("errors are measured")
@option(
    "--probe-samples",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    section=RUNNING,
    help="Samples of --eval-data on which errors are measured, at most.",
)
@option("--no-latency", is_flag=True, section=RUNNING, help="Do not time nodes: lines of the block have no time.")
@option(
    "--target-sqnr",
    type=float,
    metavar="DB",
    section=OUTPUT,
    help="SQNR that the exclude block is to reach.  [default: the lines that gain 0.2 dB or more, five at most]",
)
@option(
    "--top",
    type=click.IntRange(min=1),
    default=12,
    show_default=True,
    metavar="N",
    section=OUTPUT,
    help="Layers that are shown; -v shows all.",
)
@sampling_options()
@run_options(calibrating=True)
@option(
    "-o",
    "--output",
    type=file_path(),
    metavar="RECIPE",
    section=OUTPUT,
    help="Write the options with the exclude block as a recipe for convert --recipe.",
)
@report_option()
@json_option("Print the analysis as JSON.")
@force_option()
@global_options
@click.pass_context
def analyze(
    context: click.Context,
    /,
    model: Path,
    data: tuple[str, ...],
    eval_data: tuple[str, ...],
    probe_samples: int,
    no_latency: bool,
    target_sqnr: float | None,
    top: int,
    output: Path | None,
    report: tuple[Path, ...],
    force: bool,
    **shared: Any,
) -> int:
    """Rank the layers by what their quantization adds to the error of the outputs, and say why and what to do.

    The model is converted as convert does it with the same options, and nothing of it is kept. The errors of all
    layers come from one walk forwards and backwards for each sample; some predictions are checked by real runs.
    """
    if not data:
        raise UsageError("U101", "there are no samples to analyze on", hint="add --data calib.npz")
    from quantcli.pipeline.analyze import analyze as run
    from quantcli.pipeline.analyze_types import AnalyzeOptions, AnalyzeRequest

    settings = settings_of(context)
    request = AnalyzeRequest(
        conversion=conversion_without_files(model, data, eval_data, shared),
        options=AnalyzeOptions(probe_samples=probe_samples, target_sqnr=target_sqnr, latency=not no_latency),
        output=output,
        reports=report,
        command=command_line(settings.arguments),
        overwrite=force,
    )
    with show_progress(settings) as progress:
        found = run(request, progress)
    screen = screen_of(context)
    if shared["json"]:
        from quantcli.report.to_json import analysis_to_json

        screen.emit(analysis_to_json(found))
    else:
        from quantcli.report.analysis_terminal import render_analysis_terminal

        render_analysis_terminal(found, screen.console, verbose=settings.verbose, top=top)
    return EXIT_OK
