"""A net of three convolutions, its int8 form as other tools write it, and what breaks it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from onnx import numpy_helper
from toy_models import Samples

from quantcli.evaluate.tensor_run import Models
from quantcli.evaluate.tensors import TensorOptions, compare_tensors
from quantcli.graph.read_view import read_model
from quantcli.progress import SilentProgress
from quantcli.report.schema import TensorComparison

HEAD = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>\n'

FLOAT = (
    HEAD
    + """net (float[N,4,8,8] x) => (float[N,4,6,6] y) {
  [c1] a = Conv(x, w1, b1)
  [r1] r = Relu(a)
  [c2] b = Conv(r, w2, b2)
  [r2] s = Relu(b)
  [c3] y = Conv(s, w3, b3)
}"""
)

QDQ = (
    HEAD
    + """net (float[N,4,8,8] x) => (float[N,4,6,6] y) {
  [xq] x_quantized = QuantizeLinear(x, x_scale, x_zero)
  [xd] x_dequantized = DequantizeLinear(x_quantized, x_scale_read, x_zero_read)
  [w1d] w1_dequantized = DequantizeLinear<axis = 0>(w1_quantized, w1_scale, w1_zero)
  [b1d] b1_dequantized = DequantizeLinear<axis = 0>(b1_quantized, b1_scale)
  [c1] a = Conv(x_dequantized, w1_dequantized, b1_dequantized)
  [rq] r_quantized = QuantizeLinear(a, r_scale, r_zero)
  [rd] r_dequantized = DequantizeLinear(r_quantized, r_scale_read, r_zero_read)
  [w2d] w2_dequantized = DequantizeLinear<axis = 0>(w2_quantized, w2_scale, w2_zero)
  [b2d] b2_dequantized = DequantizeLinear<axis = 0>(b2_quantized, b2_scale)
  [c2] b = Conv(r_dequantized, w2_dequantized, b2_dequantized)
  [sq] s_quantized = QuantizeLinear(b, s_scale, s_zero)
  [sd] s_dequantized = DequantizeLinear(s_quantized, s_scale_read, s_zero_read)
  [w3d] w3_dequantized = DequantizeLinear<axis = 0>(w3_quantized, w3_scale, w3_zero)
  [b3d] b3_dequantized = DequantizeLinear<axis = 0>(b3_quantized, b3_scale)
  [c3] y = Conv(s_dequantized, w3_dequantized, b3_dequantized)
}"""
)

QOPERATOR = (
    HEAD
    + """net (float[N,4,8,8] x) => (float[N,4,6,6] y) { [xq] x_quantized = QuantizeLinear(x,
x_scale, x_zero) [c1_quant] a_quantized = QLinearConv(x_quantized, x_scale, x_zero, w1_quantized, w1_scale,
w1_zero, r_scale, r_zero, b1_quantized) [c2_quant] b_quantized = QLinearConv(a_quantized, r_scale, r_zero,
w2_quantized, w2_scale, w2_zero, s_scale, s_zero, b2_quantized) [bd] b_dequantized = DequantizeLinear(b_quantized,
s_scale, s_zero) [w3d] w3_dequantized = DequantizeLinear<axis = 0>(w3_quantized, w3_scale, w3_zero) [b3d]
b3_dequantized = DequantizeLinear<axis = 0>(b3_quantized, b3_scale) [c3] y = Conv(b_dequantized, w3_dequantized,
b3_dequantized) }"""
)

_RNG = np.random.default_rng(7)

DATA = _RNG.normal(size=(24, 4, 8, 8)).astype(np.float32)

WEIGHTS = {
    "w1": _RNG.normal(size=(8, 4, 3, 3)).astype(np.float32) / 6,
    "b1": _RNG.normal(size=8).astype(np.float32),
    "w2": _RNG.normal(size=(8, 8, 1, 1)).astype(np.float32) / 2,
    "b2": _RNG.normal(size=8).astype(np.float32),
    "w3": _RNG.normal(size=(4, 8, 1, 1)).astype(np.float32) / 2,
    "b3": _RNG.normal(size=4).astype(np.float32),
}


def proto(text: str, constants: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model of ``text`` with those of ``constants`` that it reads."""
    model = onnx.parser.parse_model(text)
    read = {name for node in model.graph.node for name in node.input}
    for name, array in constants.items():
        if name in read:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def ranges(weights: Mapping[str, np.ndarray] = WEIGHTS) -> dict[str, tuple[float, float]]:
    """Extremes of x, r and s over DATA, 0 included."""
    text = FLOAT.replace("(float[N,4,6,6] y)", "(float[N,4,6,6] y, float[N,8,6,6] r, float[N,8,6,6] s)")
    content = proto(text, weights).SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    values = dict(zip(("y", "r", "s"), session.run(None, {"x": DATA}), strict=True)) | {"x": DATA}
    return {name: (min(0.0, float(values[name].min())), float(values[name].max())) for name in ("x", "r", "s")}


def integers(weights: Mapping[str, np.ndarray] = WEIGHTS) -> dict[str, np.ndarray]:
    """Constants of the int8 form: uint8 activations over their whole range, int8 weights per channel, int32
    biases."""
    found: dict[str, np.ndarray] = {}
    for name, (low, high) in ranges(weights).items():
        scale = np.float32((high - low) / 255)
        zero = np.uint8(round(-low / float(scale)))
        found |= {f"{name}_scale": np.array(scale), f"{name}_zero": np.array(zero)}
        found |= {f"{name}_scale_read": np.array(scale), f"{name}_zero_read": np.array(zero)}
    for index, source in ((1, "x"), (2, "r"), (3, "s")):
        weight = weights[f"w{index}"]
        scale = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
        codes = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
        step = (scale * found[f"{source}_scale"]).astype(np.float32)
        found |= {
            f"w{index}_quantized": codes,
            f"w{index}_scale": scale,
            f"w{index}_zero": np.zeros_like(scale, np.int8),
        }
        found |= {
            f"b{index}_quantized": np.rint(weights[f"b{index}"] / step).astype(np.int32),
            f"b{index}_scale": step,
        }
    return found


def compared(
    folder: Path,
    text: str = QDQ,
    changes: Mapping[str, np.ndarray] | None = None,
    *,
    data: bool | np.ndarray = True,
    weights: Mapping[str, np.ndarray] = WEIGHTS,
    original: str = FLOAT,
    options: TensorOptions | None = None,
    base: Mapping[str, np.ndarray] | None = None,
    original_weights: Mapping[str, np.ndarray] = WEIGHTS,
) -> TensorComparison:
    """FLOAT against its int8 form with ``changes``, on DATA, on other samples, or on none."""
    onnx.save(proto(original, original_weights), folder / "float.onnx")
    onnx.save(proto(text, {**(base or integers(weights)), **(changes or {})}), folder / "int8.onnx")
    first, second = read_model(folder / "float.onnx"), read_model(folder / "int8.onnx")
    models = Models(original=first, quantized=second, view=first.view(), quantized_view=second.view())
    samples = Samples({"x": DATA if data is True else data}) if data is not False else None
    return compare_tensors(models, samples, options or TensorOptions(), threads=1, progress=SilentProgress())


def equalized(factors: np.ndarray) -> dict[str, np.ndarray]:
    """WEIGHTS with r stored as r / s: row c of w1 and b1 over s, column c of w2 times s."""
    shaped = factors.reshape(-1, 1, 1, 1)
    return WEIGHTS | {
        "w1": (WEIGHTS["w1"] / shaped).astype(np.float32),
        "b1": (WEIGHTS["b1"] / factors).astype(np.float32),
        "w2": (WEIGHTS["w2"] * factors[None, :, None, None]).astype(np.float32),
    }
