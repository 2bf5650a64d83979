import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.core.intervals import paired_difference, proportion, wilson
from quantcli.core.rates import (
    PairedSums,
    RateSums,
    count_paired,
    count_rate,
    merge_paired,
    merge_rates,
)

counts = st.lists(st.integers(0, 9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), max_size=20)


def total(pairs):
    sums = RateSums()
    for hits, trials in pairs:
        sums = merge_rates(sums, count_rate(hits, trials))
    return sums


@given(counts, counts)
@settings(deadline=None, derandomize=True)
def test_merging_equals_counting_together(a, b):
    assert merge_rates(total(a), total(b)) == total(a + b) == merge_rates(total(b), total(a))


@given(counts)
@settings(deadline=None, derandomize=True)
def test_effective_trials_lie_between_1_and_all(pairs):
    sums = total(pairs)
    if sums.trials:
        assert 1 <= sums.effective_trials <= sums.trials
        low, high = sums.interval()
        assert low <= sums.rate <= high


def test_one_trial_per_sample_gives_the_plain_interval():
    sums = total([(1, 1)] * 81 + [(0, 1)] * 182)
    assert sums.interval() == proportion(81, 263)


def test_nothing_counted_has_no_rate():
    assert total([(0, 0)]).rate is None
    assert RateSums().interval() is None
    assert PairedSums().interval() is None
    assert PairedSums().drop is None
    assert PairedSums().effective_trials == 0


def test_samples_that_are_all_right_or_all_wrong_count_as_one_trial_each():
    # 40 images of 1000 positions that agree together: the information is that of 40 trials (39 after
    # the correction k / (k − 1)).
    sums = total([(1000, 1000)] * 20 + [(0, 1000)] * 20)
    assert sums.effective_trials == pytest.approx(39)


def test_independent_positions_keep_nearly_all_their_trials():
    rng = np.random.default_rng(0)
    sums = total([(int(h), 100) for h in rng.binomial(100, 0.8, size=2000)])
    assert sums.effective_trials == pytest.approx(200_000, rel=0.1)


def test_agreement_everywhere_is_worth_one_trial_per_sample():
    sums = total([(500, 500)] * 30)
    assert sums.effective_trials == 30
    assert sums.interval() == wilson(30, 30)


def test_clustered_interval_covers_the_true_rate_about_95_times_in_100():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        rates = rng.beta(8, 2, size=60)  # mean 0.8
        low, high = total([(int(h), 50) for h in rng.binomial(50, rates)]).interval()
        covered += low <= 0.8 <= high
    assert 0.91 <= covered / 400 <= 0.985  # 0.95 ± 2.5·sqrt(.95·.05/400), and a bit of skew


def test_paired_sums_give_the_drop_of_the_two_rates():
    sums = PairedSums()
    for first, second in [(1, 1), (1, 0), (1, 0), (0, 1), (0, 0)]:
        sums = merge_paired(sums, count_paired(int(first > second), int(second > first), int(first and second), 1))
    assert (sums.first.hits, sums.second.hits) == (3, 2)
    assert sums.drop == pytest.approx(0.2)
    assert sums.interval() == paired_difference(2, 1, 5)


def test_a_drop_within_clusters_is_less_certain_than_among_independent_trials():
    clustered, spread = PairedSums(), PairedSums()
    for index in range(50):
        clustered = merge_paired(clustered, count_paired(100 if index < 5 else 0, 0, 0, 100))
        spread = merge_paired(spread, count_paired(10 + 3 * (-1) ** index, 0, 0, 100))
    assert clustered.drop == spread.drop == pytest.approx(0.1)
    assert clustered.effective_trials == pytest.approx(49)
    # a spread of ±3 is that of independent trials, sqrt(100·0.1·0.9); the correction takes 1/50
    assert spread.effective_trials == pytest.approx(4900)


def test_paired_clusters_without_any_change_count_one_trial_per_sample():
    sums = merge_paired(count_paired(0, 0, 7, 10), count_paired(0, 0, 9, 10))
    assert sums.effective_trials == 2
