"""Integers of weights that no pair of products can saturate, against products added up in Python's integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import graph, plan_of, quantize_graph

from quantcli.algorithms.layer_form import LayerForm
from quantcli.algorithms.rounding import Pair, RoundingOptions, round_layer
from quantcli.core.affine import params_from_range, quantize
from quantcli.core.dtypes import INT4, INT8, UINT8
from quantcli.core.saturation import COLUMNS, CONVOLUTION, ROWS, kernel_rows, pair_bound, pair_sums
from quantcli.core.spec import QuantParams, QuantSpec
from quantcli.evaluate.integer_layers import integer_layers
from quantcli.evaluate.saturation import prove_saturation
from quantcli.quantize.plan import plan_from_json
from quantcli.quantize.spared import spared_notes, with_spared
from quantcli.quantize.unsaturated import keep_apart, pair_order, reaching
from quantcli.quantize.weights import LayerRules, quantize_layer, weight_params

RNG = np.random.default_rng(11)
INPUT = params_from_range(-1.0, 3.0, QuantSpec(dtype=UINT8))


def spec(axis: int | None) -> QuantSpec:
    return QuantSpec(dtype=INT8, symmetric=True, axis=axis, narrow=True)


def plain_params(weight: np.ndarray, axis: int | None) -> QuantParams:
    return weight_params(weight, None, INPUT, spec(axis))[0]


def saturates(row: list[int]) -> bool:
    """Whether a row of weights has a pair whose sum leaves int16 for some activations in 0…255."""
    padded = [*row, 0] if len(row) % 2 else row
    for first, second in zip(padded[0::2], padded[1::2], strict=True):
        sums = [a * first + b * second for a in (0, 255) for b in (0, 255)]  # the extremes are at the corners
        if max(sums) > 32767 or min(sums) < -32768:
            return True
    return False


rows_of_integers = st.lists(st.lists(st.integers(-127, 127), min_size=5, max_size=5), min_size=1, max_size=4)


@given(rows_of_integers)
def test_a_row_reaches_saturation_when_a_pair_does(rows):
    found = reaching(np.array(rows, np.int8), ROWS)
    assert found.tolist() == [saturates(row) for row in rows]


@given(st.integers(0, 2**32 - 1), st.sampled_from([(3, 7), (2, 8), (5, 1)]), st.booleans())
def test_integers_never_saturate_and_channels_that_could_not_keep_theirs(seed, shape, per_channel):
    weight = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    plain = plain_params(weight, 0 if per_channel else None)
    apart = keep_apart(weight, plain, ROWS)
    assert not reaching(quantize(weight, apart), ROWS).any()
    before = np.broadcast_to(plain.scale, shape[:1])
    after = np.broadcast_to(apart.scale, shape[:1])
    # Never more than one bit beyond the room for rounding: S ≤ 2·127 steps are brought to 124.
    assert (after <= before * (2 * 127 / 124) * (1 + 1e-6)).all()
    if per_channel:
        reached = reaching(quantize(weight, plain), ROWS)
        assert (after[~reached] == before[~reached]).all()
        assert (after[reached] > before[reached]).all()


def test_a_convolution_is_read_position_by_position():
    weight = np.zeros((1, 2, 1, 2), np.int8)
    weight[0, :, 0, 0] = 100  # both channels of one position: neighbours for the kernel, not in memory
    assert saturates(kernel_rows(weight, CONVOLUTION)[0].tolist())
    assert not saturates(weight.reshape(-1).tolist())


def test_products_are_read_along_their_inner_axis():
    weight = RNG.integers(-127, 128, (6, 4)).astype(np.int8)
    assert (kernel_rows(weight, COLUMNS) == weight.T).all()
    assert (kernel_rows(weight.T, ROWS) == weight.T).all()


def test_the_two_ways_to_bound_a_pair_agree():
    weight = RNG.integers(-127, 128, (6, 9)).astype(np.int8)
    assert abs(pair_bound(weight).worst) == 255 * pair_sums(weight).max()
    assert pair_bound(weight).channels == reaching(weight, ROWS).sum()


def test_rounding_against_data_does_not_saturate_either():
    weight = RNG.normal(0, 1, (24, 12)).astype(np.float32)
    x = RNG.normal(0, 1, (400, 24)).astype(np.float32) @ RNG.normal(0, 1, (24, 24)).astype(np.float32)
    found = round_layer(
        LayerForm("MatMul", {}, weight.shape), weight, None, INPUT, spec(1), [Pair(x=x, x_hat=x)],
        RoundingOptions(), may_create_bias=False, rules=LayerRules(pairs=COLUMNS),
    )  # fmt: skip
    assert found.variant.startswith("gptq")
    assert not reaching(found.layer.weight, COLUMNS).any()
    free = round_layer(
        LayerForm("MatMul", {}, weight.shape), weight, None, INPUT, spec(1), [Pair(x=x, x_hat=x)],
        RoundingOptions(), may_create_bias=False,
    )  # fmt: skip
    assert reaching(free.layer.weight, COLUMNS).any()


def test_biases_keep_the_scale_of_the_accumulator():
    weight = RNG.normal(0, 1, (4, 8)).astype(np.float32)
    layer = quantize_layer(weight, np.ones(4, np.float32), INPUT, spec(0), LayerRules(pairs=ROWS))
    assert (layer.bias_params.scale == INPUT.scale * layer.weight_params.scale).all()


LAYERS = """g (float[1,6,6,6] x) => (float[1,5] y) {
    a = Conv <pads = [1,1,1,1]> (x, w0)
    b = Relu(a)
    c = Conv <group = 8, pads = [1,1,1,1]> (b, w1)
    d = Relu(c)
    e = GlobalAveragePool(d)
    f = Flatten(e)
    h = MatMul(f, w2)
    y = Add(h, b2)
}"""


def layers() -> tuple[object, dict[str, np.ndarray]]:
    constants = {
        "w0": RNG.normal(0, 0.3, (8, 6, 3, 3)), "w1": RNG.normal(0, 0.3, (8, 1, 3, 3)),
        "w2": RNG.normal(0, 0.3, (8, 5)), "b2": RNG.normal(0, 1, 5),
    }  # fmt: skip
    model = graph(LAYERS, **{name: value.astype(np.float32) for name, value in constants.items()})
    return model, {"x": RNG.normal(0, 1, (1, 6, 6, 6)).astype(np.float32)}


def test_a_model_for_cpus_without_vnni_has_no_layer_that_can_saturate():
    model, feeds = layers()
    plain, spared = (quantize_graph(model, feeds, target=target) for target in ("ort-cpu", "cpu-avx2"))
    risks = [prove_saturation(integer_layers(found.model.view())).risks for found in (plain, spared)]
    assert {risk.node for risk in risks[0]} == {"n0", "n6"}
    assert risks[1] == ()


def test_the_plan_says_which_layers_have_wider_scales_and_why():
    model, feeds = layers()
    found = quantize_graph(model, feeds, target="cpu-avx2")
    noted = with_spared(found.plan, model.view(), found.solution)
    notes = {layer.node: layer.note for layer in noted.layers}
    assert notes["n2"] == ""
    assert "scales are wider, by" in notes["n0"]
    assert "of 32767" in notes["n0"]
    assert "layers keep 8 bits" in spared_notes(noted)[0]
    assert plan_from_json(noted.to_json()) == noted
    assert spared_notes(with_spared(plan_of(model), model.view(), found.solution)) == ()


@pytest.mark.parametrize(
    ("weights", "expected"), [(INT8, {"n0": CONVOLUTION, "n2": "", "n6": COLUMNS}), (INT4, {})]
)
def test_only_kernels_that_add_pairs_are_concerned(weights, expected):
    model, _ = layers()
    plan = plan_of(model, target="cpu-avx2", weight_dtype=weights)
    found = {layer.node: layer.pairs for layer in plan.layers if layer.weight_spec.dtype == weights}
    assert {node: found[node] for node in expected} == expected
    assert {layer.pairs for layer in plan_of(model).layers} == {""}


def test_a_depthwise_convolution_widens_its_products():
    view = layers()[0].view()
    assert [pair_order(view, view.node_by_name[name]) for name in ("n0", "n2", "n6")] == [CONVOLUTION, "", COLUMNS]
