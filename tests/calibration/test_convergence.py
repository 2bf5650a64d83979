from __future__ import annotations

import numpy as np
import pytest

from quantcli.calibration.convergence import (
    FEWEST,
    MARKS,
    HistoryRecorder,
    RangeHistory,
    Verdict,
    assess,
)


def recorded(maxima: np.ndarray, batch: int = 1) -> RangeHistory:
    """History of samples whose tensors have minimum 0 and the given maxima (samples, T)."""
    recorder = HistoryRecorder(maxima.shape[1])
    for at in range(0, len(maxima), batch):
        part = maxima[at : at + batch].astype(np.float32)
        recorder.add(np.zeros_like(part), part)
    return recorder.history()


def test_ranges_that_stand_still_have_converged() -> None:
    found = assess(recorded(np.ones((100, 3))), "abc")
    assert (found.verdict, found.moved, found.worst) == (Verdict.CONVERGED, 0, ())
    assert "have settled" in found.sentence()


def test_ranges_that_grow_steadily_have_not() -> None:
    growing = np.arange(1, 101)[:, None] * np.ones((1, 2))
    found = assess(recorded(growing), ["b", "a"])
    assert found.verdict is Verdict.MOVING
    # 100 samples: marks at even numbers, the last at or below 75 is 74.
    assert (found.samples, found.compared) == (100, 74)
    assert found.moved == pytest.approx(0.26)
    assert found.worst == (("a", pytest.approx(0.26)), ("b", pytest.approx(0.26)))
    assert (
        found.sentence()
        == "more samples are needed: ranges moved by 26.00% on average over the last 26 of 100 samples"
    )


def test_one_jumping_tensor_among_many_is_named_but_does_not_decide() -> None:
    maxima = np.ones((64, 100))
    maxima[-1, 41] = 1.25
    found = assess(recorded(maxima), [f"t{i}" for i in range(100)])
    assert found.verdict is Verdict.CONVERGED
    assert found.moved == pytest.approx(0.002)
    assert found.worst == (("t41", pytest.approx(0.2)),)


def test_few_samples_tell_nothing() -> None:
    found = assess(recorded(np.ones((FEWEST - 1, 1))), ["a"])
    assert found.verdict is Verdict.TOO_FEW
    assert "too few" in found.sentence()


def test_marks_stay_few_and_evenly_spaced_whatever_the_batch() -> None:
    maxima = np.random.default_rng(0).random((1000, 2))
    first = recorded(maxima)
    assert MARKS / 2 <= first.samples.size <= MARKS + 1
    assert first.samples[-1] == 1000
    assert (np.diff(first.samples[:-1]) == first.samples[0]).all()
    assert first == recorded(maxima, batch=7)
    np.testing.assert_array_equal(first.maximum, np.float32([maxima[:n].max(axis=0) for n in first.samples]))


def test_tensors_not_seen_do_not_move() -> None:
    recorder = HistoryRecorder(2)
    for _ in range(20):
        recorder.add(np.float32([[np.inf, np.nan]]), np.float32([[-np.inf, np.nan]]))
    assert assess(recorder.history(), "ab").moved == 0


def test_a_model_without_tensors_has_converged() -> None:
    assert assess(recorded(np.ones((20, 0))), ()).verdict is Verdict.CONVERGED


def test_histories_follow_each_other() -> None:
    maxima = np.random.default_rng(0).random((60, 3))
    whole, parts = recorded(maxima), [recorded(maxima[:40]), recorded(maxima[40:])]
    joined = parts[0].followed_by(parts[1])
    assert joined == whole


def test_joined_histories_stay_short() -> None:
    history = recorded(np.random.default_rng(0).random((64, 1)))
    joined = history.followed_by(history).followed_by(history)
    assert joined.samples.size <= MARKS
    assert joined.samples[-1] == 192
    assert len({joined, history, history.followed_by(history)}) == 3


@pytest.mark.parametrize(
    ("samples", "shape", "message"),
    [([], (0, 1), "at least one mark"), ([3, 2], (2, 1), "in order"), ([1], (2, 1), "one range per mark")],
)
def test_impossible_histories_are_refused(samples: list[int], shape: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RangeHistory(samples=np.array(samples), minimum=np.zeros(shape), maximum=np.zeros(shape))
