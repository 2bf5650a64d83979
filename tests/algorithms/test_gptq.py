"""GPTQ against the published algorithm written down in float64, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.algorithms.gptq import gptq


def published(weight: np.ndarray, scale: np.ndarray, second: np.ndarray, damp: float, qmax: int) -> np.ndarray:
    """Frantar et al. 2022, algorithm 1, without blocks: (O, K) weights, (O, K) scales."""
    weight = weight.astype(np.float64).copy()
    order = np.argsort(-np.diag(second), kind="stable")
    matrix = second[np.ix_(order, order)] + damp * np.diag(second).mean() * np.eye(len(second))
    upper = np.linalg.cholesky(np.linalg.inv(matrix)).T
    weight, scale = weight[:, order], scale[:, order]
    integers = np.empty(weight.shape)
    for j in range(weight.shape[1]):
        integers[:, j] = np.clip(np.rint(weight[:, j] / scale[:, j]), -qmax, qmax)
        error = (weight[:, j] - scale[:, j] * integers[:, j]) / upper[j, j]
        weight[:, j + 1 :] -= np.outer(error, upper[j, j + 1 :])
    back = np.empty_like(integers)
    back[:, order] = integers
    return back


def correlated(rng: np.random.Generator, groups: int, inputs: int, rank: int) -> np.ndarray:
    """Second moments of inputs that share ``rank`` sources."""
    mix = rng.normal(size=(groups, inputs, rank)) * rng.lognormal(size=(groups, inputs, 1))
    return mix @ mix.transpose(0, 2, 1) / rank


def nearest(matrices: np.ndarray, scale: np.ndarray, qmax: int) -> np.ndarray:
    return np.clip(np.rint(matrices / scale[:, :, None]), -qmax, qmax).astype(np.int32)


def loss(matrices: np.ndarray, scale: np.ndarray, integers: np.ndarray, second: np.ndarray) -> float:
    error = matrices - scale[:, :, None].astype(np.float64) * integers
    return float(np.einsum("gok,gkl,gol->", error, second, error))


@pytest.mark.parametrize("qmax", [127, 7])
@pytest.mark.parametrize(("groups", "outputs", "inputs"), [(1, 6, 70), (3, 4, 33), (20, 1, 9), (1, 1, 1)])
def test_the_integers_are_those_of_the_published_algorithm(
    groups: int, outputs: int, inputs: int, qmax: int
) -> None:
    rng = np.random.default_rng(groups)
    matrices = rng.normal(size=(groups, outputs, inputs)).astype(np.float32)
    # Scales so small that large weights are clipped: their errors have to be made up for as well.
    scale = (np.abs(matrices).max(axis=2) / qmax * 0.8).astype(np.float32)
    second = correlated(rng, groups, inputs, 2 * inputs)
    found = gptq(matrices, scale, second, 0.01, -qmax, qmax)
    full = np.broadcast_to(scale[:, :, None].astype(np.float64), matrices.shape)
    expected = np.stack([published(matrices[g], full[g], second[g], 0.01, qmax) for g in range(groups)])
    # A target within float32's rounding of a half may go either way, and the columns behind follow it.
    assert (found != expected).mean() < 0.01


def test_blocks_of_inputs_may_have_scales_of_their_own() -> None:
    rng = np.random.default_rng(8)
    matrices = rng.normal(size=(1, 5, 64)).astype(np.float32)
    blocks = np.abs(matrices).reshape(1, 5, 4, 16).max(axis=3) / 7
    scale = np.repeat(blocks, 16, axis=2).astype(np.float32)
    second = correlated(rng, 1, 64, 80)
    found = gptq(matrices, scale, second, 0.01, -7, 7)
    assert (found[0] != published(matrices[0], scale[0].astype(np.float64), second[0], 0.01, 7)).mean() < 0.01


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 8), st.integers(1, 80), st.sampled_from([7, 127]))
def test_integers_stay_inside_and_inputs_without_correlation_are_rounded_to_nearest(
    seed: int, groups: int, outputs: int, inputs: int, qmax: int
) -> None:
    rng = np.random.default_rng(seed)
    matrices = rng.normal(size=(groups, outputs, inputs)).astype(np.float32)
    scale = (np.abs(matrices).max(axis=2) / qmax).astype(np.float32)
    diagonal = np.zeros((groups, inputs, inputs))
    diagonal[:, range(inputs), range(inputs)] = rng.lognormal(size=(groups, inputs))
    assert np.array_equal(gptq(matrices, scale, diagonal, 0.01, -qmax, qmax), nearest(matrices, scale, qmax))
    found = gptq(matrices, scale, correlated(rng, groups, inputs, inputs), 0.01, -qmax, qmax)
    assert np.abs(found).max() <= qmax


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_on_correlated_inputs_is_far_below_that_of_rounding_to_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrices = rng.normal(size=(1, 16, 96)).astype(np.float32)
    scale = (np.abs(matrices).max(axis=2) / 127).astype(np.float32)
    second = correlated(rng, 1, 96, 24)
    found = gptq(matrices, scale, second, 0.01, -127, 127)
    plain = nearest(matrices, scale, 127)
    assert loss(matrices, scale, found, second) < 0.5 * loss(matrices, scale, plain, second)


@pytest.mark.parametrize("damp", [0.0, 0.01])
def test_dead_inputs_dead_groups_and_lacking_rank_do_no_harm(damp: float) -> None:
    rng = np.random.default_rng(1)
    matrices = rng.normal(size=(3, 4, 40)).astype(np.float32)
    scale = (np.abs(matrices).max(axis=2) / 127).astype(np.float32)
    second = correlated(rng, 3, 40, 3)
    second[0, 5], second[0, :, 5] = 0, 0
    second[2] = 0
    found = gptq(matrices, scale, second, damp, -127, 127)
    plain = nearest(matrices, scale, 127)
    assert np.array_equal(found[2], plain[2])
    assert np.array_equal(found[0, :, 5], plain[0, :, 5])
    assert loss(matrices, scale, found, second) < loss(matrices, scale, plain, second)


def test_a_second_moment_that_is_not_quite_semidefinite_is_damped_until_it_is() -> None:
    second = np.array([[[1.0, 1 + 1e-9], [1 + 1e-9, 1.0]]])
    found = gptq(np.array([[[0.4, 0.4]]], np.float32), np.ones((1, 1), np.float32), second, 0.0, -127, 127)
    # Only the sum of the two weights matters, and 0.8 is nearer to 1.
    assert found.sum() == 1


def test_a_matrix_that_is_no_second_moment_is_refused() -> None:
    second = np.array([[[1.0, 100.0], [100.0, 1.0]]])
    with pytest.raises(np.linalg.LinAlgError):
        gptq(np.ones((1, 1, 2), np.float32), np.ones((1, 1), np.float32), second, 0.0, -127, 127)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_second_moment_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        gptq(np.ones((1, 1, 1), np.float32), np.ones((1, 1), np.float32), np.full((1, 1, 1), value), 0, -7, 7)
