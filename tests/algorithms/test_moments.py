"""Moments against numpy on all rows at once, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from quantcli.algorithms.moments import MomentSums

# Products of float32 rows around their mean, summed over n rows: each has a relative error of 2^-24 per operation.
RTOL = 600 * 2.0**-24


@pytest.mark.parametrize(("groups", "inputs"), [(1, 40), (3, 33), (5, 9)])
def test_moments_of_parts_are_those_of_the_whole(groups: int, inputs: int) -> None:
    rng = np.random.default_rng(groups)
    x = rng.normal(100, 1, (groups, 1500, inputs)).astype(np.float32)
    x_hat = (x + rng.normal(0.5, 0.1, x.shape)).astype(np.float32)
    sums = MomentSums(groups, inputs)
    for start in (0, 7, 700):
        end = {0: 7, 7: 700, 700: 1500}[start]
        sums.add(x[:, start:end], x_hat[:, start:end])
    found = sums.moments()
    exact = x_hat.astype(np.float64)
    centred = exact - exact.mean(axis=1, keepdims=True)
    second = centred.transpose(0, 2, 1) @ centred / 1500
    about_zero = exact.transpose(0, 2, 1) @ exact / 1500
    assert found.rows == 1500
    np.testing.assert_allclose(found.about_zero, about_zero, rtol=RTOL)
    np.testing.assert_allclose(found.mean, x.mean(axis=1, dtype=np.float64), rtol=1e-12)
    # The rows around the mean are rounded to float32 once.
    np.testing.assert_allclose(
        found.mean_hat, exact.mean(axis=1), atol=2.0**-24 * np.abs(centred).max(), rtol=1e-12
    )
    np.testing.assert_allclose(found.second, second, atol=RTOL * second.max())


def test_the_second_moment_is_symmetric() -> None:
    x = np.random.default_rng(0).normal(size=(2, 700, 50)).astype(np.float32)
    sums = MomentSums(2, 50)
    sums.add(x, x)
    second = sums.moments().second
    assert np.array_equal(second, second.transpose(0, 2, 1))


def test_an_input_that_never_changes_has_no_second_moment() -> None:
    x = np.random.default_rng(0).normal(size=(1, 70, 3)).astype(np.float32)
    x[:, :, 1] = 1e4
    sums = MomentSums(1, 3)
    sums.add(x, x)
    assert np.array_equal(sums.moments().second[0, 1], np.zeros(3))


def test_no_rows_have_no_moments() -> None:
    sums = MomentSums(1, 3)
    sums.add(np.zeros((1, 0, 3), np.float32), np.zeros((1, 0, 3), np.float32))
    with pytest.raises(ValueError, match="at least one row"):
        sums.moments()
