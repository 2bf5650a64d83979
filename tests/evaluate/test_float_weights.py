import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from quantcli.evaluate.float_weights import float_weights
from quantcli.graph.model_io import load_model_bytes

HEAD = '<ir_version: 9, opset_import: ["" : 17]>\n'
F32 = np.float32
RNG = np.random.default_rng(0)


def view(text, **constants):
    model = onnx.parser.parse_model(HEAD + text)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{index}"
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return load_model_bytes(model.SerializeToString()).view()


def codes(weight):
    """int8 codes per row, and their scales."""
    step = np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127
    q = np.rint(weight / step.reshape(-1, *[1] * (weight.ndim - 1)))
    return {"q": q.astype(np.int8), "s": step.astype(F32), "z": np.zeros(len(weight), np.int8)}


DQ = "v = DequantizeLinear<axis=0>(q, s, z)"


def test_a_matrix_is_brought_into_the_layout_of_the_quantized_layer():
    weight = RNG.normal(size=(6, 4)).astype(F32)
    original = view("n (float[N,6] x) => (float[N,4] y) { [fc] y = MatMul(x, w) }", w=weight)
    form = view(f"n (float[N,6] x) => (float[N,4] y) {{ {DQ} [fc] y = Gemm<transB=1>(x, v) }}", **codes(weight.T))
    found = float_weights(original, form, {"fc"})
    np.testing.assert_array_equal(found.constants["fc", 1], weight.T)
    assert (found.layers, found.found, found.rescaled) == (1, 1, 0)


def test_a_corrected_bias_is_replaced_by_the_originals():
    weight, bias = RNG.normal(size=(6, 4)).astype(F32), RNG.normal(size=4).astype(F32)
    body = "[fc] t = MatMul(x, %s)  [add] y = Add(t, %s)"
    original = view("n (float[N,6] x) => (float[N,4] y) {" + body % ("w", "b") + "}", w=weight, b=bias)
    form = view(
        "n (float[N,6] x) => (float[N,4] y) { v = DequantizeLinear<axis=1>(q, s, z)" + body % ("v", "c") + "}",
        c=bias + F32(0.01), q=codes(weight.T)["q"].T.copy(), s=codes(weight.T)["s"], z=codes(weight.T)["z"],
    )  # fmt: skip
    found = float_weights(original, form, {"fc"})
    np.testing.assert_array_equal(found.constants["add", 1], bias)


def test_a_bias_that_only_the_quantized_layer_has_becomes_zero():
    weight = RNG.normal(size=(6, 4, 1, 1)).astype(F32)
    original = view("n (float[1,4,8,8] x) => (float[1,6,8,8] y) { [c] y = Conv(x, w) }", w=weight)
    form = view(
        f"n (float[1,4,8,8] x) => (float[1,6,8,8] y) {{ {DQ} [c] y = Conv(x, v, b) }}",
        b=np.full(6, 0.1, F32), **codes(weight),
    )  # fmt: skip
    assert not float_weights(original, form, {"c"}).constants["c", 2].any()


def test_the_bias_of_a_depthwise_convolution_takes_the_factor_of_its_outputs_only():
    """Rows by a, then channels by 1/a in and by c out: the depthwise weight shows c/a, its bias c."""
    first, depth = RNG.normal(size=(8, 4, 1, 1)), RNG.normal(size=(8, 1, 3, 3))
    biases = RNG.normal(size=8), RNG.normal(size=8)
    a, c = RNG.uniform(0.4, 2.5, 8), RNG.uniform(0.4, 2.5, 8)
    text = (
        "n (float[1,4,8,8] x) => (float[1,8,6,6] y)"
        " { %s [one] t = Conv(x, %s, b1)  [two] y = Conv<group=8>(t, %s, b2) }"
    )
    original = view(text % ("", "w1", "w2"), w1=first.astype(F32), w2=depth.astype(F32), b1=biases[0].astype(F32),
                    b2=biases[1].astype(F32))  # fmt: skip
    column = (-1, 1, 1, 1)
    one, two = codes(first * a.reshape(column)), codes(depth * (c / a).reshape(column))
    form = view(
        text % ("v = DequantizeLinear<axis=0>(q, s, z)  u = DequantizeLinear<axis=0>(q2, s2, z2)", "v", "u"),
        b1=(a * biases[0]).astype(F32), b2=(c * biases[1]).astype(F32), **one,
        **{f"{key}2": value for key, value in two.items()},
    )  # fmt: skip
    found = float_weights(original, form, {"one", "two"})
    assert found.rescaled == 2
    np.testing.assert_allclose(found.constants["one", 2], a * biases[0], rtol=0.02)
    np.testing.assert_allclose(found.constants["two", 2], c * biases[1], rtol=0.02)


def test_layers_that_are_not_quantized_stay_as_they_are():
    weight = RNG.normal(size=(6, 4)).astype(F32)
    original = view("n (float[N,6] x) => (float[N,4] y) { [fc] y = MatMul(x, w) }", w=weight)
    assert float_weights(original, original, set()).constants == {}


def test_a_weight_of_another_shape_is_not_taken():
    weight = RNG.normal(size=(6, 4)).astype(F32)
    original = view("n (float[N,6] x) => (float[N,4] y) { [fc] y = MatMul(x, w) }", w=weight)
    form = view(f"n (float[N,6] x) => (float[N,4] y) {{ {DQ} [fc] y = MatMul(x, v) }}", **codes(weight[:, :3]))
    found = float_weights(original, form, {"fc"})
    assert (found.layers, found.found) == (1, 0)


TABLE = RNG.normal(size=(10, 4)).astype(F32)
LOOKED_UP = "n (int64[N] i, float[4,4] x) => (float[N,4] y) { %s y = MatMul(e, x) }"


def test_a_table_behind_dequantize_linear_is_replaced():
    original = view(LOOKED_UP % "[g] e = Gather(t, i)", t=TABLE)
    form = view(LOOKED_UP % f"{DQ} [g] e = Gather(v, i)", **codes(TABLE))
    found = float_weights(original, form, set()).constants
    np.testing.assert_array_equal(found["g", 0], TABLE)


def test_a_table_of_integers_is_replaced_in_its_own_steps():
    form_text = "[g] r = Gather(q, i)  c = Cast<to=1>(r)  s2 = Gather(s, i)  e = Mul(c, s2)"
    original = view(LOOKED_UP % "[g] e = Gather(t, i)", t=TABLE)
    parameters = codes(TABLE)
    parameters["s"] = parameters["s"].reshape(-1, 1)
    del parameters["z"]
    found = float_weights(original, view(LOOKED_UP % form_text, **parameters), set()).constants
    np.testing.assert_allclose(found["g", 0] * parameters["s"], TABLE, rtol=1e-6)
