import numpy as np
import onnxruntime as ort
import pytest
from onnx_text import model

from quantcli.graph.unround import with_constants, without_activation_rounding

F32 = np.float32
RNG = np.random.default_rng(0)


def run(source, x):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(source.to_bytes(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


W = RNG.integers(-9, 10, (4, 3)).astype(np.int8)
Q = {"s": F32(0.5), "z": np.uint8(128), "w": W, "sw": F32(0.25), "zw": np.int8(0)}
X = RNG.normal(size=(5, 4)).astype(F32)


def test_activations_go_through_and_weights_stay_rounded():
    source = model(
        "net (float[5,4] x) => (float[5,3] y) { q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)"
        " v = DequantizeLinear(w, sw, zw)  y = MatMul(d, v) }",
        **Q,
    )
    found = run(without_activation_rounding(source), X)
    np.testing.assert_allclose(found, X @ (W * F32(0.25)), rtol=1e-5, atol=1e-6)


def test_what_moves_integers_moves_the_values():
    source = model(
        "net (float[1,1,4,4] x) => (float[4] y) { q = QuantizeLinear(x, s, z)  p = MaxPool<kernel_shape=[2,2],"
        "strides=[2,2]>(q)  r = Reshape(p, shape)  y = DequantizeLinear(r, s, z) }",
        **Q,
        shape=np.array([4], np.int64),
    )
    x = RNG.normal(size=(1, 1, 4, 4)).astype(F32)
    found = run(without_activation_rounding(source), x)
    np.testing.assert_array_equal(found, x.reshape(2, 2, 2, 2).max(axis=(1, 3)).reshape(4))


def test_a_dynamic_rounding_is_taken_back_with_its_scale():
    source = model(
        "net (float[5,4] x) => (float[5,4] y)"
        " { q, t, u = DynamicQuantizeLinear(x)  d = DequantizeLinear(q, one, u)  y = Mul(d, t) }",
        one=F32(1),
    )
    np.testing.assert_array_equal(run(without_activation_rounding(source), X), X)


@pytest.mark.parametrize(
    ("zero", "limits", "low", "high"),
    [
        (128, (), -np.inf, np.inf),
        (0, (), 0.0, np.inf),  # stands for a Relu
        (0, (6.0,), 0.0, 6.0),  # and for a Clip
        (0, (7.0,), 0.0, np.inf),
        (128, (-3.0,), -3.0, np.inf),
    ],
)
def test_limits_of_the_integers_that_stand_for_an_operator_stay(zero, limits, low, high):
    source = model(
        "net (float[1,100] x) => (float[1,100] y) { q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }",
        s=F32(6.0 / 255),
        z=np.uint8(zero),
    )
    x = np.linspace(-9, 9, 100, dtype=F32).reshape(1, 100)
    found = run(without_activation_rounding(source, limits), x)
    np.testing.assert_array_equal(found, np.clip(x, low, high).astype(F32))


def test_an_output_of_integers_keeps_its_type():
    source = model(
        "net (float[5,4] x) => (uint8[5,4] y) { y = QuantizeLinear(x, s, z) }", s=F32(0.5), z=np.uint8(9)
    )
    assert run(without_activation_rounding(source), X).dtype == np.uint8


def test_other_constants_take_the_place_of_weights():
    source = model(
        "net (float[5,4] x) => (float[5,3] y) { v = DequantizeLinear(w, sw, zw)  [fc] y = MatMul(x, v) }", **Q
    )
    weight = RNG.normal(size=(4, 3)).astype(F32)
    name = next(node.name for node in source.view().nodes if node.op == "MatMul")
    np.testing.assert_allclose(
        run(with_constants(source, {(name, 1): weight}), X), X @ weight, rtol=1e-5, atol=1e-6
    )


def test_a_table_of_integers_can_become_one_of_floats():
    table = RNG.normal(size=(6, 2)).astype(F32)
    source = model(
        "net (int64[3] x) => (float[3,2] y) { r = Gather(t, x)  c = Cast<to=1>(r)  y = Mul(c, s) }",
        t=np.zeros((6, 2), np.int8),
        s=F32(2),
    )
    name = next(node.name for node in source.view().nodes if node.op == "Gather")
    found = run(with_constants(source, {(name, 0): table / 2}), np.array([5, 0, 3]))
    np.testing.assert_array_equal(found, table[[5, 0, 3]])


def test_padding_with_the_integer_that_means_zero_pads_with_zeros():
    source = model(
        "net (float[1,1,2,2] x) => (float[1,1,4,4] y) { q = QuantizeLinear(x, s, z)  p = Pad(q, pads, z)"
        " y = DequantizeLinear(p, s, z) }",
        **Q,
        pads=np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    )
    x = RNG.normal(size=(1, 1, 2, 2)).astype(F32)
    found = run(without_activation_rounding(source), x)
    np.testing.assert_array_equal(found, np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))))
