import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from quantcli.evaluate.integer_layers import integer_layers
from quantcli.evaluate.saturation import prove_saturation
from quantcli.graph.model_io import load_model_bytes

HEAD = '<ir_version: 9, opset_import: ["" : 17, "com.microsoft" : 1]>\n'
F32 = np.float32
RNG = np.random.default_rng(0)


def view(text, **constants):
    model = onnx.parser.parse_model(HEAD + text)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{index}"
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return load_model_bytes(model.SerializeToString()).view()


PARAMETERS = {"s": F32(0.1), "z": np.uint8(9), "ws": F32(0.5), "wz": np.int8(0)}
QDQ = (
    "net (float[1,C,8,8] x) => (float[1,M,H,W] y) { q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)"
    "  v = DequantizeLinear(w, ws, wz)  [c] y = Conv<group=%d>(d, v) }"
)


def conv(weight, group=1, **changed):
    return integer_layers(view(QDQ % group, w=weight, **(PARAMETERS | changed)))


def test_a_convolution_is_read_position_by_position_and_channel_by_channel():
    weight = RNG.integers(-9, 9, (2, 3, 2, 2)).astype(np.int8)
    (layer,) = conv(weight)
    expected = [[weight[o, i, y, x] for y in (0, 1) for x in (0, 1) for i in (0, 1, 2)] for o in (0, 1)]
    assert layer.weight.tolist() == expected
    assert (layer.node, layer.op, layer.kernel, layer.scale.tolist()) == ("c", "Conv", (2, 2), [0.5])


def test_a_depthwise_convolution_never_saturates_a_grouped_one_can():
    full = np.full((4, 1, 3, 3), 127, np.int8)
    assert prove_saturation(conv(full, 4)).safe == 1
    proof = prove_saturation(conv(np.full((4, 2, 3, 3), 127, np.int8), 2))
    assert (proof.layers, proof.safe) == (1, 0)
    assert (proof.risks[0].worst_pair, proof.risks[0].channels, proof.risks[0].of) == (255 * 254, 4, 4)


def test_weights_of_seven_bits_are_proven_safe():
    proof = prove_saturation(conv(RNG.integers(-64, 65, (8, 4, 3, 3)).astype(np.int8)))
    assert (proof.layers, proof.safe, proof.risks) == (1, 1, ())


def test_unsigned_weights_are_summed_in_32_bits():
    assert conv(np.full((2, 4, 1, 1), 255, np.uint8), wz=np.uint8(128)) == ()


def test_signed_activations_of_a_qdq_model_become_unsigned_when_it_runs():
    (layer,) = conv(np.full((2, 4, 1, 1), 127, np.int8), z=np.int8(0))
    assert layer.signed


def test_products_are_read_along_the_inner_axis():
    weight = RNG.integers(-9, 9, (4, 3)).astype(np.int8)
    text = "net (uint8[2,4] x) => (uint8[2,3] y) { y = QLinearMatMul(x, s, z, w, ws, wz, s, z) }"
    (layer,) = integer_layers(view(text, w=weight, **PARAMETERS))
    assert layer.weight.tolist() == weight.T.tolist()
    text = "net (uint8[2,4] x) => (uint8[2,3] y) { y = com.microsoft.QGemm<transB=1>(x, s, z, w, ws, wz, , s, z) }"
    (layer,) = integer_layers(view(text, w=weight.T.copy(), **PARAMETERS))
    assert layer.weight.tolist() == weight.T.tolist()


def test_signed_activations_of_an_integer_operator_have_a_kernel_of_their_own():
    text = "net (int8[2,4] x) => (int8[2,3] y) { y = QLinearMatMul(x, s, z, w, ws, wz, s, z) }"
    weight = np.full((4, 3), 127, np.int8)
    assert integer_layers(view(text, w=weight, **(PARAMETERS | {"z": np.int8(0)}))) == ()


def test_dynamic_products_count():
    text = (
        "net (float[2,4] x) => (int32[2,3] y)"
        " { q, t, u = DynamicQuantizeLinear(x)  y = MatMulInteger(q, w, u, wz) }"
    )
    (layer,) = integer_layers(view(text, w=np.full((4, 3), 127, np.int8), wz=np.int8(0)))
    assert (layer.op, layer.scale.tolist()) == ("MatMulInteger", [1.0])


def test_a_model_without_such_layers_has_nothing_to_prove():
    assert prove_saturation(integer_layers(view("net (float[2] x) => (float[2] y) { y = Relu(x) }"))) is None


def test_an_lstm_has_a_layer_for_its_input_and_one_for_its_state():
    weight = RNG.integers(-60, 61, (2, 5, 12)).astype(np.int8)
    state = RNG.integers(-60, 61, (2, 3, 12)).astype(np.int8)
    state[1, :2, 7] = 127
    text = (
        "net (float[T,N,5] x) => (float[T,2,N,3] y) { [l] y = com.microsoft.DynamicQuantizeLSTM"
        '<hidden_size = 3, direction = "bidirectional"> (x, w, r, , , , , , ws, z, rs, z) }'
    )
    scales = RNG.uniform(0.1, 1, (2, 12)).astype(F32)
    layers = integer_layers(view(text, w=weight, r=state, ws=scales, rs=scales, z=np.zeros((2, 12), np.int8)))
    assert [(layer.node, layer.weight.shape) for layer in layers] == [("l", (24, 5)), ("l", (24, 3))]
    assert layers[0].weight[13].tolist() == weight[1, :, 1].tolist()
    assert np.array_equal(layers[1].scale, scales.astype(np.float64).reshape(-1))
    proof = prove_saturation(layers)
    assert (proof.layers, proof.safe) == (2, 1)
    assert [(risk.op, risk.worst_pair, risk.channels, risk.of) for risk in proof.risks] == [
        ("com.microsoft.DynamicQuantizeLSTM", 255 * 254, 1, 24)
    ]


def test_the_projections_of_qattention_are_a_layer():
    weight = RNG.integers(-127, 128, (8, 24)).astype(np.int8)
    text = (
        "net (float[1,4,8] x) => (float[1,4,8] y) { q, s, z = DynamicQuantizeLinear(x)"
        "  [a] y = com.microsoft.QAttention<num_heads = 2> (q, w, b, s, ws, , z, wz) }"
    )
    (layer,) = integer_layers(view(text, w=weight, b=np.zeros(24, F32), ws=F32(0.5), wz=np.int8(0)))
    assert (layer.node, layer.weight.tolist(), layer.scale.tolist()) == ("a", weight.T.tolist(), [0.5])
