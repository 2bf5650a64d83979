import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx_text import model

from quantcli.graph.float_form import float_form
from quantcli.graph.nbits import unpack_nbits

RNG = np.random.default_rng(0)
F32 = np.float32


def run(source, feeds):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(source.to_bytes(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def codes(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


X = {"sx": F32(0.02), "zx": np.uint8(120), "sy": F32(0.05), "zy": np.uint8(130)}
W = {"w": RNG.integers(-127, 128, (4, 2, 3, 3)).astype(np.int8), "sw": RNG.uniform(0.01, 0.02, 4).astype(F32),
     "zw": np.zeros(4, np.int8), "b": RNG.integers(-500, 500, 4).astype(np.int32)}  # fmt: skip
M = {"w": RNG.integers(-127, 128, (6, 4)).astype(np.int8), "sw": F32(0.01), "zw": np.int8(3)}
MAP = "net (uint8[1,2,6,6] x) => (uint8[1,C,H,W] y)"
ROW = "net (uint8[3,6] x) => (uint8[3,N] y)"

INTEGER = {
    "QLinearConv": (
        MAP + "{ y = QLinearConv<pads=[1,1,1,1]>(x, sx, zx, w, sw, zw, sy, zy, b) }", X | W, codes(1, 2, 6, 6)
    ),
    "QLinearMatMul": (ROW + "{ y = QLinearMatMul(x, sx, zx, w, sw, zw, sy, zy) }", X | M, codes(3, 6)),
    "QGemm": (
        ROW + "{ y = com.microsoft.QGemm<transB=1>(x, sx, zx, w, sw, zw, b, sy, zy) }",
        X | M | {"w": M["w"].T.copy(), "b": W["b"]},
        codes(3, 6),
    ),
    "QLinearAdd": (ROW + "{ y = com.microsoft.QLinearAdd(x, sx, zx, x, sy, zy, sy, zy) }", X, codes(3, 6)),
    "QLinearMul": (ROW + "{ y = com.microsoft.QLinearMul(x, sx, zx, x, sy, zy, sy, zy) }", X, codes(3, 6)),
    "QLinearConcat": (
        ROW + "{ y = com.microsoft.QLinearConcat<axis=1>(sy, zy, x, sx, zx, x, sy, zy) }", X, codes(3, 6)
    ),
    "QLinearGlobalAveragePool": (
        MAP + "{ y = com.microsoft.QLinearGlobalAveragePool<channels_last=0>(x, sx, zx, sy, zy) }",
        X,
        codes(1, 2, 6, 6),
    ),
    "QLinearAveragePool": (
        MAP + "{ y = com.microsoft.QLinearAveragePool<kernel_shape=[2,2],strides=[2,2]>(x, sx, zx, sy, zy) }",
        X,
        codes(1, 2, 6, 6),
    ),
    "QLinearLeakyRelu": (
        ROW + "{ y = com.microsoft.QLinearLeakyRelu<alpha=0.1>(x, sx, zx, sy, zy) }", X, codes(3, 6)
    ),
    "QLinearSigmoid": (
        ROW + "{ y = com.microsoft.QLinearSigmoid(x, sx, zx, sy, zy) }", X | {"sy": F32(1 / 255)}, codes(3, 6)
    ),
    "QLinearSoftmax": (
        ROW + "{ y = com.microsoft.QLinearSoftmax<axis=-1,opset=17>(x, sx, zx, sy, zy) }",
        X | {"sy": F32(1 / 256), "zy": np.uint8(0)},
        codes(3, 6),
    ),
    "QLinearWhere": (
        ROW + "{ c = Greater(x, zx)  y = com.microsoft.QLinearWhere(c, x, sx, zx, x, sy, zy, sy, zy) }",
        X,
        codes(3, 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(INTEGER))
def test_an_integer_operator_gives_the_same_within_a_tie_of_rounding(name):
    text, constants, x = INTEGER[name]
    source = model(text, **constants)
    form = float_form(source)
    assert not any(node.op_type.startswith("Q") and node.op_type != "QuantizeLinear" for node in form.view().nodes)
    assert {node.name for node in source.view().nodes} <= {node.name for node in form.view().nodes}
    error = np.abs(run(source, {"x": x}).astype(int) - run(form, {"x": x}).astype(int))
    assert error.max() <= 1
    assert np.mean(error > 0) < 0.05


FLOATS = {
    "MatMulInteger": (
        (
            "net (float[3,6] x) => (float[3,4] y)"
            "{ q, s, z = DynamicQuantizeLinear(x) i = MatMulInteger(q, w, z, zw) f = Cast<to=1>(i) y = Mul(f, s) }"
        ),
        M,
        (3, 6),
    ),
    "ConvInteger": (
        (
            "net (float[1,2,6,6] x) => (float[1,4,4,4] y)"
            "{ q, s, z = DynamicQuantizeLinear(x) i = ConvInteger(q, w, z, zw)  f = Cast<to=1>(i) y = Mul(f, s) }"
        ),
        {"w": codes(4, 2, 3, 3), "zw": np.uint8(128)},
        (1, 2, 6, 6),
    ),
    "MatMulIntegerToFloat": (
        (
            "net (float[3,6] x) => (float[3,4] y)"
            "{ q, s, z = DynamicQuantizeLinear(x)  y = com.microsoft.MatMulIntegerToFloat(q, w, s, sw, z, zw, b) }"
        ),
        M | {"b": RNG.normal(size=4).astype(F32)},
        (3, 6),
    ),
    "DynamicQuantizeMatMul": (
        "net (float[3,6] x) => (float[3,4] y) { y = com.microsoft.DynamicQuantizeMatMul(x, w, sw, zw, b) }",
        M | {"b": RNG.normal(size=4).astype(F32)},
        (3, 6),
    ),
}


@pytest.mark.parametrize("name", sorted(FLOATS))
def test_a_dynamic_operator_gives_the_same_up_to_float_sums(name):
    text, constants, shape = FLOATS[name]
    source = model(text, **constants)
    form = float_form(source)
    x = RNG.normal(size=shape).astype(F32)
    assert not any("Integer" in node.op_type or "DynamicQuantizeMat" in node.op_type for node in form.view().nodes)
    np.testing.assert_allclose(run(form, {"x": x}), run(source, {"x": x}), rtol=1e-4, atol=1e-4)


def test_a_dynamic_lstm_becomes_one_with_dequantized_weights():
    hidden, inputs = 3, 2
    w = RNG.integers(-127, 128, (1, inputs, 4 * hidden)).astype(np.int8)
    r = RNG.integers(-127, 128, (1, hidden, 4 * hidden)).astype(np.int8)
    constants = {"w": w, "r": r, "ws": np.full(1, 0.01, F32), "wz": np.zeros(1, np.int8)}
    text = (
        "net (float[5,1,2] x) => (float[5,1,1,3] y)"
        "{ y, h, c = com.microsoft.DynamicQuantizeLSTM<hidden_size=3>(x, w, r, , , , , , ws, wz, ws, wz) }"
    )
    source = model(text, **constants)
    x = RNG.normal(size=(5, 1, inputs)).astype(F32)
    dynamic, plain = run(source, {"x": x}), run(float_form(source), {"x": x})
    assert np.abs(dynamic - plain).max() < 0.02  # activations are rounded to 8 bits in one of them


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", [False, True])
def test_packed_weights_give_what_the_kernel_gives(bits, zeros):
    rows, columns, block = 64, 3, 32
    packed = RNG.integers(0, 256, (columns, rows // block, block * bits // 8)).astype(np.uint8)
    scales = RNG.uniform(0.01, 0.02, columns * rows // block).astype(F32)
    points = RNG.integers(0, 256, columns * (rows // block) * bits // 8).astype(np.uint8)
    given = {"w": packed, "s": scales} | ({"z": points} if zeros else {})
    text = (
        "net (float[5,64] x) => (float[5,3] y) { y = com.microsoft.MatMulNBits"
        f"<K=64,N=3,bits={bits},block_size=32,accuracy_level=1>(x, w, s{', z' if zeros else ''}) }}"
    )
    source = model(text, **given)
    x = RNG.normal(size=(5, rows)).astype(F32)
    form = float_form(source)
    assert [node.op for node in form.view().nodes] == ["MatMul"]
    np.testing.assert_allclose(run(form, {"x": x}), run(source, {"x": x}), rtol=1e-4, atol=1e-4)


def test_packed_weights_of_other_sizes_are_refused():
    assert unpack_nbits(np.zeros((2, 1, 16), np.uint8), np.ones(3, F32), None, 32, 2, 4, 32) is None
    assert unpack_nbits(np.zeros((2, 1, 16), np.uint8), np.ones(2, F32), None, 32, 2, 3, 32) is None


def test_a_float_model_stays_as_it_is():
    source = model("net (float[2,3] x) => (float[2,3] y) { y = Relu(x) }")
    assert float_form(source).view().nodes == source.view().nodes
    assert onnx.ModelProto.FromString(float_form(source).to_bytes()).graph.node[0].op_type == "Relu"
