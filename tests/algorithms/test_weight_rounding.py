"""Rounding a weight in blocks against the inputs of its layer."""

from __future__ import annotations

import numpy as np
import pytest

from quantcli.algorithms.gptq import gptq
from quantcli.algorithms.layer_form import LayerForm
from quantcli.algorithms.samples import Pair
from quantcli.algorithms.weight_rounding import round_weight
from quantcli.core.affine import dequantize
from quantcli.core.dtypes import INT4
from quantcli.core.spec import QuantSpec
from quantcli.quantize.weight_grid import grid_params, round_to_grid

RNG = np.random.default_rng(11)
K, N = 64, 24
WEIGHT = RNG.normal(0, 1, (K, N)).astype(np.float32)
FORM = LayerForm("MatMul", {}, (K, N))


def inputs(count: int) -> list[Pair]:
    """Samples of inputs that are correlated, as those of real layers are."""
    mix = RNG.normal(0, 1, (K, K)).astype(np.float32)
    found = [RNG.normal(0, 1, (40, 8)).astype(np.float32) @ mix[:8] for _ in range(count)]
    return [Pair(x=x, x_hat=x) for x in found]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("block", [16, 24])
def test_correlated_inputs_make_the_error_of_the_output_smaller(symmetric, block) -> None:
    params = grid_params(WEIGHT, QuantSpec(dtype=INT4, symmetric=symmetric, axis=0, block=block))
    pairs = inputs(12)
    found = round_weight(FORM, WEIGHT, params, pairs[:8], rows=1000, damp=0.01)
    assert found.variant == "gptq"
    assert found.integers.min() >= -8
    assert found.integers.max() <= 7

    def error(integers: np.ndarray) -> float:
        difference = dequantize(integers, params).astype(np.float64) - WEIGHT
        return sum(float(np.square(pair.x @ difference).sum()) for pair in pairs[8:])

    assert error(found.integers) < error(round_to_grid(WEIGHT, params)) / 4


def test_inputs_without_correlation_are_rounded_to_nearest() -> None:
    params = grid_params(WEIGHT, QuantSpec(dtype=INT4, axis=0, block=16))
    scale = np.repeat(params.scale.T, 16, axis=1)[None]
    zero = np.repeat(params.zero_point.T, 16, axis=1)[None].astype(np.float32)
    identity = np.eye(K)[None]
    steps = gptq(WEIGHT.T[None], scale, identity, 0.0, -8 - zero, 7 - zero)
    np.testing.assert_array_equal((steps + zero)[0].T, round_to_grid(WEIGHT, params))


def test_without_samples_to_judge_by_rounding_is_to_nearest() -> None:
    params = grid_params(WEIGHT, QuantSpec(dtype=INT4, axis=0, block=16))
    found = round_weight(FORM, WEIGHT, params, [], rows=1000, damp=0.01)
    assert found.variant == "nearest"
    np.testing.assert_array_equal(found.integers, round_to_grid(WEIGHT, params))


def test_large_weights_are_rounded_in_parts_to_the_same_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in (
        QuantSpec(dtype=INT4, axis=0, block=24),
        QuantSpec(dtype=INT4, axis=1, block=16),
        QuantSpec(dtype=INT4, axis=0),
        QuantSpec(dtype=INT4, axis=1),
        QuantSpec(dtype=INT4),
    ):
        params = grid_params(WEIGHT, spec)
        whole = round_to_grid(WEIGHT, params)
        with monkeypatch.context() as patch:
            patch.setattr("quantcli.quantize.weight_grid._PART_VALUES", 100)
            np.testing.assert_array_equal(round_to_grid(WEIGHT, params), whole)
