"""``quantcli tune``, ``convert --recipe`` and the targets of ``convert``."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from cli_fakes import conversion, invoke, replace_use_case, report

from quantcli.report.schema import GateResult

TUNE = ("tune", "m.onnx", "--data", "c.npz", "--gate", "sqnr>=20")


def result(reached: bool = True):
    from quantcli.pipeline.tune_types import Fallback, TuneResult, TuneRow

    gate = GateResult(
        expression="sqnr>=20", metric="sqnr", output="y", severity="fail", status="pass" if reached else "fail",
        value=21.0, low=None, high=None, limit=20.0, margin=1.0, samples_needed=None,
        sentence="sqnr of 'y' is 21 dB",
    )  # fmt: skip
    row = TuneRow(tensors=("a",), float_layers=2, predicted_sqnr=20.5)
    rows = (
        dataclasses.replace(
            row, tensors=(), float_layers=0, predicted_sqnr=12.0, measured_sqnr=12.0, reached=False
        ),
        dataclasses.replace(row, measured_sqnr=21.0, latency=0.62, reached=reached, chosen=True),
        dataclasses.replace(row, tensors=("a", "b"), predicted_sqnr=math.inf, predicted_latency=0.7),
        dataclasses.replace(row, tensors=("b",), dominated=True),
    )
    found = Fallback(
        tensors=("a",), reached=reached, rows=rows, gates=(gate,), report=report(), noise={"a": 13.0, "b": 25.0},
        weights_noise=30.0, runs=2,
    )  # fmt: skip
    return TuneResult(output=Path("m.recipe.toml"), state=Path("m.state.json"), found=found, notes=("a note",))


def test_options_reach_the_request(monkeypatch):
    from quantcli.pipeline.tune_types import TuneOptions, TuneRequest
    from quantcli.pipeline.types import ConvertRequest, DataOptions, RunOptions
    from quantcli.quantize.recipe import Recipe

    spy = replace_use_case(monkeypatch, "tune", result())
    done = invoke(
        *TUNE, "--gate", "accuracy_drop<=1pp", "--eval-data", "e.npz", "--labels", "l.npy", "--labels-output", "y",
        "--minimize", "layers", "--probe-samples", "8", "--samples", "5", "--exclude", "op:Gemm", "--effort",
        "fast", "--method", "minmax", "--threads", "2", "-o", "r.toml", "--state-file", "s.json", "-f",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert spy.request == TuneRequest(
        conversion=ConvertRequest(
            model=Path("m.onnx"),
            data=DataOptions(specs=("c.npz",), samples=5),
            eval_data=DataOptions(specs=("e.npz",)),
            recipe=Recipe(method="minmax", exclude=("op:Gemm",)),
            run=RunOptions(threads=2),
            effort="fast",
        ),
        options=TuneOptions(gates=("sqnr>=20", "accuracy_drop<=1pp"), minimize="layers", probe_samples=8),
        labels=Path("l.npy"),
        labels_output="y",
        output=Path("r.toml"),
        state=Path("s.json"),
        overwrite=True,
    )


@pytest.mark.parametrize(
    ("reached", "extra", "code"), [(True, (), 0), (False, (), 1), (False, ("--exit-zero",), 0)]
)
def test_one_means_that_the_gates_were_not_reached(monkeypatch, reached, extra, code):
    replace_use_case(monkeypatch, "tune", result(reached))
    done = invoke(*TUNE, *extra)
    assert done.exit_code == code
    assert "note: a note" in done.stderr


def test_the_screen_shows_what_was_chosen_and_the_next_command(monkeypatch):
    replace_use_case(monkeypatch, "tune", result())
    text = invoke(*TUNE, "--samples", "5").stdout
    assert "sqnr of 'y' is 21 dB" in text
    assert "1 tensor, and 2 layers with them: a" in text
    assert "reached, chosen" in text
    assert "0.62 ×" in text
    assert "quantcli convert m.onnx --data c.npz --samples 5 --recipe m.recipe.toml" in text
    assert len(invoke(*TUNE, "-v").stdout.splitlines()) == len(text.splitlines()) + 1  # the row that is beaten


def test_json_is_everything_and_nothing_else(monkeypatch):
    replace_use_case(monkeypatch, "tune", result())
    found = json.loads(invoke(*TUNE, "--json").stdout)
    assert found["float_tensors"] == ["a"]
    assert found["reached"] is True
    assert [row["predicted_sqnr"] for row in found["rows"]] == [12.0, 20.5, "inf", 20.5]


def test_a_goal_and_samples_are_needed():
    assert "there is nothing to reach" in invoke("tune", "m.onnx", "--data", "c.npz").stderr
    assert "no samples to calibrate on" in invoke("tune", "m.onnx", "--gate", "sqnr>=20").stderr
    assert "no effect without --labels" in invoke(*TUNE, "--labels-output", "y").stderr


# Recipes of convert -----------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.toml"
    path.write_text('method = "minmax"\nsymmetric = true\nexclude = ["tensor:a b", "op:Gemm"]\neffort = "fast"\n')
    return path


def test_a_recipe_stands_for_the_options_and_flags_beat_it(monkeypatch, recipe):
    spy = replace_use_case(monkeypatch, "convert_or_rescue", conversion())
    base = ("convert", "m.onnx", "--data", "c.npz", "--recipe", str(recipe))
    assert invoke(*base).exit_code == 0
    assert (spy.request.recipe.method, spy.request.recipe.symmetric, spy.request.effort) == (
        "minmax",
        True,
        "fast",
    )
    assert spy.request.recipe.exclude == ("tensor:a b", "op:Gemm")
    assert invoke(*base, "--method", "mse", "--asymmetric", "--exclude", "c").exit_code == 0
    assert (spy.request.recipe.method, spy.request.recipe.symmetric) == ("mse", False)
    assert spy.request.recipe.exclude == ("c",)


def test_a_wrong_recipe_is_a_usage_error_with_its_line(recipe):
    recipe.write_text('\nmetod = "mse"\n')
    done = invoke("convert", "m.onnx", "--data", "c.npz", "--recipe", str(recipe))
    assert done.exit_code == 2
    assert "error[C107]: r.toml, line 2: there is no key 'metod'" in done.stderr
    assert "'method'" in done.stderr


def test_a_recipe_and_a_plan_exclude_each_other(recipe):
    done = invoke("convert", "m.onnx", "--data", "c.npz", "--recipe", str(recipe), "--plan", "p.json")
    assert "--recipe has no effect" in done.stderr


# Targets of convert -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reached", [True, False])
def test_targets_become_gates_of_a_search(monkeypatch, reached):
    answer = (conversion(), result(reached).found)
    spy = replace_use_case(monkeypatch, "tune", answer, names=("convert_to_target",))["convert_to_target"]
    done = invoke(
        "convert", "m.onnx", "--data", "c.npz", "--eval-data", "e.npz", "--labels", "l.npy", "--target-sqnr",
        "22.5", "--target-drop", "0.5",
    )  # fmt: skip
    assert done.exit_code == (0 if reached else 1), done.output
    assert spy.request.options.gates == ("sqnr>=22.5", "accuracy_drop<=0.5pp")
    assert spy.request.labels == Path("l.npy")
    assert spy.request.conversion.model == Path("m.onnx")
    assert "m.int8.onnx" in done.stdout


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (("--target-drop", "1"), "--target-drop needs true classes"),
        (("--target-sqnr", "20", "--dry-run"), "--dry-run leaves no room"),
        (("--target-sqnr", "20", "--plan", "p.json"), "--plan leaves no room"),
        (("--labels", "l.npy"), "no effect without --target-drop"),
    ],
)
def test_targets_without_what_they_need_are_refused(extra, told):
    done = invoke("convert", "m.onnx", "--data", "c.npz", *extra)
    assert done.exit_code == 2
    assert told in done.stderr


def test_a_target_without_samples_is_refused():
    done = invoke("convert", "m.onnx", "--calibration", "m.calib", "--target-sqnr", "20")
    assert "measures the noise of tensors on samples" in done.stderr
