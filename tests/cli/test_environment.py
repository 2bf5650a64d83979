"""``QUANTCLI_<COMMAND>_<OPTION>`` gives what the command line does not say."""

from __future__ import annotations

import click
import pytest
from cli_fakes import conversion, invoke, replace_use_case, report

from quantcli.cli.main import cli

COMMANDS = ["calibrate", "convert", "compare", "run", "init", "report", "inspect", "explain"]


@pytest.mark.parametrize("name", COMMANDS)
def test_variables_are_called_like_their_options(name):
    options = [param for param in cli.commands[name].params if isinstance(param, click.Option)]
    odd = [
        param.opts
        for param in options
        if param.expose_value and f"--{param.name.replace('_', '-')}" not in param.opts
    ]
    assert odd == []


def test_repeatable_options_are_separated_by_spaces(monkeypatch):
    spy = replace_use_case(monkeypatch, "compare", report())
    env = {"QUANTCLI_COMPARE_GATE": "sqnr>=20 size_ratio<=0.5:warn", "QUANTCLI_COMPARE_REPORT": "r.md r.json"}
    assert invoke("compare", "a", "b", env=env).exit_code == 0
    assert spy.request.gates == ("sqnr>=20", "size_ratio<=0.5:warn")
    assert [path.name for path in spy.request.reports] == ["r.md", "r.json"]


def test_flags_take_truth_values(monkeypatch):
    spy = replace_use_case(monkeypatch, "convert_or_rescue", conversion())
    result = invoke(
        "convert", "m.onnx", "--data", "d", env={"QUANTCLI_CONVERT_FORCE": "1", "QUANTCLI_QUIET": "yes"}
    )
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert spy.request.overwrite is True


def test_a_wrong_value_names_the_variable(monkeypatch):
    replace_use_case(monkeypatch, "convert_or_rescue", conversion())
    result = invoke("convert", "m.onnx", "--data", "d", env={"QUANTCLI_CONVERT_THREADS": "many"})
    assert result.exit_code == 2
    assert "QUANTCLI_CONVERT_THREADS" in result.stderr


def test_a_version_in_the_environment_is_no_flag():
    assert invoke("explain", "F201", env={"QUANTCLI_VERSION": "0.1.0"}).exit_code == 0
