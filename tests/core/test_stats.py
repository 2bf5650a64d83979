from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.core import histogram, stats
from quantcli.core.stats import DECAY, MovingRange, TensorStats


def f32(values: object) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def observed(samples: list[list[float]], *, channels: bool = False) -> TensorStats:
    """Statistics by the definitions, sample by sample and without any cleverness."""
    arrays = [f32(sample) for sample in samples if sample]
    low = high = 0.0
    for array in arrays:
        low = low * DECAY + (1 - DECAY) * float(array.min())
        high = high * DECAY + (1 - DECAY) * float(array.max())
    everything = f32([value for sample in samples for value in sample])
    return TensorStats(
        samples=len(arrays),
        minimum=float(everything.min(initial=np.inf)),
        maximum=float(everything.max(initial=-np.inf)),
        histogram=histogram.of(everything),
        average=MovingRange(samples=len(arrays), low=low, high=high),
        amplitudes=math.fsum(float(np.abs(array).max()) for array in arrays),
        channel_axis=1 if channels else None,
        channel_minimum=everything[:1] if channels else None,
        channel_maximum=everything[:1] if channels else None,
    )


VALUES = st.floats(min_value=-1e6, max_value=1e6, width=32)
SAMPLES = st.lists(st.lists(VALUES, max_size=5), max_size=6)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(SAMPLES, SAMPLES)
def test_merging_equals_observing_one_after_the_other(a: list[list[float]], b: list[list[float]]) -> None:
    merged = stats.merge(observed(a), observed(b))
    together = observed(a + b)
    assert (merged.samples, merged.minimum, merged.maximum) == (
        together.samples,
        together.minimum,
        together.maximum,
    )
    assert merged.histogram == together.histogram
    # Two roundings per sample of numbers up to 1e6.
    assert merged.average.low == pytest.approx(together.average.low, rel=1e-12, abs=1e-8)
    assert merged.average.high == pytest.approx(together.average.high, rel=1e-12, abs=1e-8)
    assert merged.amplitudes == pytest.approx(together.amplitudes, rel=1e-15)


def test_the_average_of_a_constant_is_the_constant_from_the_first_sample_on() -> None:
    for n in (1, 2, 50):
        low, high = observed([[-2.0, 3.0]] * n).average.range
        assert low == pytest.approx(-2, rel=1e-12)
        assert high == pytest.approx(3, rel=1e-12)


def test_the_average_of_nothing_is_zero() -> None:
    assert MovingRange().range == (0.0, 0.0)


def test_moments_are_close_to_the_exact_ones() -> None:
    values = np.random.default_rng(1).normal(3, 2, size=20_000).astype(np.float32)
    found = observed([values.tolist()])
    width = found.histogram.width
    assert found.mean == pytest.approx(float(values.astype(float).mean()), abs=width / 2)
    assert found.std**2 == pytest.approx(float(values.astype(float).var()), abs=width * width / 4 + width * 0.1)


def test_moments_count_zeros_as_zero() -> None:
    values = np.zeros(1000, np.float32)
    values[0] = 1e4  # bins are 2 or 4 wide: the middle of the first is far from 0
    found = observed([values.tolist()])
    assert found.mean == pytest.approx(10, abs=found.histogram.width / 1000)


def test_moments_of_a_constant_are_exact() -> None:
    found = observed([[3.3, 3.3]])
    assert found.mean == float(np.float32(3.3))
    assert found.std == 0


def test_moments_of_nothing_are_zero() -> None:
    assert (TensorStats().mean, TensorStats().std, TensorStats().count) == (0, 0, 0)


def test_an_empty_tensor_is_neutral() -> None:
    found = observed([[1.0, 2.0]])
    assert stats.merge(TensorStats(), found) == found
    assert stats.merge(found, TensorStats()) == found


def test_channels_merge_by_their_extremes() -> None:
    a = TensorStats(channel_axis=1, channel_minimum=f32([0, 1]), channel_maximum=f32([5, 6]))
    b = TensorStats(channel_axis=1, channel_minimum=f32([-1, 2]), channel_maximum=f32([3, 9]))
    merged = stats.merge(a, b)
    assert merged.channel_minimum is not None
    assert merged.channel_maximum is not None
    assert (merged.channel_minimum.tolist(), merged.channel_maximum.tolist()) == ([-1, 1], [5, 9])
    assert merged != a
    assert len({a, merged, stats.merge(a, b)}) == 2


def test_statistics_of_different_types_do_not_merge() -> None:
    with pytest.raises(ValueError, match="do not merge"):
        stats.merge(TensorStats(), TensorStats(dtype="float16"))


@pytest.mark.parametrize(
    "other",
    [
        TensorStats(),
        TensorStats(channel_axis=1, channel_minimum=f32([0]), channel_maximum=f32([0])),
        TensorStats(channel_axis=0, channel_minimum=f32([0, 1]), channel_maximum=f32([0, 1])),
    ],
)
def test_channels_that_not_both_have_are_dropped(other: TensorStats) -> None:
    a = TensorStats(channel_axis=0, channel_minimum=f32([0]), channel_maximum=f32([0]))
    for merged in (stats.merge(a, other), stats.merge(other, a)):
        assert (merged.channel_axis, merged.channel_minimum, merged.channel_maximum) == (None, None, None)


def test_channel_extremes_need_an_axis() -> None:
    with pytest.raises(ValueError, match="go together"):
        TensorStats(channel_minimum=f32([0]), channel_maximum=f32([0]))


def test_statistics_of_nothing_have_open_extremes() -> None:
    assert TensorStats().minimum == math.inf
    assert TensorStats().maximum == -math.inf
