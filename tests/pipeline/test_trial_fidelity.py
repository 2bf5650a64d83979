"""Fidelity of trial forms: SQNR of the worst output, and how sure a difference is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quantcli.pipeline.trial_fidelity import TrialFidelity, trial_fidelity

RNG = np.random.default_rng(29)


class Fixed:
    """A session that gives prepared outputs."""

    def __init__(self, outputs: list[dict[str, np.ndarray]]) -> None:
        self._outputs = iter(outputs)

    def run(self, _feeds: object, _names: object = None) -> dict[str, np.ndarray]:
        return next(self._outputs)


def outputs(noise: float, count: int = 6) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(1)
    return [
        {
            "fine": generator.normal(0, 1, 20) + 0.1 * noise * RNG.normal(0, 1, 20),
            "coarse": generator.normal(0, 1, 20) + noise * RNG.normal(0, 1, 20),
            "index": np.arange(3),
        }
        for _ in range(count)
    ]


def fidelity(noise: float) -> TrialFidelity:
    reference = outputs(0.0)
    return trial_fidelity(Fixed(outputs(noise)), [{}] * len(reference), reference)


def test_the_worst_float_output_counts() -> None:
    reference, found = outputs(0.0), outputs(0.1)
    measured = trial_fidelity(Fixed(found), [{}] * 6, reference)
    signal = sum(float((entry["coarse"] ** 2).sum()) for entry in reference)
    noise = sum(float(((a["coarse"] - b["coarse"]) ** 2).sum()) for a, b in zip(reference, found, strict=True))
    assert measured.sqnr == pytest.approx(10 * math.log10(signal / noise))


def test_the_standard_error_is_the_jackknifes() -> None:
    a, b = fidelity(0.1), fidelity(0.11)
    gain, error = a.gain_over(b)
    assert gain == pytest.approx(a.sqnr - b.sqnr)
    gains = []
    for left_out in range(6):
        kept = [index for index in range(6) if index != left_out]
        parts = [TrialFidelity(signal=each.signal[:, kept], noise=each.noise[:, kept]) for each in (a, b)]
        gains.append(parts[0].sqnr - parts[1].sqnr)
    assert error == pytest.approx(math.sqrt(5 / 6 * sum((g - np.mean(gains)) ** 2 for g in gains)))


def test_a_form_gains_nothing_over_itself() -> None:
    same = fidelity(0.1)
    assert same.gain_over(same) == (0.0, 0.0)


def test_exact_outputs_have_no_noise() -> None:
    exact = fidelity(0.0)
    assert exact.sqnr == math.inf
    assert exact.gain_over(exact) == (0.0, 0.0)
    assert exact.gain_over(fidelity(0.1)) == (math.inf, 0.0)


def test_a_nan_that_the_float_model_has_not_is_the_worst_fidelity() -> None:
    reference, found = outputs(0.0), outputs(0.1)
    found[2]["fine"][0] = np.nan
    broken = trial_fidelity(Fixed(found), [{}] * 6, reference)
    assert broken.sqnr == -math.inf
    assert broken.gain_over(fidelity(0.1)) == (-math.inf, 0.0)


def test_a_model_without_float_outputs_is_exact() -> None:
    reference = [{"index": np.arange(3)}]
    assert trial_fidelity(Fixed(reference), [{}], reference).sqnr == math.inf


def test_positions_that_do_not_count_are_left_out_of_outputs_with_their_layout() -> None:
    mask = np.array([[True, True, False]])
    reference = {"tokens": np.ones((1, 3, 2)), "whole": np.ones((1, 4))}
    found = {"tokens": np.array([[[1.0, 1.0], [1.0, 1.5], [9.0, 9.0]]]), "whole": np.full((1, 4), 1.5)}
    measured = trial_fidelity(Fixed([found]), [{}], [reference], [mask])
    assert measured.signal.tolist() == [[4.0], [4.0]]
    assert measured.noise.tolist() == [[0.25], [1.0]]
    assert measured.outputs == pytest.approx([10 * math.log10(16), 10 * math.log10(4)])
