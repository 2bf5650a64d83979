from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_text import model, proto, run

from quantcli.errors import ModelError
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model, load_model_bytes, save_model
from quantcli.graph.shapes import infer_shapes, inferred_types, state_types


def known(subject: OnnxModel) -> dict[str, tuple[str | None, tuple[object, ...] | None]]:
    return {name: (info.dtype, info.shape) for name, info in subject.view().tensors.items()}


def stating(text: str, stated: dict[str, tuple[int, list[int | str]]], **constants: np.ndarray) -> OnnxModel:
    """The model of ``text`` that also states types of intermediate values."""
    message = proto(text, **constants)
    for name, (kind, shape) in stated.items():
        message.graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    for index, node in enumerate(message.graph.node):
        node.name = f"n{index}"
    return load_model_bytes(message.SerializeToString())


def test_types_and_shapes_of_intermediate_values_are_filled_in() -> None:
    subject = model(
        "g (float[N, 4] x) => (float[N, 3] y) { h = MatMul(x, w)  s = Shape(h)  y = Relu(h) }",
        w=np.zeros((4, 3), np.float32),
    )
    infer_shapes(subject)
    assert known(subject)["h"] == ("float32", ("N", 3))
    assert known(subject)["s"] == ("int64", (2,))


def test_shapes_resolve_through_computed_reshapes_beside_large_weights() -> None:
    subject = model(
        """g (float[2, 64] x) => (float[] y) {
            h = MatMul(x, w)  s = Shape(h)  n = Gather(s, zero)  u = Unsqueeze(n, zero1)
            t = Concat<axis = 0>(u, tail)  r = Reshape(h, t)  y = Relu(r) }""",
        w=np.zeros((64, 32), np.float32),
        zero=np.int64(0),
        zero1=np.array([0]),
        tail=np.array([4, 8]),
    )
    infer_shapes(subject)
    assert known(subject)["r"] == ("float32", (2, 4, 8))


def test_stale_statements_give_way_to_what_is_inferred() -> None:
    subject = stating(
        """g (float[2, 3] x) => (float[2, 3] y) {
            a = Relu(x)  b = Cast<to = 7>(a)  c = Cast<to = 1>(b)  y = Neg(c) }""",
        {"a": (onnx.TensorProto.FLOAT, [5, 3]), "b": (onnx.TensorProto.FLOAT, [2]), "c": (1, [2, 3, 1])},
    )
    infer_shapes(subject)
    assert known(subject)["a"] == ("float32", (2, 3))
    assert known(subject)["b"] == ("int64", (2, 3))
    assert known(subject)["c"] == ("float32", (2, 3))


def test_statements_that_inference_cannot_make_are_kept_and_built_upon() -> None:
    subject = stating(
        "g (float[N, 3] x) => (float[] y) { a = com.microsoft.Unheard(x)  b = Relu(a)  y = Neg(b) }",
        {"a": (onnx.TensorProto.FLOAT, ["N", 7])},
    )
    infer_shapes(subject)
    assert known(subject)["a"] == ("float32", ("N", 7))
    assert known(subject)["b"] == ("float32", ("N", 7))


def test_a_stated_dimension_completes_an_inferred_one() -> None:
    subject = stating(
        "g (float[2, 3] x, int64[2] s) => (float[] y) { a = Reshape(x, s)  b = Relu(a)  y = Neg(b) }",
        {"a": (onnx.TensorProto.FLOAT, [6, 1])},
    )
    infer_shapes(subject)
    assert known(subject)["b"] == ("float32", (6, 1))


def test_dimensions_that_inference_makes_up_are_unknown() -> None:
    subject = model("g (float[2, 3] x, int64[2] s) => (float[] y) { a = Reshape(x, s)  y = Relu(a) }")
    infer_shapes(subject)
    assert known(subject)["a"] == ("float32", (None, None))


def test_inputs_and_outputs_keep_what_they_state() -> None:
    subject = model("g (float[N, 3] x) => (float[M, 3] y, float[9, 9] z) { y = Relu(x)  z = Neg(x) }")
    infer_shapes(subject)
    assert known(subject)["x"] == ("float32", ("N", 3))
    assert known(subject)["y"] == ("float32", ("M", 3))
    assert known(subject)["z"] == ("float32", (9, 9))


def test_outputs_without_a_shape_get_one() -> None:
    message = proto("g (float[N, 3] x) => (float[] y, float[] z) { y = Relu(x)  z = Neg(x) }")
    for index, node in enumerate(message.graph.node):
        node.name = f"n{index}"
    message.graph.output[0].ClearField("type")
    message.graph.output[1].type.tensor_type.ClearField("shape")
    subject = load_model_bytes(message.SerializeToString())
    infer_shapes(subject)
    assert known(subject)["y"] == ("float32", ("N", 3))
    assert known(subject)["z"] == ("float32", ("N", 3))


def test_an_invalid_operator_leaves_its_value_unknown() -> None:
    subject = model("g (float[2, 3] x) => (float[] y) { a = MatMul(x, x)  b = NoSuchThing(a)  y = Relu(b) }")
    infer_shapes(subject)
    assert known(subject)["b"] == (None, None)


def test_values_of_bodies_are_known_too() -> None:
    subject = model(
        """g (bool c, float[2, 3] x) => (float[] y) {
            y = If <then_branch = t () => (float p) { v = Relu(x)  p = Neg(v) },
                    else_branch = e () => (float q) { v = Shape(x)  w = Cast<to = 1>(v)  q = Neg(w) }> (c) }"""
    )
    found = {
        (value.name, None if shape is None else tuple(shape))
        for value, (_, shape) in inferred_types(subject).items()
    }
    assert ("v", (2, 3)) in found
    assert ("v", (2,)) in found


def test_inference_leaves_the_model_as_it_was_read_elsewhere() -> None:
    subject = model("g (float[2, 3] x) => (float[2, 3] y) { a = Relu(x)  y = Neg(a) }")
    before = subject.to_bytes()
    inferred_types(subject)
    assert subject.to_bytes() == before


def test_large_external_weights_are_not_read(tmp_path) -> None:
    text = "g (float[2, 64] x) => (float[2, 64] y) { a = MatMul(x, w)  y = Neg(a) }"
    save_model(model(text, w=np.ones((64, 64), np.float32)), tmp_path / "m.onnx", external_threshold_bytes=100)
    subject = load_model(tmp_path / "m.onnx")
    (tmp_path / "m.onnx.data").unlink()
    infer_shapes(subject)
    assert known(subject)["a"] == ("float32", (2, 64))
    with pytest.raises(ModelError):
        subject.to_bytes()


def test_an_unknown_value_is_a_mistake() -> None:
    subject = model("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    with pytest.raises(ValueError, match="there is no value 'z'"):
        state_types(subject, {"z": ("float32", ())})


def test_types_can_be_stated() -> None:
    subject = model("g (float[2] x) => (float[2] y) { a = Relu(x)  y = Neg(a) }")
    state_types(subject, {"a": ("float16", ("N", 3, None))})
    assert known(subject)["a"] == ("float16", ("N", 3, None))
    assert known(subject)["x"] == ("float32", (2,))


def test_a_later_operator_builds_on_what_a_body_yields() -> None:
    subject = model(
        """g (bool c, float[N, 3] x) => (float[] y) {
            a = If <then_branch = t () => (float[] p) { p = Relu(x) },
                    else_branch = e () => (float[] q) { q = Neg(x) }> (c)
            b = Transpose(a)  y = Neg(b) }"""
    )
    infer_shapes(subject)
    assert known(subject)["b"] == ("float32", (3, "N"))


def test_large_constant_nodes_are_not_in_the_way() -> None:
    tensor = onnx.numpy_helper.from_array(np.ones((64, 32), np.float32), "w")
    message = proto("g (float[2, 64] x) => (float[] y) { c = Identity(x)  h = MatMul(c, w)  y = Neg(h) }")
    for index, node in enumerate(message.graph.node):
        node.name = f"n{index}"
    message.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], name="constant", value=tensor))
    subject = load_model_bytes(message.SerializeToString())
    infer_shapes(subject)
    assert known(subject)["h"] == ("float32", (2, 32))
    assert run(subject, {"x": np.ones((2, 64), np.float32)})[0].tolist() == np.full((2, 32), -64).tolist()
