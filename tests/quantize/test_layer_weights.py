"""Integer weights and biases: exact scales, bounded errors, no overflow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantcli.core.affine import dequantize, params_from_range
from quantcli.core.dtypes import INT8, UINT8
from quantcli.core.spec import QuantSpec
from quantcli.quantize.weights import quantize_layer

ACTIVATION = QuantSpec(dtype=UINT8)
PER_CHANNEL = QuantSpec(dtype=INT8, symmetric=True, axis=0, narrow=True)
PER_TENSOR = QuantSpec(dtype=INT8, symmetric=True, narrow=True)
INPUT = params_from_range(-1.0, 3.0, ACTIVATION)

FLOATS = st.floats(-1e3, 1e3, width=32)


@settings(deadline=None, derandomize=True)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=FLOATS))
def test_weights_are_off_by_half_a_step_at_most(weight: np.ndarray) -> None:
    for spec in (PER_CHANNEL, PER_TENSOR):
        found = quantize_layer(weight, None, INPUT, spec)
        step = found.weight_params.scale.reshape(-1, 1)
        error = np.abs(dequantize(found.weight, found.weight_params).astype(np.float64) - weight)
        assert np.all(error <= step * (0.5 + 1e-5) + 1e-12)
        assert found.weight.min() >= -127


@settings(deadline=None, derandomize=True)
@given(
    hnp.arrays(np.float32, (3, 4), elements=FLOATS),
    hnp.arrays(np.float32, (3,), elements=st.floats(-1e6, 1e6, width=32)),
)
def test_the_bias_scale_is_the_product_of_the_scales_and_the_bias_fits(
    weight: np.ndarray, bias: np.ndarray
) -> None:
    found = quantize_layer(weight, bias, INPUT, PER_CHANNEL)
    assert found.bias is not None
    assert found.bias_params is not None
    expected = (INPUT.scale * found.weight_params.scale).astype(np.float32)
    assert np.array_equal(found.bias_params.scale, expected)
    room = 2**31 - 1 - 255 * np.abs(found.weight.astype(np.int64)).sum(axis=1)
    assert np.all(np.abs(found.bias.astype(np.int64)) <= room)
    step = expected.astype(np.float64)
    # Half a step of the accumulator, and float32's own precision of the bias.
    assert np.all(np.abs(found.bias * step - bias) <= step * 0.5 + np.abs(bias) * 2.0**-23)


def test_a_bias_too_large_for_int32_widens_the_scale_of_its_channel_only() -> None:
    weight = np.full((2, 3), 1e-6, np.float32)
    found = quantize_layer(weight, np.array([1e6, 0], np.float32), INPUT, PER_CHANNEL)
    assert found.widened == 1
    assert found.weight_params.scale[0] > found.weight_params.scale[1]


def test_a_channel_without_weights_keeps_its_bias() -> None:
    weight = np.zeros((1, 3), np.float32)
    found = quantize_layer(weight, np.array([0.01], np.float32), INPUT, PER_CHANNEL)
    assert found.bias is not None
    assert found.bias_params is not None
    np.testing.assert_allclose(found.bias * found.bias_params.scale, [0.01], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        quantize_layer(np.array([[value]], np.float32), None, INPUT, PER_CHANNEL)
