"""Metrics from the command line to the report, on a sample model."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from quantcli.cli.main import cli
from quantcli.errors import UsageError
from quantcli.pipeline.metrics import open_metrics, truth_files
from quantcli.pipeline.types import DataOptions, MetricRequest
from quantcli.report.to_json import from_json

SAMPLES = Path(__file__).resolve().parent.parent.parent / "sample_models"

CODE = """
import numpy as np

def surprise(outputs, labels):
    '''Cross-entropy.'''
    z = outputs["logits"][0].astype(float)
    z = z - z.max()
    return float(np.log(np.exp(z).sum()) - z[labels[0]])
surprise.better = "lower"
"""


def compare(tmp_path, *arguments):
    model = str(SAMPLES / "digits_cnn.onnx")
    report = tmp_path / "report.json"
    data = str(SAMPLES / "data" / "digits_eval.npz")
    result = CliRunner().invoke(
        cli, ["compare", model, model, "--data", data, "--report", str(report), "-f", *arguments]
    )
    return result, from_json(report.read_text("utf-8")) if report.exists() else None


def test_a_function_scores_every_sample_and_its_gate_is_judged(tmp_path):
    (tmp_path / "own.py").write_text(CODE)
    labels = str(SAMPLES / "data" / "digits_eval_labels.npy")
    arguments = ("--labels", labels, "--metric", f"{tmp_path / 'own.py'}:surprise", "--samples", "100")
    result, report = compare(tmp_path, *arguments, "--top-k", "3", "--gate", "surprise_drop<=0.2")
    assert result.exit_code == 0, result.output
    (found,) = report.metrics
    assert (found.name, found.better, found.samples, found.drop) == ("surprise", "lower", 100, 0)
    assert report.gates[0].status == "pass"
    assert report.accuracy.p_value == 1.0
    assert [metric.name for metric in report.accuracy.topk] == ["top3_accuracy"]
    assert sum(one.samples for one in report.accuracy.classes) == 100
    _, same = compare(tmp_path, *arguments, "--top-k", "3", "--gate", "surprise_drop<=0.2")
    assert same == report


def test_a_report_never_overwrites_a_truth(tmp_path):
    truth = tmp_path / "report.json"
    truth.write_bytes(b"mine")
    outcome = CliRunner().invoke(
        cli,
        ["compare", *[str(SAMPLES / "digits_cnn.onnx")] * 2, "--data", str(SAMPLES / "data" / "digits_eval.npz"),
         "--task", f"segmentation?truth={truth}", "--report", str(truth), "-f"],
    )  # fmt: skip
    assert outcome.exit_code == 4
    assert truth.read_bytes() == b"mine"


def test_options_become_values():
    request = MetricRequest(ranges=("0:2", "y=1"), top_k=(4,), tasks=("segmentation?truth=t.npy",))
    found = open_metrics(request, DataOptions(samples=3))
    assert (found.ranges, found.top_k, found.limited) == ({None: 2.0, "y": 1.0}, (4,), True)
    assert truth_files(request) == (Path("t.npy"),)


def test_a_range_given_twice_is_refused():
    with pytest.raises(UsageError, match="given twice"):
        open_metrics(MetricRequest(ranges=("y=1", "y=2")), DataOptions())


def test_shuffled_samples_have_no_truth_in_order():
    with pytest.raises(UsageError) as caught:
        open_metrics(MetricRequest(tasks=("segmentation?truth=t.npy",)), DataOptions(shuffle=True))
    assert caught.value.code == "U105"


def test_a_truth_that_does_not_fit_is_an_error_of_the_input(tmp_path):
    np.save(tmp_path / "maps.npy", np.zeros((4, 8, 8), int))
    result, _ = compare(tmp_path, "--task", f"segmentation?truth={tmp_path / 'maps.npy'}", "--samples", "4")
    assert result.exit_code == 3
    assert "G109" in result.output
