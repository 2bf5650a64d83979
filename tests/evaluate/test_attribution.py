import math
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from quantcli.evaluate.attribution import attribute_error, plain_settings
from quantcli.pipeline.convert import convert
from quantcli.pipeline.types import ConvertRequest, DataOptions
from quantcli.progress import SilentProgress
from quantcli.runtime.session import Session

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
HEAD = '<ir_version: 9, opset_import: ["" : 17]>\n'
F32 = np.float32
RNG = np.random.default_rng(0)

WEIGHT = RNG.normal(size=(16, 8)).astype(F32)
BIAS = RNG.normal(size=8).astype(F32)
FLOAT = "net (float[N,16] x) => (float[N,8] y) { [fc] t = MatMul(x, w)  [add] y = Add(t, b) }"
QDQ = (
    "net (float[N,16] x) => (float[N,8] y) { q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)"
    "  v = DequantizeLinear<axis=1>(w, ws, wz)  [fc] t = MatMul(d, v)  [add] y = Add(t, b) }"
)


def save(path, text, **constants):
    model = onnx.parser.parse_model(HEAD + text)
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.save(model, path)
    return path


def shares(original, quantized, feeds):
    a, b = Session(original), Session(quantized, plain_settings(1))
    pairs = [(name, name) for name in a.output_names]
    return attribute_error(
        original, quantized, feeds, pairs, [a.run(feed) for feed in feeds], [b.run(feed) for feed in feeds]
    )


def rounded(weight, step):
    return np.clip(np.rint(weight / step), -127, 127).astype(np.int8)


def pair(tmp_path, *, step, weight=WEIGHT, codes=None, weight_step=None, scale_up=1.0):
    """A product and its quantized form."""
    ws = np.abs(weight).max(axis=0) / 127 if weight_step is None else np.full(8, weight_step, F32)
    codes = rounded(weight, ws) if codes is None else codes
    original = save(tmp_path / "a.onnx", FLOAT, w=weight, b=BIAS)
    quantized = save(
        tmp_path / "b.onnx", QDQ, w=codes, ws=(scale_up * ws).astype(F32), wz=np.zeros(8, np.int8),
        s=F32(step), z=np.uint8(128), b=BIAS,
    )  # fmt: skip
    return original, quantized


@pytest.fixture
def feeds():
    return [{"x": RNG.normal(size=(50, 16)).astype(F32)} for _ in range(4)]


def test_exact_weights_leave_the_error_to_the_activations(tmp_path, feeds):
    exact = RNG.integers(-9, 10, (16, 8)).astype(F32) / 4
    found = shares(*pair(tmp_path, step=0.05, weight=exact, weight_step=0.25), feeds)
    (output,) = found.outputs
    assert output.weights_only > 100
    assert output.activations_only == pytest.approx(output.both, abs=0.01)
    assert found.notes == ()


def test_exact_activations_leave_the_error_to_the_weights(tmp_path):
    feeds = [{"x": RNG.integers(-40, 40, (50, 16)).astype(F32) / 8}]
    (output,) = shares(*pair(tmp_path, step=0.125), feeds).outputs
    assert output.activations_only > 100
    assert output.weights_only == pytest.approx(output.both, abs=0.01)


def test_the_noise_of_both_roundings_adds_up(tmp_path, feeds):
    (output,) = shares(*pair(tmp_path, step=0.05), feeds).outputs
    noise = 10 ** (-output.weights_only / 10) + 10 ** (-output.activations_only / 10)
    assert -10 * math.log10(noise) == pytest.approx(output.both, abs=0.5)


def test_a_weight_with_a_wrong_scale_is_blamed_on_the_weights(tmp_path, feeds):
    (output,) = shares(*pair(tmp_path, step=0.05, scale_up=2.0), feeds).outputs
    assert output.weights_only < 10 < 25 < output.activations_only


def test_a_range_cut_to_half_is_blamed_on_the_activations(tmp_path, feeds):
    (output,) = shares(*pair(tmp_path, step=0.05 / 8), feeds).outputs
    assert output.activations_only < 10 < 30 < output.weights_only


def test_weights_that_are_not_the_originals_leave_the_difference_of_the_activations(tmp_path, feeds):
    original, quantized = pair(tmp_path, step=0.05, codes=RNG.integers(-127, 128, (16, 8)).astype(np.int8))
    save(original, FLOAT.replace("[fc]", "[other]").replace(" t", " t2").replace("(t,", "(t2,"), w=WEIGHT, b=BIAS)
    found = shares(original, quantized, feeds)
    assert "could not be put back" in found.notes[0]
    assert found.outputs[0].activations_only > 20
    assert found.outputs[0].weights_only < 5


def test_a_float_model_has_no_shares(tmp_path, feeds):
    path = save(tmp_path / "a.onnx", FLOAT, w=WEIGHT, b=BIAS)
    assert shares(path, path, feeds).outputs == ()


@pytest.mark.parametrize(
    ("name", "effort"),
    [("digits_mobilenet", "fast"), pytest.param("digits_transformer", "balanced", marks=pytest.mark.slow)],
)
def test_equalized_models_of_ours_get_their_float_weights_back(tmp_path, name, effort):
    """Equalization, smoothing and corrected biases: without any rounding the original must come out."""
    source = SAMPLES / f"{name}.onnx"
    result = convert(
        ConvertRequest(
            model=source,
            output=tmp_path / "q.onnx",
            data=DataOptions(specs=(str(SAMPLES / "data" / "digits_calib.npz"),), samples=64),
            effort=effort,
        ),
        SilentProgress(),
    )
    assert result.rounding.scaled > 0
    with np.load(SAMPLES / "data" / "digits_eval.npz") as arrays:
        key = arrays.files[0]
        feeds = [{key: arrays[key][i : i + 1]} for i in range(96)]
    found = shares(source, tmp_path / "q.onnx", feeds)
    assert not [note for note in found.notes if "could not" in note]
    (output,) = found.outputs
    assert min(output.weights_only, output.activations_only) > output.both - 2
    noise = 10 ** (-output.weights_only / 10) + 10 ** (-output.activations_only / 10)
    assert -10 * math.log10(noise) == pytest.approx(output.both, abs=2)
