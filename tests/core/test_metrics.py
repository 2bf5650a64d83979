import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantcli.core.metrics import PairSums, class_axis, measure, merge, sqnr_db, top1

SINE = np.sin(np.linspace(0, 40 * np.pi, 100_000, endpoint=False))


def test_a_copy_scaled_by_0_9_has_20_db():
    sums = measure(SINE, 0.9 * SINE)
    assert sums.sqnr == pytest.approx(20.0, abs=1e-9)
    assert sums.cosine == pytest.approx(1.0, abs=1e-12)


def test_a_sine_with_orthogonal_noise_has_the_closed_form():
    noise = 0.01 * np.cos(np.linspace(0, 40 * np.pi, 100_000, endpoint=False))
    sums = measure(SINE, SINE + noise)
    assert sums.sqnr == pytest.approx(40.0, abs=1e-9)  # amplitude ratio 100
    assert sums.rmse == pytest.approx(0.01 / math.sqrt(2), rel=1e-9)
    assert sums.largest_error == pytest.approx(0.01, rel=1e-6)
    assert sums.cosine_global == pytest.approx(1 / math.sqrt(1 + 1e-4), rel=1e-12)


def test_uniform_rounding_of_a_full_scale_sine_follows_6_02_db_a_bit():
    step = 2.0 / 2**8
    sums = measure(SINE, np.rint(SINE / step) * step)
    assert sums.sqnr == pytest.approx(6.02 * 8 + 1.76, abs=0.2)
    assert sums.rmse / step == pytest.approx(1 / math.sqrt(12), rel=0.02)


def test_float32_tensors_are_measured_in_float64():
    big = np.full(1_000_000, 1.0e20, dtype=np.float32)
    sums = measure(big, big * np.float32(0.5))
    assert sums.sqnr == pytest.approx(20 * math.log10(2), abs=1e-9)
    assert sums.rmse == pytest.approx(0.5 * float(np.float32(1.0e20)), rel=1e-12)


def test_equal_tensors_are_exact():
    sums = measure(SINE, SINE.copy())
    assert (sums.sqnr, sums.rmse, sums.largest_error, sums.cosine) == (math.inf, 0.0, 0.0, 1.0)


def test_an_all_zero_reference_is_exact_or_infinitely_bad():
    zeros = np.zeros(4)
    assert measure(zeros, zeros).sqnr == math.inf
    assert measure(zeros, zeros).cosine == 1.0
    assert measure(zeros, zeros + 1).sqnr == -math.inf
    assert measure(zeros, zeros + 1).cosine == 0.0


def test_nothing_compared_gives_none():
    for sums in (PairSums(), measure(np.zeros((0, 5)), np.zeros((0, 5)), axis=1)):
        assert sums.sqnr is sums.rmse is sums.largest_error is sums.cosine is None
        assert sums.cosine_global is sums.lowest_cosine is sums.agreement.rate is None


def test_a_single_nan_is_never_averaged_away():
    other = SINE.copy()
    other[7] = np.nan
    sums = merge(measure(SINE, SINE), measure(SINE, other))
    assert (sums.nonfinite_other, sums.nonfinite_reference, sums.nonfinite_differ) == (1, 0, 1)
    assert (sums.sqnr, sums.rmse, sums.largest_error) == (-math.inf, math.inf, math.inf)
    assert math.isnan(sums.cosine)
    assert math.isnan(sums.cosine_global)
    assert math.isnan(sums.lowest_cosine)


def test_the_same_infinities_in_both_are_counted_and_agree():
    masked = np.array([1.0, -np.inf, np.nan, 2.0])
    sums = measure(masked, masked.copy())
    assert (sums.nonfinite_reference, sums.nonfinite_other, sums.nonfinite_differ) == (2, 2, 0)
    assert sums.sqnr == math.inf
    assert sums.elements == 2


def test_opposite_infinities_differ():
    assert measure(np.array([np.inf]), np.array([-np.inf])).nonfinite_differ == 1


def test_mean_and_worst_cosine_are_over_samples_and_the_global_one_over_all():
    strong, weak = np.array([100.0, 0.0]), np.array([0.01, 0.0])
    sums = merge(measure(strong, strong), measure(weak, np.array([0.0, 0.01])))
    assert sums.cosine == pytest.approx(0.5)
    assert sums.lowest_cosine == 0.0
    assert sums.cosine_global == pytest.approx(1.0, abs=1e-6)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="cannot be compared"):
        measure(np.zeros((2, 3)), np.zeros((3, 2)))


def test_booleans_and_integers_are_measured_as_numbers():
    sums = measure(np.array([True, False]), np.array([True, True]))
    assert sums.error_squared == 1.0
    assert measure(np.array([3, 4]), np.array([3, 0])).sqnr == pytest.approx(10 * math.log10(25 / 16))


def test_overflowing_sums_are_not_a_number_and_not_exact():
    huge = np.array([1e300, 1.0])
    assert math.isnan(measure(huge, huge + np.array([0.0, 1.0])).sqnr)
    assert math.isnan(sqnr_db(1.0, math.inf))


def test_an_output_larger_than_a_block_is_summed_whole():
    ref = np.ones((3, 700_000), dtype=np.float32)
    sums = measure(ref, ref * 2)
    assert sums.elements == 2_100_000
    assert sums.error_squared == 2_100_000.0


values = hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e3, 1e3))


@given(st.lists(st.tuples(values, values), min_size=1, max_size=6), st.integers(0, 6))
@settings(deadline=None, derandomize=True)
def test_merging_two_halves_equals_measuring_all(pairs, cut):
    def run(part):
        total = PairSums()
        for r, q in part:
            total = merge(total, measure(r, q, axis=1))
        return total

    whole, halves = run(pairs), merge(run(pairs[:cut]), run(pairs[cut:]))
    stacked = measure(np.concatenate([r for r, _ in pairs]), np.concatenate([q for _, q in pairs]), axis=1)
    assert whole.agreement == halves.agreement
    assert whole.agreement.hits == stacked.agreement.hits
    for name in ("ref_squared", "other_squared", "error_squared"):
        assert getattr(whole, name) == pytest.approx(getattr(halves, name), rel=1e-12)
        assert getattr(whole, name) == pytest.approx(getattr(stacked, name), rel=1e-12)
    assert whole.max_abs == halves.max_abs == stacked.max_abs


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((8, 1000), 1),
        ((1, 1000, 1, 1), 1),
        ((1, 128, 21), 2),
        ((1, 257, 257, 21), 3),
        ((1, 21, 64, 64), 1),
        ((1, 150, 16, 16), 1),
        ((1, 19, 512, 1024), 1),
        ((1, 512, 1024, 19), 3),
        ((1, 1, 1, 1000), 3),
        ((2, 4, 16, 16, 16), 1),
        ((1000,), None),
        ((), None),
        ((5, 1), None),
        ((1, 257, 1), None),
        ((1, 64, 48, 1), None),
        ((1, 1, 64, 64), None),
        ((1, 64, 48, 64), None),
    ],
)
def test_the_class_axis_follows_its_rule(shape, axis):
    assert class_axis(shape) == axis


def test_agreement_counts_positions_over_the_class_axis():
    ref = np.array([[[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]])
    other = np.array([[[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]])
    sums = measure(ref, other, axis=2)
    assert (sums.agreement.hits, sums.agreement.trials, sums.agreement.samples) == (2, 3, 1)
    assert measure(ref.transpose(0, 2, 1), other.transpose(0, 2, 1), axis=1).agreement.hits == 2


def test_a_position_with_a_nan_never_agrees():
    ref = np.array([[np.nan, 1.0], [0.0, 1.0]])
    assert top1(ref, 1).tolist() == [-1, 1]
    assert measure(ref, ref.copy(), axis=1).agreement.hits == 1
