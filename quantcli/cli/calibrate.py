"""``quantcli calibrate``: observe the float model on samples."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantcli.cli.command import Command, option
from quantcli.cli.kinds import file_path
from quantcli.cli.options import (
    DATA,
    OUTPUT,
    data_option,
    data_options,
    force_option,
    json_option,
    refuse_sampling_without_data,
    refuse_without,
    run_options,
    run_settings,
    sampling_options,
    target_option,
)
from quantcli.cli.progress import duration, pace, show_progress
from quantcli.cli.screen import Screen, screen_of
from quantcli.cli.settings import global_options, settings_of
from quantcli.errors import UsageError

if TYPE_CHECKING:
    from quantcli.pipeline.types import CalibrateRequest, CalibrateResult

_EPILOG = """\b
Examples:
  quantcli calibrate model.onnx --data calib.npz
  quantcli calibrate model.onnx --data photos/ --preprocess imagenet --samples 300
  quantcli calibrate --merge part1.calib part2.calib -o model.calib
"""


@click.command(cls=Command, tells_origins=True, epilog=_EPILOG, short_help="Observe the float model on samples.")
@click.argument("files", metavar="MODEL", nargs=-1, type=file_path())
@data_option(
    "Samples: an .npz, .npy, folder, images, FILE.py:FUNCTION or random:N, as [NAME=]PATH[?option=value&...]. "
    "Repeatable, one for each input."
)
@sampling_options()
@option(
    "--ignore-nonfinite",
    is_flag=True,
    section=DATA,
    help="Leave NaN and Inf out of the statistics instead of failing on them.",
)
@target_option("Running")
@run_options(calibrating=True)
@option(
    "-o", "--output", type=file_path(), metavar="FILE", section=OUTPUT, help="Statistics.  [default: MODEL.calib]"
)
@option(
    "--merge",
    is_flag=True,
    section=OUTPUT,
    help="Join statistics files of one model, made on different samples: the arguments are those files.",
)
@json_option("Print what was done as JSON.")
@force_option()
@global_options
@click.pass_context
def calibrate(context: click.Context, /, merge: bool, **options: Any) -> None:
    """Run the float model on samples and write what its tensors look like.

    The statistics do not depend on a range method: that is chosen by convert, so one calibration serves them
    all. The file belongs to this model and is refused for any other.
    """
    files: tuple[Path, ...] = options["files"]
    if merge:
        result = _merge(context, files, options["data"], options["output"], options["force"])
    else:
        request = calibrate_request(**options)
        from quantcli.pipeline.calibrate import calibrate as run

        with show_progress(settings_of(context)) as progress:
            result = run(request, progress)
    screen = screen_of(context)
    for note in result.notes:
        screen.note(note)
    if options["json"]:
        screen.emit(as_text(result))
    elif not screen.settings.quiet:
        _show(screen, result, None if merge else files[0])


def calibrate_request(
    *,
    files: tuple[Path, ...],
    data: tuple[str, ...],
    ignore_nonfinite: bool,
    target: str,
    output: Path | None,
    force: bool,
    **shared: Any,
) -> CalibrateRequest:
    """What the options of this command ask for.

    Raises:
        UsageError: U100 or U101, there is no model, or there are no samples.
    """
    model = _one_model(files)
    if not data:
        raise UsageError(
            "U101",
            "there are no samples to calibrate with",
            hint="add --data, for example: --data calib.npz",
        )
    from quantcli.pipeline.types import CalibrateRequest

    return CalibrateRequest(
        model=model,
        output=output,
        data=data_options(data, shared),
        run=run_settings(shared),
        target=target,
        overwrite=force,
        ignore_nonfinite=ignore_nonfinite,
    )


def as_text(result: CalibrateResult) -> str:
    """The result as JSON."""
    statistics = result.statistics
    convergence = statistics.convergence
    fields = {
        "output": result.output.name,
        "model_digest": statistics.model_digest,
        "data_fingerprint": statistics.data_fingerprint,
        "samples": statistics.samples,
        "synthetic": statistics.synthetic,
        "tensors": len(statistics.tensors),
        "seconds": round(result.seconds, 3),
        "convergence": {
            "verdict": str(convergence.verdict),
            "samples": convergence.samples,
            "compared": convergence.compared,
            "moved": convergence.moved,
            "worst": [{"tensor": name, "moved": moved} for name, moved in convergence.worst],
        },
        "notes": list(result.notes),
    }
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def _merge(
    context: click.Context, files: tuple[Path, ...], data: tuple[str, ...], output: Path | None, force: bool
) -> CalibrateResult:
    if data:
        raise UsageError("U105", "--merge joins statistics files and takes no --data", hint="leave --data out")
    refuse_sampling_without_data(context)
    refuse_without(context, ("ignore_nonfinite",), "--data")
    if len(files) < 2 or output is None:
        raise UsageError(
            "U101",
            "--merge needs at least two statistics files and a name for the result",
            hint="write: quantcli calibrate --merge A.calib B.calib -o ALL.calib",
        )
    from quantcli.pipeline.calibrate import merge

    return merge(files, output, force)


def _one_model(files: tuple[Path, ...]) -> Path:
    if not files:
        raise UsageError("U100", "missing argument 'MODEL'", hint="see: quantcli calibrate --help")
    if len(files) > 1:
        listed = ", ".join(f"'{path}'" for path in files[:3])
        raise UsageError(
            "U100",
            f"one model at a time is calibrated, but {len(files)} files are given: {listed}",
            hint="samples go behind --data; statistics files are joined with --merge",
        )
    return files[0]


def _show(screen: Screen, result: CalibrateResult, model: Path | None) -> None:
    statistics = result.statistics
    took = result.seconds
    speed = f" in {duration(took)} ({pace(statistics.samples / took)})" if took else ""
    screen.line((str(result.output), "bold"))
    screen.fact("observed", f"{len(statistics.tensors)} tensors on {statistics.samples} samples{speed}")
    if statistics.synthetic:
        screen.fact("data", "SYNTHETIC: made-up samples; the ranges say nothing about real inputs")
    convergence = statistics.convergence
    screen.fact("ranges", convergence.sentence())
    if convergence.worst and (screen.settings.verbose or str(convergence.verdict) == "moving"):
        screen.fact("", "most: " + ", ".join(f"'{name}' {moved:.1%}" for name, moved in convergence.worst))
    name = shlex.quote(str(model)) if model is not None else "MODEL"
    screen.fact("next", f"quantcli convert {name} --calibration {shlex.quote(str(result.output))}")
