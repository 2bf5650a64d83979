"""Options that several commands share, and the request values made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from quantcli.cli.command import option
from quantcli.cli.kinds import Provider, ReportFile, Shape
from quantcli.errors import UsageError
from quantcli.ops.targets import DEFAULT_TARGET, TARGETS

if TYPE_CHECKING:
    from quantcli.pipeline.types import DataOptions, RunOptions

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]

DATA = "Data"
IMAGES = "Images and arrays"
RUNNING = "Running"
OUTPUT = "Output"

_IMAGE_NAMES = ("resize", "crop", "scale", "mean", "std", "layout", "channels", "preprocess")

SAMPLING_OPTIONS = ("samples", "shuffle", "seed", "shape", "state", "sequence_length", *_IMAGE_NAMES)
"""Names of the values of ``sampling_options``."""


def stacked(*decorators: Decorator) -> Decorator:
    """The decorators as one; in the help they stand in the order given."""

    def apply(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def data_option(text: str) -> Decorator:
    """``--data``."""
    return option("--data", multiple=True, metavar="SPEC", section=DATA, help=text)


def eval_data_option(text: str) -> Decorator:
    """``--eval-data``; ``text`` says what the samples are for."""
    return option(
        "--eval-data",
        multiple=True,
        metavar="SPEC",
        section=DATA,
        help=f"Other samples, on which {text}. Repeatable, one for each input.",
    )


def sampling_options() -> Decorator:
    """Which samples, and how they become inputs."""
    return stacked(
        option(
            "--samples",
            type=click.IntRange(min=1),
            metavar="N",
            section=DATA,
            help="Take at most so many samples.",
        ),
        option(
            "--shuffle", is_flag=True, section=DATA, help="Take them in a random order, the same for one seed."
        ),
        option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            metavar="N",
            section=DATA,
            help="Seed of --shuffle and of random: data.",
        ),
        option(
            "--shape",
            type=Shape(),
            multiple=True,
            metavar="NAME=1x3x224x224",
            section=DATA,
            help="Shape of an input whose dimensions the model leaves open. Repeatable.",
        ),
        option(
            "--state",
            multiple=True,
            metavar="OUT=IN",
            section=DATA,
            help="Feed output OUT of one sample to input IN of the next: a streaming model. Repeatable.",
        ),
        option(
            "--sequence-length",
            type=click.IntRange(min=1),
            metavar="N",
            section=DATA,
            help="With --state: a new sequence starts after every N samples.  [default: one sequence]",
        ),
        option(
            "--resize", metavar="N|HxW", section=IMAGES, help="Resize images: the shorter side, or height x width."
        ),
        option("--crop", metavar="N|HxW", section=IMAGES, help="Keep the centre of images."),
        option("--scale", metavar="X", section=IMAGES, help="Multiply values first; 1/255 is understood."),
        option("--mean", metavar="X[,X,X]", section=IMAGES, help="Subtract after scaling, once or per channel."),
        option("--std", metavar="X[,X,X]", section=IMAGES, help="Divide at last, once or per channel."),
        option(
            "--layout",
            metavar="nchw|nhwc",
            section=IMAGES,
            help="Of images: what the model takes. Of arrays: what the file holds.",
        ),
        option(
            "--channels", metavar="rgb|bgr|gray", section=IMAGES, help="Order of channels that the model takes."
        ),
        option(
            "--preprocess",
            metavar="imagenet",
            section=IMAGES,
            help="A usual set of the above; single options go before it.",
        ),
    )


def run_options(*, calibrating: bool) -> Decorator:
    """How models are run; providers only where something is calibrated."""
    shared = (
        option(
            "--batch-size",
            type=click.IntRange(min=1),
            metavar="N",
            section=RUNNING,
            help="Samples per run where the model allows batches.  [default: chosen by quantcli]",
        ),
        option(
            "--threads",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            section=RUNNING,
            help="Threads of onnxruntime within an operator.",
        ),
    )
    extra = (
        option(
            "--provider",
            type=Provider(),
            multiple=True,
            metavar="NAME",
            section=RUNNING,
            help="Execution provider for calibration, in order of preference: cpu, cuda, or a full name. "
            "Repeatable.  [default: cpu]",
        ),
    )
    return stacked(*shared, *(extra if calibrating else ()))


def report_option() -> Decorator:
    """``--report``."""
    return option(
        "--report",
        type=ReportFile(),
        multiple=True,
        metavar="FILE",
        section=OUTPUT,
        help="Write the report; .json, .md, .html or .xml (JUnit) says the form. Repeatable.",
    )


def json_option(text: str) -> Decorator:
    """``--json``."""
    return option("--json", is_flag=True, section=OUTPUT, help=text)


def force_option() -> Decorator:
    """``-f``."""
    return option("-f", "--force", is_flag=True, section=OUTPUT, help="Overwrite files that exist.")


def target_option(section: str) -> Decorator:
    """``--target``."""
    return option(
        "--target",
        type=click.Choice(list(TARGETS)),
        default=DEFAULT_TARGET,
        show_default=True,
        section=section,
        help="What will run the quantized model; see: quantcli explain target:NAME.",
    )


def data_options(specs: Sequence[str], shared: Mapping[str, Any]) -> DataOptions:
    """The request's data from the values of ``sampling_options``."""
    from quantcli.pipeline.types import DataOptions

    return DataOptions(
        specs=tuple(specs),
        samples=shared["samples"],
        shuffle=shared["shuffle"],
        seed=shared["seed"],
        shapes=dict(shared["shape"]),
        states=tuple(shared["state"]),
        sequence=shared["sequence_length"],
        image={name: shared[name] for name in _IMAGE_NAMES if shared[name] is not None},
    )


def eval_data_options(specs: Sequence[str], shared: Mapping[str, Any]) -> DataOptions:
    """The same for ``--eval-data``, of which all samples count, in their order."""
    return data_options(specs, {**shared, "samples": None, "shuffle": False})


def run_settings(shared: Mapping[str, Any]) -> RunOptions:
    """The request's way of running from the values of ``run_options``."""
    from quantcli.pipeline.types import RunOptions

    values: dict[str, Any] = {"threads": shared["threads"], "batch_size": shared["batch_size"]}
    if shared.get("provider"):
        values["providers"] = shared["provider"]
    return RunOptions(**values)


def typed(context: click.Context, names: Sequence[str]) -> list[str]:
    """Those options of ``names`` that stand on the command line, as they are written there."""
    flags = {param.name: max(param.opts, key=len) for param in context.command.params}
    return [flags[name] for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]


def typed_names(context: click.Context) -> list[str]:
    """Names of the values of options that stand on the command line."""
    names = (str(param.name) for param in context.command.params)
    return [name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]


def refuse_without(context: click.Context, names: Sequence[str], missing: str) -> None:
    """Refuse options that would have no effect, because ``missing`` is not given.

    Raises:
        UsageError: U105. Values from the environment are meant for many calls, so they are not counted.
    """
    found = typed(context, names)
    if found:
        verb = "has" if len(found) == 1 else "have"
        raise UsageError("U105", f"{', '.join(found)} {verb} no effect without {missing}", hint=f"add {missing}")


def refuse_sampling_without_data(context: click.Context, *, missing: str = "--data") -> None:
    """Refuse options about samples where no samples are given (see ``refuse_without``)."""
    refuse_without(context, SAMPLING_OPTIONS, missing)
