"""The main job through the command line, on the sample models with their real data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

SAMPLES = Path(__file__).parents[2] / "sample_models"
MANIFEST = json.loads((SAMPLES / "manifest.json").read_text("utf-8"))
MODELS = {entry["name"]: entry for entry in MANIFEST["models"]}


def quantcli(*arguments: object, cwd: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "quantcli", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def files(name: str) -> tuple[Path, Path, Path, Path]:
    """Model, calibration data, evaluation data, labels."""
    entry = MODELS[name]
    return tuple(SAMPLES / entry[key] for key in ("file", "calibration", "evaluation", "labels"))  # type: ignore[return-value]


@pytest.fixture(scope="module", params=sorted(MODELS))
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Calibrated and converted, both formats, once per model."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    model, calibration, _, _ = files(name)
    quantcli("calibrate", model, "--data", calibration, "-o", "m.calib", cwd=folder)
    quantcli("convert", model, "--calibration", "m.calib", "-o", "qdq.onnx", "--report", "r.json", cwd=folder)
    quantcli("convert", model, "--calibration", "m.calib", "-o", "qop.onnx", "--format", "qoperator", cwd=folder)
    return name, folder


def test_int8_models_reach_their_expected_figures(job: tuple[str, Path]) -> None:
    name, folder = job
    model, _, evaluation, labels = files(name)
    expected = MODELS[name]["expected"]
    for quantized in ("qdq.onnx", "qop.onnx"):
        done = quantcli(
            "compare", model, quantized, "--data", evaluation, "--labels", labels, "--json",
            "--gate", f"sqnr>={expected['sqnr_db_min']}", "--gate", "size_ratio<=0.55", cwd=folder,
        )  # fmt: skip
        report = json.loads(done.stdout)
        assert report["accuracy"]["drop"] <= expected["top1_drop_points_max"] / 100
        assert report["verdict"]["status"] == "pass"


def test_every_planned_kernel_runs_in_integers(job: tuple[str, Path]) -> None:
    _, folder = job
    report = json.loads((folder / "r.json").read_text("utf-8"))
    assert report["kernels"]["unfused"] == []
    assert sum(found["count"] for found in report["kernels"]["integer"]) > 0


def test_results_keep_the_interface_and_carry_their_provenance(job: tuple[str, Path]) -> None:
    name, folder = job
    source = onnx.load(files(name)[0])
    for quantized in ("qdq.onnx", "qop.onnx"):
        result = onnx.load(folder / quantized)
        assert [v.name for v in result.graph.input] == [v.name for v in source.graph.input]
        assert [v.name for v in result.graph.output] == [v.name for v in source.graph.output]
        props = {p.key: p.value for p in result.metadata_props}
        assert props["quantcli.source_sha256"] == MODELS[name]["sha256"]
        text = " ".join(props.values())
        assert str(folder) not in text
        onnx.checker.check_model(result, full_check=False)


def test_a_gate_that_fails_gives_exit_code_1_and_its_report(job: tuple[str, Path]) -> None:
    name, folder = job
    model, _, evaluation, _ = files(name)
    done = quantcli(
        "compare", model, "qdq.onnx", "--data", evaluation, "--gate", "sqnr>=90", "--report", "fail.md", "-f",
        cwd=folder, code=1,
    )  # fmt: skip
    assert "FAIL" in done.stdout
    assert "sqnr" in (folder / "fail.md").read_text("utf-8")


def test_one_command_gives_the_bytes_of_two(tmp_path: Path) -> None:
    model, calibration, _, _ = files("digits_mobilenet")
    quantcli("calibrate", model, "--data", calibration, "-o", "m.calib", cwd=tmp_path)
    quantcli("convert", model, "--calibration", "m.calib", "--data", calibration, "-o", "two.onnx", cwd=tmp_path)
    quantcli("convert", model, "--data", calibration, "-o", "one.onnx", cwd=tmp_path)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_rounding_against_the_data_beats_rounding_to_nearest(job: tuple[str, Path]) -> None:
    name, folder = job
    model, calibration, evaluation, _ = files(name)
    quantcli("convert", model, "--data", calibration, "-o", "data.onnx", "-f", cwd=folder)
    reached = {}
    for result in ("qdq.onnx", "data.onnx"):  # the first one knows the ranges only
        done = quantcli("compare", model, result, "--data", evaluation, "--json", cwd=folder)
        reached[result] = json.loads(done.stdout)["outputs"][0]["sqnr"]
    assert reached["data.onnx"] > reached["qdq.onnx"] - 0.2


def test_hash_seed_threads_and_batches_change_no_byte(tmp_path: Path) -> None:
    model, calibration, _, _ = files("digits_mobilenet")
    results = []
    for seed, threads, batch in (("0", 1, 1), ("7", 2, 8)):
        out = tmp_path / f"{seed}.onnx"
        quantcli(
            "convert", model, "--data", calibration, "--samples", "32", "-o", out, "--threads", threads,
            "--batch-size", batch, cwd=tmp_path, PYTHONHASHSEED=seed,
        )  # fmt: skip
        results.append(out.read_bytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("method", ["minmax", "percentile:99.99", "entropy", "mse", "moving-average", "sigma"])
def test_one_calibration_serves_every_method(method: str, tmp_path: Path) -> None:
    model, calibration, evaluation, _ = files("digits_cnn")
    quantcli("calibrate", model, "--data", calibration, "--samples", "64", "-o", "m.calib", cwd=tmp_path)
    quantcli("convert", model, "--calibration", "m.calib", "--method", method, "-o", "q.onnx", cwd=tmp_path)
    options = ("--samples", "200", "--no-default-gates", "--json")  # some methods clip what is then called a fault
    done = quantcli("compare", model, "q.onnx", "--data", evaluation, *options, cwd=tmp_path)
    (output,) = json.loads(done.stdout)["outputs"]
    assert output["sqnr"] > 10  # KL clips hard and is known to cost most; a wrong range gives 0 dB or less


@pytest.mark.parametrize(
    "options",
    [
        ("--symmetric",),
        ("--granularity", "tensor"),
        ("--target", "generic"),
        ("--exclude", "op:Add"),
        ("--opset", "21"),
    ],
)
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_every_option_gives_a_model_that_runs(form: str, options: tuple[str, ...], tmp_path: Path) -> None:
    model, calibration, evaluation, _ = files("digits_cnn")
    quantcli(
        "convert", model, "--data", calibration, "--samples", "32", "-o", "q.onnx", "--format", form, *options,
        cwd=tmp_path,
    )  # fmt: skip
    session = ort.InferenceSession(tmp_path / "q.onnx", providers=["CPUExecutionProvider"])
    images = np.load(evaluation)["image"][:2].astype(np.float32)
    (logits,) = session.run(None, {"image": images})
    assert np.isfinite(logits).all()


def test_a_dry_run_needs_no_data_and_writes_only_the_plan(tmp_path: Path) -> None:
    model, calibration, _, _ = files("digits_cnn")
    quantcli("convert", model, "--dry-run", "--plan-out", "plan.json", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    quantcli("convert", model, "--data", calibration, "--plan", "plan.json", "-o", "a.onnx", cwd=tmp_path)
    onnx.checker.check_model(onnx.load(tmp_path / "a.onnx"))


def test_a_recorded_plan_gives_the_same_bytes_again(tmp_path: Path) -> None:
    model, calibration, _, _ = files("digits_mobilenet")
    data = ("--data", calibration)
    quantcli("convert", model, *data, "--plan-out", "plan.json", "-o", "a.onnx", cwd=tmp_path)
    quantcli("convert", model, *data, "--plan", "plan.json", "-o", "b.onnx", cwd=tmp_path)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_calibration_of_another_model_is_refused(tmp_path: Path) -> None:
    model, calibration, _, _ = files("digits_cnn")
    other = files("digits_mobilenet")[0]
    quantcli("calibrate", model, "--data", calibration, "--samples", "8", "-o", "m.calib", cwd=tmp_path)
    done = quantcli("convert", other, "--calibration", "m.calib", "-o", "q.onnx", cwd=tmp_path, code=3)
    assert "error[K201]" in done.stderr
    assert not (tmp_path / "q.onnx").exists()


def test_merged_calibrations_equal_one_over_all_samples(tmp_path: Path) -> None:
    model, calibration, _, _ = files("digits_cnn")
    samples = np.load(calibration)["image"]
    np.savez(tmp_path / "a.npz", image=samples[:20])
    np.savez(tmp_path / "b.npz", image=samples[20:48])
    np.savez(tmp_path / "all.npz", image=samples[:48])
    for name in ("a", "b", "all"):
        quantcli("calibrate", model, "--data", f"{name}.npz", "-o", f"{name}.calib", cwd=tmp_path)
    quantcli("calibrate", "--merge", "a.calib", "b.calib", "-o", "ab.calib", cwd=tmp_path)
    for name in ("ab", "all"):
        quantcli("convert", model, "--calibration", f"{name}.calib", "-o", f"{name}.onnx", cwd=tmp_path)
    a, b = (onnx.load(tmp_path / f"{name}.onnx").graph for name in ("ab", "all"))
    assert a == b


@pytest.mark.parametrize(
    ("options", "opset"),
    [
        ((), 13),
        (("--target", "generic"), 13),
        (("--target", "generic", "--granularity", "tensor"), 11),
        (("--opset", "17"), 17),
    ],
)
def test_the_opset_is_raised_only_as_needed(options: tuple[str, ...], opset: int, tmp_path: Path) -> None:
    model, calibration, _, _ = files("digits_cnn")  # opset 11
    quantcli("convert", model, "--data", calibration, "--samples", "4", "-o", "q.onnx", *options, cwd=tmp_path)
    (found,) = [entry.version for entry in onnx.load(tmp_path / "q.onnx").opset_import if not entry.domain]
    assert found == opset
