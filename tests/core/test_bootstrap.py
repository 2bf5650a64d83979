import math

import numpy as np
import pytest

from quantcli.core import bootstrap as module
from quantcli.core.bootstrap import MOST_HIDDEN, bootstrap, draw_counts, hidden_spread, student_quantile
from quantcli.core.intervals import wilson


def mean_of(scores):
    values = np.asarray(scores, float)
    return lambda counts: ((counts @ values) / counts.sum(axis=1))[:, None]


def drawn(scores, **options):
    (found,) = bootstrap(mean_of(scores), len(scores), np.random.default_rng(0), **options)
    return found


@pytest.mark.parametrize(
    # Any table of Student's distribution.
    ("freedom", "quantile"),
    [(5, 2.571), (9, 2.262), (19, 2.093), (49, 2.010), (1000, 1.962)],
)
def test_student_quantiles_are_those_of_the_table(freedom, quantile):
    assert student_quantile(freedom) == pytest.approx(quantile, rel=0.005)


def test_every_draw_has_as_many_samples_as_there_are():
    counts = draw_counts(30, 50, np.random.default_rng(0))
    assert (counts.sum(axis=1) == 30).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(30), abs=5 / math.sqrt(50))


def test_the_interval_of_a_mean_of_normal_scores_is_students():
    scores = np.random.default_rng(3).normal(2.0, 3.0, size=80)
    half = student_quantile(79) * scores.std(ddof=1) / math.sqrt(80)
    found = drawn(scores)
    assert found.value == pytest.approx(scores.mean())
    # a percentile of 2000 replicates has a standard error of about 3 % of the half width
    assert (found.low, found.high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.15 * half)


def test_the_long_tail_has_the_longer_arm():
    found = drawn(np.random.default_rng(1).exponential(size=60))
    assert found.high - found.value > 1.15 * (found.value - found.low)


def test_scores_that_never_differ_still_leave_room_for_what_was_not_seen():
    found = drawn(np.zeros(50))
    most = wilson(0, 50)[1]
    assert (found.low, found.high) == pytest.approx((-most, most))
    assert drawn(np.zeros(50), reach=0.3).high == pytest.approx(0.3 * most)


def test_one_sample_that_differs_counts_as_one_of_all():
    found = drawn([0.0] * 49 + [0.4])
    assert found.high == pytest.approx(0.4 * wilson(1, 50)[1])


def test_limits_bound_the_interval():
    found = drawn([1.0] * 40, limits=[(0.0, 1.0)])
    assert found.high == 1.0
    assert found.low == pytest.approx(1 - wilson(0, 40)[1])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_handful_of_samples_has_a_wide_interval(count):
    found = drawn(np.linspace(0.4, 0.6, count) if count > 1 else [0.5])
    assert found.low < 0.45
    assert found.high > 0.55


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        bootstrap(mean_of([]), 0, np.random.default_rng(0))


def test_the_same_seed_gives_the_same_interval_whatever_the_blocks(monkeypatch):
    scores = np.random.default_rng(5).normal(size=300)  # more samples than groups of the jackknife
    whole = drawn(scores)
    assert drawn(scores) == whole
    monkeypatch.setattr(module, "_BLOCK", 7000)
    other = drawn(scores)
    assert (other.low, other.high) == pytest.approx((whole.low, whole.high), abs=0.03)


def test_several_statistics_of_the_same_draws_are_paired():
    rng = np.random.default_rng(2)
    first = rng.normal(size=100)
    second = first + rng.normal(size=100) * 0.01
    columns = np.stack([first, second, first - second], axis=1)
    found = bootstrap(lambda counts: counts @ columns / 100, 100, np.random.default_rng(0))
    assert found[2].high - found[2].low < 0.05 * (found[0].high - found[0].low)


def test_a_statistic_that_is_not_defined_in_some_draws_uses_the_others():
    def rare(counts):
        return np.where(counts[:, :2].sum(axis=1) > 0, counts[:, 0] / 10, np.nan)[:, None]

    (found,) = bootstrap(rare, 20, np.random.default_rng(0))
    assert found.low <= found.value <= found.high
    assert math.isfinite(found.high)


def test_replicates_hide_what_classes_of_few_images_vary():
    """Means of classes with m images each: replicates have (m − 1)/m of the variance, algebra of the bootstrap."""
    assert hidden_spread([5, 5, 5]) == pytest.approx(math.sqrt(5 / 4))
    assert hidden_spread([2, 0, 4]) == pytest.approx(math.sqrt((1 / 2 + 1 / 4) / (1 / 4 + 3 / 16)))
    assert hidden_spread([1000]) == pytest.approx(1, abs=1e-3)
    assert hidden_spread([1, 1, 1]) == MOST_HIDDEN
    assert hidden_spread([]) == 1


def test_a_widened_interval_is_wider_on_both_sides():
    scores = np.random.default_rng(3).normal(size=80)
    plain, wide = drawn(scores), drawn(scores, widen=2.0)
    assert wide.value - wide.low == pytest.approx(2 * (plain.value - plain.low))
    assert wide.high - wide.value == pytest.approx(2 * (plain.high - plain.value))
