"""``quantcli inspect``: files side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_fakes import Spy, invoke, plan, replace_use_case

from quantcli.pipeline.types import Inspection


def look(path: Path, options: dict[str, str]) -> Inspection:
    if path.suffix == ".calib":
        return Inspection(path=path, kind="calibration", facts={"samples": "192"})
    return Inspection(path=path, kind="model", facts={"size": "4.00 kB", "opset": "13"}, plan=plan())


@pytest.fixture
def spy(monkeypatch) -> Spy:
    spy = replace_use_case(monkeypatch, "inspect", None)
    assert isinstance(spy, Spy)
    spy.answer = look
    return spy


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().split("  ") if cell.strip()]


def test_files_stand_side_by_side(spy):
    head, *rows = invoke("inspect", "a/m.onnx", "m.calib").stdout.splitlines()
    assert [call[0] for call in spy.calls] == [Path("a/m.onnx"), Path("m.calib")]
    assert cells(head) == ["m.onnx", "m.calib"]
    assert [cells(row) for row in rows[:4]] == [
        ["kind", "model", "calibration"],
        ["size", "4.00 kB", "–"],
        ["opset", "13", "–"],
        ["samples", "–", "192"],
    ]


def test_a_model_is_planned_for_the_target(spy):
    result = invoke("inspect", "m.onnx", "--target", "generic")
    assert spy.calls == [(Path("m.onnx"), {"target": "generic"})]
    assert "3 of 5 quantized" in result.stdout
    assert "F201" in result.stdout
    assert "conv0" not in result.stdout


def test_verbose_lists_every_node(spy):
    assert "conv0" in invoke("inspect", "m.onnx", "-v").stdout


def test_json_has_one_entry_for_each_file(spy):
    found = json.loads(invoke("inspect", "a/m.onnx", "m.calib", "--json").stdout)
    assert [entry["file"] for entry in found] == ["m.onnx", "m.calib"]
    assert found[0]["plan"]["target"] == "ort-cpu"
    assert "plan" not in found[1]
