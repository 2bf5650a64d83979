"""Use cases called as a library: what they refuse, tell and keep."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantcli.core.dtypes import INT4, INT8
from quantcli.errors import (
    ConfigError,
    DataError,
    ModelError,
    OutputError,
    StaleCalibrationError,
    UnsupportedModelError,
    UsageError,
)
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model
from quantcli.pipeline.calibrate import automatic_batch, calibrate, merge
from quantcli.pipeline.compare import compare
from quantcli.pipeline.convert import convert
from quantcli.pipeline.inspect import inspect
from quantcli.pipeline.source import load_float_model
from quantcli.pipeline.types import CalibrateRequest, CompareRequest, ConvertRequest, DataOptions, RunOptions
from quantcli.pipeline.verify import verify
from quantcli.progress import SilentProgress
from quantcli.quantize.planner import make_plan
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.versions import newest_quantized_opset, runnable_versions

RNG = np.random.default_rng(11)
SILENT = SilentProgress()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small convolutional model with samples."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,3,8,8] x) => (float[N,4] y) {
            a = Conv <pads = [1,1,1,1]> (x, w0) r = Relu (a) c = Conv <pads = [1,1,1,1]> (r, w1)
            p = GlobalAveragePool (c) f = Flatten (p) y = Gemm (f, w2)
        }"""
    )
    for name, shape in (("w0", (4, 3, 3, 3)), ("w1", (4, 4, 3, 3)), ("w2", (4, 4))):
        array = RNG.normal(0, 0.5, shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(proto, tmp_path / "m.onnx")
    samples = RNG.normal(0, 1, (24, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=samples[:16])
    np.savez(tmp_path / "eval.npz", x=samples[16:])
    np.savez(tmp_path / "mixed.npz", x=samples[12:20])
    np.save(tmp_path / "labels.npy", np.zeros(8, np.int64))
    return tmp_path


def data(folder: Path, name: str, **options: object) -> DataOptions:
    return DataOptions(specs=(str(folder / name),), **options)


def request(folder: Path, **fields: object) -> ConvertRequest:
    base = ConvertRequest(model=folder / "m.onnx", data=data(folder, "calib.npz"), placement="static")
    return dataclasses.replace(base, **fields)


def test_evaluation_on_calibration_samples_is_told(folder: Path) -> None:
    result = convert(request(folder, eval_data=data(folder, "mixed.npz")), SILENT)
    assert any("4 of the evaluation samples were used for calibration" in note for note in result.notes)


def test_evaluation_on_other_samples_says_nothing(folder: Path) -> None:
    result = convert(request(folder, eval_data=data(folder, "eval.npz")), SILENT)
    assert not any("calibration" in note for note in result.notes)


def test_comparing_on_the_calibration_samples_is_told(folder: Path) -> None:
    convert(request(folder), SILENT)
    asked = CompareRequest(
        original=folder / "m.onnx", quantized=folder / "m.int8.onnx", data=data(folder, "calib.npz")
    )
    report = compare(asked, SILENT)
    assert any("calibrated on" in note for note in report.notes)
    assert report.data is not None
    assert len(report.data.fingerprint or "") == 64


def test_labels_of_shuffled_samples_are_refused(folder: Path) -> None:
    convert(request(folder), SILENT)
    asked = CompareRequest(
        original=folder / "m.onnx",
        quantized=folder / "m.int8.onnx",
        data=data(folder, "eval.npz", shuffle=True),
        labels=folder / "labels.npy",
    )
    with pytest.raises(UsageError, match="shuffled"):
        compare(asked, SILENT)


@pytest.mark.parametrize("fields", [{"data": DataOptions()}])
def test_a_source_of_ranges_is_needed(folder: Path, fields: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        convert(request(folder, **fields), SILENT)
    assert caught.value.code == "U201"


def test_a_mask_that_is_no_input_is_refused_with_the_nearest_name(folder: Path) -> None:
    with pytest.raises(UsageError, match="no input of the model") as caught:
        convert(request(folder, mask="xs"), SILENT)
    assert (caught.value.code, caught.value.hint) == ("U108", "did you mean 'x'?")


def test_memory_is_bounded_by_leaving_samples_out(folder: Path) -> None:
    whole = convert(request(folder), SILENT)
    few = convert(request(folder, max_memory=whole.rounding.peak_bytes // 2, overwrite=True), SILENT)
    assert 2 <= few.rounding.samples < whole.rounding.samples
    assert any("--max-memory" in note for note in few.notes)


def test_an_existing_output_is_refused_before_any_work(folder: Path) -> None:
    (folder / "m.int8.onnx").write_text("mine")
    with pytest.raises(OutputError) as caught:
        convert(request(folder), SILENT)
    assert caught.value.code == "O101"
    assert (folder / "m.int8.onnx").read_text() == "mine"


def test_the_input_is_never_the_output(folder: Path) -> None:
    with pytest.raises(OutputError) as caught:
        convert(request(folder, output=folder / "m.onnx", overwrite=True), SILENT)
    assert caught.value.code == "O102"


def test_a_missing_folder_is_named(folder: Path) -> None:
    with pytest.raises(OutputError, match="folder"):
        convert(request(folder, output=folder / "no" / "m.onnx"), SILENT)


def test_a_report_without_a_form_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        convert(request(folder, reports=(folder / "r.pdf",)), SILENT)
    assert caught.value.code == "U103"


def test_a_recipe_that_makes_no_sense_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="so activations cannot be asymmetric") as caught:
        convert(request(folder, model=folder / "absent.onnx", recipe=Recipe(target="tensorrt")), SILENT)
    assert caught.value.code == "U102"


def test_a_plan_is_carried_out_for_its_own_target(folder: Path) -> None:
    recipe = Recipe(target="tensorrt", activation_dtype=INT8, symmetric=True)
    first = convert(request(folder, recipe=recipe, plan_out=folder / "p.json", output=folder / "a.onnx"), SILENT)
    again = convert(request(folder, plan=folder / "p.json", output=folder / "b.onnx"), SILENT)
    assert onnx.load(first.output).graph == onnx.load(again.output).graph
    assert again.kernels is None
    assert any("target tensorrt: rules from its documentation; not run here" in note for note in again.notes)


def test_a_lower_opset_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError) as caught:
        convert(request(folder, opset=12), SILENT)
    assert caught.value.code == "M303"


def test_a_plan_of_another_model_is_refused(folder: Path) -> None:
    convert(request(folder, dry_run=True, plan_out=folder / "plan.json"), SILENT)
    plan = json.loads((folder / "plan.json").read_text())
    plan["nodes"][0]["name"] = "stranger"
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(ConfigError) as caught:
        convert(request(folder, plan=folder / "plan.json"), SILENT)
    assert caught.value.code == "C104"


@pytest.fixture
def wide(folder: Path) -> Path:
    """A layer whose weights fill the file."""
    text = (
        """<ir_version: 8, opset_import: ["" : 13]> g (float[N,64] x) => (float[N,64] y) { y = MatMul (x, w) }"""
    )
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(numpy_helper.from_array(RNG.normal(0, 1, (64, 512)).astype(np.float32), "w"))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 512
    onnx.save(proto, folder / "m.onnx")
    np.savez(folder / "calib.npz", x=RNG.normal(0, 1, (16, 64)).astype(np.float32))
    return folder


CANNOT_BE_RAISED = """<ir_version: 8, opset_import: ["" : 10]>
g (float[2,3] x) => (float[2,3] y, bool[2,3] m) { [drop] y, mask = Dropout (x) m = Not (mask) }"""

FOUR_BITS = Recipe(weight_dtype=INT4)


def test_weights_of_4_bits_halve_the_file_and_raise_the_opset(wide: Path) -> None:
    eight = convert(request(wide), SILENT)
    four = convert(request(wide, recipe=FOUR_BITS, output=wide / "four.onnx"), SILENT)
    # What halves is the weights; scales and nodes stay, and a Cast is added (less than 250 bytes).
    assert four.output_bytes <= eight.output_bytes - 64 * 512 / 2 + 250
    assert load_model(wide / "four.onnx").opset == 21
    assert load_model(wide / "m.int8.onnx").opset == 13


def test_a_plan_with_4_bits_gives_the_same_model_again(wide: Path) -> None:
    first = convert(request(wide, recipe=FOUR_BITS, plan_out=wide / "p.json", output=wide / "a.onnx"), SILENT)
    again = convert(request(wide, plan=wide / "p.json", output=wide / "b.onnx"), SILENT)
    a, b = (onnx.load(path).graph for path in (first.output, again.output))
    assert a == b


def test_an_opset_without_int4_is_refused_before_any_work(wide: Path) -> None:
    with pytest.raises(ModelError, match="weights of 4 bits exist from opset 21 on") as caught:
        convert(request(wide, recipe=FOUR_BITS, opset=20), SILENT)
    assert caught.value.code == "M303"


def test_a_model_that_cannot_be_raised_to_int4_is_refused(folder: Path) -> None:
    onnx.save(onnx.parser.parse_model(CANNOT_BE_RAISED), folder / "m.onnx")
    with pytest.raises(UnsupportedModelError, match="weights of 4 bits need that") as caught:
        convert(request(folder, recipe=FOUR_BITS), SILENT)
    assert caught.value.code == "M210"


def test_the_cast_of_4_bits_is_told_where_it_may_cost(wide: Path) -> None:
    found = convert(request(wide, recipe=dataclasses.replace(FOUR_BITS, target="generic")), SILENT)
    assert any("widened to int8 by a Cast" in note for note in found.notes)


def test_outputs_that_are_not_finite_stop_calibration(folder: Path) -> None:
    proto = onnx.load(folder / "m.onnx")
    broken = numpy_helper.to_array(proto.graph.initializer[2]).copy()
    broken[0, 0] = np.inf
    proto.graph.initializer[2].CopyFrom(numpy_helper.from_array(broken, "w2"))
    onnx.save(proto, folder / "inf.onnx")
    with pytest.raises(DataError, match="not finite") as caught:
        convert(request(folder, model=folder / "inf.onnx"), SILENT)
    assert caught.value.code == "K101"


def test_a_damaged_result_is_not_written(folder: Path) -> None:
    source = load_float_model(folder / "m.onnx", "ort-cpu")
    plan = make_plan(source.view, Recipe())
    proto = onnx.load(folder / "m.onnx")
    proto.graph.node.pop()
    sample = {"x": np.zeros((1, 3, 8, 8), np.float32)}
    with pytest.raises(OutputError) as caught:
        verify(proto.SerializeToString(), source, plan, sample, threads=1)
    assert caught.value.code == "O301"


def test_statistics_of_parts_merge_and_of_strangers_do_not(folder: Path) -> None:
    for name in ("calib", "eval"):
        asked = CalibrateRequest(
            model=folder / "m.onnx", data=data(folder, f"{name}.npz"), output=folder / f"{name}.calib"
        )
        calibrate(asked, SILENT)
    merged = merge([folder / "calib.calib", folder / "eval.calib"], folder / "all.calib", False)
    assert merged.statistics.samples == 24
    with pytest.raises(StaleCalibrationError):
        merge([folder / "calib.calib", folder / "calib.calib"], folder / "twice.calib", False)


def test_tiny_models_run_in_batches_and_others_do_not(folder: Path) -> None:
    source = load_float_model(folder / "m.onnx", "ort-cpu")
    assert automatic_batch(source) == 8
    assert automatic_batch(dataclasses.replace(source, bytes=2**21)) == 1
    (spec,) = source.inputs
    fixed = dataclasses.replace(spec, shape=(1, 3, 8, 8))
    assert automatic_batch(dataclasses.replace(source, inputs=(fixed,))) == 1


def test_every_kind_of_file_can_be_inspected(folder: Path) -> None:
    asked = CalibrateRequest(model=folder / "m.onnx", data=data(folder, "calib.npz"), run=RunOptions())
    calibrate(asked, SILENT)
    convert(request(folder, plan_out=folder / "plan.json", reports=(folder / "r.json",)), SILENT)
    kinds = {
        name: inspect(folder / name, target="ort-cpu").kind
        for name in ("m.onnx", "m.calib", "plan.json", "r.json", "m.int8.onnx")
    }
    assert kinds == {
        "m.onnx": "model",
        "m.calib": "calibration",
        "plan.json": "plan",
        "r.json": "report",
        "m.int8.onnx": "model",
    }


def test_types_that_the_file_states_are_kept_and_others_are_not(folder: Path) -> None:
    convert(request(folder), SILENT)
    written: OnnxModel = load_model(folder / "m.int8.onnx")
    stated = [value.name for node in written.ir.graph for value in node.outputs if value.type is not None]
    assert stated == ["y"]


@pytest.mark.parametrize("victim", ["calib.npz", "eval.npz"])
def test_samples_are_never_overwritten(folder: Path, victim: str) -> None:
    before = (folder / victim).read_bytes()
    for fields in ({"output": folder / victim}, {"plan_out": folder / victim}):
        with pytest.raises(OutputError) as caught:
            convert(request(folder, eval_data=data(folder, "eval.npz"), overwrite=True, **fields), SILENT)
        assert caught.value.code == "O102"
    assert (folder / victim).read_bytes() == before


def test_files_inside_a_folder_of_samples_are_never_overwritten(folder: Path) -> None:
    (folder / "many").mkdir()
    np.savez(folder / "many" / "0.npz", x=np.zeros((1, 3, 8, 8), np.float32))
    asked = CalibrateRequest(
        model=folder / "m.onnx", data=data(folder, "many"), output=folder / "many" / "0.npz", overwrite=True
    )
    with pytest.raises(OutputError) as caught:
        calibrate(asked, SILENT)
    assert caught.value.code == "O102"


def test_two_outputs_with_one_name_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        convert(request(folder, output=folder / "a.json", reports=(folder / "a.json",), overwrite=True), SILENT)
    assert caught.value.code == "U106"


def test_bad_evaluation_data_is_told_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(DataError):
        convert(request(folder, eval_data=data(folder, "nope.npz")), SILENT)
    assert not (folder / "m.int8.onnx").exists()


def test_an_opset_that_is_not_known_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError) as caught:
        convert(request(folder, opset=99), SILENT)
    assert caught.value.code == "M303"


def test_samples_without_elements_are_refused(folder: Path) -> None:
    np.savez(folder / "zero.npz", x=np.zeros((0, 3, 8, 8), np.float32))
    asked = CalibrateRequest(model=folder / "m.onnx", data=data(folder, "zero.npz?rows=feed"))
    with pytest.raises(DataError) as caught:
        calibrate(asked, SILENT)
    assert caught.value.code == "D106"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("tensors", "f", "group"), "zzz"),
        (("tensors", "r", "name"), "zzz"),
        (("tensors", "r", "fixed_range"), []),
        (("nodes", 0, "op_type"), -5),
        (("integer_inputs", 0, 0), []),
        (("tensors", "r", "spec", "axis"), "zzz"),
    ],
)
def test_a_plan_that_a_hand_broke_is_a_configuration_error(folder: Path, path: tuple, value: object) -> None:
    convert(request(folder, data=DataOptions(), dry_run=True, plan_out=folder / "plan.json"), SILENT)
    plan = json.loads((folder / "plan.json").read_text())
    place = plan
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(ConfigError):
        convert(request(folder, plan=folder / "plan.json"), SILENT)


def test_a_dry_run_refuses_what_it_would_not_do(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        convert(request(folder, dry_run=True, output=folder / "a.onnx"), SILENT)
    assert caught.value.code == "U105"


def test_what_user_code_prints_does_not_go_to_standard_output(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "feed.py").write_text(
        "import numpy as np\n\n\ndef samples():\n    print('HELLO')\n"
        "    yield {'x': np.ones((1, 3, 8, 8), np.float32)}\n"
    )
    asked = CalibrateRequest(model=folder / "m.onnx", data=data(folder, "feed.py:samples"))
    calibrate(asked, SILENT)
    assert capsys.readouterr().out == ""


def test_an_opset_without_quantizers_is_lowered_where_that_changes_nothing(folder: Path) -> None:
    message = onnx.load(folder / "m.onnx")
    newest = newest_quantized_opset()
    if newest == runnable_versions().max_opset:
        pytest.skip("this onnxruntime has quantizers for every opset that it runs")
    message.opset_import[0].version = newest + 1
    onnx.save(message, folder / "m.onnx")
    result = convert(request(folder), SILENT)
    assert onnx.load(result.output).opset_import[0].version == newest
    assert any(f"the result has opset {newest}" in note for note in result.notes)
