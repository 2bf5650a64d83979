"""How often verdicts are wrong, by simulation: the truth lies on the limit, and any definite verdict is an error.

A two-sided interval of 95 % may be wrong by 2.5 % on each side. Bounds: three standard errors of the simulation on
top. Rates are discrete, so their exact probabilities are summed.
"""

import math

import numpy as np
import pytest

from quantcli.core.bootstrap import bootstrap, hidden_spread
from quantcli.core.confusion import ClassCounts, mean_iou
from quantcli.core.intervals import paired_difference, proportion
from quantcli.core.rates import RateSums
from quantcli.evaluate.gate_syntax import parse_gate
from quantcli.evaluate.gates import evaluate_gates
from quantcli.evaluate.metric_names import given_metrics
from quantcli.evaluate.scoring import mean_metric
from quantcli.evaluate.user_metric import UserMetric
from quantcli.report.schema import ModelFacts, Report, SizeComparison, Verdict

TAIL = 0.025


def slack(runs, rate=TAIL):
    return 3 * math.sqrt(rate * (1 - rate) / runs)


def binomial(trials, rate):
    hits = np.arange(trials + 1)
    ways = np.array([math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in hits])
    return np.exp(ways + hits * math.log(rate) + (trials - hits) * math.log1p(-rate))


@pytest.mark.parametrize("trials", [20, 50, 100, 300])
def test_a_rate_on_its_limit_is_called_worse_or_better_as_seldom_as_stated(trials):
    low, high = np.array([proportion(hits, trials) for hits in range(trials + 1)]).T
    worse, better = [], []
    for rate in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995):
        chance = binomial(trials, rate)
        better.append(chance[low > rate].sum())
        worse.append(chance[high < rate].sum())
    assert max(worse[2:]) <= TAIL + 1e-9  # from 0.7 on, where limits of gates lie, the exact bound holds
    # Wilson's bound is right on average; that of single rates is off by what one hit more or less is worth.
    assert max(worse + better) <= 0.035
    assert np.mean(worse) <= TAIL
    assert np.mean(better) <= TAIL


def test_a_rate_is_decided_about_as_early_as_possible():
    # At a limit 5 points below the rate, the exact test of the same level decides no sooner than with 80 %.
    trials, rate = 300, 0.9
    low = np.array([proportion(hits, trials)[0] for hits in range(trials + 1)])
    power = binomial(trials, rate)[low > 0.85].sum()
    tail = np.cumsum(binomial(trials, 0.85)[::-1])[::-1]
    exact = binomial(trials, rate)[tail <= TAIL].sum()
    assert power >= exact - 0.05


@pytest.mark.parametrize(
    ("lost", "gained"), [(0.01, 0.0), (0.01, 0.001), (0.02, 0.01), (0.05, 0.05), (0.1, 0.05), (0.03, 0.0)]
)
def test_a_drop_on_its_limit_is_called_smaller_or_larger_as_seldom_as_stated(lost, gained):
    rng, runs, errors = np.random.default_rng(0), 20_000, []
    for trials in (50, 200, 300, 700):
        cells = rng.multinomial(trials, [lost, gained, 1 - lost - gained], size=runs)
        kinds, kind = np.unique(cells[:, :2], axis=0, return_inverse=True)
        bounds = np.array([paired_difference(int(b), int(c), trials) for b, c in kinds])[kind.reshape(-1)]
        drop = lost - gained
        errors.append(((bounds[:, 0] > drop + 1e-12).mean(), (bounds[:, 1] < drop - 1e-12).mean()))
    assert np.max(errors) <= TAIL + 0.005 + slack(runs)  # half a point for what is discrete
    assert np.mean(errors) <= TAIL


def test_a_drop_with_many_changes_is_decided_at_the_stated_confidence():
    """Not conservative: with enough changes both errors come close to 2.5 %."""
    rng, runs = np.random.default_rng(1), 20_000
    cells = rng.multinomial(2000, [0.05, 0.03, 0.92], size=runs)
    kinds, kind = np.unique(cells[:, :2], axis=0, return_inverse=True)
    bounds = np.array([paired_difference(int(b), int(c), 2000) for b, c in kinds])[kind.reshape(-1)]
    for wrong in ((bounds[:, 0] > 0.02).mean(), (bounds[:, 1] < 0.02).mean()):
        assert 0.018 <= wrong <= TAIL + 0.003 + slack(runs)


def clustered(rng, runs, images, positions, spread):
    """Hits of images whose own rates vary around 0.8."""
    rates = rng.beta(0.8 * spread, 0.2 * spread, size=(runs, images))
    hits = rng.binomial(positions, rates)
    return [
        RateSums(
            samples=images,
            trials=images * positions,
            hits=int(row.sum()),
            trials_squared=images * positions**2,
            hits_squared=int((row**2).sum()),
            cross=int(row.sum()) * positions,
        )
        for row in hits
    ]


@pytest.mark.parametrize(("images", "spread"), [(60, 10.0), (60, 200.0), (300, 10.0)])
def test_a_rate_of_positions_that_rise_and_fall_together_keeps_its_confidence(images, spread):
    runs = 600
    bounds = [sums.interval() for sums in clustered(np.random.default_rng(2), runs, images, 50, spread)]
    low, high = np.array(bounds).T
    # The spread between images is estimated: a little more than stated with 60 of them.
    for wrong in ((low > 0.8).mean(), (high < 0.8).mean()):
        assert wrong <= 1.4 * TAIL + slack(runs)
    assert (low > 0.8).mean() + (high < 0.8).mean() >= 0.02


KINDS = {
    "normal": (lambda rng, n: rng.normal(0.01, 0.05, n), 0.01, TAIL),
    "bounded": (lambda rng, n: rng.beta(8, 2, n) - rng.beta(8, 2.2, n), 0.8 - 8 / 10.2, TAIL),
    "rare": (lambda rng, n: (rng.random(n) < 0.02) * 1.0, 0.02, TAIL),
    "some change": (lambda rng, n: (rng.random(n) < 0.3) * rng.normal(0.3, 0.3, n), 0.09, TAIL),
    "skewed": (lambda rng, n: rng.exponential(size=n), 1.0, 2 * TAIL),
}


def wrong_means(kind, samples, runs, seed=0):
    """Shares of runs whose bounds miss the true mean: each run is a column, so one draw serves all of them."""
    draw, mean, _ = KINDS[kind]
    rng = np.random.default_rng(seed)
    scores = np.stack([draw(rng, samples) for _ in range(runs)], axis=1)
    found = bootstrap(lambda counts: counts @ scores / samples, samples, np.random.default_rng(seed))
    return np.mean([(one.low > mean, one.high < mean) for one in found], axis=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_scores_is_called_better_or_worse_as_seldom_as_stated(kind):
    runs = 700
    assert (wrong_means(kind, 50, runs) <= KINDS[kind][2] + slack(runs)).all()


@pytest.mark.slow
@pytest.mark.parametrize("samples", [50, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_scores_keeps_its_confidence_over_many_runs(kind, samples):
    runs = 6000
    wrong = np.mean([wrong_means(kind, samples, runs // 6, seed) for seed in range(6)], axis=0)
    # BCa is right to the second order: a hundredth for what is left of skewness
    assert (wrong <= KINDS[kind][2] + 0.01 + slack(runs)).all()
    if kind in ("normal", "bounded"):
        assert (wrong >= TAIL - 0.01 - slack(runs)).all()


def report(metric):
    facts = ModelFacts(name="m.onnx", sha256="0" * 64, bytes=10, opset=13, ir_version=8)
    return Report(
        original=facts,
        quantized=facts,
        verdict=Verdict(status="no-gates", sentence=""),
        size=SizeComparison(ratio=1.0),
        metrics=(metric,),
    )


def test_verdicts_of_gates_are_wrong_as_seldom_as_stated():
    """The whole way from scores to the verdict, with a drop that is exactly the limit."""
    row = given_metrics([UserMetric(name="score", sentence="", better="higher", code=None, wants=())])
    gate = parse_gate("score_drop<=0.01", row)
    rng, runs = np.random.default_rng(4), 120
    statuses = []
    for _ in range(runs):
        original = rng.beta(8, 2, 50)
        quantized = original - rng.normal(0.01, 0.02, 50)
        metric = mean_metric("score", "", "higher", original.tolist(), quantized.tolist())
        statuses.append(evaluate_gates([gate], report(metric))[0].status)
    for definite in ("pass", "fail"):
        assert statuses.count(definite) / runs <= TAIL + slack(runs)
    assert statuses.count("undecided") >= 0.9 * runs


def test_fifty_samples_that_cannot_decide_say_how_many_would():
    row = given_metrics([UserMetric(name="score", sentence="", better="higher", code=None, wants=())])
    rng = np.random.default_rng(5)
    original = rng.beta(8, 2, 50)
    quantized = original - rng.normal(0.012, 0.02, 50)
    metric = mean_metric("score", "", "higher", original.tolist(), quantized.tolist())
    result = evaluate_gates([parse_gate("score_drop<=0.01", row)], report(metric))[0]
    assert result.status == "undecided"
    assert result.samples_needed > 50
    assert f"50 samples cannot decide, about {result.samples_needed} would" in result.sentence


CLASSES = 10


def segmented(rng, images):
    """Counts of images whose classes are more or less frequent, for two models of which one is worse."""
    share = 1 / np.arange(1, CLASSES + 1)
    there = rng.random((images, CLASSES)) < 1.3 * share / share[0]
    there[:, 0] = True
    truth = there * rng.integers(50, 200, (images, CLASSES))
    found = []
    for skill in (12.0, 8.0):
        both = np.rint(truth * rng.beta(skill, 2, (images, CLASSES)))
        found.append(
            ClassCounts(both=both, truth=truth, predicted=np.rint(truth * rng.uniform(0.9, 1.1, truth.shape)))
        )
    return found


def miou_drop(models, counts):
    times = counts.astype(float)
    sums = [
        ClassCounts(both=times @ one.both, truth=times @ one.truth, predicted=times @ one.predicted)
        for one in models
    ]
    return (mean_iou(sums[0]) - mean_iou(sums[1]))[:, None]


def test_a_drop_of_miou_on_its_limit_is_called_smaller_or_larger_as_seldom_as_stated():
    rng, runs, images = np.random.default_rng(6), 300, 50
    population = segmented(rng, 40_000)
    drop = miou_drop(population, np.ones((1, 40_000)))[0, 0]
    wrong = np.zeros(2)
    for _ in range(runs):
        own = rng.choice(40_000, images, replace=False)
        sample = [
            ClassCounts(both=one.both[own], truth=one.truth[own], predicted=one.predicted[own])
            for one in population
        ]
        (found,) = bootstrap(
            lambda counts, sample=sample: miou_drop(sample, counts),
            images,
            np.random.default_rng(0),
            replicates=600,
            widen=hidden_spread((sample[0].truth > 0).sum(axis=0).tolist()),
        )
        wrong += (found.low > drop, found.high < drop)
    assert (wrong / runs <= TAIL + 0.01 + slack(runs)).all()
    assert wrong.sum() / runs >= 0.01
