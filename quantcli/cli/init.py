"""``quantcli init``: a configuration from the flags that calibrate, convert and compare would be given."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from quantcli.cli.command import Command, option
from quantcli.cli.compare import compare
from quantcli.cli.convert import convert
from quantcli.cli.kinds import ReportFile, file_path
from quantcli.cli.options import DATA, OUTPUT, SAMPLING_OPTIONS, data_option, eval_data_option, force_option
from quantcli.cli.screen import screen_of
from quantcli.cli.sections import PER_CALL, SAMPLING, sections
from quantcli.cli.settings import global_options
from quantcli.config.load import CONFIG_NAME
from quantcli.config.schema import Value
from quantcli.errors import UsageError

_CALIBRATING = ("samples", "shuffle")
"""Values that choose samples to calibrate on; those to evaluate on are all meant."""

_EPILOG = """\b
Examples:
  quantcli init model.onnx --data calib.npz --eval-data eval.npz --gate 'sqnr>=25'
  quantcli init 'models/*.onnx' --data 'calib/{name}.npz' --eval-data 'eval/{name}.npz' --method minmax \\
      --gate 'top1_agreement>=99%' --report 'reports/{name}.md' -o release/quantcli.toml
"""


def _options() -> Iterator[click.Parameter]:
    """The options of convert and compare that a section can hold, each name once."""
    seen = set(PER_CALL)
    for param in (*convert.params, *compare.params):
        if isinstance(param, click.Option) and param.name not in seen:
            seen.add(str(param.name))
            yield param


@click.command(cls=Command, epilog=_EPILOG, short_help="Write a configuration for run.", params=list(_options()))
@click.argument("models", metavar="MODEL...", nargs=-1)
@data_option("Samples to calibrate on. Forms as for convert; {name} stands for the model's. Repeatable.")
@eval_data_option("the quantized model is judged")
@option("--labels", metavar="FILE", section=DATA, help="True classes of those samples (.npy, .txt, .csv).")
@option("--labels-output", metavar="NAME", section=DATA, help="Output that the labels belong to.")
@option(
    "--gate",
    multiple=True,
    metavar="EXPR",
    section="Verdict",
    help="A condition such as 'sqnr>=25' or 'accuracy_drop<=1pp:warn'. Repeatable.",
)
@option(
    "--report",
    type=ReportFile(),
    multiple=True,
    metavar="FILE",
    section=OUTPUT,
    help="A report of every model, such as 'reports/{name}.md'. Repeatable.",
)
@option(
    "-o",
    "--output",
    type=file_path(),
    default=CONFIG_NAME,
    show_default=True,
    metavar="FILE",
    section=OUTPUT,
    help="The configuration; names of files are written as they are from its folder.",
)
@force_option()
@global_options
@click.pass_context
def init(
    context: click.Context,
    /,
    models: tuple[str, ...],
    data: tuple[str, ...],
    eval_data: tuple[str, ...],
    labels: str | None,
    labels_output: str | None,
    gate: tuple[str, ...],
    report: tuple[Path, ...],
    output: Path,
    force: bool,
    **options: Any,
) -> None:
    """Write a configuration that quantcli run follows, from flags of calibrate, convert and compare.

    Only flags that are given are written; every key stands under a sentence that says what it does.
    """
    if not models:
        raise UsageError("U100", "missing argument 'MODEL'", hint="see: quantcli init --help")
    if not data:
        raise UsageError(
            "U101", "there are no samples to calibrate with", hint="add --data, for example: --data calib.npz"
        )
    from quantcli.config.write import config_text
    from quantcli.evaluate.gate_syntax import parse_gate
    from quantcli.pipeline.writing import write_text

    for text in gate:
        parse_gate(text)
    folder = output.parent
    shared: dict[str, Value | None] = {
        "data": tuple(_spec(text, folder) for text in data),
        "eval-data": tuple(_spec(text, folder) for text in eval_data) or None,
        "labels": None if labels is None else _from(Path(labels), folder),
        "labels-output": labels_output,
        "reports": tuple(_from(path, folder) for path in report) or None,
    }
    entries = [
        {"path": _from(Path(model), folder), **{key: value for key, value in shared.items() if value is not None}}
        for model in models
    ]
    text = config_text(_stated(context, options, folder), gate, entries, sections())
    write_text(output, text, overwrite=force)
    screen = screen_of(context)
    if not screen.settings.quiet:
        screen.line((str(output), "bold"))
        screen.fact("next", "quantcli run" + ("" if output == Path(CONFIG_NAME) else f" --config {output}"))


def _stated(context: click.Context, options: Mapping[str, Any], folder: Path) -> dict[str, dict[str, Value]]:
    """Flags by section and key. What calibrate and convert share about a target, run makes the same by itself."""
    found: dict[str, dict[str, Value]] = {}
    for name, value in options.items():
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        key = name.replace("_", "-")
        if name in SAMPLING_OPTIONS:
            places = ["calibrate" if name in _CALIBRATING else SAMPLING]
        else:
            known = [section.name for section in sections() if any(row.name == key for row in section.keys)]
            places = [place for place in known if place in ("calibrate", "convert", "compare")]
            places = ["convert"] if name == "target" else places
        for place in places:
            found.setdefault(place, {})[key] = _value(value, folder)
    return found


def _value(value: Any, folder: Path) -> Value:
    """The value as it may stand in the file."""
    if isinstance(value, tuple):
        return tuple(_shape(item) if isinstance(item, tuple) else str(_value(item, folder)) for item in value)
    if isinstance(value, Path):
        return _from(value, folder)
    assert isinstance(value, str | bool | int | float)
    return value


def _shape(value: tuple[str, tuple[int, ...]]) -> str:
    name, dims = value
    return f"{name}={'x'.join(map(str, dims))}"


def _from(path: Path, folder: Path) -> str:
    """The path as seen from the folder of the configuration."""
    if path.is_absolute() or folder == Path():
        return path.as_posix()
    return Path(os.path.relpath(path, folder)).as_posix()


def _spec(text: str, folder: Path) -> str:
    """A data specification as seen from there."""
    from quantcli.data.spec import parse_data_spec

    spec = parse_data_spec(text)
    begin = 0 if spec.name is None else len(spec.name) + 1
    before, target, after = text[:begin], spec.target, text[begin + len(spec.target) :]
    if spec.kind == "random" or (spec.kind == "function" and ".py:" not in target):
        return text
    file, colon, function = target.rpartition(":") if spec.kind == "function" else (target, "", "")
    return f"{before}{_from(Path(file), folder)}{colon}{function}{after}"
