"""``quantcli calibrate``: samples become a request, statistics a few lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_fakes import calibration, invoke, replace_use_case


@pytest.fixture
def spies(monkeypatch):
    return replace_use_case(monkeypatch, "calibrate", calibration(), names=("calibrate", "merge"))


def test_options_reach_the_request(spies):
    from quantcli.pipeline.types import CalibrateRequest, DataOptions, RunOptions

    result = invoke(
        "calibrate", "m.onnx", "--data", "a.npz", "-o", "m.calib", "--samples", "9", "--ignore-nonfinite",
        "--target", "generic", "--batch-size", "2", "--threads", "2", "--force",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert spies["calibrate"].request == CalibrateRequest(
        model=Path("m.onnx"),
        output=Path("m.calib"),
        data=DataOptions(specs=("a.npz",), samples=9),
        run=RunOptions(batch_size=2, threads=2),
        target="generic",
        overwrite=True,
        ignore_nonfinite=True,
    )


def test_the_summary_tells_samples_convergence_and_what_comes_next(spies):
    text = invoke("calibrate", "my m.onnx", "--data", "a.npz").stdout
    assert "2 tensors on 192 samples in 2 s (96/s)" in text
    assert "settled" in text
    assert "quantcli convert 'my m.onnx' --calibration m.calib" in text


def test_ranges_that_still_move_are_named(monkeypatch):
    replace_use_case(monkeypatch, "calibrate", calibration("moving"))
    assert "most: 'x' 3.0%" in invoke("calibrate", "m.onnx", "--data", "a.npz").stdout


def test_json_is_machine_readable(spies):
    result = invoke("calibrate", "m.onnx", "--data", "a.npz", "--json")
    fields = json.loads(result.stdout)
    assert fields["samples"] == 192
    assert fields["tensors"] == 2
    assert fields["convergence"]["verdict"] == "converged"
    assert "note: a note" in result.stderr


def test_merge_joins_the_files(spies):
    result = invoke("calibrate", "--merge", "a.calib", "b.calib", "-o", "c.calib", "-f")
    assert result.exit_code == 0, result.output
    assert spies["merge"].calls == [((Path("a.calib"), Path("b.calib")), Path("c.calib"), True)]
    assert spies["calibrate"].calls == []


def test_quiet_says_nothing(spies):
    result = invoke("calibrate", "m.onnx", "--data", "a.npz", "-q")
    assert (result.stdout, result.stderr) == ("", "")
