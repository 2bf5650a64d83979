"""Every exception has its exit code and its words."""

from __future__ import annotations

import errno

import click
import pytest

from quantcli import errors
from quantcli.cli.failures import Terminated, failure_of, tell
from quantcli.cli.settings import Settings


def told(error: BaseException, capsys: pytest.CaptureFixture[str], **settings: bool) -> str:
    tell(failure_of(error), error, Settings(**settings))
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.UsageError("U100", "x"), 2),
        (errors.ConfigError("C101", "x"), 2),
        (errors.ModelError("M101", "x"), 3),
        (errors.UnsupportedModelError("M201", "x"), 3),
        (errors.DataError("D101", "x"), 3),
        (errors.StaleCalibrationError("K201", "x"), 3),
        (errors.RuntimeFailure("R101", "x"), 4),
        (errors.OutputError("O101", "x"), 4),
        (click.UsageError("x"), 2),
        (click.BadParameter("x"), 2),
        (click.FileError("name", "x"), 2),
        (click.Abort(), 130),
        (KeyboardInterrupt(), 130),
        (Terminated(15), 143),
        (Terminated(1), 129),
        (BrokenPipeError(), 141),
        (MemoryError(), 4),
        (OSError(errno.ENOSPC, "No space left on device"), 4),
        (PermissionError(errno.EACCES, "Permission denied", "f"), 4),
        (FileNotFoundError(errno.ENOENT, "No such file", "f"), 70),
        (ImportError("libgomp is missing", name="onnxruntime.capi"), 4),
        (ImportError("x", name="quantcli.core"), 70),
        (KeyError("x"), 70),
        (AssertionError(), 70),
        (RecursionError(), 70),
    ],
)
def test_exit_codes(error, exit_code):
    assert failure_of(error).exit_code == exit_code


def test_one_is_no_exit_code_of_any_error():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert errors.EXIT_GATE_FAILED not in [kind.exit_code for kind in kinds]


def test_an_error_says_what_why_and_what_to_do(capsys):
    error = errors.UnsupportedModelError("M202", "'m.onnx' uses a sparse initializer", hint="densify it first")
    assert told(error, capsys) == (
        "error[M202]: 'm.onnx' uses a sparse initializer\n"
        "  hint: densify it first\n"
        "  more: quantcli explain M202\n"
    )


def test_several_problems_stand_one_below_the_other(capsys):
    text = told(errors.DataError("D112", "two problems:\nthe first\nthe second"), capsys)
    assert text.splitlines() == [
        "error[D112]: two problems:",
        "  the first",
        "  the second",
        "  more: quantcli explain D112",
    ]


def test_names_cannot_command_the_terminal(capsys):
    text = told(errors.ModelError("M101", "'\x1b[2J\x07.onnx' is no model\r"), capsys)
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    assert "\r" not in text


def test_no_traceback_is_shown_without_v(capsys):
    with pytest.raises(KeyError) as caught:
        {}["inside"]
    quiet, loud = told(caught.value, capsys), told(caught.value, capsys, verbose=True)
    assert quiet.splitlines() == [
        "error[B100]: internal error: KeyError: 'inside'",
        "  hint: this is a bug of quantcli; run it again with -v for the traceback, and report it",
        "  more: quantcli explain B100",
    ]
    assert loud.startswith("Traceback (most recent call last):")
    assert loud.endswith(quiet)


def test_usage_errors_have_no_traceback_even_with_v(capsys):
    assert "Traceback" not in told(errors.UsageError("U100", "x"), capsys, verbose=True)


def test_an_interrupt_is_no_error_to_talk_about(capsys):
    assert told(KeyboardInterrupt(), capsys) == ""


def test_a_full_disk_names_the_file(capsys):
    text = told(OSError(errno.ENOSPC, "No space left on device", "m.int8.onnx"), capsys)
    assert text.startswith("error[O103]: cannot write 'm.int8.onnx': No space left on device\n")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("No such option '--x'.", "no such option '--x'"),
        ("ONNX is meant.", "ONNX is meant"),
        ("Missing argument 'MODEL'.", "missing argument 'MODEL'"),
    ],
)
def test_sentences_of_the_parser_get_our_form(capsys, message, shown):
    assert told(click.UsageError(message), capsys).startswith(f"error[U100]: {shown}\n")
