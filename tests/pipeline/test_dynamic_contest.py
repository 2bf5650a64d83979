"""Which use of samples wins: made-up sums of squares in the place of models."""

from __future__ import annotations

import numpy as np
import pytest

from quantcli.algorithms.effort import EFFORTS
from quantcli.graph.model import OnnxModel
from quantcli.pipeline.dynamic_contest import AS_WITHOUT, Judged, Way, best_way, told, ways
from quantcli.pipeline.trial_fidelity import TrialFidelity
from quantcli.progress import SilentProgress

USUAL, FITTED, BALANCED = Way(alpha=0.5, fitted=True), Way(alpha=0.0, fitted=True), Way(alpha=0.5, fitted=False)
JUDGES = 8


def reached(*outputs: float) -> Judged:
    """So many dB of each output, on every sample alike."""
    noise = 10 ** (-np.array(outputs)[:, None] / 10) * np.ones((1, JUDGES))
    found = TrialFidelity(signal=np.ones((len(outputs), JUDGES)), noise=noise)
    return Judged(whole=found, counting=found)


def choose(results: dict[Way, Judged], *, tried: tuple[Way, ...] = (USUAL, FITTED, BALANCED, AS_WITHOUT)) -> Way:
    asked: list[Way] = []

    def model_of(way: Way) -> OnnxModel | None:
        asked.append(way)
        return object() if way in results else None  # type: ignore[return-value]

    return best_way(tried, model_of, lambda _: results[asked[-1]], SilentProgress())


def test_an_output_that_becomes_worse_rules_a_way_out_however_much_another_gains() -> None:
    results = {AS_WITHOUT: reached(16, 18), USUAL: reached(15.8, 30), FITTED: reached(17, 18)}
    assert choose(results) == FITTED


def test_without_a_way_that_helps_nothing_is_made_of_the_samples() -> None:
    results = {AS_WITHOUT: reached(16, 18), USUAL: reached(15, 30), BALANCED: reached(7, 24)}
    assert choose(results) == AS_WITHOUT


def test_the_best_worst_output_wins_and_the_usual_way_on_a_tie() -> None:
    plain = {AS_WITHOUT: reached(16, 18)}
    assert choose(plain | {USUAL: reached(17, 30), FITTED: reached(18, 19)}) == FITTED
    assert choose(plain | {USUAL: reached(18, 30), FITTED: reached(18.05, 40)}) == USUAL


def test_a_gain_that_the_samples_cannot_tell_from_chance_is_none() -> None:
    # Of eight samples one gains 10 dB and the others lose 0.5: the jackknife's error is as large as the gain.
    noise = np.full((1, JUDGES), 0.01 * 10**0.05)
    noise[0, 0] = 0.001
    plain = TrialFidelity(signal=np.ones((1, JUDGES)), noise=np.full((1, JUDGES), 0.01))
    lucky = TrialFidelity(signal=np.ones((1, JUDGES)), noise=noise)
    gain, error = lucky.gain_over(plain)
    assert error > 0
    chosen = choose(
        {AS_WITHOUT: Judged(whole=plain, counting=plain), USUAL: Judged(whole=lucky, counting=lucky)},
        tried=(USUAL, AS_WITHOUT),
    )
    assert (chosen == USUAL) == (gain > max(0.3, 1.64 * error))
    assert chosen == AS_WITHOUT


def test_padding_may_not_become_worse_but_what_counts_decides() -> None:
    def part(whole: float, counting: float) -> Judged:
        return Judged(whole=reached(whole).whole, counting=reached(counting).counting)

    plain = {AS_WITHOUT: part(15, 17)}
    assert choose(plain | {USUAL: part(7, 24), FITTED: part(16, 18)}) == FITTED
    assert choose(plain | {USUAL: part(15, 19), FITTED: part(18, 18)}) == USUAL


def test_a_way_that_gains_much_is_not_held_against_half_of_itself() -> None:
    results = {AS_WITHOUT: reached(16), USUAL: reached(20)}
    asked: list[Way] = []

    def model_of(way: Way) -> OnnxModel | None:
        asked.append(way)
        return object()  # type: ignore[return-value]

    best_way((USUAL, FITTED, BALANCED, AS_WITHOUT), model_of, lambda _: results[asked[-1]], SilentProgress())
    assert asked == [AS_WITHOUT, USUAL]


@pytest.mark.parametrize(
    ("effort", "fit", "expected"),
    [
        ("fast", False, (Way(alpha=0.4, fitted=False), AS_WITHOUT)),
        ("balanced", True, (USUAL, FITTED, BALANCED, AS_WITHOUT)),
        ("balanced", False, (BALANCED, AS_WITHOUT)),
    ],
)
def test_an_effort_tries_its_strengths_with_and_without_fitting(
    effort: str, fit: bool, expected: tuple[Way, ...]
) -> None:
    assert ways(EFFORTS[effort], fit=fit) == expected


def test_what_is_left_out_is_told() -> None:
    assert told(AS_WITHOUT, fit=True).startswith("channels are not balanced and weights are rounded to nearest:")
    assert told(BALANCED, fit=True).startswith("weights are rounded to nearest:")
    assert told(AS_WITHOUT, fit=False).startswith("channels are not balanced:")
    assert "strength 0.3" in told(Way(alpha=0.3, fitted=True), fit=True)
