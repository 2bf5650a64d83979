import math

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from toy_models import FLOAT, qdq_text

from quantcli.evaluate.weights import compare_weights
from quantcli.graph.model_io import load_model_bytes

HEAD = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>\n'


def view(text, **constants):
    model = onnx.parser.parse_model(text)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{index}"
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return load_model_bytes(model.SerializeToString()).view()


def test_exact_weights_have_no_error():
    found = compare_weights(view(FLOAT), view(qdq_text()))
    assert (found.weights, found.matched, found.kept_float, found.not_found) == (1, 1, 0, 0)
    (layer,) = found.layers
    assert (layer.node, layer.dtype, layer.granularity, layer.elements) == ("fc", "int8", "per-tensor", 12)
    assert (layer.sqnr, layer.step_rmse) == (math.inf, 0.0)


def test_a_doubled_scale_shows_as_0_db():
    (layer,) = compare_weights(view(FLOAT), view(qdq_text(scale=1.0))).layers
    assert layer.sqnr == pytest.approx(0.0, abs=1e-9)


def test_a_weight_left_in_float_is_counted_apart():
    found = compare_weights(view(FLOAT), view(FLOAT))
    assert (found.matched, found.kept_float) == (0, 1)


def test_a_node_of_another_name_is_found_by_its_output():
    renamed = qdq_text().replace("[fc]", "[other]")
    assert compare_weights(view(FLOAT), view(renamed)).matched == 1


def test_a_node_that_is_gone_is_counted_as_not_found():
    gone = qdq_text(output="y").replace("[fc]", "[other]")
    assert compare_weights(view(FLOAT), view(gone)).not_found == 1


RNG = np.random.default_rng(0)
CONV = RNG.normal(size=(6, 3, 3, 3)).astype(np.float32)
CONV_FLOAT = HEAD + "net (float[1,3,8,8] x) => (float[1,6,6,6] y) { [c] y = Conv(x, w) }"
CONV_QDQ = HEAD + (
    "net (float[1,3,8,8] x) => (float[1,6,6,6] y)"
    " { [d] v = DequantizeLinear<axis = 0>(q, s, z)  [c] y = Conv(x, v) }"
)


def per_channel(weight, axis=0):
    """int8 codes and scales by rounding to nearest, symmetric."""
    other = tuple(i for i in range(weight.ndim) if i != axis)
    scale = (np.abs(weight).max(axis=other) / 127).astype(np.float32)
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    return np.clip(np.rint(weight / scale.reshape(shape)), -127, 127).astype(np.int8), scale


def test_rounding_to_nearest_has_an_rms_error_of_1_over_root_12_steps():
    weight = RNG.normal(size=(64, 32, 3, 3)).astype(np.float32)
    q, s = per_channel(weight)
    text = CONV_FLOAT.replace("[1,3,8,8]", "[1,32,8,8]").replace("[1,6,6,6]", "[1,64,6,6]")
    other = CONV_QDQ.replace("[1,3,8,8]", "[1,32,8,8]").replace("[1,6,6,6]", "[1,64,6,6]")
    (layer,) = compare_weights(view(text, w=weight), view(other, q=q, s=s, z=np.zeros(64, np.int8))).layers
    assert layer.granularity == "per-channel"
    assert layer.step_rmse == pytest.approx(1 / math.sqrt(12), rel=0.02)
    error = weight - q * s.reshape(-1, 1, 1, 1)
    assert layer.sqnr == pytest.approx(10 * np.log10((weight**2).sum() / (error**2).sum()), rel=1e-5)


def test_scales_on_the_wrong_axis_look_like_scaled_channels():
    """Whether the neighbours undo that is for ``tensors`` to say."""
    square = RNG.normal(size=(3, 3, 3, 3)).astype(np.float32) * np.array([1, 9, 81], np.float32).reshape(
        3, 1, 1, 1
    )
    q, s = per_channel(square)
    text, z = CONV_FLOAT.replace("1,6,6,6", "1,3,6,6"), np.zeros(3, np.int8)
    wrong = CONV_QDQ.replace("1,6,6,6", "1,3,6,6").replace("axis = 0", "axis = 1")
    right = CONV_QDQ.replace("1,6,6,6", "1,3,6,6")
    assert not compare_weights(view(text, w=square), view(right, q=q, s=s, z=z)).layers[0].rescaled
    assert compare_weights(view(text, w=square), view(wrong, q=q, s=s, z=z)).layers[0].rescaled


def test_channels_that_were_scaled_before_rounding_are_compared_after_the_same_scaling():
    weight = RNG.normal(size=(6, 3, 3, 3)).astype(np.float32)
    rows = np.array([1, 0.5, 0.3, 2, 1, 0.7]).reshape(6, 1, 1, 1)
    scaled = (weight * rows * np.array([1, 0.4, 3]).reshape(1, 3, 1, 1)).astype(np.float32)
    q, s = per_channel(scaled)
    text, z = CONV_FLOAT, np.zeros(6, np.int8)
    (layer,) = compare_weights(view(text, w=weight), view(CONV_QDQ, q=q, s=s, z=z)).layers
    assert layer.rescaled
    assert layer.step_rmse == pytest.approx(1 / math.sqrt(12), rel=0.15)


def test_a_folded_batch_normalization_is_folded_into_the_reference():
    norm = {name: RNG.uniform(0.5, 2, size=6).astype(np.float32) for name in ("g", "b", "m", "sd")}
    text = HEAD + (
        "net (float[1,3,8,8] x) => (float[1,6,6,6] y)"
        " { [c] t = Conv(x, w)  [n] y = BatchNormalization<epsilon = 0.001>(t, g, b, m, sd) }"
    )
    q, s = per_channel(CONV * (norm["g"] / np.sqrt(norm["sd"] + np.float32(0.001))).reshape(-1, 1, 1, 1))
    original = view(text, w=CONV, **norm)
    found = compare_weights(original, view(CONV_QDQ, q=q, s=s, z=np.zeros(6, np.int8)))
    assert (found.matched, found.batchnorm_folded) == (1, 1)
    assert found.layers[0].sqnr > 38
    unfolded = CONV_QDQ.replace(
        "[c] y = Conv(x, v)", "[c] t = Conv(x, v)  [n] y = BatchNormalization(t, g, b, m, sd)"
    )
    q, s = per_channel(CONV)
    found = compare_weights(original, view(unfolded, q=q, s=s, z=np.zeros(6, np.int8), **norm))
    assert (found.batchnorm_folded, found.layers[0].sqnr > 38) == (0, True)


def test_qlinearconv_holds_its_weight_itself():
    text = HEAD + (
        "net (uint8[1,3,8,8] x) => (uint8[1,6,6,6] y) <float xs = {0.1}, uint8 xz = {0}>"
        " { [c_quant] y = QLinearConv(x, xs, xz, q, s, z, xs, xz) }"
    )
    q, s = per_channel(CONV)
    found = compare_weights(view(CONV_FLOAT, w=CONV), view(text, q=q, s=s, z=np.zeros(6, np.int8)))
    assert found.layers[0].sqnr > 38


MATRIX = RNG.normal(size=(8, 5)).astype(np.float32)


@pytest.mark.parametrize(
    "node",
    [
        "[c] y = com.microsoft.QGemm(x, xs, xz, q, s, z)",
        "[c] y = com.microsoft.QGemm<transB = 1>(x, xs, xz, qt, s, z)",
        "[c] y = com.microsoft.MatMulIntegerToFloat(x, q, xs, s, xz, z)",
        "f = DQ(x, xs, xz)  w = DQ<axis = 1>(q, s, z)  [c] y = MatMul(f, w)",
        "f = DQ(x, xs, xz)  w = DQ<axis = 0>(qt, s, z)  v = Transpose(w)  [c] y = MatMul(f, v)",
        "f = DQ(x, xs, xz)  w = DQ<axis = 0>(qt, s, z)  [c] y = Gemm<transB = 1>(f, w)",
        "f = DQ(x, xs, xz)  w = DQ<axis = 1>(q, s, z)  v = Identity(w)  [c] y = Gemm(f, v)",
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_matrix_is_recognised_in_every_layout(node, transposed):
    q, s = per_channel(MATRIX, axis=1)
    body = node.replace("DQ", "DequantizeLinear")
    graph = HEAD + f"net (uint8[N,8] x) => (float[N,5] y) <float xs = {{0.1}}, uint8 xz = {{3}}> {{ {body} }}"
    used = {"q": q, "qt": q.T.copy(), "s": s, "z": np.zeros(5, np.int8)}
    quantized = view(graph, **{name: array for name, array in used.items() if f"{name}," in node or name in "sz"})
    if transposed:
        text, weight = "net (float[N,8] x) => (float[N,5] y) { [c] y = Gemm<transB = 1>(x, w) }", MATRIX.T.copy()
    else:
        text, weight = "net (float[N,8] x) => (float[N,5] y) { [c] y = MatMul(x, w) }", MATRIX
    (layer,) = compare_weights(view(HEAD + text, w=weight), quantized).layers
    error = MATRIX - q * s
    assert layer.sqnr == pytest.approx(10 * np.log10((MATRIX**2).sum() / (error**2).sum()), rel=1e-5)


def test_blocks_are_dequantized_block_by_block():
    blocks = MATRIX.reshape(2, 4, 5)
    scale = (np.abs(blocks).max(axis=1) / 127).astype(np.float32)
    q = np.rint(MATRIX / np.repeat(scale, 4, axis=0)).astype(np.int8)
    text = HEAD + (
        "net (float[N,8] x) => (float[N,5] y)"
        " { [d] w = DequantizeLinear<axis = 0, block_size = 4>(q, s)  [c] y = MatMul(x, w) }"
    )
    float_text = HEAD + "net (float[N,8] x) => (float[N,5] y) { [c] y = MatMul(x, w) }"
    (layer,) = compare_weights(view(float_text, w=MATRIX), view(text, q=q, s=scale)).layers
    assert layer.granularity == "per-block"
    assert layer.step_rmse < 0.5
    assert layer.sqnr > 38


def test_layers_are_listed_worst_first():
    text = HEAD + "net (float[N,8] x) => (float[N,8] y) { [a] t = MatMul(x, w)  [b] y = MatMul(t, w) }"
    weight = RNG.normal(size=(8, 8)).astype(np.float32)
    q, s = per_channel(weight, axis=1)
    quantized = HEAD + (
        "net (float[N,8] x) => (float[N,8] y) { [d] v = DequantizeLinear(q, s)  [e] u = DequantizeLinear(q, s2)"
        "  [a] t = MatMul(x, v)  [b] y = MatMul(t, u) }"
    )
    found = compare_weights(view(text, w=weight), view(quantized, q=q, s=s, s2=s * np.float32(1.1)))
    assert [layer.node for layer in found.layers] == ["b", "a"]
    assert found.layers[0].sqnr == pytest.approx(20, abs=0.5)  # a scale 10 % off


SMALL = HEAD + "net (float[N,8] x) => (float[N,5] y) { [c] y = MatMul(x, w) }"


def quantized_by(nodes, **constants):
    body = nodes.replace("DQ", "DequantizeLinear")
    return view(HEAD + f"net (float[N,8] x) => (float[N,5] y) {{ {body} }}", **constants)


def test_the_type_of_a_packed_weight_behind_a_cast_is_told():
    cast = "c = Cast<to = 3>(q)  w = DequantizeLinear(c, s)  [c] y = MatMul(x, w)"
    original = view(
        f"{HEAD} net (float[N,2] x) => (float[N,2] y) {{ [c] y = MatMul(x, w) }}",
        w=np.array([[1, 2], [3, 4]], np.float32),
    )
    quantized = view(
        f"{HEAD} net (float[N,2] x) => (float[N,2] y) {{ {cast} }}",
        q=np.array([[1, 2], [3, 4]]).astype(ml_dtypes.int4),
        s=np.float32(1),
    )
    (found,) = compare_weights(original, quantized).layers
    assert (found.dtype, found.sqnr) == ("int4", math.inf)


def test_weights_in_constant_nodes_are_found():
    text = "float[2,2] w = {1,2,3,4}"
    constant = "[k] w = Constant<value = float[2,2] {1,2,3,4}>()"
    head = HEAD + "net (float[N,2] x) => (float[N,2] y)"
    original = view(f"{head} {{ {constant}  [c] y = MatMul(x, w) }}")
    quantized = view(
        f"{head} {{ q = Constant<value = int8[2,2] {{1,2,3,4}}>()  s = Constant<value = float {{1.0}}>()"
        " w = DequantizeLinear(q, s)  [c] y = MatMul(x, w) }"
    )
    assert compare_weights(original, quantized).layers[0].sqnr == math.inf
    assert compare_weights(view(f"{head} <{text}> {{ [c] y = MatMul(x, w) }}"), quantized).matched == 1


def test_a_constant_first_operand_is_a_weight_too():
    head = HEAD + "net (float[5,N] x) => (float[8,N] y)"
    q, s = per_channel(MATRIX, axis=0)
    original = view(f"{head} {{ [c] y = MatMul(w, x) }}", w=MATRIX)
    quantized = view(f"{head} {{ v = DequantizeLinear<axis = 0>(q, s)  [c] y = MatMul(v, x) }}", q=q, s=s)
    assert compare_weights(original, quantized).layers[0].sqnr > 38


def test_per_block_scales_follow_a_transposed_weight():
    transposed = MATRIX.T.copy()
    scale = (np.abs(transposed.reshape(5, 2, 4)).max(axis=2) / 127).astype(np.float32)
    q = np.rint(transposed / np.repeat(scale, 4, axis=1)).astype(np.int8)
    nodes = "w = DQ<axis = 1, block_size = 4>(q, s)  v = Transpose<perm = [1, 0]>(w)  [c] y = MatMul(x, v)"
    (layer,) = compare_weights(view(SMALL, w=MATRIX), quantized_by(nodes, q=q, s=scale)).layers
    assert layer.step_rmse < 0.5


@pytest.mark.parametrize(
    "nodes",
    [
        "w = DQ(q, x2)  [c] y = MatMul(x, w)",  # a scale that is no constant
        "w = DQ<axis = 1>(q, s8)  [c] y = MatMul(x, w)",  # scales that do not fit the axis
        "w = DQ<axis = 5>(q, s8)  [c] y = MatMul(x, w)",  # an axis that does not exist
        "w = DQ<axis = 0, block_size = 4>(q, s8)  [c] y = MatMul(x, w)",  # blocks without a matrix of scales
        "w = Neg(q)  v = Cast<to = 1>(w)  [c] y = MatMul(x, v)",  # a weight that is computed
        "w = DQ(wide, one)  [c] y = MatMul(x, w)",  # a weight of another shape
        "w = Transpose(x)  [c] y = MatMul(x, w)",  # no weight at all
    ],
)
def test_a_weight_that_cannot_be_read_is_counted_as_not_found(nodes):
    q = np.ones((8, 5), np.int8)
    constants = {"q": q, "s8": np.ones(8, np.float32), "one": np.float32(1), "wide": np.ones((9, 5), np.int8)}
    used = {name: value for name, value in constants.items() if f"{name}," in nodes or f"{name})" in nodes}
    nodes = nodes.replace("x2", "xs")
    graph = (
        HEAD + f"net (float[N,8] x, float xs) => (float[N,5] y) {{ {nodes.replace('DQ', 'DequantizeLinear')} }}"
    )
    found = compare_weights(view(SMALL, w=MATRIX), view(graph, **used))
    assert (found.matched, found.not_found) == (0, 1)


def test_a_computed_batch_normalization_leaves_the_weight_unmatched():
    text = HEAD + (
        "net (float[1,3,8,8] x, float[6] g) => (float[1,6,6,6] y)"
        " { [c] t = Conv(x, w)  [n] y = BatchNormalization(t, g, b, b, b) }"
    )
    q, s = per_channel(CONV)
    original = view(text, w=CONV, b=np.ones(6, np.float32))
    assert compare_weights(original, view(CONV_QDQ, q=q, s=s, z=np.zeros(6, np.int8))).not_found == 1


@pytest.mark.parametrize("weight", ["q", "v"])
@pytest.mark.parametrize("product", ["f, t", "t, f"])
def test_the_scale_of_an_integer_product_is_found_behind_it(weight, product):
    q, s = per_channel(MATRIX, axis=1)
    graph = HEAD + (
        "net (float[N,8] x) => (float[N,5] y) { i, xs, xz = DynamicQuantizeLinear(x)  v = Transpose(qt)"
        f"  [c] p = MatMulInteger(i, {weight}, xz)  f = Cast<to = 1>(p)  t = Mul(xs, s)  y = Mul({product}) }}"
    )
    quantized = view(graph, q=q, qt=q.T.copy(), s=s)
    original = view(HEAD + "net (float[N,8] x) => (float[N,5] y) { [c] y = MatMul(x, w) }", w=MATRIX)
    (layer,) = compare_weights(original, quantized).layers
    error = MATRIX - q * s
    assert layer.sqnr == pytest.approx(10 * np.log10((MATRIX**2).sum() / (error**2).sum()), rel=1e-5)
    assert layer.granularity == "per-channel"
