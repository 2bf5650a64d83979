import math

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from quantcli.evaluate.attribution import plain_settings
from quantcli.evaluate.fusion import (
    FirstDifference,
    first_difference,
    float_weight_layers,
    furthest_sample,
    fusion_differences,
    fusion_notes,
)
from quantcli.graph.model_io import load_model
from quantcli.graph.read_view import read_view
from quantcli.runtime.session import Session

HEAD = '<ir_version: 9, opset_import: ["" : 17]>\n'
F32 = np.float32
RNG = np.random.default_rng(0)
LAYER = (
    "net (float[1,4,8,8] x) => (float[1,8,6,6] y) { q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)"
    " %s r = QuantizeLinear(t, s, z)  y = DequantizeLinear(r, s, z) }"
)


def save(path, text, **constants):
    model = onnx.parser.parse_model(HEAD + text)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{index}"
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.save(model, path)
    return path


def results(path, feeds):
    return [Session(path).run(f) for f in feeds], [Session(path, plain_settings(1)).run(f) for f in feeds]


@pytest.fixture
def feeds():
    return [{"x": RNG.normal(size=(1, 4, 8, 8)).astype(F32)} for _ in range(3)]


def test_fused_kernels_differ_by_ties_at_most(tmp_path, feeds):
    weight = RNG.integers(-20, 20, (8, 4, 3, 3)).astype(np.int8)
    path = save(
        tmp_path / "m.onnx", LAYER % "v = DequantizeLinear(w, ws, wz)  [c] t = Conv(d, v)",
        s=F32(0.1), z=np.uint8(128), w=weight, ws=F32(0.01), wz=np.int8(0),
    )  # fmt: skip
    fused, plain = results(path, feeds)
    (found,) = fusion_differences(read_view(path), [("y", "y")], plain, fused, plain)
    assert found.steps <= 1.001
    assert not found.flagged
    assert found.sqnr_plain == math.inf
    assert fusion_notes([found], 0, None) == ()


def test_float_weights_between_q_and_dq_are_rounded_by_the_runtime_and_that_is_said(tmp_path, feeds):
    weight = RNG.normal(size=(8, 4, 3, 3)).astype(F32) * np.geomspace(0.001, 3, 8).reshape(8, 1, 1, 1).astype(F32)
    path = save(tmp_path / "m.onnx", LAYER % "[c] t = Conv(d, w)", s=F32(0.02), z=np.uint8(128), w=weight)
    fused, plain = results(path, feeds)
    view = read_view(path)
    (found,) = fusion_differences(view, [("y", "y")], plain, fused, plain)
    assert found.flagged
    assert found.steps > 2
    assert float_weight_layers(view) == 1
    (note,) = fusion_notes([found], 1, None)
    assert "1 layers have float weights" in note
    first = first_difference(load_model(path), feeds[furthest_sample([("y", "y")], fused, plain)], 1)
    assert (first.tensor, first.node) == ("r", "c")
    assert first.steps > 1


def test_a_float_output_is_measured_in_shares_of_its_range(tmp_path):
    path = save(tmp_path / "m.onnx", "net (float[4] x) => (float[4] y) { y = Relu(x) }")
    reference = [{"y": np.array([0, 1, 2, 256], F32)}]
    shifted = [{"y": np.array([0, 1, 2, 253], F32)}]
    (found,) = fusion_differences(read_view(path), [("y", "y")], reference, shifted, reference)
    assert found.steps == pytest.approx(3.0)
    assert found.flagged


def test_an_integer_output_counts_its_own_steps(tmp_path):
    path = save(tmp_path / "m.onnx", "net (float[2] x) => (uint8[2] y) { y = QuantizeLinear(x, s, z) }", s=F32(9),
                z=np.uint8(0))  # fmt: skip
    plain, fused = [{"y": np.array([5, 6], np.uint8)}], [{"y": np.array([7, 6], np.uint8)}]
    (found,) = fusion_differences(read_view(path), [("y", "y")], plain, fused, plain)
    assert (found.steps, found.flagged) == (2.0, False)


def test_a_value_that_is_no_number_in_one_of_them_is_flagged(tmp_path):
    path = save(tmp_path / "m.onnx", "net (float[2] x) => (float[2] y) { y = Relu(x) }")
    plain, fused = [{"y": np.array([5, 6], F32)}], [{"y": np.array([np.nan, 6], F32)}]
    (found,) = fusion_differences(read_view(path), [("y", "y")], plain, fused, plain)
    assert found.steps == math.inf
    assert found.flagged


@pytest.mark.parametrize(("steps", "words"), [(1, "a tie of rounding"), (9, "more than rounding")])
def test_the_note_says_whether_it_began_with_a_tie(steps, words):
    first = FirstDifference(tensor="q", node="conv7", steps=steps, share=0.001)
    (item,) = fusion_differences_of(5.0)
    (note,) = fusion_notes([item], 0, first)
    assert "conv7" in note
    assert words in note


def fusion_differences_of(steps):
    from quantcli.report.schema import FusionDifference

    return (
        FusionDifference(output="y", steps=steps, sqnr=9.0, sqnr_optimized=8.0, sqnr_plain=8.0, flagged=steps > 2),
    )
