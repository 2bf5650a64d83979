"""What is written is read: the values, the gates and the entries are the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantcli.config.load import load_config
from quantcli.config.schema import Key, Section
from quantcli.config.write import config_text

SECTIONS = (
    Section(
        name="convert",
        help="Options.",
        keys=(
            Key(name="method", kind=str, help="How."),
            Key(name="bits", kind=int),
            Key(name="exclude", kind=tuple),
        ),
    ),
)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "method": TEXTS,
            "bits": st.integers(0, 2**40),
            "exclude": st.lists(TEXTS, min_size=1).map(tuple),
        },
    )
)
def test_values_that_are_written_are_read(stated):
    text = config_text({"convert": stated}, [], [{"path": "m.onnx"}], SECTIONS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.toml"
        path.write_text(text, "utf-8")
        config = load_config(path, SECTIONS)
    found = config.top.sections.get("convert", {})
    assert {key: setting.value for key, setting in found.items()} == stated


def test_gates_and_entries_that_are_written_are_read(tmp_path):
    gates = ["sqnr>=20", "sqnr>=30:warn", "logits/a b.cosine>=0.99", "size_ratio<=30%"]
    entries = [{"path": "a.onnx", "data": ("x=a.npy", "y=b.npy")}, {"path": "b.onnx", "labels": "l.npy"}]
    (tmp_path / "c.toml").write_text(config_text({}, gates, entries, SECTIONS), "utf-8")
    config = load_config(tmp_path / "c.toml", SECTIONS)
    assert list(config.top.expressions) == gates
    assert [{key: s.value for key, s in entry.keys.items()} for entry in config.models] == entries


def test_every_key_of_the_first_entry_stands_under_its_sentence():
    text = config_text({"convert": {"method": "mse"}}, [], [{"path": "m.onnx"}], SECTIONS)
    assert '# Options.\n[convert]\n# How.\nmethod = "mse"\n' in text
    assert "# More keys of an entry:\n#   name: What the model is called" in text


def test_what_is_no_gate_is_not_written():
    with pytest.raises(ValueError, match="is no gate"):
        config_text({}, ["sqnr"], [], SECTIONS)
