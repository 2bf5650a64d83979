"""Gradients of every operator with a rule, against difference quotients of onnxruntime's kernels."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from quantcli.graph.adjoint import RULES, gradients
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.noise_probe import raised
from quantcli.graph.tape import Tape
from quantcli.runtime.session import Session, SessionSettings

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


IMAGE = normal(1, 4, 7, 6)
ROW = normal(1, 5, 8)
ROW += 0.05 * np.sign(ROW)  # away from the kinks at 0
CASES = {
    "Add": ("y = Add (x, c)", ROW, {"c": normal(5, 1)}),
    "Add of itself": ("y = Add (x, x)", ROW, {}),
    "Sum": ("y = Sum (x, c, x)", ROW, {"c": normal(8)}),
    "Sub": ("a = ReduceMean <axes = [1], keepdims = 0> (x) y = Sub (x, a)", normal(4, 4, 4), {}),
    "Mul": ("a = Sigmoid (x) y = Mul (x, a)", ROW, {}),
    "Mul broadcast": ("a = GlobalAveragePool (x) y = Mul (x, a)", IMAGE, {}),
    "Div": ("a = ReduceSum (x) y = Div (x, a)", positive(1, 5, 4), {}),
    "Where": ("k = Greater (x, c) y = Where (k, x, c)", ROW, {"c": np.float32(0.1).reshape(1)}),
    "Max": ("y = Max (x, c)", ROW, {"c": normal(8)}),
    "Min": ("y = Min (x, c)", ROW, {"c": normal(8)}),
    "Identity": ("y = Identity (x)", ROW, {}),
    "Cast": ("y = Cast <to = 1> (x)", ROW, {}),
    "Relu": ("y = Relu (x)", ROW, {}),
    "Clip": ("y = Clip (x, l, h)", ROW, {"l": np.array(-0.5, np.float32), "h": np.array(0.5, np.float32)}),
    "LeakyRelu": ("y = LeakyRelu <alpha = 0.2> (x)", ROW, {}),
    "Sigmoid": ("y = Sigmoid (x)", ROW, {}),
    "Tanh": ("y = Tanh (x)", ROW, {}),
    "Erf": ("y = Erf (x)", ROW, {}),
    "Exp": ("y = Exp (x)", ROW, {}),
    "Log": ("y = Log (x)", positive(2, 5), {}),
    "Sqrt": ("y = Sqrt (x)", positive(2, 5), {}),
    "Reciprocal": ("y = Reciprocal (x)", positive(2, 5), {}),
    "Neg": ("y = Neg (x)", ROW, {}),
    "Abs": ("y = Abs (x)", ROW, {}),
    "Softplus": ("y = Softplus (x)", ROW, {}),
    "HardSigmoid": ("y = HardSigmoid (x)", 3 * ROW, {}),
    "HardSwish": ("y = HardSwish (x)", 3 * ROW, {}),
    "Gelu": ("y = Gelu (x)", ROW, {}),
    "QuickGelu": ("y = com.microsoft.QuickGelu <alpha = 1.5> (x)", ROW, {}),
    "Pow": ("y = Pow (x, p)", positive(2, 5), {"p": np.float32(2.5).reshape(())}),
    "Reshape": ("y = Reshape (x, s)", ROW, {"s": np.array([4, -1])}),
    "Flatten": ("y = Flatten (x)", IMAGE, {}),
    "Squeeze": ("y = Squeeze (x, a)", ROW, {"a": np.array([0])}),
    "Unsqueeze": ("y = Unsqueeze (x, a)", ROW, {"a": np.array([1])}),
    "Transpose": ("y = Transpose <perm = [2, 0, 1]> (x)", ROW, {}),
    "Expand": ("y = Expand (x, s)", normal(3, 1), {"s": np.array([2, 3, 4])}),
    "Concat": ("a = Tanh (x) y = Concat <axis = 1> (a, c, x)", ROW, {"c": normal(1, 2, 8)}),
    "Split": (
        "a, b = Split <axis = 2> (x, s) t = Tanh (b) y = Concat <axis = 2> (t, b)", ROW, {"s": np.array([3, 5])}
    ),
    "Slice": (
        "y = Slice (x, b, e, a, s)", IMAGE,
        {"b": np.array([1, -5]), "e": np.array([99, 6]), "a": np.array([2, 3]), "s": np.array([2, 3])},
    ),
    "Slice backwards": (
        "y = Slice (x, b, e, a, s)", IMAGE,
        {"b": np.array([-1]), "e": np.array([-6]), "a": np.array([2]), "s": np.array([-2])},
    ),
    "Slice of computed bounds": (
        "n = Shape (x) m = Gather (n, two) h = Div (m, two) y = Slice (x, h, m, two)", IMAGE,
        {"two": np.array([2])},
    ),
    "Pad": ("y = Pad (x, p)", IMAGE, {"p": np.array([0, 1, 0, 2, 0, 0, 1, 1])}),
    "Gather": ("y = Gather <axis = 1> (x, i)", ROW, {"i": np.array([[0, 3], [3, -1]])}),
    "Resize": (
        'y = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , s)', IMAGE,
        {"s": np.array([1, 1, 2, 3], np.float32)},
    ),
    **{
        f"Resize linear, {mode}": (
            f'y = Resize <mode = "linear", coordinate_transformation_mode = "{mode}"> (x, , , s)', IMAGE,
            {"s": np.array([1, 4, 13, 5])},
        )
        for mode in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
    },
    "ReduceSum": ("y = ReduceSum <keepdims = 0> (x, a)", ROW, {"a": np.array([-1])}),
    "ReduceMean": ("y = ReduceMean <axes = [1, 2]> (x)", ROW, {}),
    "ReduceL2": ("y = ReduceL2 <axes = [2]> (x)", ROW, {}),
    "ReduceMax": ("y = ReduceMax <axes = [2], keepdims = 0> (x)", ROW, {}),
    "GlobalAveragePool": ("y = GlobalAveragePool (x)", IMAGE, {}),
    "GlobalMaxPool": ("y = GlobalMaxPool (x)", IMAGE, {}),
    "Softmax": ("y = Softmax <axis = 1> (x)", ROW, {}),
    "LayerNormalization": ("y = LayerNormalization (x, s, b)", ROW, {"s": normal(8), "b": normal(8)}),
    "MatMul": ("y = MatMul (x, w)", ROW, {"w": normal(8, 3)}),
    "MatMul of activations": ("t = Transpose <perm = [0, 2, 1]> (x) y = MatMul (x, t)", ROW, {}),
    "Gemm": ("y = Gemm <transB = 1, alpha = 0.5> (x, w, b)", normal(2, 6), {"w": normal(3, 6), "b": normal(3)}),
    "Conv": ("y = Conv <pads = [1, 1, 1, 1]> (x, w, b)", IMAGE, {"w": normal(5, 4, 3, 3), "b": normal(5)}),
    "Conv with strides": (
        "y = Conv <strides = [2, 3], dilations = [1, 2], pads = [1, 0, 0, 1]> (x, w)", IMAGE,
        {"w": normal(5, 4, 3, 2)},
    ),
    "Conv by groups": ("y = Conv <group = 2, strides = [2, 2]> (x, w)", IMAGE, {"w": normal(6, 2, 3, 3)}),
    "Conv depthwise": ("y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w)", IMAGE, {"w": normal(4, 1, 3, 3)}),
    "Conv with large pads": ("y = Conv <pads = [3, 3, 3, 3]> (x, w)", IMAGE, {"w": normal(5, 4, 2, 2)}),
    "Conv that leaves rows over": ("y = Conv <strides = [3, 4]> (x, w)", IMAGE, {"w": normal(2, 4, 2, 1)}),
    "Conv padded to the same": (
        'y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)', IMAGE, {"w": normal(5, 4, 3, 3)}
    ),
    "ConvTranspose": (
        "y = ConvTranspose <strides = [2, 2], pads = [1, 0, 0, 1], output_padding = [1, 0]> (x, w)", IMAGE,
        {"w": normal(4, 3, 3, 3)},
    ),
    "MaxPool": ("y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)", IMAGE, {}),
    "AveragePool": ("y = AveragePool <kernel_shape = [3, 2], strides = [2, 2]> (x)", IMAGE, {}),
}  # fmt: skip


def graph(body: str, x: np.ndarray, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    dims = ",".join(map(str, x.shape))
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 14, "com.microsoft" : 1]>
        g (float[{dims}] x) => (float[?] y) {{ {body} }}"""
    )
    if any(word in body for word in ("HardSwish", "LayerNormalization")):
        proto.opset_import[0].version = 17
    if "= Gelu" in body:
        proto.opset_import[0].version = 20
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return onnx.shape_inference.infer_shapes(proto)


def by_rule(proto: onnx.ModelProto, x: np.ndarray, seed: np.ndarray) -> np.ndarray:
    model = raised(load_model_bytes(proto.SerializeToString()))
    shown = onnx.ModelProto.FromString(proto.SerializeToString())
    values = [name for node in proto.graph.node for name in node.output]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values if name != "y")
    found = Session(shown.SerializeToString(), SessionSettings(optimization="disabled")).run({"x": x}) | {"x": x}
    tape = Tape(model, {name: np.shape(array) for name, array in found.items()})
    result = gradients(tape, model, "y", tape.input("seed"))
    assert not result.blocked
    name = tape.output(result.values["x"])
    session = Session(model.to_bytes(), SessionSettings(optimization="disabled"))
    fed = next(spec.name for spec in session.inputs if spec.name != "x")
    return session.run({"x": x, fed: seed}, [name])[name]


@pytest.mark.parametrize("case", CASES)
def test_a_rule_gives_the_slope(case):
    """∂f/∂x_i = (f(x + h·e_i) − f(x − h·e_i)) / 2h for f = ⟨seed, y⟩, with y from float32 kernels.

    With h = 2⁻¹⁰ a step changes few terms of f; their rounding, 2⁻²⁴·|y|/h, costs about 1e-4, curvature less.
    """
    body, x, constants = CASES[case]
    proto = graph(body, x, constants)
    session = Session(proto.SerializeToString(), SessionSettings(optimization="disabled"))
    y = session.run({"x": x})["y"].astype(np.float64)
    seed = np.random.default_rng(1).normal(0, 1, y.shape).astype(np.float32)
    found = by_rule(proto, x, seed).astype(np.float64)
    assert found.shape == x.shape
    step = np.float32(2.0**-10)
    rng = np.random.default_rng(2)
    for element in rng.choice(x.size, min(x.size, 24), replace=False):
        moved = [x.copy(), x.copy()]
        for array, sign in zip(moved, (1, -1), strict=True):
            array.reshape(-1)[element] += sign * step
        up, down = (session.run({"x": array})["y"].astype(np.float64) for array in moved)
        slope = float((seed * (up - down)).sum()) / float(
            moved[0].reshape(-1)[element] - moved[1].reshape(-1)[element]
        )
        assert found.reshape(-1)[element] == pytest.approx(slope, rel=5e-3, abs=5e-3)


def test_every_rule_has_a_case():
    cased = {node for body, _, _ in CASES.values() for node in body.replace("(", " ").replace("<", " ").split()}
    elsewhere = {"QuantizeLinear", "DequantizeLinear", "QuickGelu", "Swish", "Dropout"}
    assert {operator for _, operator in RULES} - cased <= elsewhere


def test_an_operator_without_a_rule_blocks_what_is_before_it():
    proto = graph("a = Relu (x) b = Selu (a) y = Relu (b)", ROW, {})
    model = raised(load_model_bytes(proto.SerializeToString()))
    tape = Tape(model, dict.fromkeys("xaby", ROW.shape))
    found = gradients(tape, model, "y", tape.input("seed"))
    assert found.blocked == {"x", "a"}
    assert set(found.values) == {"y", "b"}


def test_nothing_before_an_operator_without_a_rule_is_known_through_a_quantizer_either():
    """The way past the operator alone would give a gradient that looks right."""
    proto = graph(
        "q = QuantizeLinear (x, s) d = DequantizeLinear (q, s) r = CumSum (d, a) y = Add (r, d)",
        ROW,
        {"s": np.array(0.1, np.float32), "a": np.array(1)},
    )
    model = load_model_bytes(proto.SerializeToString())
    tape = Tape(model, dict.fromkeys(("x", "d", "r", "y"), ROW.shape))
    assert gradients(tape, model, "y", tape.input("seed")).blocked >= {"x", "d"}
