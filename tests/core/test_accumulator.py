from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.core import accumulator, histogram
from quantcli.core.accumulator import Accumulator, Slot
from quantcli.core.stats import DECAY, TensorStats

GAP = np.full(1, np.nan, np.float32)

Sample = Sequence[np.ndarray]
"""One array per tensor."""


def feed(target: Accumulator, batch: Sequence[Sample], strides: Sequence[int]) -> None:
    """What a graph would hand over for a batch of samples whose tensors have equal shapes."""
    sampled = [[array[::stride] for array, stride in zip(s, strides, strict=True)] for s in batch]
    target.add(
        np.array([[a.min(initial=np.inf) for a in s] for s in batch], np.float32),
        np.array([[a.max(initial=-np.inf) for a in s] for s in batch], np.float32),
        np.array([np.concatenate([x for a in s for x in (a, GAP)]) for s in sampled], np.float32),
        np.array([a.size for a in sampled[0]]),
    )


def by_definition(samples: Sequence[np.ndarray], stride: int) -> TensorStats:
    """Statistics of one tensor, sample by sample."""
    everything = np.concatenate([np.zeros(0, np.float32), *samples])
    sampled = np.concatenate([np.zeros(0, np.float32), *(a[::stride] for a in samples)])
    low, high, n, amplitudes = 0.0, 0.0, 0, 0.0
    for array in samples:
        if array.size:
            low = low * DECAY + float(array.min()) * (1 - DECAY)
            high = high * DECAY + float(array.max()) * (1 - DECAY)
            amplitudes += float(np.abs(array).max())
            n += 1
    if not everything.size:
        return TensorStats()
    lo, hi = float(everything.min()), float(everything.max())
    return TensorStats(
        samples=n,
        minimum=lo,
        maximum=hi,
        histogram=histogram.of(sampled, weight=stride, minimum=lo, maximum=hi),
        average=accumulator.MovingRange(samples=n, low=low, high=high),
        amplitudes=amplitudes,
    )


def check(samples: Sequence[Sample], strides: Sequence[int], batch: int = 1) -> None:
    target = Accumulator([Slot(stride=stride) for stride in strides])
    for start in range(0, len(samples), batch):
        feed(target, samples[start : start + batch], strides)
    for index, found in enumerate(target.results()):
        assert found == by_definition([s[index] for s in samples], strides[index])


ARRAYS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=7).map(
    lambda values: np.array(values, np.float32)
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(st.tuples(ARRAYS, ARRAYS), max_size=5), st.integers(1, 3))
def test_results_equal_the_definition(samples: list[Sample], stride: int) -> None:
    check(samples, [stride, 1])


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batches_do_not_show(batch: int) -> None:
    rng = np.random.default_rng(batch)
    check(
        [
            [(rng.normal(size=300) * 10 ** (i % 3)).astype(np.float32), rng.random(7).astype(np.float32)]
            for i in range(20)
        ],
        [3, 1],
        batch,
    )


def test_flushing_in_between_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accumulator, "FLUSH_VALUES", 64)
    rng = np.random.default_rng(0)
    check([[(rng.normal(size=50) * (1 + i) ** 3).astype(np.float32)] for i in range(40)], [2])


def test_a_range_that_grows_a_thousandfold_keeps_every_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accumulator, "FLUSH_VALUES", 1)
    rng = np.random.default_rng(0)
    check([[(rng.normal(size=50) * 10.0**i - 5).astype(np.float32)] for i in range(-6, 9)], [1])


def test_lengths_may_change_from_sample_to_sample() -> None:
    rng = np.random.default_rng(0)
    check([[rng.random(n).astype(np.float32), rng.random(9 - n).astype(np.float32)] for n in range(10)], [1, 2])


def test_tiny_negative_values_next_to_huge_ones_stay_below_zero() -> None:
    check([[np.array([-1e-40, 1e30], np.float32)], [np.array([1e-40, 3.0], np.float32)]], [1])


def test_a_tensor_without_elements_has_no_statistics() -> None:
    target = Accumulator([Slot()])
    feed(target, [[np.zeros(0, np.float32)]], [1])
    assert target.results() == (TensorStats(),)


def test_samples_that_are_passed_over_leave_only_a_count() -> None:
    target, clean = Accumulator([Slot(), Slot()]), Accumulator([Slot(), Slot()])
    lengths = np.array([2, 1])
    one = (np.float32([[1, 5]]), np.float32([[2, 5]]), np.float32([[1, 2, 0, 5, 0]]), lengths)
    target.add(*one)
    clean.add(*one)
    target.add(
        np.float32([[np.nan, 7]]),
        np.float32([[np.nan, 7]]),
        np.float32([[3e38, np.inf, np.nan, 7, np.nan]]),
        lengths,
    )
    clean.add(np.float32([[np.inf, 7]]), np.float32([[-np.inf, 7]]), np.float32([[0, 7, 0]]), np.array([0, 1]))
    first, second = target.results()
    assert first.nonfinite == 1
    assert (first.samples, first.maximum, first.histogram) == (1, 2, clean.results()[0].histogram)
    assert second == clean.results()[1]


def test_channels_keep_their_extremes() -> None:
    target = Accumulator([Slot(channel_axis=1, channels=2), Slot(), Slot(channel_axis=0, channels=1)])
    target.add_channels(np.float32([0, 1, 2]), np.float32([3, 4, 5]))
    target.add_channels(np.float32([1, -1, np.nan]), np.float32([1, 9, np.nan]))
    first, second, third = target.results()
    assert first.channel_minimum is not None
    assert third.channel_maximum is not None
    assert first.channel_minimum.tolist() == [0, -1]
    assert third.channel_maximum.tolist() == [5]
    assert second.channel_minimum is None
    assert (first.channel_axis, third.channel_axis) == (1, 0)
