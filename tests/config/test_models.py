"""From entries to models: globs, placeholders, and names that must differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantcli.config.load import load_config
from quantcli.config.models import ModelSettings, expand_models
from quantcli.config.schema import Key, Section
from quantcli.errors import ConfigError

SECTIONS = (
    Section(name="compare", keys=(Key(name="baseline", kind=str, is_path=True), Key(name="note", kind=str))),
)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "nets").mkdir()
    for name in ("b", "a", "a.int8"):
        (tmp_path / "nets" / f"{name}.onnx").touch()
    monkeypatch.chdir(tmp_path)

    def expand(text: str) -> tuple[ModelSettings, ...]:
        Path("quantcli.toml").write_text(text, "utf-8")
        return expand_models(load_config(Path("quantcli.toml"), SECTIONS), SECTIONS)

    return expand


def test_a_glob_finds_models_by_name_and_not_what_is_made_of_them(models):
    assert [model.name for model in models('[[models]]\npath = "nets/*.onnx"\n')] == ["a", "b"]


def test_neither_does_it_find_what_a_single_convert_has_made(models):
    text = '[[models]]\npath = "nets/*.onnx"\noutput = "out/{name}.onnx"\n'
    assert [model.name for model in models(text)] == ["a", "b"]


def test_a_made_model_is_taken_where_it_is_named(models):
    found = models('[[models]]\npath = "nets/a.onnx"\n[[models]]\npath = "nets/a.int8.onnx"\n')
    assert [model.name for model in found] == ["a", "a.int8"]


def test_defaults_stand_beside_the_model_and_in_reports(models):
    model = models('[[models]]\npath = "nets/b.onnx"\ndata = "c.npz"\n')[0]
    assert [path.as_posix() for path in model.files] == [
        "nets/b.calib", "nets/b.int8.onnx", "nets/b.int8.plan.json", "reports/b.json", "reports/b.md",
    ]  # fmt: skip


def test_placeholders_are_filled_in_and_other_braces_kept_where_no_file_is_meant(models):
    text = (
        'output = "out/{name}.onnx"\n[compare]\nbaseline = "{folder}/{stem}.json"\nnote = "{name} {2}"\n'
        '[[models]]\npath = "nets/b.onnx"\nname = "net-{stem}"\ndata = ["x={name}.npy"]\n'
    )
    model = models(text)[0]
    assert (model.name, model.output, model.plan) == ("net-b", Path("out/net-b.onnx"), Path("out/net-b.plan.json"))
    assert model.layer.keys["data"].value == ("x=net-b.npy",)
    compare = model.layer.sections["compare"]
    assert (compare["baseline"].value, compare["note"].value) == ("nets/b.json", "net-b {2}")


def test_several_entries_say_of_one_model_what_they_say_together(models):
    text = (
        '[[models]]\npath = "nets/*.onnx"\ndata = "c.npz"\nlabels = "l.npy"\n'
        '[[models]]\npath = "nets/b.onnx"\ndata = "d.npz"\n'
    )
    a, b = models(text)
    assert (a.layer.keys["data"].value, b.layer.keys["data"].value) == (("c.npz",), ("d.npz",))
    assert b.layer.keys["labels"].value == "l.npy"


def test_a_model_that_is_not_there_is_left_to_the_run(models):
    assert models('[[models]]\npath = "absent.onnx"\n')[0].path == Path("absent.onnx")


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("", "C204", r"has no \[\[models\]\]"),
        ('[[models]]\npath = "absent/*.onnx"\n', "C204", r"line 1: no file matches 'absent/\*.onnx'"),
        (
            '[[models]]\npath = "nets/a.onnx"\ndata = "{nam}.npz"\n',
            "C206",
            r"quantcli.toml:3: .*placeholder '{nam}'",
        ),
        ('[[models]]\npath = "nets/*.onnx"\nname = "x"\n', "C205", "are both called 'x'"),
        ('[[models]]\npath = "nets/*.onnx"\nreports = "r.md"\n', "C205", "both write 'r.md'"),
    ],
)
def test_what_cannot_be_is_told(models, text: str, code: str, told: str):
    with pytest.raises(ConfigError, match=told) as caught:
        models(text)
    assert caught.value.code == code
