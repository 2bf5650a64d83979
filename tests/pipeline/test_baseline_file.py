"""``compare`` with the report of an earlier comparison, from file to exit code."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from toy_models import CODES, FLOAT, half_steps, qdq_text, save

from quantcli.cli.main import cli
from quantcli.report.to_json import from_json


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(FLOAT, Path("net.onnx"))
    save(qdq_text(codes=(1, 2, -3, 4, 1, 2, -2, 6, 1, 2, 2, -3)), Path("good.onnx"))  # one weight off by a step
    save(qdq_text(codes=(2, 2, -3, 5, 1, 3, -2, 6, 1, 2, 2, -3)), Path("worse.onnx"))  # four of them
    assert len(CODES) == 12
    np.savez("eval.npz", x=half_steps(60))
    np.savez("other.npz", x=half_steps(60, seed=1))
    assert run("good.onnx", "--report", "base.json").exit_code == 0
    return tmp_path


def run(model, *options, data="eval.npz"):
    return CliRunner().invoke(cli, ["compare", "net.onnx", model, "--data", data, *options])


def test_the_same_model_passes_its_own_baseline(folder):
    result = run("good.onnx", "--baseline", "base.json", "--report", "new.json")
    assert result.exit_code == 0, result.output
    report = from_json(Path("new.json").read_text())
    assert report.verdict.status == "pass"
    assert report.baseline.same_data is True
    assert report.baseline.notes == ()
    assert {gate.origin for gate in report.gates} == {"baseline", "default"}


def test_a_worse_model_fails_and_the_report_is_written_all_the_same(folder):
    result = run("worse.onnx", "--baseline", "base.json", "--report", "new.json")
    assert result.exit_code == 1, result.output
    report = from_json(Path("new.json").read_text())
    failed = {gate.metric for gate in report.gates if gate.status == "fail"}
    assert "sqnr" in failed
    assert "size_ratio" not in failed


def test_what_is_allowed_passes(folder):
    options = ("--allow-regression", "sqnr=40dB", "--allow-regression", "cosine=off")
    result = run("worse.onnx", "--baseline", "base.json", *options, "--allow-regression", "top1_agreement=off")
    assert result.exit_code == 0, result.output


def test_the_report_knows_that_the_samples_are_others(folder):
    result = run("good.onnx", "--baseline", "base.json", "--report", "new.json", data="other.npz")
    assert result.exit_code in (0, 1)
    assert from_json(Path("new.json").read_text()).baseline.same_data is False


@pytest.mark.parametrize(
    ("content", "exit_code", "code"),
    [(None, 3, "D103"), ("not json", 3, "G301"), ('{"schema_version": 99}', 3, "G301")],
)
def test_a_baseline_that_cannot_be_read_is_an_input_error(folder, content, exit_code, code):
    if content is not None:
        Path("broken.json").write_text(content)
    result = run("good.onnx", "--baseline", "broken.json")
    assert result.exit_code == exit_code
    assert f"error[{code}]" in result.output


def test_the_baseline_is_never_overwritten(folder):
    result = run("good.onnx", "--baseline", "base.json", "--report", "base.json", "-f")
    assert result.exit_code == 4
    assert "error[O102]" in result.output


def test_several_wrong_regressions_are_named_at_once(folder):
    result = run(
        "good.onnx", "--baseline", "base.json", "--allow-regression", "sqrn=1", "--allow-regression", "a=x"
    )
    assert result.exit_code == 2
    assert "2 gates are wrong" in result.output


@pytest.mark.parametrize("metric", ["accuracy", "latency_ratio"])
def test_a_regression_that_cannot_be_judged_is_told_before_anything_runs(folder, metric):
    report = from_json(Path("base.json").read_text())
    labels = np.zeros(60, np.int64)
    np.save("labels.npy", labels)
    measured = run("good.onnx", "--labels", "labels.npy", "--latency", "--repeats", "6", "--report", "full.json")
    assert measured.exit_code == 0, measured.output
    assert report.latency is None
    allow = ("--allow-regression", f"{metric}=0.5")
    for baseline, place in (("base.json", "the baseline 'base.json'"), ("full.json", "the new report")):
        result = run("good.onnx", "--baseline", baseline, *allow)
        assert result.exit_code == 2
        assert f"error[G303]: the allowed regression '{metric}=0.5' is of something that {place}" in result.output
        assert "60 of 60" not in result.output  # no sample was run


def test_the_report_of_a_conversion_is_a_baseline_of_the_same_samples(tmp_path, monkeypatch):
    samples = Path(__file__).resolve().parents[2] / "sample_models"
    monkeypatch.chdir(tmp_path)
    model, data = str(samples / "digits_cnn.onnx"), samples / "data"
    words = ["--data", f"{data}/digits_calib.npz", "--eval-data", f"{data}/digits_eval.npz", "--effort", "fast"]
    result = CliRunner().invoke(cli, ["convert", model, *words, "-o", "q.onnx", "--report", "base.json"])
    assert result.exit_code == 0, result.output
    judge = [
        "compare",
        model,
        "q.onnx",
        "--data",
        f"{data}/digits_eval.npz",
        "--baseline",
        "base.json",
    ]
    result = CliRunner().invoke(cli, [*judge, "--report", "new.json"])
    assert result.exit_code == 0, result.output
    assert from_json(Path("new.json").read_text()).baseline.same_data is True
