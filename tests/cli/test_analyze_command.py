"""``quantcli analyze``: options, streams and exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cli_fakes import invoke, replace_use_case

sys.path.append(str(Path(__file__).parents[1] / "report"))

from small_analysis import analysis

from quantcli.report.to_json import analysis_from_json

SAMPLES = Path(__file__).parents[2] / "sample_models"


def test_options_reach_the_request(monkeypatch):
    from quantcli.pipeline.analyze_types import AnalyzeOptions, AnalyzeRequest
    from quantcli.pipeline.types import ConvertRequest, DataOptions, RunOptions
    from quantcli.quantize.recipe import Recipe

    spy = replace_use_case(monkeypatch, "analyze", analysis())
    done = invoke(
        "analyze", "m.onnx", "--data", "c.npz", "--eval-data", "e.npz", "--calibration", "m.calib", "--samples",
        "5", "--probe-samples", "8", "--target-sqnr", "30",
        "--no-latency", "--exclude", "op:Gemm", "--effort", "fast",
        "--method", "minmax", "--threads", "2", "--report", "a.md", "-o", "r.toml", "-f",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert spy.request == AnalyzeRequest(
        conversion=ConvertRequest(
            model=Path("m.onnx"),
            calibration=Path("m.calib"),
            data=DataOptions(specs=("c.npz",), samples=5),
            eval_data=DataOptions(specs=("e.npz",)),
            recipe=Recipe(method="minmax", exclude=("op:Gemm",)),
            run=RunOptions(threads=2),
            effort="fast",
        ),
        options=AnalyzeOptions(probe_samples=8, target_sqnr=30.0, latency=False),
        output=Path("r.toml"),
        reports=(Path("a.md"),),
        command=spy.request.command,
        overwrite=True,
    )


def test_the_ranking_goes_to_standard_output(monkeypatch):
    replace_use_case(monkeypatch, "analyze", analysis(many=30))
    text = invoke("analyze", "m.onnx", "--data", "c.npz", "--top", "3").stdout
    assert "and 27 more layers" in text
    assert "--exclude conv_1 \\" in text


def test_json_is_an_analysis_and_nothing_else(monkeypatch):
    replace_use_case(monkeypatch, "analyze", analysis())
    done = invoke("analyze", "m.onnx", "--data", "c.npz", "--json")
    assert analysis_from_json(done.stdout) == analysis()


@pytest.mark.parametrize(("arguments", "code"), [((), "U101"), (("--data", "c.npz", "--report", "a.xml"), "U103")])
def test_wrong_usage_is_told_before_any_work(arguments, code):
    done = invoke("analyze", "m.onnx", *arguments)
    assert done.exit_code == 2
    assert code in done.stderr


def test_a_sample_model_is_analyzed(tmp_path):
    data = SAMPLES / "data"
    done = invoke(
        "analyze", str(SAMPLES / "digits_transformer.onnx"), "--data", str(data / "digits_calib.npz"),
        "--eval-data", str(data / "digits_eval.npz"), "--samples", "32", "--probe-samples", "16", "--effort",
        "fast",
        "--placement", "static", "--no-latency", "--report", str(tmp_path / "a.json"), "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = analysis_from_json(done.stdout)
    assert analysis_from_json((tmp_path / "a.json").read_text("utf-8")) == found
    assert json.loads(done.stdout)["command"].startswith("quantcli analyze digits_transformer.onnx")
    assert len(found.layers) >= 18
    assert not any("one by one" in note for note in found.notes)
    assert found.sqnr_predicted == pytest.approx(found.sqnr, abs=3)


def test_verbose_says_where_values_come_from(monkeypatch):
    replace_use_case(monkeypatch, "analyze", analysis())
    told = invoke("analyze", "m.onnx", "--data", "c.npz", "--effort", "fast", "-v").stderr
    assert "option: effort  fast  (command line)" in told
