"""Help and versions: complete, quick, and free of heavy imports."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from cli_fakes import invoke

from quantcli.cli.main import cli

COMMANDS = ["calibrate", "convert", "compare", "analyze", "tune", "run", "init", "report", "inspect", "explain"]
HEAVY = {"numpy", "onnx", "onnx_ir", "onnxruntime", "rich"}


def test_commands_are_listed_in_the_order_of_work():
    assert cli.list_commands(click.Context(cli)) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text(name):
    options = [param for param in cli.commands[name].params if isinstance(param, click.Option)]
    assert options
    assert all((option.help and option.help.rstrip("]").endswith((".", "]"))) or option.help for option in options)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_goes_to_standard_output_with_examples(name):
    result = invoke(name, "-h")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "Examples:" in result.stdout
    assert f"quantcli {name}" in result.stdout


def test_no_argument_shows_the_help_as_a_usage_error():
    result = invoke()
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Commands:" in result.stderr


def test_version_names_everything_that_a_bug_report_needs():
    result = invoke("--version")
    assert result.exit_code == 0
    named = [line.split()[0] for line in result.stdout.splitlines()]
    assert named == ["quantcli", "python", "onnx", "onnx-ir", "onnxruntime", "numpy", "platform"]
    assert "not installed" not in result.stdout


def _imported(*arguments: str) -> tuple[int, set[str]]:
    script = (
        "import sys\n"
        "from quantcli.cli.main import cli, run\n"
        "code = run(cli, sys.argv[1:])\n"
        "print(code, *sorted(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    code, *modules = done.stderr.splitlines()[-1].split()
    return int(code), {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--help",), 0),
        *(((name, "--help"), 0) for name in COMMANDS),
        (("--version",), 0),
        (("convrt",), 2),
        (("convert", "--bit", "8"), 2),
        (("convert", "m.onnx"), 2),
        (("convert", "m.onnx", "--data", "d.npz", "--bits", "5"), 2),
        (("convert", "m.onnx", "--data", "d.npz", "--target", "tensorrt", "--asymmetric"), 2),
        (("convert", "m.onnx", "--dynamic", "--method", "mse"), 2),
        (("calibrate", "m.onnx"), 2),
        (("compare", "a.onnx"), 2),
        (("tune", "m.onnx", "--data", "d.npz"), 2),
        (("run", "--check", "--force"), 2),
        (("run", "--config", "absent.toml"), 2),
        (("init", "m.onnx"), 2),
    ],
)
def test_help_and_usage_errors_import_nothing_heavy(arguments, code):
    found, modules = _imported(*arguments)
    assert found == code
    assert not modules & HEAVY
