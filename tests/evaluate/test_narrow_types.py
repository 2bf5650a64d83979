"""What comparisons make of types other than 8 bits: integers in a Clip, float8 weights, types without kernels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantcli.evaluate.codecs import Codecs
from quantcli.evaluate.kernel_facts import kernel_facts
from quantcli.evaluate.quantized_weights import find_weight
from quantcli.graph.model_io import load_model
from quantcli.graph.read_view import read_view
from quantcli.graph.unround import without_activation_rounding
from quantcli.runtime.session import Session, SessionSettings

SCALE, ZERO = np.float32(0.25), np.uint8(3)
NARROW = """<ir_version: 8, opset_import: ["" : 13]>
g (float[4] x) => (float[4] y) {
    q = QuantizeLinear(x, s, z)
    c = Clip(q, low, high)
    y = DequantizeLinear(c, s, z)
}"""


@pytest.fixture
def narrow(tmp_path):
    proto = onnx.parser.parse_model(NARROW)
    constants = {"s": SCALE, "z": ZERO, "low": np.uint8(0), "high": np.uint8(15)}
    for name, value in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"n{number}"
    onnx.save(onnx.shape_inference.infer_shapes(proto), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_integers_that_are_clipped_at_once_have_the_range_of_the_narrow_type(narrow):
    for value in ("q", "c"):
        codec = Codecs(read_view(narrow)).of(value)
        assert codec is not None
        assert codec.dtype == "uint4"
        assert (codec.low, codec.high) == (0.25 * (0 - 3), 0.25 * (15 - 3))


@pytest.mark.parametrize(("limits", "highest"), [((), 40.0), ((3.0,), 3.0)])
def test_taking_back_the_rounding_takes_the_clip_along_unless_it_stands_for_an_operator(narrow, limits, highest):
    model = without_activation_rounding(load_model(narrow), limits)
    x = np.float32([-0.3, 0.1, 2.1, 40.0])
    found = Session(model.to_bytes(), SessionSettings(optimization="disabled")).run({"x": x})["y"]
    assert np.array_equal(found, np.minimum(x, np.float32(highest)))


def test_steps_of_float8_weights_grow_with_the_weights(tmp_path):
    codes = [448.0, -32.0, 0.015625, 1.0]
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], name="dq"),
            helper.make_node("MatMul", ["x", "d"], ["y"], name="fc"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [
            helper.make_tensor("w", TensorProto.FLOAT8E4M3FN, [2, 2], codes),
            helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0]),
            numpy_helper.from_array(np.float32(0.5), "s"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), tmp_path / "m.onnx")
    view = read_view(tmp_path / "m.onnx")
    found = find_weight(view, view.node_by_name["fc"])
    assert found is not None
    assert found.values.reshape(-1).tolist() == [0.5 * code for code in codes]
    assert found.scale is not None
    assert found.scale.reshape(-1).tolist() == [0.5 * step for step in (32.0, 4.0, 2.0**-9, 0.125)]


def test_types_without_integer_kernels_are_told_once(tmp_path):
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[1,4,6,6] x) => (float[1,4,6,6] y) {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        v = DequantizeLinear(w, s, n)
        a = Conv <pads = [1,1,1,1]> (d, v)
        b = QuantizeLinear(a, s, z) e = DequantizeLinear(b, s, z)
        c = Conv <pads = [1,1,1,1]> (e, v)
        f = QuantizeLinear(c, s, z) y = DequantizeLinear(f, s, z)
    }"""
    proto = onnx.parser.parse_model(text)
    w = np.ones((4, 4, 3, 3), np.int8)
    for name, value in {"s": np.float32(0.1), "z": np.uint16(9), "n": np.int8(0), "w": w}.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"n{number}"
    onnx.save(proto, tmp_path / "m.onnx")
    facts = kernel_facts(tmp_path / "m.onnx", read_view(tmp_path / "m.onnx"), threads=1)
    assert facts is not None
    assert facts.unfused == ()
    assert facts.note == "2 nodes run as float, because there are no integer kernels of uint16"
