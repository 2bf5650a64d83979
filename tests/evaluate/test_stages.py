import numpy as np
import onnx
import onnx.parser
import pytest

from quantcli.evaluate.attribution import plain_settings
from quantcli.evaluate.stages import StagedModel
from quantcli.graph.model_io import load_model_bytes
from quantcli.runtime.session import Session

TEXT = """<ir_version: 9, opset_import: ["" : 17]>
net (float[3] x) => (float[3] y, float[3] z) {
  [a] p = Neg(x)
  [b] q = Abs(p)
  [c] r = Add(q, x)
  [d] s = Mul(r, q)
  [e] y = Add(s, p)
  [f] z = Exp(x)
}"""

X = np.array([1.0, -2.0, 3.0], np.float32)


def staged(stops, kept=()):
    model = load_model_bytes(onnx.parser.parse_model(TEXT).SerializeToString())
    return StagedModel(model, stops, kept, plain_settings(1))


@pytest.mark.parametrize("stops", [(), ("b",), ("b", "c"), ("a", "b", "c", "d", "e", "f")])
def test_stages_without_a_change_give_what_the_model_gives(stops):
    whole = Session(onnx.parser.parse_model(TEXT).SerializeToString()).run({"x": X})
    results = dict(zip("abcdef", "pqrsyz", strict=True))
    found = staged(stops).run({"x": X}, lambda name, values: values[results[name]])
    for name, value in whole.items():
        np.testing.assert_array_equal(found[name], value)


def test_all_readers_see_a_changed_result():
    def change(name, values):
        assert name == "b"
        assert set(values) >= {"x", "p", "q"}
        return values["q"] + 10

    found = staged(["b"], kept=["p"]).run({"x": X}, change)
    q = np.abs(X) + 10
    np.testing.assert_allclose(found["y"], (q + X) * q - X, rtol=1e-6)


def test_changes_come_in_the_order_of_the_graph_and_build_on_each_other():
    seen = []

    def change(name, values):
        seen.append(name)
        return values[{"b": "q", "c": "r"}[name]] * 2

    found = staged(["c", "b"]).run({"x": X}, change)
    assert seen == ["b", "c"]
    q = 2 * np.abs(X)
    np.testing.assert_allclose(found["y"], 2 * (q + X) * q - X, rtol=1e-6)
