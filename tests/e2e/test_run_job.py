"""``quantcli run`` on the sample models, as a pipeline calls it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "sample_models"

CONFIG = """\
data = "data/digits_calib.npz"
eval-data = "data/digits_eval.npz"
labels = "data/digits_eval_labels.npy"

[convert]
effort = "fast"

[gates]
sqnr = ">=15"
accuracy_drop = { limit = "<=3pp", severity = "warn" }

[[models]]
path = "*.onnx"

[[models]]
path = "digits_mobilenet.onnx"
[models.gates]
sqnr = ">=60"
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("QUANTCLI_")}
    return subprocess.run(
        [sys.executable, "-m", "quantcli", "run", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for model in SAMPLES.glob("*.onnx"):
        shutil.copy(model, tmp_path)
    shutil.copytree(SAMPLES / "data", tmp_path / "data")
    (tmp_path / "quantcli.toml").write_text(CONFIG)
    return tmp_path


def test_of_three_models_one_fails_its_gate_and_a_second_run_makes_nothing(folder: Path) -> None:
    first = run(folder)
    assert first.returncode == 1, first.stderr
    lines = first.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["pass", "digits_cnn"],
        ["FAIL", "digits_mobilenet"],
        ["pass", "digits_transformer"],
    ]
    assert "sqnr of 'logits' is " in lines[1]
    assert "has to be >= 60 dB" in lines[1]
    for name in ("cnn", "mobilenet", "transformer"):
        assert (folder / f"reports/digits_{name}.json").is_file()
        assert (folder / f"reports/digits_{name}.md").is_file()
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    second = run(folder)
    assert second.returncode == 1
    assert second.stdout.splitlines()[:3] == lines[:3]
    assert second.stdout.splitlines()[3] == "3 models: 2 pass, 1 FAIL; up to date, nothing was made again"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == files


@pytest.mark.slow
def test_what_a_run_has_made_reproduces_in_another_process(folder: Path) -> None:
    run(folder)
    assert "reproduces" not in run(folder, "--check").stdout
