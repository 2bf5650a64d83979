"""Analysis: nets in which one layer is bad on purpose, and what it says of them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantcli.config.recipe_file import read_recipe
from quantcli.core.dtypes import INT4
from quantcli.errors import OutputError, UsageError
from quantcli.pipeline.analyze import analyze
from quantcli.pipeline.analyze_types import AnalyzeOptions, AnalyzeRequest
from quantcli.pipeline.types import ConvertRequest, DataOptions
from quantcli.progress import SilentProgress
from quantcli.quantize.recipe import Recipe
from quantcli.report.analysis import Analysis, LayerSensitivity
from quantcli.report.to_json import analysis_from_json

SILENT = SilentProgress()
LAYERS = 4


def save(folder: Path, activation: str = "Relu", scale: float = 1.0) -> Path:
    """A chain of four convolutions; ``scale`` enlarges the first input channel, and the first weight undoes it."""
    rng = np.random.default_rng(4)
    middle = "".join(
        f"a{i} = Conv <pads = [1,1,1,1]> (b{i}, w{i}) b{i + 1} = {activation} (a{i}) " for i in range(LAYERS - 1)
    )
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,8,6,6] b0) => (float[N,8,3,3] y) {{
            {middle} h = Conv <pads = [1,1,1,1]> (b3, w3)
            y = AveragePool <kernel_shape = [2,2], strides = [2,2]> (h)
        }}"""
    )
    for index, node in enumerate(node for node in proto.graph.node if node.op_type == "Conv"):
        node.name = f"conv{index}"
    weights = {f"w{i}": rng.normal(0, 0.2, (8, 8, 3, 3)).astype(np.float32) for i in range(LAYERS)}
    weights["w0"][:, 0] /= scale
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(proto, folder / "m.onnx")
    samples = rng.normal(0, 1, (72, 8, 6, 6)).astype(np.float32)
    samples[:, 0] *= scale
    np.savez(folder / "calib.npz", b0=samples[:40])
    np.savez(folder / "eval.npz", b0=samples[40:])
    return folder / "m.onnx"


def request(model: Path, **fields: object) -> AnalyzeRequest:
    conversion = ConvertRequest(
        model=model,
        data=DataOptions(specs=(str(model.with_name("calib.npz")),)),
        eval_data=DataOptions(specs=(str(model.with_name("eval.npz")),)),
        recipe=Recipe(method="minmax"),
        effort="fast",
        placement="static",
    )
    rest = {name: value for name, value in fields.items() if name in AnalyzeRequest.__dataclass_fields__}
    own = {name: value for name, value in fields.items() if name not in rest}
    base = AnalyzeRequest(conversion=dataclasses.replace(conversion, **own), options=AnalyzeOptions(latency=False))
    return dataclasses.replace(base, **rest)


def named(found: Analysis, node: str) -> LayerSensitivity:
    return next(layer for layer in found.layers if layer.node == node)


def test_every_layer_is_ranked_by_its_gain(tmp_path: Path) -> None:
    found = analyze(request(save(tmp_path)), SILENT)
    assert {layer.node for layer in found.layers} == {f"conv{i}" for i in range(LAYERS)}
    gains = [layer.gain for layer in found.layers]
    assert gains == sorted(gains, reverse=True)
    assert all(layer.cost_bytes == 3 * 8 * 8 * 9 for layer in found.layers)
    assert all(layer.cost_ms is None for layer in found.layers)


def test_the_parts_add_up_to_what_was_measured(tmp_path: Path) -> None:
    """First order: at 40 dB what is missing is of the order of the noise itself, 1 %."""
    found = analyze(request(save(tmp_path)), SILENT)
    assert found.sqnr_predicted == pytest.approx(found.sqnr, abs=0.3)


def test_real_runs_agree_with_the_predictions(tmp_path: Path) -> None:
    """A quarter of the error energy of the part, √(2/32), is chance: a decibel where half of the error is left."""
    wanted = AnalyzeOptions(latency=False, target_sqnr=100.0)
    found = analyze(request(save(tmp_path), options=wanted), SILENT)
    assert found.checks is not None
    first = found.exclude[0]
    assert first.measured == pytest.approx(first.predicted, abs=1.2)
    assert first.selector == found.layers[0].node


def test_an_outlier_channel_is_found(tmp_path: Path) -> None:
    found = analyze(request(save(tmp_path, scale=40.0)), SILENT)
    worst = found.layers[0]
    assert (worst.node, worst.cause) == ("conv0", "outlier channels")
    assert worst.gain > 8
    assert worst.activation_noise > 10 * worst.weight_noise
    assert "channel 0" in worst.evidence
    assert found.exclude[0].selector == "conv0"


def test_a_range_that_cuts_is_called_clipping(tmp_path: Path) -> None:
    found = analyze(request(save(tmp_path), recipe=Recipe(method="percentile:97")), SILENT)
    assert found.layers[0].cause == "clipping"
    assert found.layers[0].remedy.startswith("--method minmax")


def test_weights_of_four_bits_are_the_cause_where_they_are(tmp_path: Path) -> None:
    recipe = Recipe(method="minmax", weight_dtype=INT4)
    found = analyze(request(save(tmp_path), recipe=recipe), SILENT)
    assert {layer.cause for layer in found.layers if layer.cause != "bias"} == {"weights"}
    layer = named(found, "conv3")
    assert layer.weight_noise > 10 * layer.activation_noise
    assert layer.cost_bytes == 3.5 * 8 * 8 * 9


def test_layers_before_an_operator_without_a_rule_are_run_one_by_one(tmp_path: Path) -> None:
    plain = analyze(request(save(tmp_path, "Tanh")), SILENT)
    assert plain.notes == ()
    found = analyze(request(save(tmp_path, "Selu")), SILENT)
    assert any("one by one" in note for note in found.notes)
    assert {layer.node for layer in found.layers} == {f"conv{i}" for i in range(LAYERS)}
    assert all(math.isfinite(layer.gain) for layer in found.layers)


def test_gradients_and_single_runs_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights' shares; roundings of activations fall anew where the network is not the float one."""
    model = save(tmp_path)
    by_gradient = analyze(request(model), SILENT)
    monkeypatch.setattr("quantcli.pipeline.noise_runs.noise_probe", lambda *_: None)
    monkeypatch.setattr("quantcli.pipeline.noise_runs.NoiseRuns._build", lambda *_: None)
    by_runs = analyze(request(model), SILENT)
    for layer in by_gradient.layers:
        assert named(by_runs, layer.node).weight_noise == pytest.approx(layer.weight_noise, rel=0.5)


def test_the_block_is_a_recipe_for_convert(tmp_path: Path) -> None:
    output = tmp_path / "better.toml"
    found = analyze(request(save(tmp_path, scale=40.0), output=output), SILENT)
    assert read_recipe(output)["exclude"] == tuple(step.selector for step in found.exclude)


def test_reports_are_written_in_the_form_of_their_name(tmp_path: Path) -> None:
    reports = (tmp_path / "a.json", tmp_path / "a.md")
    found = analyze(request(save(tmp_path), reports=reports, command="quantcli analyze m.onnx"), SILENT)
    assert analysis_from_json(reports[0].read_text("utf-8")) == found
    assert "conv3" in reports[1].read_text("utf-8")
    with pytest.raises(OutputError, match="exists"):
        analyze(request(tmp_path / "m.onnx", reports=reports), SILENT)


def test_wrong_requests_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no samples"):
        analyze(request(tmp_path / "m.onnx", data=DataOptions()), SILENT)
    with pytest.raises(UsageError, match="JUnit"):
        analyze(request(tmp_path / "m.onnx", reports=(tmp_path / "a.xml",)), SILENT)


def test_it_says_so_where_errors_are_those_of_the_calibration_samples(tmp_path: Path) -> None:
    found = analyze(request(save(tmp_path), eval_data=DataOptions()), SILENT)
    assert any("flatters" in note for note in found.notes)


def test_the_same_request_gives_the_same_analysis(tmp_path: Path) -> None:
    model = save(tmp_path)
    assert analyze(request(model), SILENT) == analyze(request(model), SILENT)
