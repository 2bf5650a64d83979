"""Configurations: layers, gates, and every problem with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantcli.config.load import Config, find_config, load_config, overlay
from quantcli.config.schema import Key, Section
from quantcli.errors import ConfigError

SECTIONS = (
    Section(
        name="convert",
        keys=(
            Key(name="method", kind=str),
            Key(name="weight-bits", kind=int),
            Key(name="exclude", kind=tuple),
            Key(name="goal", kind=float),
            Key(name="format", kind=str, choices=("qdq", "qoperator")),
            Key(name="resize", kind=str, numbers=True),
            Key(name="top-k", kind=tuple, numbers=True),
        ),
    ),
)


def read(folder: Path, text: str, name: str = "quantcli.toml") -> Config:
    (folder / name).write_text(text, "utf-8")
    return load_config(folder / name, SECTIONS)


def values(settings) -> dict[str, object]:
    return {key: setting.value for key, setting in settings.items()}


def test_values_keep_their_lines(tmp_path):
    config = read(tmp_path, '[convert]\nmethod = "mse"\nweight_bits = 4\nexclude = "op:Softmax"\n')
    found = config.top.sections["convert"]
    assert values(found) == {"method": "mse", "weight-bits": 4, "exclude": ("op:Softmax",)}
    assert found["weight-bits"].origin == "quantcli.toml:3"


def test_numbers_stand_for_texts_and_whole_numbers_for_numbers_where_that_is_meant(tmp_path):
    config = read(tmp_path, "[convert]\nresize = 256\ngoal = 3\ntop-k = [5, 10]\n")
    assert values(config.top.sections["convert"]) == {"resize": "256", "goal": 3.0, "top-k": ("5", "10")}


@pytest.mark.parametrize(
    "text",
    [
        'gates = ["sqnr>=25", "logits.cosine >= 0.999", "accuracy_drop<=1pp:warn"]\n',
        """[gates]
        sqnr = ">=25"
        "logits.cosine" = " >= 0.999"
        accuracy_drop = { limit = "<=1pp", severity = "warn" }
        """,
        """[gates]
        sqnr = [">=25"]
        logits.cosine = ">=0.999"
        accuracy_drop.limit = "<=1pp"
        accuracy_drop.severity = "warn"
        """,
    ],
)
def test_gates_are_written_as_a_list_or_as_a_table(tmp_path, text):
    config = read(tmp_path, text)
    told = [gate.replace(" ", "") for gate in config.top.expressions]
    assert told == ["sqnr>=25", "logits.cosine>=0.999", "accuracy_drop<=1pp:warn"]


def test_a_later_layer_is_stronger_key_by_key_and_gate_by_gate(tmp_path):
    config = read(
        tmp_path,
        'data = "a.npz"\n[convert]\nmethod = "mse"\nformat = "qdq"\n[gates]\nsqnr = ">=25"\nsize_ratio = "<=30%"\n'
        'nonfinite = "==0"\n[[models]]\npath = "m"\n[models.convert]\nmethod = "minmax"\n'
        '[models.gates]\nsqnr = [">=15", ">=20:warn"]\nnonfinite = false\n',
    )
    layer = overlay([config.top, *config.models])
    assert values(layer.sections["convert"]) == {"method": "minmax", "format": "qdq"}
    assert values(layer.keys) == {"data": ("a.npz",), "path": "m"}
    assert layer.expressions == ("sqnr>=15", "sqnr>=20:warn", "size_ratio<=30%")


def test_a_pyproject_holds_it_below_tool(tmp_path):
    config = read(tmp_path, '[tool.quantcli]\ndata = "c.npz"\n', "pyproject.toml")
    assert config.top.keys["data"].origin == "pyproject.toml:2"


def test_a_pyproject_without_it_is_no_configuration(tmp_path):
    with pytest.raises(ConfigError, match=r"has no table \[tool.quantcli\]"):
        read(tmp_path, "[tool]\n", "pyproject.toml")


def test_a_file_of_its_own_comes_before_the_pyproject(tmp_path):
    assert find_config(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text("[tool.other]\n")
    assert find_config(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text("[tool.quantcli]\n")
    assert find_config(tmp_path) == tmp_path / "pyproject.toml"
    (tmp_path / "quantcli.toml").write_text("")
    assert find_config(tmp_path) == tmp_path / "quantcli.toml"


@pytest.mark.parametrize(
    ("text", "code", "told", "hint"),
    [
        ("[convrt]\n", "C202", "line 1: there is no key 'convrt'", "'convert'"),
        ('[convert]\nmetod = "x"\n', "C202", r"line 2: there is no key 'metod' of \[convert\]", "'method'"),
        ('\n[[models]]\npath = "m"\nlable = "l"\n', "C202", "line 4: there is no key 'lable'", "'labels'"),
        ('[[models]]\ndata = "c"\n', "C204", "line 1: the entry has no path", 'path = "model.onnx"'),
        ('path = "m"\n', "C202", "line 1: there is no key 'path'", "data"),
        ("[convert]\nmethod = 3\n", "C203", "line 2: 'method' has to be a text, not 3", "that line"),
        ("[convert]\nweight-bits = true\n", "C203", "has to be a whole number, not true", "that line"),
        ('[convert]\nformat = "qoprator"\n', "C203", "has to be one of 'qdq', 'qoperator'", "that line"),
        ("[convert]\nexclude = [3]\n", "C203", "has to be a list of texts", "that line"),
        ("convert = 3\n", "C203", "'convert' has to be a table, not 3", r"[convert]"),
        ("models = 3\n", "C203", "'models' has to be a list of tables", "[[models]]"),
        ("gates = 3\n", "C203", "'gates' has to be a table or a list of texts", "that line"),
        ('gates = ["sqnr"]\n', "C203", 'line 1: the gate "sqnr" has no limit', "METRIC OP LIMIT"),
        ("[gates]\nsqnr = 25\n", "C203", "line 2: the gate 'sqnr' has to be a text", "operator and limit"),
        ('[gates]\nsqnr = { severity = "warn" }\n', "C204", "line 2: the gate 'sqnr' has no limit", "limit"),
        ('[gates]\nsqnr = { limit = ">=1", x = 1 }\n', "C202", "no key 'x' of the gate 'sqnr'", "limit, severity"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, text: str, code: str, told: str, hint: str):
    with pytest.raises(ConfigError, match=told) as caught:
        read(tmp_path, text)
    assert caught.value.code == code
    assert hint in str(caught.value.hint)


def test_all_problems_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, '[convert]\nmetod = "x"\nweight-bits = "8"\n[gates]\nsqnr = 3\n')
    assert caught.value.code == "C210"
    assert [word in caught.value.message for word in ("3 problems", "metod", "weight-bits", "sqnr")] == [True] * 4


def test_files_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load_config(tmp_path / "absent.toml", SECTIONS)
    assert caught.value.code == "C201"
