import itertools
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from quantcli.core.saturation import saturation_loss
from quantcli.evaluate.attribution import plain_settings
from quantcli.evaluate.avx2_emulation import emulate_avx2
from quantcli.evaluate.integer_layers import integer_layers
from quantcli.evaluate.saturation import prove_saturation
from quantcli.graph.read_view import read_view
from quantcli.runtime.session import Session

HEAD = '<ir_version: 9, opset_import: ["" : 17, "com.microsoft" : 1]>\n'
F32 = np.float32
RNG = np.random.default_rng(0)
ONE = {"one": F32(1), "z": np.uint8(0), "wz": np.int8(0)}


def save(path, text, **constants):
    model = onnx.parser.parse_model(HEAD + text)
    for name, array in (ONE | constants).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.save(model, path)
    return path


def emulate(path, feeds):
    """The proof with the emulation, and what the emulation gives."""
    view = read_view(path)
    layers = integer_layers(view)
    plain = Session(path, plain_settings(1))
    exact = [plain.run(feed) for feed in feeds]
    name = plain.output_names[0]
    return emulate_avx2(path, layers, prove_saturation(layers), feeds, [(name, name)], exact, exact)[0]


ROUNDED = "q = QuantizeLinear(x, one, z)  d = DequantizeLinear(q, one, z)  v = DequantizeLinear(w, one, wz)"


def test_a_sum_of_two_full_products_is_cut_off(tmp_path):
    path = save(
        tmp_path / "m.onnx",
        f"net (float[1,2] x) => (float[1,2] y) {{ {ROUNDED} y = MatMul(d, v) }}",
        w=np.array([[127, 1], [127, 1]], np.int8),
    )
    feed = {"x": np.full((1, 2), 255, F32)}
    found = emulate(path, [feed])
    exact, cut = np.array([64770.0, 510.0]), np.array([32767.0, 510.0])
    expected = 10 * math.log10(np.sum(exact**2) / np.sum((exact - cut) ** 2))
    assert found.outputs[0].sqnr == pytest.approx(expected, abs=1e-9)
    assert found.outputs[0].sqnr_exact == math.inf
    assert (found.saturated, found.samples) == (0.5, 1)
    assert found.outputs[0].top1 == 1.0


def test_small_activations_saturate_nowhere_and_change_nothing(tmp_path):
    path = save(
        tmp_path / "m.onnx",
        f"net (float[1,4] x) => (float[1,3] y) {{ {ROUNDED} t = MatMul(d, v)  y = Relu(t) }}",
        w=np.array([[127, -127, 3], [127, -127, -4], [1, 2, 5], [1, 2, 6]], np.int8),
    )
    found = emulate(path, [{"x": np.full((1, 4), 60, F32)}])
    assert (found.outputs[0].sqnr, found.saturated) == (math.inf, 0.0)


def test_layers_that_are_all_safe_need_no_emulation(tmp_path):
    path = save(
        tmp_path / "m.onnx",
        f"net (float[1,4] x) => (float[1,3] y) {{ {ROUNDED} y = MatMul(d, v) }}",
        w=RNG.integers(-64, 65, (4, 3)).astype(np.int8),
    )
    found = emulate(path, [{"x": np.full((1, 4), 255, F32)}])
    assert (found.outputs, found.saturated) == ((), None)


def cut_convolution(x, weight, *, pads, strides, dilations, group, zero):
    """A convolution of the integers x with int16 sums of pairs, channels last, window by window."""
    padded = np.pad(x, ((0, 0), (pads[0], pads[2]), (pads[1], pads[3])), constant_values=zero).astype(int)
    outputs, inputs, height, width = weight.shape
    rows = (padded.shape[1] - (height - 1) * dilations[0] - 1) // strides[0] + 1
    columns = (padded.shape[2] - (width - 1) * dilations[1] - 1) // strides[1] + 1
    result = np.zeros((outputs, rows, columns), dtype=int)
    for o, r, c in itertools.product(range(outputs), range(rows), range(columns)):
        first = o // (outputs // group) * inputs
        products = [
            padded[first + i, r * strides[0] + a * dilations[0], c * strides[1] + b * dilations[1]]
            * int(weight[o, i, a, b])
            for a in range(height)
            for b in range(width)
            for i in range(inputs)
        ]
        offset = zero * int(weight[o].astype(int).sum())
        result[o, r, c] = (
            sum(max(-32768, min(32767, sum(products[k : k + 2]))) for k in range(0, len(products), 2)) - offset
        )
    return result


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"pads": (1, 0, 0, 2)},
        {"strides": (2, 1), "pads": (1, 1, 1, 1)},
        {"dilations": (2, 1)},
        {"group": 2},
    ],
)
def test_a_convolution_saturates_where_its_windows_do(tmp_path, form):
    form = {"pads": (0, 0, 0, 0), "strides": (1, 1), "dilations": (1, 1), "group": 1} | form
    weight = RNG.choice(np.array([-127, -3, 90, 127], np.int8), (4, 6 // form["group"] // 2 + 1, 3, 2))
    channels = weight.shape[1] * form["group"]
    attributes = ", ".join(f"{k}={list(v) if isinstance(v, tuple) else v}" for k, v in form.items())
    path = save(
        tmp_path / "m.onnx",
        f"net (float[1,{channels},6,6] x) => (float[1,4,H,W] y) {{ q = QuantizeLinear(x, one, u) "
        f"d = DequantizeLinear(q, one, u)  v = DequantizeLinear(w, one, wz)  y = Conv<{attributes}>(d, v) }}",
        w=weight,
        u=np.uint8(100),
    )
    x = RNG.integers(-100, 156, (1, channels, 6, 6)).astype(F32)
    exact = Session(path, plain_settings(1)).run({"x": x})["y"][0].astype(float)
    cut = cut_convolution((x[0] + 100).astype(int), weight, zero=100, **form)
    assert (cut != exact).any()
    expected = 10 * math.log10(np.sum(exact**2) / np.sum((exact - cut) ** 2))
    assert emulate(path, [{"x": x}]).outputs[0].sqnr == pytest.approx(expected, abs=1e-9)


def test_a_layer_reads_what_the_saturated_one_in_front_gives(tmp_path):
    path = save(
        tmp_path / "m.onnx",
        f"net (float[1,2] x) => (float[1,1] y) {{ {ROUNDED} t = MatMul(d, v)  r = QuantizeLinear(t, s, z) "
        " e = DequantizeLinear(r, s, z)  y = MatMul(e, v2) }",
        w=np.array([[127], [127]], np.int8),
        s=F32(512),
        v2=np.ones((1, 1), F32),
    )
    found = emulate(path, [{"x": np.full((1, 2), 255, F32)}])
    exact, cut = 127 * 512, 64 * 512  # round(64770 / 512) and round(32767 / 512)
    assert found.outputs[0].sqnr == pytest.approx(20 * math.log10(exact / (exact - cut)), abs=1e-6)


def test_signed_activations_are_offset_as_the_runtime_does_it(tmp_path):
    path = save(
        tmp_path / "m.onnx",
        "net (float[1,2] x) => (float[1,1] y) { q = QuantizeLinear(x, one, wz)  d = DequantizeLinear(q, one, wz)"
        "  v = DequantizeLinear(w, one, wz)  y = MatMul(d, v) }",
        w=np.array([[127], [127]], np.int8),
    )
    found = emulate(path, [{"x": np.full((1, 2), 100, F32)}])
    exact, lost = 200 * 127, 2 * 228 * 127 - 32767  # 100 is stored as 228
    assert found.outputs[0].sqnr == pytest.approx(20 * math.log10(exact / lost), abs=1e-6)


def test_a_dynamic_product_saturates_in_its_own_steps(tmp_path):
    path = save(
        tmp_path / "m.onnx",
        "net (float[1,3] x) => (float[1,1] y) { q, t, u = DynamicQuantizeLinear(x)  i = MatMulInteger(q, w, u, wz)"
        "  f = Cast<to=1>(i)  y = Mul(f, t) }",
        w=np.array([[127], [127], [0]], np.int8),
    )
    found = emulate(path, [{"x": np.array([[5.1, 5.1, 0.0]], F32)}])
    exact, lost = 2 * 255 * 127, 2 * 255 * 127 - 32767  # the largest value is stored as 255
    assert found.outputs[0].sqnr == pytest.approx(20 * math.log10(exact / lost), abs=1e-3)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_a_gemm_saturates_before_it_is_scaled(tmp_path, alpha):
    path = save(
        tmp_path / "m.onnx",
        f"net (float[1,2] x) => (float[1,1] y) {{ {ROUNDED} y = Gemm<transB=1, alpha={alpha}>(d, v) }}",
        w=np.array([[127, 127]], np.int8),
    )
    found = emulate(path, [{"x": np.full((1, 2), 255, F32)}])
    assert found.outputs[0].sqnr == pytest.approx(20 * math.log10(64770 / (64770 - 32767)), abs=1e-6)


QEMU = shutil.which("qemu-x86_64")

PROGRAM = """
import sys, numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 4
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
np.save(sys.argv[3], session.run(None, {"x": np.load(sys.argv[2])})[0])
"""


def on_haswell(path, x, folder):
    """What onnxruntime gives on an emulated CPU with AVX2 and nothing newer."""
    np.save(folder / "x.npy", x)
    python = str(Path(sys.executable).resolve())
    arguments = [str(path), str(folder / "x.npy"), str(folder / "y.npy")]
    packages = str(Path(np.__file__).resolve().parents[1])
    command = [QEMU, "-cpu", "Haswell", python, "-c", PROGRAM, *arguments]
    subprocess.run(command, check=True, timeout=300, env={"PYTHONPATH": packages})
    return np.load(folder / "y.npy")


@pytest.mark.slow
@pytest.mark.skipif(QEMU is None, reason="needs qemu-user, which emulates a CPU without VNNI")
@pytest.mark.parametrize("channels", [3, 8, 10])
def test_onnxruntime_itself_gives_these_sums_on_a_cpu_without_vnni(tmp_path, channels):
    """Haswell has AVX2 and nothing newer; odd numbers of channels show the order of the reduction."""
    weight = RNG.choice(np.array([-127, 90, 127], np.int8), (16, channels, 3, 3))
    steps = 9 * channels * 127.0
    path = save(
        tmp_path / "m.onnx",
        f"net (uint8[1,{channels},7,7] x) => (uint8[1,16,5,5] y)"
        " { y = QLinearConv(x, one, z, w, one, wz, ys, u) }",
        w=weight,
        ys=F32(steps),
        u=np.uint8(128),
    )
    x = RNG.integers(0, 256, (1, channels, 7, 7)).astype(np.uint8)
    found = on_haswell(path, x, tmp_path)[0].astype(int)
    cut = cut_convolution(x[0], weight, pads=(0, 0, 0, 0), strides=(1, 1), dilations=(1, 1), group=1, zero=0)
    expected = np.clip(np.rint(cut / steps) + 128, 0, 255)
    assert np.abs(found - expected).max() <= 1
    assert np.mean(found != expected) < 0.01  # ties of rounding
    (layer,) = integer_layers(read_view(path))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[0]
    rows = np.moveaxis(windows, 0, -1).reshape(25, -1)
    exact = rows.astype(int) @ layer.weight.T.astype(int)
    np.testing.assert_array_equal((exact + saturation_loss(rows, layer.weight).delta).T.reshape(16, 5, 5), cut)


@pytest.mark.slow
@pytest.mark.skipif(QEMU is None, reason="needs qemu-user, which emulates a CPU without VNNI")
def test_a_signed_model_gives_on_such_a_cpu_what_is_emulated(tmp_path):
    path = save(
        tmp_path / "m.onnx",
        "net (float[1,8,9,9] x) => (float[1,16,7,7] y)"
        " { q = QuantizeLinear(x, s, wz)  d = DequantizeLinear(q, s, wz)"
        "  v = DequantizeLinear(w, ws, wz)  c = Conv(d, v)  r = QuantizeLinear(c, ys, wz)"
        "  y = DequantizeLinear(r, ys, wz) }",
        s=F32(0.03),
        ws=F32(0.01),
        w=RNG.choice(np.array([-127, 90, 127], np.int8), (16, 8, 3, 3)),
        ys=F32(0.15),
    )
    x = RNG.normal(size=(1, 8, 9, 9)).astype(F32)
    haswell = on_haswell(path, x, tmp_path)
    layers = integer_layers(read_view(path))
    exact = [Session(path, plain_settings(1)).run({"x": x})]
    (output,) = emulate_avx2(
        path, layers, prove_saturation(layers), [{"x": x}], [("y", "y")], [{"y": haswell}], exact
    )[0].outputs
    assert output.sqnr_exact < 20  # much is lost there
    assert output.sqnr > 45  # and found again, up to ties of rounding
