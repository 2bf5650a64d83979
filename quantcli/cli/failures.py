"""From an exception to what the user reads and the exit code that the shell sees.

Nothing else decides about exit codes. 0 done · 1 a gate failed (a command returns it) · 2 usage · 3 input ·
4 run time or output · 70 a bug · 128 + n ended by signal n: 129 hang-up, 130 Ctrl-C, 141 nobody reads
standard output any more, 143 terminated.
"""

from __future__ import annotations

import difflib
import errno
import traceback
from dataclasses import dataclass

import click
from click.core import ParameterSource

from quantcli.cli.origins import origin_of
from quantcli.cli.screen import write_error
from quantcli.cli.settings import Settings
from quantcli.errors import (
    EXIT_BUG,
    EXIT_FAILURE,
    EXIT_SIGINT,
    EXIT_USAGE,
    QuantcliError,
)

EXIT_SIGPIPE = 141

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Terminated(BaseException):
    """A signal asked the process to end; raised by the handler so that temporaries are removed."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is told of an exception.

    Attributes:
        exit_code: For the shell.
        code: Of ``quantcli.errors.ERROR_CODES``; "" tells nothing.
        message: What happened and why.
        hint: What to do about it.
        trace: Whether ``-v`` shows the traceback.
    """

    exit_code: int
    code: str = ""
    message: str = ""
    hint: str | None = None
    trace: bool = False


def failure_of(error: BaseException) -> Failure:
    """What to tell of ``error``."""
    if isinstance(error, QuantcliError):
        return Failure(
            exit_code=error.exit_code,
            code=error.code,
            message=error.message,
            hint=error.hint,
            trace=error.exit_code >= EXIT_FAILURE,
        )
    if isinstance(error, click.exceptions.Exit):
        return Failure(exit_code=error.exit_code)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return Failure(exit_code=EXIT_SIGINT)
    if isinstance(error, Terminated):
        return Failure(exit_code=128 + error.signal_number)
    if isinstance(error, BrokenPipeError):
        return Failure(exit_code=EXIT_SIGPIPE)
    if isinstance(error, click.ClickException):
        return _of_click(error)
    if isinstance(error, MemoryError):
        return Failure(
            exit_code=EXIT_FAILURE,
            code="R190",
            message="the memory does not suffice",
            hint="lower --batch-size, or use a machine with more memory",
            trace=True,
        )
    if isinstance(error, ImportError) and (error.name or "quantcli").partition(".")[0] != "quantcli":
        return Failure(
            exit_code=EXIT_FAILURE,
            code="R191",
            message=f"the package '{error.name}' cannot be imported: {error}",
            hint="install quantcli and what it needs again: pip install --force-reinstall quantcli",
            trace=True,
        )
    if isinstance(error, OSError) and error.errno in (*_NO_ROOM, *_NOT_ALLOWED):
        return Failure(
            exit_code=EXIT_FAILURE,
            code="O103",
            message=f"cannot write{_where(error)}: {error.strerror}",
            hint="make room, or write elsewhere"
            if error.errno in _NO_ROOM
            else "check the permissions, or write elsewhere",
            trace=True,
        )
    return Failure(
        exit_code=EXIT_BUG,
        code="B100",
        message=f"internal error: {type(error).__name__}: {error}",
        hint="this is a bug of quantcli; run it again with -v for the traceback, and report it",
        trace=True,
    )


def tell(failure: Failure, error: BaseException, settings: Settings) -> None:
    """Write what is to be told to standard error."""
    if settings.verbose and failure.trace:
        write_error("".join(traceback.format_exception(error)).rstrip())
    if not failure.code:
        return
    write_error(f"{_paint(f'error[{failure.code}]:', settings)} {_lines(failure.message, 2)}")
    if failure.hint:
        write_error(f"  hint: {_lines(failure.hint, 8)}")
    write_error(f"  more: quantcli explain {failure.code}")


def _of_click(error: click.ClickException) -> Failure:
    """Errors of the parser, in our form and with exit codes of ours (click's FileError says 1)."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    help_hint = f"{context.command_path} --help" if context is not None else "quantcli --help"
    hint = f"see: {help_hint}"
    message = error.format_message()
    if isinstance(error, click.NoSuchOption):
        message = f"no such option '{error.option_name}'"
        near = difflib.get_close_matches(error.option_name, error.possibilities or (), n=2, cutoff=0.7)
        if near:
            hint = "did you mean " + " or ".join(f"'{name}'" for name in near) + f"? {hint}"
    message = _lower(message.strip().rstrip(".")) + _variable(error)
    return Failure(exit_code=EXIT_USAGE, code="U100", message=message, hint=hint)


def _variable(error: click.ClickException) -> str:
    """Where a wrong value came from, if it is not on the command line."""
    if not isinstance(error, click.BadParameter) or error.ctx is None or error.param is None:
        return ""
    name = error.param.name or ""
    source = error.ctx.get_parameter_source(name)
    if source not in (ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP):
        return ""
    return f" (from {'the ' if source is ParameterSource.ENVIRONMENT else ''}{origin_of(error.ctx, name)})"


def _lower(message: str) -> str:
    """The message with a small first letter, unless the first word is a name."""
    word = message.split(" ", 1)[0]
    return message[:1].lower() + message[1:] if word[1:].islower() or len(word) == 1 else message


def _where(error: OSError) -> str:
    return f" '{error.filename}'" if error.filename else ""


def _lines(text: str, indent: int) -> str:
    """The text without control characters that a terminal would obey; further lines are indented."""
    clean = "".join(char if char.isprintable() or char == "\n" else " " for char in text)
    return clean.replace("\n", "\n" + " " * indent)


def _paint(text: str, settings: Settings) -> str:
    return text if settings.colorless else click.style(text, fg="red", bold=True)
