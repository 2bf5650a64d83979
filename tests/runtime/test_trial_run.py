"""Models that are tried in a process of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from quantcli.errors import RuntimeFailure
from quantcli.runtime import trial_run as module
from quantcli.runtime.trial_run import refuse_crash, trial_run

TEXT = '<ir_version: 8, opset_import: ["" : 17]> g (float[n,2] x, int64[2] s) => (y) { y = Reshape (x, s) }'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(TEXT), path)
    return path


def test_a_model_that_runs_has_nothing_wrong(model: Path) -> None:
    feed = {"x": np.ones((3, 2), np.float32), "s": np.array([2, 3])}
    assert trial_run(model, feed) == ""


def test_a_failure_is_told_in_the_words_of_the_runtime(model: Path) -> None:
    feed = {"x": np.ones((3, 2), np.float32), "s": np.array([4, 4])}
    assert "Reshape" in trial_run(model, feed)


def test_a_crash_is_a_failure(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashed(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], -11, "", "")

    monkeypatch.setattr(module.subprocess, "run", crashed)
    assert trial_run(model, None) == "onnxruntime ended the process by SIGSEGV"


def test_a_model_that_ends_a_process_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_crash(model)
    crashed = subprocess.CompletedProcess([], -11, "", "")
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: crashed)
    with pytest.raises(RuntimeFailure, match="ended the process by SIGSEGV that loads the model"):
        refuse_crash(model)


def test_a_large_model_is_tried_part_by_part(model: Path) -> None:
    feed = {"x": np.ones((3, 2), np.float32), "s": np.array([2, 3])}
    assert trial_run(model, feed, in_parts=True) == ""
    assert "Reshape" in trial_run(model, feed | {"s": np.array([4, 4])}, in_parts=True)


def test_an_operator_without_a_kernel_is_found_without_a_sample(tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float16[2] x) => (float16[2] y) { y = Gelu20 (x) }'
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    assert "Gelu20" in trial_run(path, None, in_parts=True)
