"""The entry point: ``quantcli COMMAND …``. The only module that exits."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

from quantcli.cli.analyze import analyze
from quantcli.cli.calibrate import calibrate
from quantcli.cli.command import Face
from quantcli.cli.compare import compare
from quantcli.cli.convert import convert
from quantcli.cli.explain import explain
from quantcli.cli.failures import EXIT_SIGPIPE, Terminated, failure_of, tell
from quantcli.cli.init import init
from quantcli.cli.inspect import inspect
from quantcli.cli.report import report
from quantcli.cli.run import run as run_command
from quantcli.cli.screen import flush_output
from quantcli.cli.settings import Settings, global_options
from quantcli.cli.tune import tune
from quantcli.cli.versions import show_versions
from quantcli.errors import EXIT_OK, OutputError

PROGRAM = "quantcli"


def run(command: click.Command, arguments: Sequence[str]) -> int:
    """Run the command line.

    Returns:
        The exit code; what went wrong was told on standard error.
    """
    settings = Settings(arguments=tuple(arguments))
    try:
        with command.make_context(PROGRAM, list(arguments), obj=settings) as context:
            result = command.invoke(context)
        flush_output()
        return result if isinstance(result, int) else EXIT_OK
    except BaseException as error:  # noqa: BLE001  # the one place where everything ends in an exit code
        failure = failure_of(error)
        tell(failure, error, settings)
        return _flushed(failure.exit_code)


def _flushed(exit_code: int) -> int:
    """The exit code, once standard output is written; a failure to write it cannot hide another one."""
    try:
        flush_output()
    except (OSError, OutputError) as error:
        return exit_code or failure_of(error).exit_code
    return exit_code


def run_and_exit(command: click.Command, arguments: Sequence[str]) -> NoReturn:
    """Run the command line and leave with its exit code."""
    sys.exit(run(command, arguments))


@click.group(
    cls=Face,
    runner=run_and_exit,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "QUANTCLI",
        "max_content_width": 100,
    },
    no_args_is_help=False,
    epilog="Every option can be given in the environment: QUANTCLI_<COMMAND>_<OPTION>. "
    "Exit codes: 0 done, 1 a gate failed, 2 usage, 3 input, 4 run time or output, 70 a bug.",
)
@global_options
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    allow_from_autoenv=False,  # QUANTCLI_VERSION is a name that pipelines give to a version, not to a flag
    callback=show_versions,
    help="The versions of quantcli and of what it stands on.",
)
def cli() -> None:
    """Quantize float ONNX models to 8-bit integers, verify the result, and say why each node is where it is."""


for _command in (calibrate, convert, compare, analyze, tune, run_command, init, report, inspect, explain):
    cli.add_command(_command)


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    _complete()
    with _signals_as_exceptions():
        exit_code = run(cli, sys.argv[1:])
    if exit_code == EXIT_SIGPIPE:
        _discard_output()
    sys.exit(exit_code)


def _open_missing_streams() -> None:
    """Give closed standard streams to the null device.

    Otherwise the next file that is opened, a model perhaps, would get number 1 or 2, and whatever a library
    writes to standard output or standard error would end in it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _discard_output() -> None:
    """Let the interpreter's last flush go nowhere instead of complaining about the closed pipe."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _complete() -> None:
    """Answer the shell where it asks for completions."""
    instruction = os.environ.get("_QUANTCLI_COMPLETE")
    if instruction:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(cli, {}, PROGRAM, "_QUANTCLI_COMPLETE", instruction))


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Make termination an exception, so that every ``with`` and ``finally`` tidies up; then as before."""
    before = {}

    def terminate(number: int, _: FrameType | None) -> None:
        raise Terminated(number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            before[number] = signal.signal(number, terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
