"""``quantcli compare``: judge a quantized model by its float original."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantcli.cli.command import Command, option
from quantcli.cli.kinds import Bytes, file_path
from quantcli.cli.metric_options import METRIC_NAMES, metric_options, metric_request
from quantcli.cli.options import (
    DATA,
    RUNNING,
    data_option,
    data_options,
    force_option,
    json_option,
    refuse_sampling_without_data,
    refuse_without,
    report_option,
    run_options,
    run_settings,
    sampling_options,
)
from quantcli.cli.progress import show_progress
from quantcli.cli.reproduce import command_line
from quantcli.cli.screen import screen_of
from quantcli.cli.settings import global_options, settings_of
from quantcli.cli.verdict_options import (
    VERDICT,
    baseline_options,
    baseline_values,
    exit_code_of,
    tell_undecided,
    undecided_option,
)

if TYPE_CHECKING:
    from quantcli.pipeline.types import CompareRequest

_EPILOG = """\b
Examples:
  quantcli compare model.onnx model.int8.onnx
  quantcli compare model.onnx model.int8.onnx --data eval.npz --labels eval_labels.npy \\
      --gate 'accuracy_drop<=1pp' --gate 'sqnr>=20:warn' --report report.md --report report.json
  quantcli compare model.onnx model.int8.onnx --data eval.npz --baseline released.json \
      --allow-regression 'sqnr=1dB' --undecided fail
"""


@click.command(
    cls=Command, tells_origins=True, epilog=_EPILOG, short_help="Judge a quantized model by its original."
)
@click.argument("original", type=file_path())
@click.argument("quantized", type=file_path())
@data_option(
    "Samples to run both models on; without any, files and weights are compared. Forms as for calibrate. "
    "Repeatable, one for each input."
)
@option(
    "--labels",
    type=file_path(),
    metavar="FILE",
    section=DATA,
    help="True classes of the samples (.npy, .txt, .csv), for accuracy.",
)
@option("--labels-output", metavar="NAME", section=DATA, help="Output that the labels belong to.")
@sampling_options()
@metric_options()
@option(
    "--gate",
    multiple=True,
    metavar="EXPR",
    section=VERDICT,
    help="A condition such as 'sqnr>=25', 'accuracy_drop<=1pp', 'logits.cosine>=0.999:warn'; a failed one "
    "gives exit code 1. Metrics: quantcli explain. Repeatable.",
)
@baseline_options()
@undecided_option()
@option("--exit-zero", is_flag=True, section=VERDICT, help="Exit with 0 although a gate failed.")
@option(
    "--default-gates/--no-default-gates",
    default=True,
    section=VERDICT,
    help="Fail where a layer is suspect ('suspects<=0'), there is a new NaN ('nonfinite<=0'), or noise is more "
    "than a tenth of an output ('sqnr>=10'), as far as no --gate says otherwise of these.  [default: on]",
)
@option(
    "--tensors/--no-tensors",
    default=True,
    section="Tensors",
    help="Look for the layers that the error comes from.  [default: on]",
)
@option(
    "--tensor-samples",
    type=click.IntRange(min=1),
    metavar="N",
    section="Tensors",
    help="At most so many samples for that, evenly spaced.  [default: 32, fewer for large models]",
)
@option(
    "--max-memory",
    type=Bytes(),
    metavar="BYTES",
    section="Tensors",
    help="Memory for the values of a sample, for example 512M; more passes where it is short.  [default: 2G]",
)
@option("--latency", is_flag=True, section=RUNNING, help="Time both models, in turns.")
@option(
    "--repeats",
    type=click.IntRange(min=5),
    default=50,
    show_default=True,
    metavar="N",
    section=RUNNING,
    help="Pairs of timed runs.",
)
@option(
    "--memory",
    is_flag=True,
    section=RUNNING,
    help="Measure the peak memory of both models, each in a process of its own.",
)
@option(
    "--checks/--no-checks",
    default=True,
    section=RUNNING,
    help="With samples: look at integer kernels, at what the runtime's optimizations change, at the shares of "
    "weights and activations in the error, and at CPUs without VNNI. On by default.",
)
@run_options(calibrating=False)
@report_option()
@json_option("Print the report as JSON.")
@force_option()
@global_options
@click.pass_context
def compare(context: click.Context, /, undecided: str, exit_zero: bool, **options: Any) -> int:
    """Compare a quantized model with its float original: size, structure, weights, outputs, accuracy, time.

    Any two ONNX models with the same inputs will do, also those made by other tools.
    """
    settings = settings_of(context)
    request = compare_request(context, **options)
    from quantcli.pipeline.compare import compare as run

    with show_progress(settings) as progress:
        found = run(request, progress)
    screen = screen_of(context)
    if options["json"]:
        from quantcli.report.to_json import to_json

        screen.emit(to_json(found))
    else:
        from quantcli.report.terminal import render_terminal

        render_terminal(found, screen.console, verbose=settings.verbose)
    status = found.verdict.status
    tell_undecided(screen, status, undecided=undecided, exit_zero=exit_zero)
    return exit_code_of(status, undecided=undecided, exit_zero=exit_zero)


def compare_request(
    context: click.Context,
    /,
    original: Path,
    quantized: Path,
    data: tuple[str, ...],
    labels: Path | None,
    labels_output: str | None,
    gate: tuple[str, ...],
    latency: bool,
    repeats: int,
    memory: bool,
    checks: bool,
    tensors: bool,
    tensor_samples: int | None,
    max_memory: int | None,
    default_gates: bool,
    report: tuple[Path, ...],
    force: bool,
    **shared: Any,
) -> CompareRequest:
    """What the options of this command ask for.

    Raises:
        UsageError: U105, an option has no effect without another.
    """
    if not data:
        refuse_sampling_without_data(context)
        refuse_without(context, ("labels", "memory", "tensor_samples", "max_memory", *METRIC_NAMES), "--data")
    if labels is None:
        refuse_without(context, ("labels_output",), "--labels")
    if not latency:
        refuse_without(context, ("repeats",), "--latency")
    from quantcli.pipeline.types import CompareRequest

    return CompareRequest(
        original=original,
        quantized=quantized,
        data=data_options(data, shared),
        labels=labels,
        labels_output=labels_output,
        metrics=metric_request(shared),
        gates=gate,
        **baseline_values(context, shared),
        latency=latency,
        repeats=repeats,
        checks=checks,
        memory=memory,
        tensors=tensors,
        tensor_samples=tensor_samples,
        max_memory=max_memory,
        default_gates=default_gates,
        reports=report,
        run=run_settings(shared),
        overwrite=force,
        command=command_line(settings_of(context).arguments),
    )
