"""Figures of parts: sums of known vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quantcli.algorithms.part_noise import PartNoise, lost_parts, make_seeds

RNG = np.random.default_rng(0)
SAMPLES, SIZE = 4000, 3


def noise(*errors: np.ndarray, signal: float = 1e4) -> PartNoise:
    """Of parts with the given error vectors (samples, size); two samples share a seed."""
    total = sum(errors)
    signs = make_seeds(SAMPLES, (SIZE,))[np.arange(SAMPLES) // 2]
    return PartNoise(
        output="y",
        signal=signal,
        error=float((total**2).sum()),
        keys=tuple(f"p{i}" for i in range(len(errors))),
        along=np.stack([(total * error).sum(axis=1) for error in errors], axis=1),
        seeds=np.stack([(signs * error).sum(axis=1) for error in errors], axis=1),
        linear=len(errors),
    )


def random() -> np.ndarray:
    return RNG.normal(0, 1, (SAMPLES, SIZE))


def test_shares_add_up_to_the_error():
    a, b = random(), 2 * random()
    assert noise(a, b).total() == pytest.approx(((a + b) ** 2).sum() / 1e4)


def test_what_is_left_is_the_error_of_the_other_parts():
    """The seeds' estimate of ‖e‖² has a deviation of √(2/samples), 2 %."""
    a, b = random(), random()
    found = noise(a, b)
    assert found.left(("p0",)) == pytest.approx((b**2).sum() / 1e4, rel=0.1)
    assert found.left(()) == pytest.approx(((a + b) ** 2).sum() / 1e4)


def test_a_part_that_makes_up_for_another_has_nothing_to_remove():
    a = random()
    found = noise(a, -0.9 * a)
    assert found.removed(("p1",)) < 0
    assert found.left(("p1",)) == pytest.approx((a**2).sum() / 1e4, rel=0.1)


def test_prediction_never_leaves_less_than_a_thousandth():
    a = random()
    found = noise(a)
    assert found.left(("p0",)) == pytest.approx(1e-3 * found.left(()))


def test_an_output_of_zeros_has_no_ratio():
    assert noise(random(), signal=0.0).left(()) == math.inf


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_the_share_of_an_error_that_is_the_same_for_all_samples(share):
    """2 000 pairs: a deviation of about 1/√2000, 2 %."""
    found = noise(math.sqrt(1 - share) * random() + np.full(SIZE, math.sqrt(share)))
    assert found.constant_share(("p0",)) == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize(("shape", "deviation"), [((1, 5), 1e-5), ((1, 3, 200), 0.3)])
def test_seeds_see_every_error_at_its_size(shape, deviation):
    """A turn of an orthonormal basis is exact; of signs, the mean of 600 squares deviates by √(2/600), 6 %."""
    seeds = make_seeds(1200, shape).reshape(600, -1)
    error = RNG.normal(0, 1, seeds.shape[1])
    assert np.square(seeds @ error).mean() == pytest.approx(float(error @ error), rel=deviation)


def test_a_tensor_that_is_rounded_later_instead_is_not_lost():
    before = {"tensor:a": "a", "tensor:b": "b", "weight:n": ""}
    assert lost_parts(before, {"tensor:pool": "a"}) == ("tensor:b", "weight:n")
