import onnx.parser
import pytest
from toy_models import FLOAT, qdq_text

from quantcli.evaluate.structure import compute_state, structure_facts
from quantcli.graph.model_io import load_model_bytes
from quantcli.report.schema import DtypeBytes, NodeRef, OpCount

HEAD = '<ir_version: 8, opset_import: ["" : 13, "com.microsoft" : 1]>\n'


def view(text):
    model = onnx.parser.parse_model(text)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{index}"
    return load_model_bytes(model.SerializeToString()).view()


def state(text, name="c"):
    graph = view(HEAD + text)
    return compute_state(graph, graph.node_by_name[name])


def test_the_float_model_has_its_compute_nodes_in_float():
    facts = structure_facts(view(FLOAT))
    assert (facts.compute_float, facts.compute_quantized, facts.compute_weight_only) == (1, 0, 0)
    assert facts.float_compute == (NodeRef(name="fc", op="MatMul"),)
    assert facts.initializers == (DtypeBytes(dtype="float32", tensors=1, bytes=48),)
    assert (facts.nodes, facts.ops) == (1, (OpCount(op="MatMul", count=1),))


def test_the_qdq_model_has_its_compute_nodes_quantized():
    facts = structure_facts(view(qdq_text()))
    assert (facts.compute_float, facts.compute_quantized, facts.float_compute) == (0, 1, ())
    assert (facts.quantize_nodes, facts.dequantize_nodes) == (1, 2)
    assert facts.ops[0] == OpCount(op="DequantizeLinear", count=2)
    assert {item.dtype: item.bytes for item in facts.initializers} == {"int8": 13, "float32": 8, "uint8": 1}


WEIGHT = "float s = {0.5}, int8 z = {0}, int8[4,3] q = {1,2,3,4,5,6,7,8,9,10,11,12}"


INT = "uint8[N,4] x, float a, uint8 b"
MIXED = "float[N,4] x, float a, uint8 b"
FLOATS = "float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}"


@pytest.mark.parametrize(
    ("inputs", "constants", "nodes", "expected"),
    [
        ("float[N,4] x", WEIGHT, "[d] w = DQ(q, s, z)  [c] y = MatMul(x, w)", "weight-only"),
        ("float[N,3] x", WEIGHT, "[d] w = DQ(q, s, z)  [t] v = Transpose(w)  [c] y = MatMul(x, v)", "weight-only"),
        (INT, WEIGHT, "f = DQ(x, a, b)  [d] w = DQ(q, s, z)  [c] y = MatMul(f, w)", "quantized"),
        (INT, WEIGHT, "g = DQ(x, a, b) f = Identity(g) w = DQ(q, s, z) [c] y = MatMul(f, w)", "quantized"),
        (INT, FLOATS, "f = DQ(x, a, b)  [c] y = MatMul(f, w)", "float"),
        (INT, FLOATS, "f = DQ(x, a, b) v = QL(w, a, b) u = DQ(v, a, b) [c] y = MatMul(f, u)", "quantized"),
        (MIXED, FLOATS, "v = QL(w, a, b) u = DQ(v, a, b)  [c] y = MatMul(x, u)", "weight-only"),
        ("uint8[N,4] x", WEIGHT, "[c] y = MatMulInteger(x, q)", "quantized"),
        ("float[N,4] x", WEIGHT, "[c] y = Relu(x)", None),
    ],
)  # fmt: skip
def test_a_compute_node_is_judged_by_where_its_inputs_come_from(inputs, constants, nodes, expected):
    body = nodes.replace("DQ", "DequantizeLinear").replace("QL(", "QuantizeLinear(")
    assert state(f"net ({inputs}) => (float[N,M] y) <{constants}> {{ {body} }}") == expected


def test_recurrent_nodes_count_as_float_compute():
    text = (
        "net (float[5,1,2] x, float[1,8,2] w, float[1,8,2] r) => (float[5,1,1,2] y)"
        " { [c] y = LSTM<hidden_size = 2>(x, w, r) }"
    )
    assert state(text) == "float"


def test_operators_of_other_domains_carry_their_domain():
    text = "net (float[N,4] x) => (float[N,4] y) { [c] y = com.microsoft.QuickGelu(x) }"
    assert structure_facts(view(HEAD + text)).ops == (OpCount(op="com.microsoft.QuickGelu", count=1),)


def test_tensors_of_constant_nodes_count_as_initializers():
    text = (
        "net (float[N,4] x) => (float[N,4] y)"
        " { [k] w = Constant<value = float[4] {1,2,3,4}>()  [c] y = Add(x, w) }"
    )
    assert structure_facts(view(HEAD + text)).initializers == (DtypeBytes(dtype="float32", tensors=1, bytes=16),)
