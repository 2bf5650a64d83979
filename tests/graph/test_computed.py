from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_text import model, run

from quantcli.graph.edit import GraphEditor
from quantcli.graph.model_io import save_model

SCALED = "g (float[2,3] x) => (float[2,3] y) { y = Mul(x, w) }"
X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


class Counted:
    """Gives an array, and counts how often."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.calls = array, 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return self.array


def test_a_lazy_initializer_is_computed_when_the_model_is_saved_and_not_before(tmp_path: Path) -> None:
    edited = model("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }")
    editor = GraphEditor(edited)
    weight = Counted(np.full((2, 3), 3, np.float32))
    name = editor.add_lazy_initializer("w", "float32", (2, 3), weight)
    editor.replace_node("Relu_0", "Mul", ["x", name])
    editor.finish()
    assert weight.calls == 0
    save_model(edited, tmp_path / "m.onnx")
    assert weight.calls == 1
    np.testing.assert_array_equal(run(edited, {"x": X})[0], 3 * X)


@pytest.mark.parametrize("threshold", [None, 0], ids=["inline", "external"])
def test_lazy_values_of_four_bits_are_stored_packed(tmp_path: Path, threshold: int | None) -> None:
    edited = model("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }", opset=21)
    editor = GraphEditor(edited)
    integers = (np.arange(64 * 64) % 16 - 8).reshape(64, 64).astype(np.int8)
    name = editor.add_lazy_initializer("q", "int4", integers.shape, lambda: integers)
    value = editor.new_value_name("c")
    editor.add_cast(name, "float32", value, name="c")
    editor.replace_node("Relu_0", "ReduceSum", [value], attributes={"keepdims": 0})
    editor.finish()
    save_model(edited, tmp_path / "m.onnx", external_threshold_bytes=threshold)
    (stored,) = onnx.load(tmp_path / "m.onnx").graph.initializer
    assert len(stored.raw_data) == 64 * 64 // 2
    np.testing.assert_array_equal(numpy_helper.to_array(stored).astype(np.int8), integers)


def test_an_initializer_may_be_replaced_by_values_made_of_its_own() -> None:
    edited = model("g (float[2,3] x) => (float[2,3] y) <float[2,3] w = {1, 2, 3, 4, 5, 6}> { y = Mul(x, w) }")
    old = edited.view()
    editor = GraphEditor(edited)
    editor.set_lazy_initializer("w", "float32", (2, 3), lambda: 2 * old.constant("w"))
    editor.finish()
    np.testing.assert_array_equal(run(edited, {"x": X})[0], X * np.float32([[2, 4, 6], [8, 10, 12]]))


def test_values_of_another_shape_than_stated_are_a_bug() -> None:
    edited = model("g (float[2,3] x) => (float[2,3] y) <float[2,3] w = {1, 2, 3, 4, 5, 6}> { y = Mul(x, w) }")
    editor = GraphEditor(edited)
    editor.set_lazy_initializer("w", "float32", (2, 3), lambda: np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"'w' has shape \(3, 2\)"):
        edited.view().constant("w")
