"""Scales of channels out of a weight and its rounded, rescaled form; products are known, so the answers are."""

from __future__ import annotations

import numpy as np
import pytest

from quantcli.core.scaling_fit import fit_scaling

RNG = np.random.default_rng(3)
WEIGHT = RNG.normal(size=(1, 6, 12, 9))
ROWS = np.array([[1.0, 2.0, 0.5, 1.5, 3.0, 0.8]])
COLUMNS = np.exp(RNG.normal(size=(1, 12)) / 2)


def rounded(weight, bits=8):
    step = np.abs(weight).max(axis=(2, 3), keepdims=True) / 2 ** (bits - 1)
    step = np.broadcast_to(step, weight.shape)
    return np.rint(weight / step) * step, step


def test_scales_of_rows_and_columns_are_found_up_to_one_factor():
    found, step = rounded(WEIGHT * ROWS[:, :, None, None] * COLUMNS[:, None, :, None])
    fit = fit_scaling(WEIGHT, found, step)
    product = fit.rows[:, :, None] * fit.columns[:, None, :]
    assert product == pytest.approx(ROWS[:, :, None] * COLUMNS[:, None, :], rel=0.02)
    assert float(np.median(fit.columns)) == pytest.approx(1.0, abs=0.1)


def test_columns_that_were_not_scaled_stay_one():
    found, step = rounded(WEIGHT * ROWS[:, :, None, None])
    fit = fit_scaling(WEIGHT, found, step)
    assert (fit.columns == 1).all()
    assert fit.rows == pytest.approx(ROWS, rel=0.01)


def test_what_is_left_is_the_rounding():
    """Rounding to nearest leaves a mean square of 1/12 steps."""
    found, step = rounded(WEIGHT)
    fit = fit_scaling(WEIGHT, found, step)
    assert fit.error.sum() / WEIGHT.size == pytest.approx(1 / 12, rel=0.15)


def test_a_channel_below_the_rounding_is_not_known():
    small = WEIGHT.copy()
    small[0, 2] *= 1e-3
    step = np.full(WEIGHT.shape, np.abs(small).max() / 127)
    fit = fit_scaling(small, np.rint(small / step) * step, step)
    assert fit.rows_known.tolist() == [[True, True, False, True, True, True]]


def test_depthwise_weights_have_row_scales_only():
    weight = RNG.normal(size=(5, 1, 1, 9))
    scales = np.array([1.0, 0.5, 2.0, 4.0, 1.0]).reshape(5, 1)
    fit = fit_scaling(weight, weight * scales[:, :, None, None])
    assert fit.rows == pytest.approx(scales)
    assert (fit.columns == 1).all()
