"""Conversions to float16 and bfloat16, and conversions of models that are in these types or quantized in part."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantcli.core.metrics import measure
from quantcli.errors import ConfigError, ModelError, OutputError, UsageError
from quantcli.graph.model_io import load_model
from quantcli.pipeline import float_work
from quantcli.pipeline.convert import convert
from quantcli.pipeline.types import ConvertRequest, ConvertResult, DataOptions
from quantcli.progress import SilentProgress
from quantcli.quantize.form import Form
from quantcli.quantize.plan import Action
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.session import Session

SILENT = SilentProgress()

TEXT = """<ir_version: 8, opset_import: ["" : 13]>
g (float[N,3,16,16] x) => (float[N,8] y) {
    a = Conv <pads = [1,1,1,1]> (x, w0) r = Relu (a) b = Conv <pads = [1,1,1,1]> (r, w1) s = Relu (b)
    c = Conv <pads = [1,1,1,1]> (s, w2) p = GlobalAveragePool (c) f = Flatten (p) y = Gemm (f, w3)
}"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small convolutional model with samples."""
    generator = np.random.default_rng(12)
    proto = onnx.parser.parse_model(TEXT)
    for name, shape in (("w0", (16, 3, 3, 3)), ("w1", (16, 16, 3, 3)), ("w2", (16, 16, 3, 3)), ("w3", (16, 8))):
        array = (generator.normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    for node in proto.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    onnx.save(proto, tmp_path / "m.onnx")
    np.savez(tmp_path / "calib.npz", x=generator.normal(0, 1, (8, 3, 16, 16)).astype(np.float32))
    return tmp_path


def run(
    folder: Path, model: str, output: str, *, data: bool = True, recipe: Recipe, **fields: object
) -> ConvertResult:
    samples = DataOptions(specs=(str(folder / "calib.npz"),)) if data else DataOptions()
    request = ConvertRequest(
        model=folder / model,
        output=folder / output,
        data=samples,
        recipe=recipe,
        placement="static",
        effort="fast",
    )
    return convert(dataclasses.replace(request, **fields), SILENT)


def half(dtype: str = "float16", **fields: object) -> Recipe:
    return Recipe(form=Form.FLOAT, float_type=dtype, **fields)  # type: ignore[arg-type]


def sqnr(folder: Path, original: str, other: str) -> float:
    x = np.load(folder / "calib.npz")["x"]
    one, two = (Session(folder / name).run({"x": x})["y"] for name in (original, other))
    found = measure(one.astype(np.float32), two.astype(np.float32)).sqnr
    assert found is not None
    return found


def test_float16_halves_the_file_and_rounds_like_eleven_bits(folder: Path) -> None:
    result = run(folder, "m.onnx", "h.onnx", recipe=half())
    assert result.plan.count(Action.NARROW) == 8
    assert result.output_bytes < 0.6 * result.source_bytes
    assert sqnr(folder, "m.onnx", "h.onnx") > 55  # 73 dB for each of 4 layers, and what activations add


def test_bfloat16_stores_weights_and_rounds_like_eight_bits(folder: Path) -> None:
    result = run(folder, "m.onnx", "b.onnx", recipe=half("bfloat16"))
    assert result.plan.narrow is not None
    assert len(result.plan.narrow.constants) == 2  # the others are too small to pay for a Cast
    assert 35 < sqnr(folder, "m.onnx", "b.onnx") < 60


def test_samples_are_not_needed(folder: Path) -> None:
    result = run(folder, "m.onnx", "h.onnx", data=False, recipe=half())
    assert result.plan.count(Action.NARROW) == 8


def test_converted_interfaces_take_the_samples_of_the_original(folder: Path) -> None:
    result = run(folder, "m.onnx", "h.onnx", recipe=half(keep_io=False))
    assert [spec.dtype for spec in Session(folder / "h.onnx").inputs] == ["float16"]
    assert result.fidelity["y"] > 50


def test_bfloat16_interfaces_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="bfloat16 from Python"):
        run(folder, "m.onnx", "b.onnx", recipe=half("bfloat16", keep_io=False))


def test_a_saved_plan_gives_the_same_bytes(folder: Path) -> None:
    run(folder, "m.onnx", "h.onnx", recipe=half(), plan_out=folder / "p.json")
    run(folder, "m.onnx", "again.onnx", recipe=half(), plan=folder / "p.json")
    nodes = [load_model(folder / name).view().nodes for name in ("h.onnx", "again.onnx")]
    assert nodes[0] == nodes[1]


def test_a_plan_of_another_model_is_refused(folder: Path) -> None:
    run(folder, "m.onnx", "h.onnx", recipe=half(), plan_out=folder / "p.json")
    text = (folder / "p.json").read_text().replace("Relu_r", "Relu_q")
    (folder / "p.json").write_text(text)
    with pytest.raises(ConfigError, match="of another model"):
        run(folder, "m.onnx", "again.onnx", recipe=half(), plan=folder / "p.json")


def test_a_model_in_float16_has_nothing_left_to_convert(folder: Path) -> None:
    run(folder, "m.onnx", "h.onnx", recipe=half(keep_io=False))
    with pytest.raises(ModelError, match="float16 already"):
        run(folder, "h.onnx", "hh.onnx", recipe=half())


def test_the_node_with_which_the_runtime_begins_to_crash_stays_float32(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crashes(path: Path, *_: object, **__: object) -> str:
        view = load_model(path).view()
        node = view.node_by_name["Conv_b"]
        weights = {view.tensors[name].dtype for name in node.inputs[1:]}
        return "onnxruntime ended the process by SIGSEGV" if weights == {"float16"} else ""

    monkeypatch.setattr(float_work, "trial_run", crashes)
    result = run(folder, "m.onnx", "h.onnx", data=False, recipe=half())
    left = [node for node in result.plan.nodes if node.action is Action.FLOAT]
    assert [(node.name, node.reason.code) for node in left if node.reason] == [("Conv_b", "F701")]


def test_a_crash_that_no_node_explains_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_work, "trial_run", lambda *_, **__: "onnxruntime ended the process by SIGSEGV")
    with pytest.raises(OutputError, match="does not run"):
        run(folder, "m.onnx", "h.onnx", data=False, recipe=half())
    assert not (folder / "h.onnx").exists()


@pytest.mark.parametrize(("dtype", "keep"), [("float16", True), ("float16", False), ("bfloat16", True)])
def test_models_in_narrow_types_quantize_as_well_as_in_float32(folder: Path, dtype: str, keep: bool) -> None:
    run(folder, "m.onnx", "h.onnx", recipe=half(dtype, keep_io=keep))
    plain = run(folder, "m.onnx", "q.onnx", recipe=Recipe())
    result = run(folder, "h.onnx", "qh.onnx", recipe=Recipe())
    assert result.plan.count(Action.QUANTIZE) == plain.plan.count(Action.QUANTIZE)
    assert any(f"computes in {dtype}" in note for note in result.notes)
    assert sqnr(folder, "h.onnx", "qh.onnx") > sqnr(folder, "m.onnx", "q.onnx") - 6  # other roundings, 64 values


def test_what_is_quantized_already_stays_and_the_rest_is_quantized(folder: Path) -> None:
    run(folder, "m.onnx", "half.onnx", recipe=Recipe(exclude=("Conv_c", "Gemm_y", "GlobalAveragePool_p")))
    result = run(folder, "half.onnx", "full.onnx", recipe=Recipe())
    before, after = (load_model(folder / name).view() for name in ("half.onnx", "full.onnx"))
    kept = {node.name: node for node in after.nodes}
    for node in before.nodes:
        if node.name in {"Conv_a", "Conv_b"}:
            for name in node.inputs[1:]:
                maker = before.producer(name)
                assert maker is not None
                twin = after.producer(kept[node.name].input(node.inputs.index(name)))
                assert twin is not None
                for one, two in zip(maker.inputs, twin.inputs, strict=True):
                    np.testing.assert_array_equal(before.constant(one), after.constant(two))
    assert any("quantized already" in note for note in result.notes)
    assert result.plan.node("Conv_c").action is Action.QUANTIZE
    assert sqnr(folder, "half.onnx", "full.onnx") > 25


def test_a_model_that_is_quantized_as_a_whole_is_refused(folder: Path) -> None:
    run(folder, "m.onnx", "q.onnx", recipe=Recipe())
    with pytest.raises(ModelError, match=r"nothing is left to quantize.*quantized already"):
        run(folder, "q.onnx", "qq.onnx", recipe=Recipe())


def test_quantized_halves_keep_their_scales_in_float32(folder: Path) -> None:
    run(folder, "m.onnx", "half.onnx", recipe=Recipe(exclude=("Conv_c", "Gemm_y", "GlobalAveragePool_p")))
    result = run(folder, "half.onnx", "h.onnx", recipe=half())
    view = load_model(folder / "h.onnx").view()
    scales = {view.tensors[node.inputs[1]].dtype for node in view.nodes if node.op_type.endswith("quantizeLinear")}
    assert scales <= {"float32"}
    assert result.plan.node("Conv_c").action is Action.NARROW
    assert sqnr(folder, "half.onnx", "h.onnx") > 45


def test_samples_are_taken_by_a_model_that_makes_integers_only(folder: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 13]>
    g (float[N,3,16,16] x) => (int64[N,1,16,16] y) { y = ArgMax <axis = 1> (x) }"""
    onnx.save(onnx.parser.parse_model(text), folder / "integers.onnx")
    run(folder, "integers.onnx", "out.onnx", recipe=half())
    sample = np.load(folder / "calib.npz")["x"][:1]
    expected = sample.astype(np.float16).argmax(axis=1, keepdims=True)
    np.testing.assert_array_equal(Session(folder / "out.onnx").run({"x": sample})["y"], expected)
