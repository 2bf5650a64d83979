"""Single commands take defaults from the configuration: flags > environment > file > default."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from cli_fakes import conversion, invoke, replace_use_case, report

from quantcli.cli.sections import configured, sections

CONFIG = """\
[sampling]
seed = 7

[convert]
method = "mse"
symmetric = true
exclude = ["op:Softmax"]
mask = "{name}"

[compare]
repeats = 9
latency = true

[gates]
sqnr = ">=20"

[[models]]
path = "m.onnx"
data = "c.npz"
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quantcli.toml").write_text(CONFIG)


@pytest.fixture
def convert(monkeypatch):
    return replace_use_case(monkeypatch, "convert_or_rescue", conversion())


def test_the_file_is_stronger_than_defaults(convert):
    assert invoke("convert", "m.onnx", "--data", "d").exit_code == 0
    recipe = convert.request.recipe
    assert (recipe.method, recipe.symmetric, recipe.exclude) == ("mse", True, ("op:Softmax",))
    assert convert.request.data.seed == 7


def test_variables_are_stronger_than_the_file_and_flags_stronger_than_both(convert):
    variables = {"QUANTCLI_CONVERT_METHOD": "entropy"}
    invoke("convert", "m.onnx", "--data", "d", env=variables)
    assert convert.request.recipe.method == "entropy"
    invoke("convert", "m.onnx", "--data", "d", "--method", "minmax", "--asymmetric", env=variables)
    assert (convert.request.recipe.method, convert.request.recipe.symmetric) == ("minmax", False)


def test_a_recipe_flag_is_stronger_than_the_file(convert):
    Path("r.toml").write_text('method = "minmax"\n')
    invoke("convert", "m.onnx", "--data", "d", "--recipe", "r.toml")
    assert (convert.request.recipe.method, convert.request.recipe.symmetric) == ("minmax", True)


def test_values_with_placeholders_are_for_models_of_a_run(convert):
    invoke("convert", "m.onnx", "--data", "d")
    assert convert.request.mask is None


def test_a_target_of_the_file_is_aimed_at_except_where_nothing_is_searched(convert, monkeypatch):
    Path("quantcli.toml").write_text("[convert]\ntarget-sqnr = 30\n")
    spy = replace_use_case(monkeypatch, "tune", lambda *_: (conversion(), SimpleNamespace(reached=False)),
        names=("convert_to_target",))  # fmt: skip
    assert invoke("convert", "m.onnx", "--data", "d").exit_code == 1
    assert spy["convert_to_target"].request.options.gates == ("sqnr>=30.0",)
    assert invoke("convert", "m.onnx", "--data", "d", "--plan", "p.json").exit_code == 0
    assert convert.request.plan == Path("p.json")


def test_gates_of_the_file_are_those_of_compare_where_none_is_given(monkeypatch):
    spy = replace_use_case(monkeypatch, "compare", report())
    invoke("compare", "a", "b", "--data", "d")
    assert (spy.request.gates, spy.request.repeats, spy.request.latency) == (("sqnr>=20",), 9, True)
    invoke("compare", "a", "b", "--data", "d", "--gate", "size_ratio<=1")
    assert spy.request.gates == ("size_ratio<=1",)


@pytest.mark.parametrize("before", [True, False])
def test_another_file_can_be_named_before_and_behind_the_command(convert, before):
    Path("other").mkdir()
    Path("other/o.toml").write_text('[convert]\nmethod = "entropy"\nrecipe = "r.toml"\n')
    Path("other/r.toml").write_text("symmetric = true\n")
    option = ("--config", "other/o.toml")
    command = ("convert", "m.onnx", "--data", "d")
    assert invoke(*(option + command if before else command + option)).exit_code == 0
    recipe = convert.request.recipe
    assert (recipe.method, recipe.symmetric, recipe.exclude) == ("entropy", True, ())


def test_a_variable_can_name_the_file(convert):
    Path("o.toml").write_text('[convert]\nmethod = "entropy"\n')
    invoke("convert", "m.onnx", "--data", "d", env={"QUANTCLI_CONFIG": "o.toml"})
    assert convert.request.recipe.method == "entropy"


def test_verbose_says_where_every_value_comes_from(convert):
    told = invoke("-v", "convert", "m.onnx", "--data", "d", env={"QUANTCLI_CONVERT_THREADS": "2"}).stderr
    assert "option: method     mse  (quantcli.toml:5)" in told
    assert "option: threads    2  (variable QUANTCLI_CONVERT_THREADS)" in told
    assert "option: data       d  (command line)" in told
    assert "option: defaults: " in told
    assert "format qdq" in told


def test_a_wrong_value_names_the_line():
    Path("quantcli.toml").write_text("[convert]\n\nthreads = 0\n")
    result = invoke("convert", "m.onnx", "--data", "d")
    assert (result.exit_code, "quantcli.toml:3: 'threads': 0 is not in the range" in result.stderr) == (2, True)


def test_a_file_that_is_not_there_is_told():
    result = invoke("--config", "absent.toml", "convert", "m.onnx", "--data", "d")
    assert (result.exit_code, "[C201]" in result.stderr) == (2, True)


def test_help_needs_no_configuration():
    Path("quantcli.toml").write_text("no toml")
    assert invoke("convert", "--help").exit_code == 0
    assert invoke("explain", "F201").exit_code == 0


def test_keys_are_options_of_the_command():
    for section in sections():
        command = configured()["compare" if section.name == "sampling" else section.name]
        options = {param.name for param in command.params if isinstance(param, click.Option)}
        assert {key.name.replace("-", "_") for key in section.keys} <= options
        assert all(key.help for key in section.keys)
