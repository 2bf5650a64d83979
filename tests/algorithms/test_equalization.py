"""Equalization as a whole: the choice of scales, Clip, shared constants, explicit multiplications, real models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from equalized_graphs import EXACT, dyadic, equalized, measured, plan_for, random_feeds, run, run_all
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import graph

from quantcli.algorithms.equalization import ChannelExtremes, EqualizationOptions, equalize, imbalance
from quantcli.algorithms.equalized_model import apply_equalization
from quantcli.core.dtypes import INT8
from quantcli.core.spec import QuantSpec
from quantcli.graph.model import OnnxModel
from quantcli.pipeline.source import load_float_model
from quantcli.quantize.plan import LayerPlan
from quantcli.quantize.planner import make_plan
from quantcli.quantize.recipe import Recipe

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
EPS = 2.0**-24


def normal(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def two_layers(**constants: np.ndarray) -> OnnxModel:
    return graph(
        "g (float[n,3] x) => (y) { a = Gemm(x, w, c) b = Relu(a) y = Gemm(b, v) }",
        opset=17,
        **{"w": normal(3, 4), "c": normal(4), "v": normal(4, 2), **constants},
    )


# Scales ---------------------------------------------------------------------------------------------


def test_rho_is_the_larger_share_of_the_two_sides():
    found = imbalance(
        ChannelExtremes(low=np.array([-1.0, -4.0, 0.0, 1.0]), high=np.array([8.0, 2.0, 0.0, 2.0])), -4.0, 8.0
    )
    np.testing.assert_array_equal(found, [1.0, 1.0, 0.0, 0.25])


def test_scales_are_rho_to_the_power_alpha_above_the_floor():
    model = two_layers()
    high = np.array([1.0, 0.5, 0.25, 0.01])
    found = equalize(
        model.view(),
        {"b": ChannelExtremes(low=np.zeros(4), high=high)},
        plan_for(model.view(), ["b"]),
        EqualizationOptions(alpha=0.5, floor=0.1),
    )
    expected = np.sqrt([1.0, 0.5, 0.25, 0.1])
    np.testing.assert_allclose(found.scales["b"], expected, rtol=1e-15)
    np.testing.assert_allclose(found.scales["a"], expected, rtol=1e-15)
    wide = model.view().constant("w").astype(np.float64)
    np.testing.assert_array_equal(found.constants["n0", 1], (wide / expected).astype(np.float32))


def test_alpha_zero_changes_nothing():
    model = two_layers()
    found = equalize(model.view(), dyadic(model), plan_for(model.view(), ["b"]), EqualizationOptions(alpha=0.0))
    assert not found
    assert not found.scales


def test_a_variable_without_a_quantized_tensor_keeps_scale_one():
    model = two_layers()
    assert not equalize(model.view(), dyadic(model), plan_for(model.view(), []), EXACT)


@pytest.mark.parametrize("high", [np.array([1.0, np.inf, 0.5, 0.5]), np.array([1.0, 0.5, 0.25]), None])
def test_channels_whose_extremes_are_unknown_or_unusable_are_left_alone(high):
    model = two_layers()
    extremes = {} if high is None else {"b": ChannelExtremes(low=np.zeros(len(high)), high=high)}
    found = equalize(model.view(), extremes, plan_for(model.view(), ["b"]), EXACT)
    assert not found
    assert found.summary.pinned == {"extremes of channels not known": 4}


def test_the_largest_share_of_all_quantized_tensors_of_a_variable_counts():
    model = two_layers()
    extremes = {
        "a": ChannelExtremes(low=np.array([-4.0, -1.0, -0.5, -0.5]), high=np.zeros(4)),
        "b": ChannelExtremes(low=np.zeros(4), high=np.array([0.5, 0.125, 1.0, 0.0625])),
    }
    found = equalize(model.view(), extremes, plan_for(model.view(), ["a", "b"]), EXACT)
    np.testing.assert_array_equal(found.scales["a"], [1.0, 0.25, 1.0, 0.125])
    np.testing.assert_array_equal(found.scales["b"], found.scales["a"])


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.integers(0, 2**31),
    st.floats(0.0, 1.0),
    st.floats(0.01, 1.0),
)
def test_the_function_stays_and_no_range_grows(seed, alpha, floor):
    """Random weights with channels of very different size; the bound on the error is that of float32 sums.

    A constant is rounded once (relative error 2^-24 =: u); a dot product of K terms, in any order, is off by
    (K + 2)·u·Σ|w·x| with both graphs' roundings and the constants': first order, twice that for the rest.
    """
    rng = np.random.default_rng(seed)
    spread = (2.0 ** rng.uniform(-6, 0, 8)).astype(np.float32)
    w = (rng.normal(size=(5, 8)) * spread).astype(np.float32)
    model = two_layers(w=w.reshape(5, 8)[:3], c=(rng.normal(size=8) * spread).astype(np.float32),
                       v=rng.normal(size=(8, 2)).astype(np.float32))  # fmt: skip
    feeds = {"x": rng.normal(size=(16, 3)).astype(np.float32)}
    before = measured(model, feeds)
    found = equalize(
        model.view(), before, plan_for(model.view(), ["a", "b"]), EqualizationOptions(alpha=alpha, floor=floor)
    )
    result = apply_equalization(model, found)
    old, new = run_all(model, feeds), run_all(result, feeds)
    view = model.view()
    w64, v64 = (np.abs(view.constant(name)).astype(np.float64) for name in ("w", "v"))
    size = (np.abs(feeds["x"]) @ w64 + np.abs(view.constant("c"))) @ v64
    assert np.all(np.abs(new["y"] - old["y"]) <= 2 * (2 * (3 + 1 + 2) + 2 * (8 + 2)) * EPS * size)
    for name in ("a", "b"):
        assert new[name].max() <= max(old[name].max(), 0) * (1 + 16 * EPS) + 16 * EPS
        assert new[name].min() >= min(old[name].min(), 0) * (1 + 16 * EPS) - 16 * EPS


def test_members_of_a_sharing_group_have_the_range_of_the_group():
    model = two_layers()
    view = model.view()
    plan = plan_for(view, ["a", "b"])
    shared = {name: replace(tensor, group="a") for name, tensor in plan.tensors.items()}
    extremes = {
        "a": ChannelExtremes(low=np.zeros(4), high=np.array([8.0, 4.0, 4.0, 4.0])),
        "b": ChannelExtremes(low=np.zeros(4), high=np.array([1.0, 1.0, 1.0, 1.0])),
    }
    found = equalize(view, extremes, replace(plan, tensors=shared), EXACT)
    np.testing.assert_array_equal(found.scales["a"], [1.0, 0.5, 0.5, 0.5])


def test_a_layer_with_one_scale_for_its_whole_weight_makes_no_scales_and_absorbs_them():
    model = graph(
        "g (float[n,3] x) => (y) { a = Gemm(x, w) b = Gemm(a, u) y = Gemm(b, v) }",
        opset=17, w=normal(3, 4), u=normal(4, 4), v=normal(4, 2),
    )  # fmt: skip
    plan = plan_for(model.view(), ["a", "b"])
    layer = LayerPlan(node="n1", input="a", weight="u", weight_spec=QuantSpec(dtype=INT8, symmetric=True))
    found = equalize(model.view(), dyadic(model), replace(plan, layers=(layer,)), EXACT)
    assert set(found.scales) == {"a"}
    assert set(found.constants) == {("n0", 1), ("n1", 1)}


# Clip -----------------------------------------------------------------------------------------------


def relu6(**constants: np.ndarray) -> OnnxModel:
    return graph(
        "g (float[n,3] x) => (y) { a = Gemm(x, w) b = Clip(a, low, high) y = Gemm(b, v) }",
        opset=17, low=np.float32(0), high=np.float32(6),
        **{"w": normal(3, 4) * np.float32([8, 2, 1, 0.1]), "v": normal(4, 2), **constants},
    )  # fmt: skip


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_a_clip_cuts_nothing_more_on_the_data_of_calibration(alpha):
    model, feeds = relu6(), {"x": normal(64, 3, seed=5)}
    before = measured(model, feeds)
    found = equalize(
        model.view(), before, plan_for(model.view(), ["b"]), EqualizationOptions(alpha=alpha, floor=1e-3)
    )
    old, new = run_all(model, feeds)["b"], run_all(apply_equalization(model, found), feeds)["b"]
    scales = found.scales["b"]
    assert scales[0] == 1  # it reaches the bound
    assert scales[3] < 0.5
    # One rounding of the weight, a sum of three and its bound in each graph.
    np.testing.assert_allclose(new * scales, old, atol=float(2 * 6 * EPS * 64), rtol=0)


def test_the_bound_of_a_clip_counts_where_the_quantized_tensor_is_another_one():
    """The pool in front of the quantizer hides how far the Clip's own values reach."""
    model = graph(
        "g (float[n,3,4,4] x) => (y) { a = Conv<kernel_shape = [1, 1]>(x, w) b = Clip(a, low, high) "
        "p = GlobalAveragePool(b) y = Conv<kernel_shape = [1, 1]>(p, v) }",
        opset=17, low=np.float32(0), high=np.float32(4), w=normal(2, 3, 1, 1), v=normal(2, 2, 1, 1),
    )  # fmt: skip
    extremes = {
        "b": ChannelExtremes(low=np.zeros(2), high=np.array([4.0, 2.0])),
        "p": ChannelExtremes(low=np.zeros(2), high=np.array([4.0, 0.125])),
    }
    plan = plan_for(model.view(), ["p"])
    np.testing.assert_array_equal(equalize(model.view(), extremes, plan, EXACT).scales["p"], [1.0, 0.5])
    unknown = equalize(model.view(), {"p": extremes["p"]}, plan, EXACT)
    assert unknown.summary.pinned == {"Clip of channels whose extremes are not known": 2}


# Constants ------------------------------------------------------------------------------------------


def test_a_weight_of_two_layers_is_copied_where_they_need_different_ones():
    model = graph(
        "g (float[n,4] x) => (y) { a = MatMul(x, w) b = Relu(a) c = MatMul(b, w) y = MatMul(c, w) }",
        opset=17, w=normal(4, 4),
    )  # fmt: skip
    result, found = equalized(model, ["b", "c"])
    feeds = random_feeds(model.view())
    assert np.array_equal(run(result, feeds)["y"], run(model, feeds)["y"])
    assert len(found.constants) == 3
    assert len({node.inputs[1] for node in result.view().nodes if node.op_type == "MatMul"}) == 3


def test_a_constant_that_all_readers_want_in_the_same_form_keeps_its_name():
    model = graph(
        "g (float[n,4] x) => (y, z) { a = MatMul(x, w) y = MatMul(a, v) z = MatMul(a, v) }",
        opset=17, w=normal(4, 4), v=normal(4, 4),
    )  # fmt: skip
    result, _ = equalized(model)
    assert {name for name, info in result.view().tensors.items() if info.is_constant} == {"w", "v"}


def test_the_model_that_was_given_stays_as_it_is():
    model = two_layers()
    before = model.to_bytes()
    equalized(model)
    assert model.to_bytes() == before


# Explicit multiplications ---------------------------------------------------------------------------


def transformer_block() -> OnnxModel:
    """A normalization that a residual reads as well, and a GELU."""
    return graph(
        "g (float[n,3,8] x) => (y) { a = LayerNormalization(x, gamma, beta) h = MatMul(a, w) s = Sigmoid(h) "
        "b = Mul(h, s) m = MatMul(b, v) r = Add(m, a) y = LayerNormalization(r, gamma, beta) }",
        opset=17, gamma=normal(8), beta=normal(8), w=normal(8, 16), v=normal(16, 8),
    )  # fmt: skip


READINGS = (("n1", 0), ("n4", 0))


def smoothed(model: OnnxModel, **fields: object):
    view, extremes = model.view(), dyadic(model)
    options = EqualizationOptions(**{"smoothing_alpha": 1.0, "smoothing_floor": 2.0**-6, "alpha": 1.0, **fields})
    found = equalize(view, extremes, plan_for(view, ["a", "b"], READINGS), options)
    return apply_equalization(model, found), found


def test_a_multiplication_is_read_by_the_quantized_layers_only():
    model = transformer_block()
    result, found = smoothed(model)
    feeds = random_feeds(model.view())
    assert np.array_equal(run(result, feeds)["y"], run(model, feeds)["y"])
    assert [item.value for item in found.multiplications] == ["a", "b"]
    assert [item.readers for item in found.multiplications] == [(("n1", 0),), (("n4", 0),)]
    view = result.view()
    assert view.node_by_name["n1"].inputs[0] == "a_equalized"
    assert view.node_by_name["n5"].inputs[1] == "a"
    assert view.tensors["a_equalized"].shape == view.tensors["a"].shape
    assert found.summary.smoothed == 8 + 16


def test_both_sides_count_as_one_for_a_multiplication():
    """GELU and SiLU: every channel reaches the minimum of the function."""
    model = transformer_block()
    high = 2.0 ** -np.arange(16.0)
    extremes = {"b": ChannelExtremes(low=np.full(16, -0.125), high=np.maximum(high, 0))}
    found = equalize(
        model.view(), extremes, plan_for(model.view(), ["b"], READINGS[1:]), EqualizationOptions(alpha=0.0)
    )
    (item,) = found.multiplications
    np.testing.assert_allclose(1 / item.factors, np.maximum(high, 0.125) ** 0.6, rtol=4 * EPS)


def test_no_multiplication_without_a_real_imbalance():
    model = transformer_block()
    size = np.linspace(0.4, 1.0, 8)
    extremes = {"a": ChannelExtremes(low=-size, high=size)}
    assert not equalize(model.view(), extremes, plan_for(model.view(), ["a"], READINGS[:1])).multiplications


@pytest.mark.parametrize(
    ("readings", "reason"),
    [
        ((("n1", 0), ("n5", 1)), "an Add reads it quantized as well"),
        ((), "nobody reads it quantized"),
    ],
)
def test_no_multiplication_where_it_cannot_help(readings, reason):
    model = transformer_block()
    extremes = dyadic(model)
    found = equalize(model.view(), extremes, plan_for(model.view(), ["a"], readings), EXACT)
    assert not found.multiplications, reason


def test_smoothing_can_be_switched_off():
    _, found = smoothed(transformer_block(), smoothing=False)
    assert not found


def test_convolutions_get_multiplications_on_demand_only():
    model = graph(
        "g (float[n,3,6,6] x) => (y) { a = Conv<kernel_shape = [1, 1]>(x, w) b = Softplus(a) "
        "y = Conv<kernel_shape = [3, 3], group = 2>(b, v, c) }",
        opset=17, w=normal(4, 3, 1, 1), v=normal(6, 2, 3, 3), c=normal(6),
    )  # fmt: skip
    extremes, plan = dyadic(model), plan_for(model.view(), ["b"], [("n2", 0)])
    assert not equalize(model.view(), extremes, plan, EXACT)
    options = EqualizationOptions(smoothing_alpha=1.0, conv_smoothing=True)
    found = equalize(model.view(), extremes, plan, options)
    feeds = random_feeds(model.view())
    result = apply_equalization(model, found)
    assert [item.value for item in found.multiplications] == ["b"]
    assert np.array_equal(run(result, feeds)["y"], run(model, feeds)["y"])


# Real models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits_cnn", "digits_mobilenet", "digits_transformer"])
def test_sample_models_compute_the_same_with_other_scales(name):
    source = load_float_model(SAMPLES / f"{name}.onnx", "ort-cpu")
    (spec,) = source.inputs
    shape = [dim if isinstance(dim, int) else 16 for dim in spec.shape]
    feeds = {spec.name: np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)}
    plan = make_plan(source.view, Recipe())
    extremes = measured(source.prepared, feeds)
    found = equalize(source.view, extremes, plan)
    result = apply_equalization(source.prepared, found)
    old, new = run(source.prepared, feeds), run(result, feeds)
    assert found.summary.scaled + found.summary.smoothed > 0
    for output, expected in old.items():
        # Every layer adds roundings of about 2^-24·sqrt(K) relative to its output's size; ten layers with K < 1024
        # and gains of up to 8 between them stay below 2^-24·32·10·8.
        assert np.max(np.abs(new[output] - expected)) <= np.max(np.abs(expected)) * EPS * 2560
    after = measured(result, feeds)
    for value, tensor in plan.tensors.items():
        if value in after and value in extremes:
            high = max(extremes[other].high.max() for other, item in plan.tensors.items()
                       if item.group == tensor.group and other in extremes)  # fmt: skip
            assert after[value].high.max() <= max(high, 0) * (1 + 1e-5)
