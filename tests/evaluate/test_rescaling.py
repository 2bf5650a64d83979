import numpy as np
import pytest

from quantcli.evaluate.rescaling import find_rescaling

RNG = np.random.default_rng(0)


def rounded(weight):
    """int8 per row, back in float."""
    step = np.abs(weight).reshape(len(weight), -1).max(axis=1).reshape(-1, *[1] * (weight.ndim - 1)) / 127
    return np.rint(weight / step) * step


@pytest.mark.parametrize("shape", [(64, 32), (16, 8, 3, 3)])
def test_a_weight_that_is_only_rounded_has_no_factors(shape):
    weight = RNG.normal(size=shape)
    found = find_rescaling(weight, rounded(weight), 1, integers=False)
    assert not found.scaled
    np.testing.assert_array_equal(found.apply(weight), weight)


@pytest.mark.parametrize(("rows", "columns"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("shape", [(64, 32), (16, 8, 3, 3)])
def test_factors_of_rows_and_columns_are_found(shape, rows, columns):
    weight = RNG.normal(size=shape)
    a = RNG.uniform(0.5, 2, shape[0]) if rows else np.ones(shape[0])
    b = RNG.uniform(0.5, 2, shape[1]) if columns else np.ones(shape[1])
    scaled = weight * a.reshape(-1, 1, *[1] * (len(shape) - 2)) * b.reshape(1, -1, *[1] * (len(shape) - 2))
    found = find_rescaling(weight, rounded(scaled), 1, integers=False)
    assert found.scaled
    assert found.ambiguous is (rows and columns)
    error = found.apply(weight) - scaled
    # the fit follows the noise in p of n directions: it keeps p/n of the noise of rounding
    noise = rounded(scaled) - scaled
    parameters = shape[0] * rows + shape[1] * columns
    assert np.sum(error**2) < 3 * parameters / weight.size * np.sum(noise**2)


def test_groups_have_factors_of_their_own():
    weight = RNG.normal(size=(6, 4, 3, 3))
    b = RNG.uniform(0.5, 2, (2, 4))
    scaled = weight * np.repeat(b, 3, axis=0)[:, :, None, None]
    found = find_rescaling(weight, rounded(scaled), 2, integers=False)
    np.testing.assert_allclose(found.columns / found.columns[0, 0], b / b[0, 0], rtol=0.02)


def test_the_bias_tells_which_of_two_equal_scalings_is_meant():
    weight, bias = RNG.normal(size=(32, 16)), RNG.normal(size=32)
    a, b = RNG.uniform(0.5, 2, 32), RNG.uniform(0.5, 2, 16)
    found = find_rescaling(weight, rounded(weight * a[:, None] * b), 1, integers=False)
    np.testing.assert_allclose(found.bias_factor(bias, a * bias), a, rtol=0.02)


def test_weights_in_steps_have_one_common_factor():
    weight = RNG.normal(size=(32, 16))
    step = np.abs(weight).max() / 127
    found = find_rescaling(weight, np.rint(weight / step), 1, integers=True)
    assert not found.scaled
    np.testing.assert_allclose(found.rows, 1 / step, rtol=1e-3)


def test_a_weight_that_is_twice_what_it_should_be_is_not_taken_for_equalized():
    weight = RNG.normal(size=(32, 16))
    found = find_rescaling(weight, rounded(2 * weight), 1, integers=False)
    assert not found.scaled
    np.testing.assert_array_equal(found.apply(weight), weight)


def test_rows_of_zeros_have_no_factor():
    weight = RNG.normal(size=(4, 16))
    weight[1] = 0
    found = find_rescaling(weight, rounded(np.where(weight == 0, 1e-9, weight)) * 0 + weight, 1, integers=False)
    assert np.isfinite(found.rows).all()


@pytest.mark.parametrize("shape", [(4, 6), (8, 3), (6, 4, 1, 1), (10, 1, 3, 3)])
def test_small_weights_seldom_seem_scaled(shape):
    """By chance a richer model fits better; three standard errors let that pass once in hundreds of times."""
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=shape) for _ in range(200)]
    groups = shape[0] if len(shape) == 4 and shape[1] == 1 else 1
    assert sum(find_rescaling(w, rounded(w), groups, integers=False).scaled for w in weights) <= 2
