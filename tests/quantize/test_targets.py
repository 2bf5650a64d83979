"""Models for each target have the form that its documentation asks for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_graphs import Quantized, actions, graph, plan_of, quantize_graph, reason

from quantcli.core.dtypes import INT4, INT8, INT16, INT32, UINT4, UINT8, UINT16
from quantcli.graph.model import OnnxModel
from quantcli.graph.view import NodeInfo
from quantcli.ops.targets import TARGETS
from quantcli.pipeline.legal import target_notes
from quantcli.quantize.plan import Action, plan_from_json
from quantcli.quantize.recipe import Recipe
from quantcli.quantize.signed import loadable_signs

RNG = np.random.default_rng(3)
TENSORRT = {"target": "tensorrt", "activation_dtype": INT8, "symmetric": True}

BLOCK = """g (float[1,8,6,6] x) => (float[1,4] y) {
    a = Conv <pads = [1,1,1,1]> (x, w0, b0)
    s = Relu(a)
    b = Conv <pads = [1,1,1,1]> (s, w1, b0)
    c = Relu(b)
    d = Conv <pads = [1,1,1,1]> (c, w2, b0)
    e = Add(d, s)
    f = Relu(e)
    h = Conv <pads = [1,1,1,1]> (f, w3)
    p = GlobalAveragePool(h)
    q = Flatten(p)
    y = Gemm(q, w4, b4)
}"""
"""A residual block between convolutions: nodes n0 … n11."""

FEEDS = {"x": RNG.normal(0, 1, (1, 8, 6, 6)).astype(np.float32)}


def block() -> OnnxModel:
    arrays = {f"w{i}": RNG.normal(0, 0.2, (8, 8, 3, 3)) for i in range(4)}
    arrays |= {"w4": RNG.normal(0, 0.3, (8, 4)), "b0": RNG.normal(0, 1, 8), "b4": RNG.normal(0, 1, 4)}
    return graph(BLOCK, **{name: value.astype(np.float32) for name, value in arrays.items()})


def reads(found: Quantized, node: str) -> list[str]:
    """Operators that make what a node reads; "" for constants and inputs."""
    view = found.model.view()
    makers = [view.producer(name) for name in view.node_by_name[node].inputs]
    return [maker.op_type if maker is not None else "" for maker in makers]


def of_type(found: Quantized, op_type: str) -> list[NodeInfo]:
    return [node for node in found.model.view().nodes if node.op_type == op_type]


def sqnr(found: Quantized, feeds: dict[str, np.ndarray]) -> float:
    (name, expected), *_ = found.run_float(feeds).items()
    return float(10 * np.log10(np.sum(expected**2) / np.sum((found.run(feeds)[name] - expected) ** 2)))


# TensorRT -----------------------------------------------------------------------------------------------


def test_tensorrt_gets_zero_points_of_0_and_signed_integers():
    found = quantize_graph(block(), FEEDS, **TENSORRT)
    view = found.model.view()
    zeros = [view.constant(node.inputs[2]) for node in of_type(found, "QuantizeLinear")]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    assert sqnr(found, FEEDS) > 20


def test_tensorrt_quantizes_the_residual_and_not_what_the_convolution_gives():
    found = quantize_graph(block(), FEEDS, **TENSORRT)
    assert reads(found, "n5") == ["Conv", "DequantizeLinear"]
    quantized = {tensor.name for tensor in found.plan.tensors.values()}
    assert quantized == {"x", "s", "c", "f", "p", "q"}  # not b, d, e, h


def test_of_two_convolutions_the_later_one_takes_the_sum():
    text = """g (float[1,8,6,6] x) => (float[1,8,6,6] y) {
        a = Conv <pads = [1,1,1,1]> (x, w0)
        b = Conv <pads = [1,1,1,1]> (x, w1)
        e = Add(b, a)
        y = Conv <pads = [1,1,1,1]> (e, w2)
    }"""
    weights = {f"w{i}": RNG.normal(0, 0.2, (8, 8, 3, 3)).astype(np.float32) for i in range(3)}
    found = quantize_graph(graph(text, **weights), FEEDS, **TENSORRT)
    assert reads(found, "n2") == ["Conv", "DequantizeLinear"]
    assert set(found.plan.tensors) == {"x", "a", "e"}


def test_tensorrt_leaves_sums_elsewhere_in_float():
    text = """g (float[1,8,6,6] x) => (float[1,8,6,6] y) {
        a = Conv <pads = [1,1,1,1]> (x, w0)
        b = Sigmoid(a)
        e = Add(b, x)
        y = Conv <pads = [1,1,1,1]> (e, w1)
    }"""
    weights = {f"w{i}": RNG.normal(0, 0.2, (8, 8, 3, 3)).astype(np.float32) for i in range(2)}
    plan = plan_of(graph(text, **weights), **TENSORRT)
    assert (reason(plan, "n1"), reason(plan, "n2")) == ("F201", "F403")


def test_a_sum_whose_convolution_is_excluded_stays_in_float():
    plan = plan_of(block(), exclude=("n4",), **TENSORRT)
    assert reason(plan, "n5") == "F402"


@pytest.mark.parametrize("target", ["tensorrt", "openvino"])
def test_biases_stay_in_float_and_are_the_models_own(target):
    recipe = TENSORRT if target == "tensorrt" else {"target": target}
    found = quantize_graph(block(), FEEDS, **recipe)
    view = found.model.view()
    assert not [node for node in view.nodes if any(view.tensors[n].dtype == "int32" for n in node.inputs if n)]
    assert view.node_by_name["n0"].inputs[2] == "b0"
    assert sqnr(found, FEEDS) > 20


# QNN ----------------------------------------------------------------------------------------------------

ATTENTION = """g (float[1,6,16] x) => (float[1,6,16] y) {
    n = LayerNormalization <axis = -1> (x, scale, shift)
    a = MatMul(n, w0)
    b = Add(a, b0)
    c = Sigmoid(b)
    t = Transpose <perm = [0,2,1]> (b)
    d = MatMul(c, t)
    e = Softmax <axis = -1> (d)
    f = MatMul(e, b)
    h = Tanh(f)
    m = ReduceMean <keepdims = 1> (h, axes)
    y = Add(h, m)
}"""
TOKENS = {"x": RNG.normal(0, 1, (1, 6, 16)).astype(np.float32)}


def attention() -> OnnxModel:
    arrays = {
        "scale": RNG.uniform(0.5, 2, 16), "shift": RNG.normal(0, 1, 16), "w0": RNG.normal(0, 0.3, (16, 16)),
        "b0": RNG.normal(0, 1, 16),
    }  # fmt: skip
    axes = np.array([-1], np.int64)
    return graph(ATTENTION, opset=21, axes=axes, **{k: v.astype(np.float32) for k, v in arrays.items()})


def test_on_qnn_everything_has_quantizers_around_it():
    found = quantize_graph(attention(), TOKENS, target="qnn")
    assert set(actions(found.plan).values()) <= {Action.QUANTIZE, Action.PASSTHROUGH, Action.FUSE}
    view = found.model.view()
    for node in view.nodes:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        makers = [view.producer(name) for name in node.inputs if view.tensors[name].dtype != "int64"]
        assert all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers), node
        assert [use.node.op_type for use in view.uses(node.outputs[0])] == ["QuantizeLinear"]
    assert sqnr(found, TOKENS) > 20


def test_outputs_of_a_model_for_qnn_keep_their_names_and_are_dequantized():
    found = quantize_graph(attention(), TOKENS, target="qnn")
    view = found.model.view()
    assert view.outputs == ("y",)
    assert view.producer("y").op_type == "DequantizeLinear"
    assert [tensor.name for tensor in found.plan.tensors.values() if tensor.output] == ["y"]
    assert plan_from_json(found.plan.to_json()) == found.plan


def test_the_shift_of_a_normalization_is_a_bias():
    found = quantize_graph(attention(), TOKENS, target="qnn")
    shift, scale = (found.solution.constants["n0", index] for index in (2, 1))
    assert shift.params.spec.dtype is INT32
    assert shift.params.scale == found.solution.tensors["x"].scale * scale.params.scale


def test_qnn_has_scales_per_channel_for_convolutions_only():
    axes = {layer.node: layer.weight_spec.axis for layer in plan_of(block(), target="qnn").layers}
    assert axes == {"n0": 0, "n2": 0, "n4": 0, "n7": 0, "n10": None}
    everywhere = {layer.node: layer.weight_spec.axis for layer in plan_of(block(), target="openvino").layers}
    assert everywhere["n10"] == 1


def test_results_of_sigmoid_and_tanh_have_the_scales_of_qnn():
    found = quantize_graph(attention(), TOKENS, target="qnn", activation_dtype=UINT16)
    sigmoid, tanh = found.solution.tensors["c"], found.solution.tensors["h"]
    assert (float(sigmoid.scale), int(sigmoid.zero_point)) == (2.0**-16, 0)
    assert (float(tanh.scale), int(tanh.zero_point)) == (2.0**-15, 2**15)


# All ----------------------------------------------------------------------------------------------------


def test_on_arm_activations_are_signed_and_relu_joins_its_kernel():
    found = quantize_graph(block(), FEEDS, target="cpu-arm", activation_dtype=INT8)
    assert {int(found.solution.tensors[name].zero_point) for name in ("s", "c", "f")} == {-128}
    assert not found.solution.kept


def test_onnxruntime_on_other_cpus_is_placed_as_on_this_one():
    plans = [plan_of(block(), target=target) for target in ("ort-cpu", "cpu-avx2", "cpu-arm")]
    assert len({plan.nodes for plan in plans}) == 1


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_what_was_not_run_is_said(target):
    notes = " ".join(target_notes(plan_of(block(), target=target.name)))
    if target.measured:
        assert notes == ""
    else:
        assert f"target {target.name}: " in notes
        assert ("not run here" in notes) == bool(target.runtime)
    assert target.source
    assert target.facts


# Sums in front of normalizations ------------------------------------------------------------------------

WHOLE = "n = LayerNormalization <axis = -1> (s, scale)"
IN_PARTS = """m = ReduceMean <axes = [-1]> (s)
    c = Sub(s, m)
    n = Mul(c, scale)"""


def residual(norm: str) -> OnnxModel:
    """Two products around a sum; node n2 is the sum."""
    text = f"""g (float[1,6,16] x) => (float[1,6,16] y) {{
        a = MatMul(x, w0)
        b = MatMul(a, w1)
        s = Add(a, b)
        {norm}
        y = MatMul(n, w2)
    }}"""
    arrays = {f"w{i}": RNG.normal(0, 0.3, (16, 16)) for i in range(3)} | {"scale": RNG.uniform(0.5, 2, 16)}
    return graph(text, opset=17, **{name: value.astype(np.float32) for name, value in arrays.items()})


@pytest.mark.parametrize("target", ["generic", "openvino"])
@pytest.mark.parametrize("norm", [WHOLE, IN_PARTS])
def test_a_sum_that_is_normalized_stays_in_float(target, norm):
    assert reason(plan_of(residual(norm), target=target), "n2") == "F214"


@pytest.mark.parametrize("norm", ["n = Relu(s)", "m = ReduceMean <axes = [-1]> (s)\nn = Add(s, m)"])
def test_other_sums_are_quantized(norm):
    assert actions(plan_of(residual(norm), target="generic"))["n2"] is Action.QUANTIZE


def test_where_everything_is_quantized_so_are_sums_in_front_of_normalizations():
    assert actions(plan_of(residual(WHOLE), target="qnn"))["n2"] is Action.QUANTIZE


def test_channels_beside_outliers_survive_on_targets_with_float_residuals():
    model = residual(WHOLE)
    loud = {"x": TOKENS["x"] * np.where(np.arange(16) == 3, 300.0, 1.0).astype(np.float32)}
    assert sqnr(quantize_graph(model, loud, target="generic"), loud) > 20


def test_signed_activations_that_would_not_load_are_unsigned_at_any_width():
    recipe = Recipe(target="cpu-arm", activation_dtype=INT4)
    assert loadable_signs(recipe, 21).activation_dtype is UINT4
    assert loadable_signs(recipe, 20).activation_dtype is INT4
    assert loadable_signs(replace(recipe, activation_dtype=INT16), 21).activation_dtype is INT16


@pytest.mark.parametrize(("target", "dtype", "told"), [("qnn", UINT8, True), ("qnn", UINT16, False)])
def test_that_8_bits_do_not_fit_residuals_is_told_where_these_must_be_integers(target, dtype, told):
    notes = " ".join(target_notes(plan_of(residual(WHOLE), target=target, activation_dtype=dtype)))
    assert ("--activation-bits 16" in notes) is told
