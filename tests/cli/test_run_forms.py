"""``quantcli run`` with forms that need no calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from cli_fakes import invoke
from onnx import numpy_helper


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of products, with samples to judge by; the process works there."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,64] x) => (float[N,64] y) { a = MatMul (x, w0) r = Relu (a) y = MatMul (r, w1) }"""
    )
    rng = np.random.default_rng(2)
    for name in ("w0", "w1"):
        proto.graph.initializer.append(
            numpy_helper.from_array(rng.normal(0, 0.1, (64, 64)).astype(np.float32), name)
        )
    onnx.save(proto, tmp_path / "m.onnx")
    np.savez(tmp_path / "eval.npz", x=rng.normal(0, 1, (8, 64)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(folder: Path, convert: str, more: str = "") -> None:
    text = f"""eval-data = "eval.npz"
{more}
[convert]
{convert}

[gates]
sqnr = ">=10"

[[models]]
path = "m.onnx"
"""
    (folder / "quantcli.toml").write_text(text)


@pytest.mark.parametrize("form", ["dynamic = true", "weight-only = true", 'bits = "fp16"'])
def test_a_form_without_calibration_runs_without_samples_to_calibrate_on(folder, form):
    config(folder, form)
    done = invoke("run")
    assert done.exit_code == 0, done.output
    assert not list(folder.glob("*.calib"))
    assert (folder / "m.int8.onnx").exists()


def test_a_second_run_makes_nothing_again(folder):
    config(folder, "weight-only = true")
    assert invoke("run").exit_code == 0
    assert "nothing was made again" in invoke("run").output


def test_samples_are_used_for_rounding_where_there_are_any(folder):
    config(folder, 'weight-only = true\nbits = 4\neffort = "balanced"', 'data = "eval.npz"')
    assert invoke("run").exit_code == 0
    assert invoke("run", "--check").exit_code == 0
    assert not list(folder.glob("*.calib"))


def test_static_quantization_still_needs_samples(folder):
    config(folder, 'effort = "fast"')
    done = invoke("run")
    assert done.exit_code == 2
    assert "has no samples to calibrate on" in done.output
