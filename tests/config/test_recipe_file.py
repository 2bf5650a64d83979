"""Recipe files: what was written is read, and what is wrong is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantcli.config.recipe_file import KEYS, parse_recipe, read_recipe, recipe_text
from quantcli.errors import ConfigError

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "method": TEXTS,
            "granularity": st.sampled_from(["channel", "tensor"]),
            "symmetric": st.booleans(),
            "opset": st.integers(1, 30),
            "exclude": st.lists(TEXTS, min_size=1).map(tuple),
        },
    )
)
def test_what_was_written_is_read(values):
    assert parse_recipe(recipe_text(values), "r.toml") == values


def test_the_text_depends_on_the_values_alone():
    values = {"exclude": ("tensor:b", "op:Softmax"), "target": "ort-cpu", "include": (), "symmetric": False}
    expected = 'target = "ort-cpu"\nsymmetric = false\nexclude = [\n    "tensor:b",\n    "op:Softmax",\n]\n'
    assert recipe_text(values).partition("\n")[2] == expected
    assert recipe_text(dict(reversed(values.items()))) == recipe_text(values)


@pytest.mark.parametrize(
    ("text", "code", "told", "hint"),
    [
        ('method = "minmax"\nexlude = ["a"]\n', "C107", "line 2: there is no key 'exlude'", "'exclude'"),
        ("[tune]\nx = 1\n", "C107", "line 1: there is no key 'tune'", "the keys are target"),
        ("\nexclude = 3\n", "C108", "line 2: 'exclude' has to be a list of texts, not 3", "that line"),
        ("symmetric = 1\n", "C108", "'symmetric' has to be true or false", "that line"),
        ("opset = true\n", "C108", "'opset' has to be a whole number", "that line"),
        ('target = "ort-gpu"\n', "C108", "has to be one of 'ort-cpu', 'cpu-avx2', .*'generic'", "that line"),
        ("target = \n", "C106", "is no TOML: .*line 1", "KEY"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, code: str, told: str, hint: str):
    with pytest.raises(ConfigError, match=told) as caught:
        parse_recipe(text, "r.toml")
    assert caught.value.code == code
    assert hint in str(caught.value.hint)


def test_files_that_cannot_be_read_are_told(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"recipe .* cannot be read"):
        read_recipe(tmp_path / "r.toml")
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is no text"):
        read_recipe(tmp_path / "r.toml")


def test_keys_are_options_of_convert():
    from quantcli.cli.convert import convert

    options = {param.name for param in convert.params}
    assert {key.name.replace("-", "_") for key in KEYS} <= options


def test_values_that_no_key_has_are_not_written():
    with pytest.raises(ValueError, match="no key 'speed'"):
        recipe_text({"speed": 1})
