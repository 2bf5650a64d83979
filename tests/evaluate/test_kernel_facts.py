import onnx
import onnx.parser

from quantcli.evaluate.kernel_facts import expected_kernels, kernel_facts
from quantcli.graph.read_view import read_view

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
WEIGHT = ",".join(str(i - 8) for i in range(16))
CONSTANTS = (
    f"<float s = {{0.05}}, uint8 z = {{128}}, float ws = {{0.5}}, int8 wz = {{0}}, int8[4,4] w = {{{WEIGHT}}}>"
)
IN = " q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  v = DequantizeLinear(w, ws, wz)"
OUT = " r = QuantizeLinear(t, s, z)  y = DequantizeLinear(r, s, z)"


def facts(tmp_path, body):
    model = onnx.parser.parse_model(f"{HEAD}net (float[2,4] x) => (float[2,4] y) {CONSTANTS} {{ {body} }}")
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    return kernel_facts(path, read_view(path), threads=1)


def test_a_product_between_q_and_dq_is_an_integer_kernel(tmp_path):
    found = facts(tmp_path, f"{IN} [fc] t = MatMul(d, v) {OUT}")
    assert [(item.op, item.count) for item in found.integer] == [("QLinearMatMul", 1)]
    assert (found.unfused, found.float_compute) == ((), ())


def test_two_readers_keep_an_addition_from_being_fused_and_that_is_said(tmp_path):
    found = facts(
        tmp_path,
        f"{IN} [add] t = Add(d, d)  r = QuantizeLinear(t, s, z)  e = DequantizeLinear(r, s, z)"
        " [fc] u = MatMul(e, v)  p = QuantizeLinear(t, ws, z)  f = DequantizeLinear(p, ws, z)  y = Mul(u, f)",
    )
    (node,) = found.unfused
    assert (node.name, node.op, node.code) == ("add", "Add", "F405")
    assert "2 readers" in node.sentence


def test_an_operator_without_an_integer_kernel_is_named(tmp_path):
    found = facts(
        tmp_path,
        f"{IN} [fc] t = MatMul(d, v)  r = QuantizeLinear(t, s, z)  e = DequantizeLinear(r, s, z)"
        "  [tanh] u = Tanh(e)  o = QuantizeLinear(u, s, z)  y = DequantizeLinear(o, s, z)",
    )
    (node,) = found.unfused
    assert (node.name, node.op, node.code) == ("tanh", "Tanh", "F201")
    assert "no integer kernel for Tanh" in node.sentence


def test_a_layer_that_the_runtime_leaves_in_float_is_named_with_the_cause(tmp_path):
    model = onnx.parser.parse_model(
        HEAD + "net (float[1,1,4,4] x) => (float[1,1,3,3] y) <float s = {0.05}, uint8 z = {128}, float ws = {0.5},"
        " int8 wz = {0}, int8[1,1,2,2] w = {1,2,3,4}> {" + IN + " [conv] y = Conv(d, v) }"
    )
    onnx.save(model, tmp_path / "m.onnx")
    found = kernel_facts(tmp_path / "m.onnx", read_view(tmp_path / "m.onnx"), threads=1)
    (node,) = found.unfused
    assert (node.name, node.op, node.code) == ("conv", "Conv", "F405")
    assert "output of the graph" in node.sentence
    assert [item.count for item in found.float_compute] == [1]


def test_a_float_model_has_no_kernel_facts(tmp_path):
    model = onnx.parser.parse_model(HEAD + "net (float[2,4] x) => (float[2,4] y) { y = Relu(x) }")
    onnx.save(model, tmp_path / "m.onnx")
    assert kernel_facts(tmp_path / "m.onnx", read_view(tmp_path / "m.onnx"), threads=1) is None


def test_a_product_with_a_quantized_weight_alone_is_expected_to_be_a_kernel(tmp_path):
    model = onnx.parser.parse_model(f"{HEAD}net (float[2,4] x) => (float[2,4] y) {CONSTANTS} {{"
                                    " v = DequantizeLinear(w, ws, wz)  [fc] y = MatMul(x, v) }")  # fmt: skip
    onnx.save(model, tmp_path / "m.onnx")
    assert expected_kernels(read_view(tmp_path / "m.onnx")) == {"fc": "MatMul"}
