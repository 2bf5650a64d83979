"""Conversions by the weight-only form: without data, with them, from plans, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantcli.core.dtypes import INT4, INT8
from quantcli.errors import ConfigError, ModelError, UsageError
from quantcli.pipeline.compare import compare
from quantcli.pipeline.convert import convert
from quantcli.pipeline.types import CompareRequest, ConvertRequest, ConvertResult, DataOptions
from quantcli.progress import SilentProgress
from quantcli.quantize.form import Form
from quantcli.quantize.plan import Action
from quantcli.quantize.recipe import Recipe

SILENT = SilentProgress()
WIDTH = 64
FOUR = Recipe(form=Form.WEIGHT_ONLY, weight_dtype=INT4, block=32, weight_symmetric=False)
EIGHT = Recipe(form=Form.WEIGHT_ONLY, weight_dtype=INT8)

NET = """<ir_version: 8, opset_import: ["" : %d]>
    net (float[N,T,64] x) => (float[N,T,64] y) {
    p = MatMul(x, w0) a = Add(p, b0) f = Sigmoid(a) q = MatMul(f, w1) y = Add(q, b1) }"""


BRANCHES = """<ir_version: 8, opset_import: ["" : 13]>
    net (float[N,T,64] x) => (float[N,T,64] y) {
    p = MatMul(x, w0)
    m = ReduceMax <keepdims = 0> (x)
    c = Greater(m, b1)
    s = If (c) <
        then_branch = yes () => (float[N,T,64] t) { t = MatMul(p, w1) },
        else_branch = no () => (float[N,T,64] e) { e = Neg(p) }
    >
    y = Add(s, b0) }"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two layers, and samples whose channels go together."""
    generator = np.random.default_rng(21)
    proto = onnx.parser.parse_model(NET % 13)
    for i in (0, 1):
        weight, bias = generator.normal(0, 0.2, (WIDTH, WIDTH)), generator.normal(0, 1, WIDTH)
        for name, array in ((f"w{i}", weight), (f"b{i}", bias)):
            proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    onnx.save(proto, tmp_path / "m.onnx")
    mix = generator.normal(0, 1, (8, WIDTH))
    samples = (generator.normal(0, 1, (40, 24, 8)) @ mix).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=samples[:32])
    np.savez(tmp_path / "eval.npz", x=samples[32:])
    return tmp_path


def run(folder: Path, *, data: bool = False, **fields: object) -> ConvertResult:
    request = ConvertRequest(
        model=folder / "m.onnx",
        output=folder / "out.onnx",
        data=DataOptions(specs=(str(folder / "calib.npz"),) if data else ()),
        recipe=FOUR,
        overwrite=True,
    )
    return convert(dataclasses.replace(request, **fields), SILENT)


def sqnr(folder: Path) -> float:
    data = DataOptions(specs=(str(folder / "eval.npz"),))
    request = CompareRequest(original=folder / "m.onnx", quantized=folder / "out.onnx", data=data, tensors=False)
    found = compare(request, SILENT).outputs[0].sqnr
    assert found is not None
    return found


def test_nothing_is_calibrated_and_the_result_is_run_on_made_up_inputs(folder: Path) -> None:
    result = run(folder)
    assert result.kernels is not None
    assert result.kernels.integer == {"MatMulNBits": 2}
    assert result.kernels.unfused == {}
    assert not [note for note in result.notes if "not run" in note]


def test_samples_make_the_weights_fit_them(folder: Path) -> None:
    run(folder)
    nearest = sqnr(folder)
    result = run(folder, data=True)
    assert result.rounding is not None
    assert result.rounding.variants == {"gptq": 2}
    assert sqnr(folder) > nearest + 3


def test_the_fast_effort_rounds_to_nearest(folder: Path) -> None:
    result = run(folder, data=True, effort="fast")
    assert result.rounding is not None
    assert result.rounding.samples == 0


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_the_same_conversion_gives_the_same_bytes_also_from_its_plan(folder: Path, form: str) -> None:
    plan = folder / "m.plan.json"
    run(folder, data=True, format=form, plan_out=plan)
    first = (folder / "out.onnx").read_bytes()
    run(folder, data=True, format=form)
    assert (folder / "out.onnx").read_bytes() == first
    run(folder, data=True, format=form, plan=plan)
    assert (folder / "out.onnx").read_bytes() == first


def test_a_dry_run_writes_the_plan_only(folder: Path) -> None:
    result = run(folder, output=None, dry_run=True, plan_out=folder / "m.plan.json")
    assert (folder / "m.plan.json").is_file()
    assert result.output is None
    assert result.plan.count(Action.QUANTIZE) == 2


def test_the_report_says_what_the_kernels_do_with_activations(folder: Path) -> None:
    report = run(folder).report
    assert report is not None
    assert any("accuracy level 4" in note for note in report.notes)
    report = run(folder, format="qoperator", recipe=dataclasses.replace(FOUR, accuracy_level=1)).report
    assert report is not None
    assert any("accuracy level 1: products are float32" in note for note in report.notes)


def test_a_slow_accuracy_level_is_told(folder: Path) -> None:
    recipe = dataclasses.replace(EIGHT, accuracy_level=1)
    assert any(
        "as long as the float model" in note for note in run(folder, format="qoperator", recipe=recipe).notes
    )


def test_accuracy_levels_need_the_operator_that_has_them(folder: Path) -> None:
    with pytest.raises(UsageError, match="--accuracy-level"):
        run(folder, recipe=dataclasses.replace(FOUR, accuracy_level=1))


def test_tiny_blocks_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="blocks of 8"):
        run(folder, recipe=dataclasses.replace(FOUR, block=8))


def test_a_mask_that_is_no_input_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="no input of the model"):
        run(folder, data=True, mask="nothing")


def test_a_calibration_file_has_no_effect_and_is_refused(folder: Path) -> None:
    (folder / "m.calib").write_bytes(b"")
    with pytest.raises(UsageError, match="--calibration"):
        run(folder, calibration=folder / "m.calib")


def test_an_opset_without_the_types_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="from opset 21 on"):
        run(folder, opset=17)
    run(folder, opset=17, format="qoperator")


def test_a_plan_of_another_model_is_refused(folder: Path) -> None:
    run(folder, plan_out=folder / "m.plan.json")
    text = (folder / "m.plan.json").read_text("utf-8").replace('"MatMul_p"', '"MatMul_other"')
    (folder / "m.plan.json").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match="of another model"):
        run(folder, plan=folder / "m.plan.json")


def test_a_model_without_weights_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="nothing in"):
        run(folder, recipe=dataclasses.replace(FOUR, exclude=("op:MatMul",)))


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    proto = onnx.load(folder / "m.onnx")
    weight = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weight[3, 3] = np.nan
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w0"))
    onnx.save(proto, folder / "m.onnx")
    with pytest.raises(ModelError, match="NaN or infinite"):
        run(folder)


@pytest.mark.parametrize("data", [False, True])
def test_weights_that_bodies_read_are_stored_too(folder: Path, data: bool) -> None:
    generator = np.random.default_rng(2)
    proto = onnx.parser.parse_model(BRANCHES)
    weights = {name: generator.normal(0, 0.2, (WIDTH, WIDTH)) for name in ("w0", "w1")}
    for name, array in ({**weights, "b0": np.zeros(WIDTH), "b1": np.array(0.0)}).items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    onnx.save(proto, folder / "m.onnx")
    result = run(folder, data=data)
    assert result.plan.count(Action.QUANTIZE) == 2
    assert sqnr(folder) > 15
    floats = [tensor for tensor in onnx.load(folder / "out.onnx").graph.initializer if tensor.data_type == 1]
    assert max(np.prod(tensor.dims) for tensor in floats) == 2 * WIDTH  # scales of blocks
