from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnx_text import model, proto

from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.weightless import without_weights

WEIGHTS = np.ones((40, 30), np.float32)
X = np.ones((2, 40), np.float32)


def session(loaded: OnnxModel) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(loaded.to_bytes(), options, providers=["CPUExecutionProvider"])


def test_large_constants_become_inputs_and_small_ones_stay() -> None:
    text = "g (float[2,40] x) => (float[4,15] y) { z = MatMul(x, w)\n y = Reshape(z, s) }"
    loaded = model(text, w=WEIGHTS, s=np.array([4, 15]))
    found = without_weights(loaded, kept_bytes=1000)
    assert found.weights == {"w"}
    assert found.model.constant_bytes() == 16
    assert loaded.constant_bytes() == 16 + WEIGHTS.nbytes
    opened = session(found.model)
    assert [(value.name, value.shape) for value in opened.get_inputs()] == [("x", [2, 40]), ("w", [40, 30])]
    np.testing.assert_array_equal(opened.run(None, {"x": X, "w": WEIGHTS})[0], np.full((4, 15), 40))


def test_constant_nodes_and_constants_of_bodies_are_weights_too() -> None:
    message = proto(
        """g (float[2,40] x, bool c) => (float[2,30] y, float[40,30] z) {
            k = Constant <value = float[1] {0}> ()
            y = If (c) <
                then_branch = t () => (float[2,30] o) { o = MatMul(x, w) },
                else_branch = e () => (float[2,30] p) { p = MatMul(x, w) }
            >
            z = Neg(k)
        }"""
    )
    weight = numpy_helper.from_array(WEIGHTS, "w")
    constant, choice, _ = message.graph.node
    constant.attribute[0].t.CopyFrom(weight)
    for attribute in choice.attribute:
        attribute.g.initializer.append(weight)
    found = without_weights(load_model_bytes(message.SerializeToString()), kept_bytes=1000)
    assert found.weights == {"k", "w_1", "w_2"}
    assert found.model.constant_bytes() == 0
    feeds = {"x": X, "c": np.array(True), "k": WEIGHTS, "w_1": 2 * WEIGHTS, "w_2": 3 * WEIGHTS}
    values, negated = session(found.model).run(None, feeds)
    assert values[0, 0] in (80, 120)
    np.testing.assert_array_equal(negated, -WEIGHTS)


def test_a_default_that_may_be_overridden_is_an_input_already() -> None:
    loaded = model("g (float[2,40] x, float[40,30] w) => (float[2,30] y) { y = MatMul(x, w) }", w=WEIGHTS)
    found = without_weights(loaded, kept_bytes=1000)
    assert found.weights == {"w"}
    assert [value.name for value in session(found.model).get_inputs()] == ["x", "w"]


@pytest.mark.parametrize("broken", ["y = MatMul(w, x)", "y = NoSuchOperator(x, w)"])
def test_the_runtime_refuses_a_structure_that_is_wrong(broken: str) -> None:
    loaded = model(f"g (float[2,40] x) => (float[2,30] y) {{ {broken} }}", w=WEIGHTS)
    with pytest.raises(Exception, match=r"MatMul|NoSuchOperator"):
        session(without_weights(loaded, kept_bytes=1000).model)
