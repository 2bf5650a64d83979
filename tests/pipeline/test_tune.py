"""Tuning: it reaches what was asked for, is resumed where it stopped, and writes what convert reads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantcli.config.recipe_file import read_recipe
from quantcli.errors import ConfigError, OutputError, UsageError
from quantcli.pipeline import forecast as forecast_module
from quantcli.pipeline import real_runs as runs_module
from quantcli.pipeline.convert import convert
from quantcli.pipeline.float_tensors import mark_dominated
from quantcli.pipeline.node_costs import extra_seconds
from quantcli.pipeline.tune import convert_to_target, tune
from quantcli.pipeline.tune_types import TuneOptions, TuneRequest, TuneRow
from quantcli.pipeline.types import ConvertRequest, DataOptions
from quantcli.progress import SilentProgress
from quantcli.quantize.plan import Action, NodePlan, Plan
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.profile import NodeTime

SILENT = SilentProgress()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four convolutions."""
    rng = np.random.default_rng(4)
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,4,8,8] x) => (float[N,4] y) {
            a = Conv <pads = [1,1,1,1]> (x, w0) b = Relu (a) c = Conv <pads = [1,1,1,1]> (b, w1) d = Relu (c)
            e = Conv <pads = [1,1,1,1]> (d, w2) f = Relu (e) h = Conv <pads = [1,1,1,1]> (f, w3)
            p = GlobalAveragePool (h) y = Flatten (p)
        }"""
    )
    weights = {f"w{i}": rng.normal(0, 0.3, (4, 4, 3, 3)).astype(np.float32) for i in range(4)}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(proto, tmp_path / "m.onnx")
    samples = rng.normal(0, 1, (24, 4, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=samples[:16])
    np.savez(tmp_path / "eval.npz", x=samples[16:])
    np.save(tmp_path / "labels.npy", rng.integers(0, 4, 8))
    return tmp_path


def data(folder: Path, name: str) -> DataOptions:
    return DataOptions(specs=(str(folder / name),))


def request(folder: Path, *gates: str, **fields: object) -> TuneRequest:
    conversion = ConvertRequest(
        model=folder / "m.onnx",
        data=data(folder, "calib.npz"),
        eval_data=data(folder, "eval.npz"),
        recipe=Recipe(method="minmax"),
        effort="fast",
    )
    own = {name: value for name, value in fields.items() if name not in TuneRequest.__dataclass_fields__}
    base = TuneRequest(
        conversion=dataclasses.replace(conversion, **own),
        options=TuneOptions(gates=gates or ("sqnr>=53",), minimize="layers"),
    )
    return dataclasses.replace(base, **{name: value for name, value in fields.items() if name not in own})


def test_no_more_tensors_than_needed_are_left_in_float(folder: Path) -> None:
    result = tune(request(folder), SILENT)
    assert result.found.reached
    assert result.found.tensors == ("h", "x")
    assert set(result.found.noise) == {"x", "b", "d", "f", "h"}
    measured = {row.tensors: row.reached for row in result.found.rows if row.reached is not None}
    assert measured == {(): False, ("h",): False, ("h", "x"): True}
    assert read_recipe(result.output)["exclude"] == ("tensor:h", "tensor:x")


def test_convert_makes_of_the_recipe_what_was_measured(folder: Path) -> None:
    result = tune(request(folder), SILENT)
    values = read_recipe(result.output)
    assert values["effort"] == "fast"
    recipe = Recipe(method=str(values["method"]), exclude=values["exclude"])
    asked = dataclasses.replace(request(folder).conversion, recipe=recipe)
    chosen = next(row for row in result.found.rows if row.chosen)
    assert convert(asked, SILENT).fidelity == {"y": pytest.approx(chosen.measured_sqnr)}


def test_what_is_reached_already_needs_no_tensor(folder: Path) -> None:
    result = tune(request(folder, "sqnr>=45"), SILENT)
    assert result.found.tensors == ()
    assert result.found.runs == 1
    assert "exclude" not in read_recipe(result.output)


def test_what_cannot_be_reached_gives_the_best_that_was_found(folder: Path) -> None:
    result = tune(request(folder, "sqnr>=53", "latency_ratio<=0.0001"), SILENT)
    assert not result.found.reached
    assert result.found.tensors == ("h", "x")
    assert [gate.status for gate in result.found.gates] == ["pass", "fail"]
    result = tune(request(folder, "sqnr>=200", overwrite=True), SILENT)
    assert not result.found.reached
    assert result.output.exists()


def test_gates_on_accuracy_steer_as_well(folder: Path) -> None:
    found = tune(request(folder, "top1_agreement>=0", "accuracy_drop<=99pp", labels=folder / "labels.npy"), SILENT)
    assert found.found.reached
    assert found.found.tensors == ()


def test_an_interrupted_search_goes_on_where_it_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    original = forecast_module.NoiseMeter.noise

    def interrupted(meter, run):
        runs.append(1)
        if len(runs) == 4:
            raise KeyboardInterrupt
        return original(meter, run)

    monkeypatch.setattr(forecast_module.NoiseMeter, "noise", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(request(folder), SILENT)
    state = json.loads((folder / "m.recipe.toml.state.json").read_text())
    assert (len(state["noise"]), len(state["runs"])) == (3, 1)
    result = tune(request(folder), SILENT)
    assert result.found.tensors == ("h", "x")
    parts = 1 + len(result.found.noise)
    assert len(runs) in {parts + 1, parts + 1 + 4}  # with or without the weights of four layers


def test_a_second_search_measures_nothing_and_finds_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tune(request(folder), SILENT)
    text = first.output.read_bytes()
    monkeypatch.setattr(forecast_module.NoiseMeter, "noise", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(runs_module.Evaluation, "report", lambda *_: pytest.fail("run again"))
    again = tune(request(folder, overwrite=True), SILENT)
    assert again.found == first.found
    assert again.output.read_bytes() == text


def test_another_gate_uses_what_was_measured(folder: Path) -> None:
    first = tune(request(folder), SILENT)
    second = tune(request(folder, "cosine>=0.9", overwrite=True), SILENT)
    assert second.found.runs == first.found.runs
    assert second.found.tensors == ()


def test_a_state_of_other_samples_is_not_used(folder: Path) -> None:
    tune(request(folder), SILENT)
    other = tune(request(folder, eval_data=DataOptions(), overwrite=True), SILENT)
    assert any("everything was measured anew" in note for note in other.notes)
    assert any("calibration samples, which flatters" in note for note in other.notes)


def test_a_file_that_is_no_state_is_not_overwritten(folder: Path) -> None:
    (folder / "notes.json").write_text("[]")
    with pytest.raises(ConfigError, match="no state of a tuning run"):
        tune(request(folder, state=folder / "notes.json"), SILENT)
    assert (folder / "notes.json").read_text() == "[]"


def test_gates_must_steer(folder: Path) -> None:
    with pytest.raises(UsageError, match="no gate says"):
        tune(request(folder, "latency_ratio<=1"), SILENT)
    with pytest.raises(UsageError, match="needs samples and labels"):
        tune(request(folder, "accuracy_drop<=1pp"), SILENT)


def test_an_existing_recipe_is_kept(folder: Path) -> None:
    (folder / "m.recipe.toml").write_text("method = 'minmax'\n")
    with pytest.raises(OutputError, match="exists"):
        tune(request(folder), SILENT)


def test_times_are_those_of_the_kernel_that_a_node_is_part_of() -> None:
    from small_graphs import graph

    view = graph(
        "g (float[1,1,4,4] x) => (float[1,1,4,4] y) { a = Conv(x, w) b = Relu(a) y = Conv(b, w) }",
        w=np.ones((1, 1, 1, 1), np.float32),
    ).view()
    plan = Plan(
        target="ort-cpu",
        nodes=(
            NodePlan(name="n0", op_type="Conv", action=Action.QUANTIZE),
            NodePlan(name="n1", op_type="Relu", action=Action.FUSE, into="n0"),
            NodePlan(name="n2", op_type="Conv", action=Action.FLOAT),
        ),
        tensors={},
    )

    def time(name: str, op: str, seconds: float, size: int) -> NodeTime:
        return NodeTime(name=name, op_type=op, seconds=seconds, output_bytes=size)

    floats = (time("b", "Conv", 5.0, 64), time("y", "Conv", 7.0, 64), time("reorder", "ReorderOutput", 1.0, 64))
    integers = (
        time("n0", "QLinearConv", 2.0, 16),
        time("x_QuantizeLinear", "QuantizeLinear", 1.6, 16),
        time("b_DequantizeLinear", "DequantizeLinear", 3.2, 64),
    )
    # 16 elements: 0.1 s each to quantize the output; the input of the graph has no time of its own
    assert extra_seconds(plan, view, floats, integers) == {"n0": pytest.approx(5.0 - 2.0 + 16 * 0.1 / 2)}


def test_a_row_is_dominated_by_a_better_one_only() -> None:
    def row(layers: int, decibel: float) -> TuneRow:
        return TuneRow(tensors=(), float_layers=layers, predicted_sqnr=decibel)

    rows = mark_dominated([row(0, 10.0), row(1, 9.0), row(2, 12.0), row(2, 12.0), row(2, 11.0)])
    assert [found.dominated for found in rows] == [False, True, False, False, True]


def test_one_conversion_reaches_a_target_by_itself(folder: Path) -> None:
    result, found = convert_to_target(request(folder), SILENT)
    assert found.tensors == ("h", "x")
    assert result.fidelity["y"] >= 53
    assert result.notes[0] == "2 tensors are left in float for the target: 'h', 'x'"
    assert not list(folder.glob("*.json"))


def test_a_target_that_is_reached_already_costs_one_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_module.NoiseMeter, "noise", lambda *_: pytest.fail("measured"))
    asked = request(folder, "sqnr>=45", options=TuneOptions(gates=("sqnr>=45",), survey=False))
    _, found = convert_to_target(asked, SILENT)
    assert (found.tensors, found.reached, found.runs) == ((), True, 1)


def test_a_target_that_is_missed_is_told(folder: Path) -> None:
    result, found = convert_to_target(request(folder, "sqnr>=200"), SILENT)
    assert not found.reached
    assert any(note.startswith("the target was not reached: sqnr of 'y' is") for note in result.notes)
