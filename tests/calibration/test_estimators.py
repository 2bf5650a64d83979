from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.calibration.entropy import BINS_PER_LEVEL, SMOOTHING, _Divergence
from quantcli.calibration.estimators import ESTIMATORS, Method, Range, estimate, parse_method
from quantcli.calibration.profile import Profile
from quantcli.calibration.squared_error import squared_error_range
from quantcli.core import affine, histogram
from quantcli.core.dtypes import INT8, UINT8
from quantcli.core.spec import QuantSpec
from quantcli.core.stats import MovingRange, TensorStats, merge
from quantcli.errors import UsageError

ASYMMETRIC = QuantSpec(dtype=UINT8)
SYMMETRIC = QuantSpec(dtype=INT8, symmetric=True)
UNSIGNED_SYMMETRIC = QuantSpec(dtype=UINT8, symmetric=True)
SPECS = [ASYMMETRIC, SYMMETRIC, UNSIGNED_SYMMETRIC]
METHODS = [*ESTIMATORS, "percentile:90", "percentile:100", "sigma:2"]
PER_SAMPLE = ("capped", "moving-average")
"""Methods that depend on how values are split into samples, by definition."""

rng = np.random.default_rng(7)
NORMAL = rng.normal(size=50_000).astype(np.float32)
OUTLIERS = np.concatenate([NORMAL, np.float32([-40, 60])])


def observed(values: np.ndarray) -> TensorStats:
    values = np.asarray(values, dtype=np.float32)
    low, high = float(values.min()), float(values.max())
    return TensorStats(
        samples=1,
        minimum=low,
        maximum=high,
        histogram=histogram.of(values),
        average=MovingRange(samples=1, low=low * 0.01, high=high * 0.01),
        amplitudes=max(-low, high),
    )


def squared_error(values: np.ndarray, low: float, high: float, spec: QuantSpec) -> float:
    params = affine.params_from_range(low, high, spec)
    difference = affine.fake_quantize(values, params).astype(np.float64) - values
    return float((difference**2).mean())


# What all methods have in common ----------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20)
    | st.lists(st.floats(min_value=-4, max_value=4, width=32), min_size=1, max_size=20),
    st.sampled_from(SPECS),
    st.sampled_from(METHODS),
)
def test_ranges_contain_zero_and_stay_inside_what_was_observed(
    values: list[float], spec: QuantSpec, method: str
) -> None:
    found = estimate(observed(np.array(values)), spec, parse_method(method))
    low, high = min(0.0, *np.float32(values)), max(0.0, *np.float32(values))
    assert low <= found.min <= 0 <= found.max <= high
    assert 0 <= found.clipped_fraction <= 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0], (0, 0)),
        ([5.0], (0, 5)),
        ([-3.0, -3.0, -3.0], (-3, 0)),
        ([1e-30], (0, 1e-30)),
        ([3e38], (0, 3e38)),
    ],
)
def test_constants_get_the_range_from_zero_to_them(
    method: str, spec: QuantSpec, values: list[float], expected: tuple[float, float]
) -> None:
    found = estimate(observed(np.array(values)), spec, parse_method(method))
    # The moving average divides by a weight of floating point: one rounding of float64 each.
    assert (found.min, found.max) == pytest.approx(np.float32(expected), rel=1e-12)
    assert found.clipped_fraction == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_that_was_never_seen_has_the_range_zero(method: str) -> None:
    found = estimate(TensorStats(), ASYMMETRIC, parse_method(method))
    assert (found.min, found.max, found.clipped_fraction) == (0, 0, 0)


def test_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="per tensor"):
        estimate(observed(NORMAL), QuantSpec(dtype=INT8, axis=0), Method())


@pytest.mark.parametrize("method", [m for m in METHODS if m not in PER_SAMPLE])
@pytest.mark.parametrize("spec", SPECS)
def test_merged_statistics_give_the_range_of_all_values(method: str, spec: QuantSpec) -> None:
    halves = [observed(OUTLIERS[::2]), observed(OUTLIERS[1::2])]
    whole = observed(OUTLIERS)
    joined = TensorStats(
        samples=2,
        minimum=min(part.minimum for part in halves),
        maximum=max(part.maximum for part in halves),
        histogram=histogram.merge(halves[0].histogram, halves[1].histogram),
    )
    first, second = (estimate(stats, spec, parse_method(method)) for stats in (joined, whole))
    assert first == second


# Single methods -----------------------------------------------------------------------------------------


def test_minmax_is_the_extremes() -> None:
    found = estimate(observed(OUTLIERS), ASYMMETRIC, Method())
    assert (found.min, found.max, found.clipped_fraction) == (-40, 60, 0)


@pytest.mark.parametrize("percentage", [90, 99, 99.9])
def test_percentile_leaves_out_its_share(percentage: float) -> None:
    stats = observed(NORMAL)
    found = estimate(stats, ASYMMETRIC, Method(name="percentile", parameter=percentage))
    half = (100 - percentage) / 2
    expected = np.percentile(NORMAL, [half, 100 - half])
    assert (found.min, found.max) == pytest.approx(expected, abs=stats.histogram.width)
    assert found.clipped_fraction == pytest.approx((100 - percentage) / 100, abs=0.002)


def test_percentile_of_symmetric_forms_is_that_of_magnitudes() -> None:
    skewed = (NORMAL + 1).astype(np.float32)
    stats = observed(skewed)
    found = estimate(stats, SYMMETRIC, Method(name="percentile", parameter=99.0))
    expected = np.percentile(np.abs(skewed), 99)
    assert found.max == pytest.approx(expected, abs=stats.histogram.width)
    assert found.min == max(-found.max, skewed.min())


def test_percentile_100_clips_nothing() -> None:
    found = estimate(observed(OUTLIERS), SYMMETRIC, Method(name="percentile", parameter=100.0))
    assert (found.min, found.max) == (-40, 60)


def test_percentile_counts_zeros() -> None:
    values = np.concatenate([np.zeros(990), np.arange(1, 11)]).astype(np.float32)
    found = estimate(observed(values), ASYMMETRIC, Method(name="percentile", parameter=90.0))
    assert found.max <= observed(values).histogram.width


def test_moving_average_is_that_of_the_statistics() -> None:
    average = MovingRange(samples=1, low=-0.01, high=0.02)
    stats = TensorStats(
        samples=1, minimum=-5, maximum=5, histogram=histogram.of(np.float32([-5, 5])), average=average
    )
    found = estimate(stats, ASYMMETRIC, Method(name="moving-average"))
    assert (found.min, found.max) == pytest.approx((-1, 2), rel=1e-9)
    assert found.clipped_fraction == 1  # all of the two values


def test_sigma_is_mean_plus_minus_deviations_inside_the_extremes() -> None:
    stats = observed((NORMAL + 1).astype(np.float32))
    found = estimate(stats, ASYMMETRIC, Method(name="sigma", parameter=2.0))
    assert found.min == pytest.approx(stats.mean - 2 * stats.std)
    assert found.max == pytest.approx(stats.mean + 2 * stats.std)
    wide = estimate(stats, ASYMMETRIC, Method(name="sigma", parameter=100.0))
    assert (wide.min, wide.max) == (stats.minimum, stats.maximum)


@pytest.mark.parametrize("spec", SPECS)
def test_entropy_really_clips_outliers(spec: QuantSpec) -> None:
    """Field notes, pain 5: onnxruntime's method gives (-40, 60) here at its defaults."""
    found = estimate(observed(OUTLIERS), spec, Method(name="entropy"))
    # N(0, 1) reaches 4; two bins for each of 256 levels are 16 wide here.
    assert -16 < found.min < -3.5
    assert 3.5 < found.max < 16
    assert 0 < found.clipped_fraction < 1e-3


def test_entropy_keeps_a_uniform_distribution() -> None:
    values = rng.uniform(-1, 3, size=100_000).astype(np.float32)
    found = estimate(observed(values), ASYMMETRIC, Method(name="entropy"))
    assert (found.min, found.max) == pytest.approx((-1, 3), abs=0.01)


def naive_divergence(counts: np.ndarray, low: int, high: int, levels: int) -> float:
    """KL divergence by the words of the definition."""
    reference = counts[low:high].copy()
    reference[0] += counts[:low].sum()
    reference[-1] += counts[high:].sum()
    quantized = np.zeros(high - low)
    smallest = counts[counts > 0].min()
    for level in range(levels):
        begin, end = (math.floor(k * (high - low) / levels) for k in (level, level + 1))
        filled = reference[begin:end] > 0
        mass = counts[low:high][begin:end].sum()
        if filled.any():
            quantized[begin:end][filled] = (mass or SMOOTHING * smallest) / filled.sum()
    p = reference / reference.sum()
    q = quantized / counts[low:high].sum()
    return float(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=8, max_size=60), st.integers(2, 4), st.data())
def test_the_fast_divergence_equals_the_definition(counts: list[int], levels: int, data: st.DataObject) -> None:
    array = np.array(counts, np.float64)
    if not array.any():
        array[3] = 1
    low = data.draw(st.integers(0, array.size - levels * BINS_PER_LEVEL - 1 if array.size > 8 else 0))
    low = max(0, min(low, array.size - levels * BINS_PER_LEVEL))
    high = data.draw(st.integers(min(low + levels * BINS_PER_LEVEL, array.size), array.size))
    profile = Profile(
        edges=np.arange(array.size + 1.0),
        counts=array,
        zeros=0,
        minimum=0,
        maximum=float(array.size),
        folded=False,
        steps=levels - 1,
    )
    (found,) = _Divergence(profile)(np.array([low]), np.array([high]))
    if array[low:high].any():
        assert found == pytest.approx(naive_divergence(array, low, high, levels), abs=1e-9)
    else:
        assert found == np.inf


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    "values",
    [
        OUTLIERS,
        NORMAL,
        np.maximum(NORMAL, 0),
        rng.laplace(size=50_000).astype(np.float32),
        np.minimum(NORMAL - 2, 0).astype(np.float32),
    ],
    ids=["outliers", "normal", "relu", "laplace", "negative"],
)
def test_mse_is_near_the_best_range_that_trying_finds(values: np.ndarray, spec: QuantSpec) -> None:
    found = estimate(observed(values), spec, Method(name="mse"))
    error = squared_error(values, found.min, found.max, spec)
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    if spec.symmetric:
        bound = max(-low, high)
        tried = [(max(-a, low), min(a, high)) for a in np.linspace(bound / 30, bound, 60)]
    else:
        shares = np.linspace(1 / 12, 1, 12)
        tried = [(low * a, high * b) for a in shares for b in shares]
    best = min(squared_error(values, a, b, spec) for a, b in tried)
    # The model (uniform errors, values uniform in bins) is not exact where few values make up the error.
    assert error <= best * 1.03


def test_mse_of_four_bits_clips_more_than_of_eight() -> None:
    profile = Profile.of(observed(NORMAL), ASYMMETRIC)
    low8, high8 = squared_error_range(profile)
    low4, high4 = squared_error_range(replace(profile, steps=15))
    assert low8 < low4 < 0 < high4 < high8
    # Banner et al. 2019, table 1: the optimal clipping of N(0, 1) at 4 bits is 2.55 standard deviations.
    assert (-low4, high4) == pytest.approx((2.55, 2.55), rel=0.05)


def test_zeros_cost_nothing_in_the_squared_error() -> None:
    values = np.maximum(NORMAL, 0)
    many = np.concatenate([values, np.zeros(10 * values.size, np.float32)])
    first, second = (estimate(observed(v), ASYMMETRIC, Method(name="mse")) for v in (values, many))
    assert first.max == second.max


# Names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_every_method_parses_by_its_name_and_prints_so_that_it_parses(name: str) -> None:
    method = parse_method(name)
    assert method.name == name
    assert parse_method(str(method)) == method


def test_parameters_are_parsed() -> None:
    assert parse_method("percentile:99.99") == Method(name="percentile", parameter=99.99)
    assert parse_method("sigma") == Method(name="sigma", parameter=8.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("minimax", "no range method 'minimax'"),
        ("", "no range method ''"),
        ("minmax:3", "takes no parameter"),
        ("percentile:abc", "'abc' is no percentage"),
        ("percentile:101", "'101' is no percentage"),
        ("percentile:nan", "'nan' is no percentage"),
        ("sigma:", "'' is no number of standard deviations"),
    ],
)
def test_wrong_methods_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_method(text)
    assert caught.value.code == "K102"


def test_every_method_says_in_one_sentence_what_it_does() -> None:
    assert all(item.summary.endswith(".") and item.name == name for name, item in ESTIMATORS.items())


# Capped -----------------------------------------------------------------------------------------------


def test_one_unusual_sample_does_not_stretch_a_capped_range() -> None:
    usual, unusual = observed(np.array([-1.0, 2.0])), observed(np.array([-3.0, 18.0]))
    stats = reduce(merge, [usual, usual, usual, unusual])
    # The mean of max |x| is (2 + 2 + 2 + 18) / 4 = 6.
    assert ends(estimate(stats, ASYMMETRIC, parse_method("capped:2"))) == (-3.0, 12.0)
    assert ends(estimate(stats, ASYMMETRIC, parse_method("capped:1"))) == (-3.0, 6.0)


def test_samples_alike_are_not_capped() -> None:
    stats = reduce(merge, [observed(np.array([-1.0, 2.0])), observed(np.array([-3.0, 3.0]))])
    assert ends(estimate(stats, ASYMMETRIC, parse_method("capped"))) == (-3.0, 3.0)


def ends(found: Range) -> tuple[float, float]:
    return found.min, found.max
