"""Where the error is: local and accumulated, and each fault named, in a net whose int8 form is made by hand."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from small_net import (
    DATA,
    FLOAT,
    HEAD,
    QDQ,
    QOPERATOR,
    WEIGHTS,
    Models,
    Samples,
    SilentProgress,
    compare_tensors,
    compared,
    equalized,
    integers,
    proto,
    read_model,
)

from quantcli.evaluate.bias_scales import bias_scales
from quantcli.evaluate.codecs import Codecs
from quantcli.evaluate.tensors import TensorOptions
from quantcli.graph.model_io import load_model_bytes

GOOD = integers()


def by_name(found):
    return {tensor.name: tensor for tensor in found.tensors}


def test_a_good_model_has_no_suspect_and_every_value_is_found(tmp_path):
    found = compared(tmp_path)
    assert found.suspects == ()
    assert (found.samples, found.activations, found.matched) == (24, 5, 5)
    assert [tensor.name for tensor in found.tensors] == ["x", "a", "r", "b", "s", "y"]


def test_a_dropped_relu_is_read_from_the_integers_and_its_producer_before_them(tmp_path):
    tensors = by_name(compared(tmp_path))
    assert (tensors["a"].quantized_name, tensors["r"].quantized_name) == ("a", "r_dequantized")
    assert (tensors["a"].dtype, tensors["r"].dtype) == (None, "uint8")


def test_the_local_error_of_a_relu_is_its_rounding(tmp_path):
    """Rounding makes an error of 1/√12 steps where values lie inside the range, and none where they are 0."""
    relu = by_name(compared(tmp_path))["r"]
    assert relu.step_rmse < 1 / math.sqrt(12)
    assert relu.clipped == 0.0
    assert relu.range_used == pytest.approx(1.0, abs=1 / 255)
    assert abs(relu.bias) < 0.02


def test_accumulated_errors_grow_and_local_ones_do_not(tmp_path):
    tensors = by_name(compared(tmp_path))
    assert tensors["y"].sqnr < tensors["r"].sqnr
    assert tensors["y"].local_sqnr > tensors["y"].sqnr


FAULTS = {
    "weight scale doubled": ({"w2_scale": GOOD["w2_scale"] * 2}, "c2", "scale"),
    "scale of a channel doubled": (
        {"w1_scale": GOOD["w1_scale"] * np.where(np.arange(8) == 3, 2, 1).astype(np.float32)}, "c1", "scale"),
    "weight zero point": ({"w2_zero": GOOD["w2_zero"] + np.int8(1)}, "c2", "zero_point"),
    "weight channels swapped": (
        {"w1_quantized": GOOD["w1_quantized"][[0, 5, 2, 3, 4, 1, 6, 7]]}, "c1", "channels"),
    "bias dropped": ({"b2_quantized": GOOD["b2_quantized"] * 0}, "c2", "bias"),
    "read with another scale": ({"r_scale_read": GOOD["r_scale"] * np.float32(2)}, "r1", "scale"),
    "read with another zero point": ({"s_zero_read": GOOD["s_zero"] + np.uint8(1)}, "r2", "zero_point"),
    "zero point of a dropped relu": (
        {"s_zero": GOOD["s_zero"] + np.uint8(1), "s_zero_read": GOOD["s_zero"] + np.uint8(1)}, "r2", "zero_point"),
}  # fmt: skip


@pytest.mark.parametrize("data", [True, False], ids=["with samples", "without"])
@pytest.mark.parametrize(("changes", "node", "finding"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_the_parameters_is_named_first(tmp_path, changes, node, finding, data):
    first = compared(tmp_path, changes=changes, data=data).suspects[0]
    assert (first.node, first.finding) == (node, finding)
    assert first.severity > 1


RANGES = {
    "clipping": (np.float32(0.5), "clipping"),
    "resolution": (np.float32(2), "resolution"),
}


def rescaled(factor, *, bias):
    """Another scale for r, with the bias of its reader made for it or left as it was."""
    scale = GOOD["r_scale"] * factor
    changes = {"r_scale": scale, "r_scale_read": scale}
    if bias:
        codes = np.rint(GOOD["b2_quantized"] / factor).astype(np.int32)
        changes |= {"b2_scale": GOOD["b2_scale"] * factor, "b2_quantized": codes}
    return changes


@pytest.mark.parametrize(("factor", "finding"), RANGES.values(), ids=RANGES)
def test_a_range_that_does_not_fit_is_named(tmp_path, factor, finding):
    found = compared(tmp_path, changes=rescaled(factor, bias=True), data=np.concatenate([DATA] * 5))
    assert [(item.node, item.finding) for item in found.suspects] == [("r1", finding)]


@pytest.mark.parametrize("factor", [0.5, 2])
def test_a_bias_tells_without_data_that_the_scale_of_its_input_was_changed(tmp_path, factor):
    found = compared(tmp_path, changes=rescaled(np.float32(factor), bias=False), data=False)
    (suspect,) = found.suspects
    assert suspect.node == "r1"
    assert f"its scale is {factor:g} times that for which the bias of 'c2' was made" in suspect.sentence


MATMUL = """net (float[N,4] x) => (float[N,8] y) {
  [xq] q = QuantizeLinear(x, xs, xz)
  [xd] d = DequantizeLinear(q, xs, xz)
  [wd] w = DequantizeLinear<axis = 1>(wq, ws)
  [mm] m = MatMul(d, w)
  [bd] b = DequantizeLinear<axis = 0>(bq, bs)
  [add] y = Add(m, b)
}"""


@pytest.mark.parametrize("channel", [None, 5])
def test_a_bias_behind_a_matmul_tells_which_channel_of_the_weight_was_changed(channel):
    scale = np.full(8, 0.25, np.float32)
    constants = {
        "xs": np.array(0.5, np.float32), "xz": np.array(3, np.uint8), "wq": np.ones((4, 8), np.int8),
        "ws": scale * np.where(np.arange(8) == channel, 2, 1).astype(np.float32), "bs": scale * 0.5,
        "bq": np.ones(8, np.int32),
    }  # fmt: skip
    view = load_model_bytes(proto(HEAD + MATMUL, constants).SerializeToString()).view()
    (layer,) = bias_scales(view, Codecs(view))
    assert layer.kept == (channel is None)
    assert layer.broken == (() if channel is None else (channel,))


def test_biases_with_scales_of_their_own_tell_nothing(tmp_path):
    factors = {1: np.float32(0.5), 2: np.float32(0.7), 3: np.float32(0.9)}
    changes = {f"b{i}_scale": GOOD[f"b{i}_scale"] * f for i, f in factors.items()}
    changes |= {
        f"b{i}_quantized": np.rint(GOOD[f"b{i}_quantized"] / f).astype(np.int32) for i, f in factors.items()
    }
    assert compared(tmp_path, changes=changes, data=False).suspects == ()


def test_scales_of_a_weight_on_the_wrong_axis_are_a_fault(tmp_path):
    text = QDQ.replace("DequantizeLinear<axis = 0>(w2_quantized", "DequantizeLinear<axis = 1>(w2_quantized")
    uneven = GOOD["w2_scale"] * np.float32(2) ** np.arange(len(GOOD["w2_scale"]), dtype=np.float32)
    weights = {**WEIGHTS, "w2": WEIGHTS["w2"] * (uneven / GOOD["w2_scale"])[:, None, None, None]}
    models = {"weights": weights, "original_weights": weights}
    assert compared(tmp_path, data=False, **models).suspects == ()
    suspects = compared(tmp_path, text, data=False, **models).suspects
    assert {item.node for item in suspects} <= {"c1", "c2"}  # what reads and what makes the channels disagree
    assert suspects


def test_few_samples_do_not_tell_that_a_range_is_too_wide(tmp_path):
    assert compared(tmp_path, changes=rescaled(np.float32(2), bias=True)).suspects == ()


def test_integers_behind_a_concat_are_read_as_what_its_inputs_stand_for():
    text = """net (float[2] x) => (float[4] y) {
  [n1] q = QuantizeLinear(x, s, z)
  [n2] c = Concat<axis = 0>(q, q)
  [n3] y = DequantizeLinear(c, s, z)
}"""
    model = proto(HEAD + text, {"s": np.array(0.5, np.float32), "z": np.array(3, np.uint8)})
    codec = Codecs(load_model_bytes(model.SerializeToString()).view()).of("c")
    assert (codec.scale, codec.zero_point) == (0.5, 3)


def test_equalized_channels_are_no_fault_and_are_compared_in_the_original_unit(tmp_path):
    """r/s with s·w2 behind it: the same function, so local errors stay those of rounding."""
    factors = np.array([1, 0.5, 0.25, 1, 0.7, 0.4, 1, 0.3], dtype=np.float32)
    found = compared(tmp_path, weights=equalized(factors))
    assert found.suspects == ()
    assert by_name(found)["r"].local_sqnr > 35
    assert by_name(found)["y"].local_sqnr > 35


def test_a_doubled_scale_is_found_behind_equalization(tmp_path):
    factors = np.array([1, 0.5, 0.25, 1, 0.7, 0.4, 1, 0.3], dtype=np.float32)
    base = integers(equalized(factors))
    found = compared(tmp_path, changes={"w2_scale": base["w2_scale"] * 2}, base=base)
    assert found.suspects[0].node == "c2"


def test_operators_in_integers_are_matched_through_their_parameters(tmp_path):
    found = compared(tmp_path, QOPERATOR)
    assert found.suspects == ()
    assert [tensor.name for tensor in found.tensors] == ["x", "r", "s", "y"]
    assert found.notes == ("2 activations held in another form",)
    assert all(tensor.local_sqnr > 30 for tensor in found.tensors if tensor.node)


def test_a_fault_in_integer_operators_is_named(tmp_path):
    found = compared(tmp_path, QOPERATOR, {"w2_scale": GOOD["w2_scale"] * 2})
    assert (found.suspects[0].node, found.suspects[0].finding) == ("c2", "scale")


def test_renamed_values_and_nodes_are_found_by_structure(tmp_path):
    text = QDQ.replace("[c2] b = ", "[other] v = ").replace("QuantizeLinear(b,", "QuantizeLinear(v,")
    text = text.replace("s_quantized", "t7").replace("s_dequantized", "t8")
    found = compared(tmp_path, text)
    assert {"a", "r", "y"} <= {tensor.name for tensor in found.tensors}
    assert found.suspects == ()


def test_sixteen_bit_floats_are_matched(tmp_path):
    half = {name: value.astype(np.float16) for name, value in WEIGHTS.items()}
    text = (
        HEAD
        + """net (float[N,4,8,8] x) => (float[N,4,6,6] y) {
      [in] x_cast = Cast<to = 10>(x)
      [c1] a = Conv(x_cast, w1, b1)
      [r1] r = Relu(a)
      [c2] b = Conv(r, w2, b2)
      [r2] s = Relu(b)
      [c3] y_half = Conv(s, w3, b3)
      [out] y = Cast<to = 1>(y_half)
    }"""
    )
    found = compared(tmp_path, text, base=half)
    assert (found.matched, found.suspects) == (5, ())
    assert by_name(found)["y"].local_sqnr > 55


def test_little_memory_gives_the_same_figures_in_more_passes(tmp_path):
    whole = compared(tmp_path)
    parts = compared(tmp_path, options=TensorOptions(max_memory=1))
    assert [tensor.name for tensor in parts.tensors] == [tensor.name for tensor in whole.tensors]
    for one, other in zip(parts.tensors, whole.tensors, strict=True):
        assert one.sqnr == pytest.approx(other.sqnr, rel=1e-6)
        assert one.local_sqnr is None or one.local_sqnr == pytest.approx(other.local_sqnr, rel=1e-6)


def test_the_first_divergence_is_the_first_value_below_a_tenth(tmp_path):
    found = compared(tmp_path, changes={"w1_scale": GOOD["w1_scale"] * 2})
    assert found.first_divergence == "a"
    assert compared(tmp_path).first_divergence is None


def test_samples_are_limited_and_evenly_spaced(tmp_path):
    assert compared(tmp_path, options=TensorOptions(samples=5)).samples == 5


def test_histograms_count_the_original_values(tmp_path):
    relu = by_name(compared(tmp_path))["r"]
    assert sum(relu.histogram.counts) == relu.elements
    assert relu.histogram.low <= relu.observed_low < relu.observed_high <= relu.histogram.high
    assert len(relu.histogram.counts) <= 64


def test_a_dropped_normalization_is_folded_before_it_is_compared(tmp_path):
    """BatchNormalization behind c2 in the original; the int8 form has it in w2 and b2."""
    gamma, beta = np.linspace(0.5, 1.5, 8), np.linspace(-1, 1, 8)
    mean, variance = np.linspace(-0.5, 0.5, 8), np.linspace(0.5, 2, 8)
    factor = gamma / np.sqrt(variance + 1e-5)
    raw = WEIGHTS | {
        "w2": (WEIGHTS["w2"] / factor[:, None, None, None]).astype(np.float32),
        "b2": ((WEIGHTS["b2"] - beta) / factor + mean).astype(np.float32),
    }
    text = FLOAT.replace("[r2] s = Relu(b)", "[bn] n = BatchNormalization(b, g, h, m, v)  [r2] s = Relu(n)")
    extra = {"g": gamma, "h": beta, "m": mean, "v": variance}
    constants = raw | {name: value.astype(np.float32) for name, value in extra.items()}
    onnx.save(proto(text, constants), tmp_path / "float.onnx")
    for name, changes in (("good", {}), ("bad", {"b2_quantized": GOOD["b2_quantized"] * 0})):
        onnx.save(proto(QDQ, {**GOOD, **changes}), tmp_path / f"{name}.onnx")
        first, second = read_model(tmp_path / "float.onnx"), read_model(tmp_path / f"{name}.onnx")
        models = Models(original=first, quantized=second, view=first.view(), quantized_view=second.view())
        found = compare_tensors(
            models, Samples({"x": DATA}), TensorOptions(), threads=1, progress=SilentProgress()
        )
        assert [item.node for item in found.suspects] == ([] if name == "good" else ["c2"])
