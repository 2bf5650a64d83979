"""Conversions by the dynamic form: without data, with them, from plans, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantcli.core.dtypes import INT4
from quantcli.errors import ConfigError, ModelError, QuantcliError, UsageError
from quantcli.pipeline.compare import compare
from quantcli.pipeline.convert import convert
from quantcli.pipeline.types import CompareRequest, ConvertRequest, ConvertResult, DataOptions
from quantcli.progress import SilentProgress
from quantcli.quantize import plan_dynamic
from quantcli.quantize.form import Form
from quantcli.quantize.recipe import Recipe

RNG = np.random.default_rng(21)
SILENT = SilentProgress()
WIDTH = 64

NET = """<ir_version: 8, opset_import: ["" : %d]>
    net (float[N,T,64] x) => (float[N,T,64] y) {
    p = MatMul(x, w0) a = Add(p, b0) f = Sigmoid(a) q = MatMul(f, w1) y = Add(q, b1) }"""

RECURRENT = """<ir_version: 8, opset_import: ["" : 14]>
    net (float[T,N,32] x) => (float[T,1,N,16] y, float[1,N,16] h) { y, h = LSTM <hidden_size = 16> (x, w, r) }"""


@pytest.fixture(autouse=True)
def _small_lstm(monkeypatch: pytest.MonkeyPatch) -> None:
    """LSTM are converted however small they are."""
    monkeypatch.setattr(plan_dynamic, "SMALLEST_LSTM", 0)


def save(path: Path, text: str, **constants: np.ndarray) -> Path:
    proto = onnx.parser.parse_model(text)
    for name, array in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    onnx.save(proto, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two layers, samples with loud channels, and an LSTM."""
    weights = {f"w{i}": RNG.normal(0, 0.2, (WIDTH, WIDTH)) for i in (0, 1)}
    biases = {f"b{i}": RNG.normal(0, 1, WIDTH) for i in (0, 1)}
    save(tmp_path / "m.onnx", NET % 9, **weights, **biases)
    gates = {"w": RNG.normal(0, 1, (1, 64, 32)), "r": RNG.normal(0, 1, (1, 64, 16))}
    save(tmp_path / "lstm.onnx", RECURRENT, **gates)
    loud = np.where(np.arange(WIDTH) % 16 == 3, 40.0, 1.0)
    samples = (RNG.normal(0, 1, (24, 6, WIDTH)) * loud).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=samples[:16])
    np.savez(tmp_path / "eval.npz", x=samples[16:])
    return tmp_path


def run(folder: Path, name: str = "m.onnx", *, data: bool = False, **fields: object) -> ConvertResult:
    recipe = fields.pop("recipe", Recipe(form=Form.DYNAMIC))
    request = ConvertRequest(
        model=folder / name,
        output=folder / "out.onnx",
        data=DataOptions(specs=(str(folder / "calib.npz"),) if data else ()),
        recipe=recipe,
        overwrite=True,
    )
    return convert(dataclasses.replace(request, **fields), SILENT)


def sqnr(folder: Path) -> float:
    data = DataOptions(specs=(str(folder / "eval.npz"),))
    request = CompareRequest(
        original=folder / "m.onnx", quantized=folder / "out.onnx", data=data, checks=False, tensors=False
    )
    (output,) = compare(request, SILENT).outputs
    assert output.sqnr is not None
    return output.sqnr


def test_no_data_are_needed_and_the_opset_is_raised_no_further_than_needed(folder: Path) -> None:
    result = run(folder)
    assert dict(result.kernels.integer) == {"DynamicQuantizeMatMul": 2}
    assert (result.kernels.fused, result.kernels.unfused) == (2, {})
    assert onnx.load(folder / "out.onnx").opset_import[0].version == 11
    entries = {entry.key: entry.value for entry in onnx.load(folder / "out.onnx").metadata_props}
    assert (entries["quantcli.form"], entries["quantcli.data_samples"]) == ("dynamic", "0")


def test_a_higher_opset_stays(folder: Path) -> None:
    proto = onnx.load(folder / "m.onnx")
    proto.opset_import[0].version = 17
    onnx.save(proto, folder / "m.onnx")
    run(folder)
    assert onnx.load(folder / "out.onnx").opset_import[0].version == 17


def test_the_same_input_gives_the_same_bytes(folder: Path) -> None:
    first = [run(folder, data=data).output.read_bytes() for data in (False, True)]
    assert [run(folder, data=data).output.read_bytes() for data in (False, True)] == first


def test_samples_balance_channels_and_make_the_result_better(folder: Path) -> None:
    run(folder)
    plain = sqnr(folder)
    result = run(folder, data=True)
    assert result.rounding.scaled > 0
    assert sum(result.rounding.variants.values()) == 2
    # Four of 64 channels are 40 times as loud as the others. With their scale the noise of all is that of the
    # loud ones; at strength 0.5 the others are enlarged by √40 = 6.3, which is 16 dB less noise on them.
    assert sqnr(folder) > plain + 3


def test_an_embedding_that_is_the_last_weight_as_well_is_stored_once_with_samples_too(folder: Path) -> None:
    table = RNG.normal(0, 1, (100, WIDTH))
    text = """<ir_version: 8, opset_import: ["" : 17]> net (int64[N,T] i) => (float[N,T,100] y) {
        e = Gather(table, i) n = LayerNormalization(e, gain, shift) p = MatMul(n, w) r = Relu(p)
        m = LayerNormalization(r, gain, shift) y = MatMul(m, turned) }"""
    gain = np.where(np.arange(WIDTH) % 16 == 3, 40.0, 1.0)
    constants = {"gain": gain, "shift": np.zeros(WIDTH), "w": RNG.normal(0, 1, (WIDTH, WIDTH))}
    save(folder / "tied.onnx", text, table=table, turned=table.T.copy(), **constants)
    np.savez(folder / "ids.npz", i=RNG.integers(0, 100, (16, 8)))
    request = ConvertRequest(
        model=folder / "tied.onnx",
        output=folder / "out.onnx",
        data=DataOptions(specs=(str(folder / "ids.npz"),)),
        recipe=Recipe(form=Form.DYNAMIC),
    )
    made = convert(request, SILENT)
    assert made.rounding.scaled > 0
    kept = [tuple(item.dims) for item in onnx.load(folder / "out.onnx").graph.initializer if item.data_type == 3]
    assert sorted(kept) == [(WIDTH, WIDTH), (100, WIDTH)]


def test_a_saved_plan_gives_the_same_model(folder: Path) -> None:
    for data in (False, True):
        made = run(folder, data=data, plan_out=folder / "plan.json").output.read_bytes()
        again = run(folder, data=data, plan=folder / "plan.json", recipe=Recipe())
        config = "quantcli.config_sha256"
        first, second = (onnx.load_from_string(text) for text in (made, again.output.read_bytes()))
        for proto in (first, second):
            kept = [entry for entry in proto.metadata_props if entry.key != config]
            del proto.metadata_props[:]
            proto.metadata_props.extend(kept)
        assert first == second


def test_a_plan_with_balanced_channels_needs_its_samples(folder: Path) -> None:
    run(folder, data=True, plan_out=folder / "plan.json")
    with pytest.raises(ConfigError, match="was made with samples"):
        run(folder, plan=folder / "plan.json")


def test_a_plan_of_another_model_is_refused(folder: Path) -> None:
    run(folder, "lstm.onnx", recipe=Recipe(form=Form.DYNAMIC, dynamic_lstm=True), plan_out=folder / "plan.json")
    for data in (False, True):
        with pytest.raises(ConfigError, match="is of another model"):
            run(folder, data=data, plan=folder / "plan.json")


def test_a_damaged_plan_is_told(folder: Path) -> None:
    run(folder, plan_out=folder / "plan.json")
    text = (folder / "plan.json").read_text().replace('"weight": "w0"', '"weight": "w9"')
    (folder / "plan.json").write_text(text)
    with pytest.raises(ConfigError, match="contradicts itself"):
        run(folder, plan=folder / "plan.json")


def test_a_dry_run_needs_nothing_and_writes_the_plan(folder: Path) -> None:
    result = run(folder, dry_run=True, output=None, plan_out=folder / "plan.json")
    assert result.plan.form is Form.DYNAMIC
    assert (folder / "plan.json").is_file()
    assert not (folder / "out.onnx").exists()


def test_an_lstm_is_offered_and_converted_on_request(folder: Path) -> None:
    with pytest.raises(ModelError, match="--dynamic-lstm makes integers of its 3072 weights"):
        run(folder, "lstm.onnx")
    result = run(folder, "lstm.onnx", recipe=Recipe(form=Form.DYNAMIC, dynamic_lstm=True))
    assert dict(result.kernels.integer) == {"DynamicQuantizeLSTM": 1}
    assert result.output_bytes < 0.6 * result.source_bytes


def test_an_lstm_beside_products_is_offered_in_a_note(folder: Path) -> None:
    text = RECURRENT.replace("{ y, h", "{ x0 = MatMul(x, m) y, h").replace("(x, w, r)", "(x0, w, r)")
    gates = {"w": RNG.normal(0, 1, (1, 64, 128)), "r": RNG.normal(0, 1, (1, 64, 16))}
    save(folder / "both.onnx", text, m=RNG.normal(0, 1, (32, 128)), **gates)
    result = run(folder, "both.onnx")
    assert any("1 LSTM nodes keep weights of 36,864 bytes in float" in note for note in result.notes)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"recipe": Recipe(form=Form.DYNAMIC, weight_dtype=INT4)}, "U102"),
        ({"calibration": Path("m.onnx")}, "U105"),
        ({"opset": 10}, "M303"),
        ({"recipe": Recipe(form=Form.DYNAMIC, exclude=("op:MatMul",))}, "M304"),
    ],
)
def test_what_makes_no_sense_is_refused(folder: Path, fields, code) -> None:
    if "calibration" in fields:
        fields = {"calibration": folder / "m.onnx"}
    with pytest.raises(QuantcliError) as error:
        run(folder, **fields)
    assert error.value.code == code
    assert isinstance(error.value, UsageError | ModelError)
    assert not (folder / "out.onnx").exists()
