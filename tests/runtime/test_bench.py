import numpy as np
import onnx.parser
import pytest

from quantcli.errors import DataError, UsageError
from quantcli.runtime.bench import Rounds, compare_latency
from quantcli.runtime.session import Session


class Clock:
    """Time that only fakes move."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Fake:
    """A session that takes a given time per run, and writes down when it ran."""

    def __init__(self, clock, seconds, log, name):
        self.clock, self.seconds, self.log, self.name = clock, iter(seconds), log, name

    def run(self, feed, names=None):
        self.log.append((self.name, int(feed["x"][0])))
        self.clock.now += next(self.seconds)
        return {}


def forever(*values):
    while True:
        yield from values


FEEDS = [{"x": np.array([i])} for i in range(3)]


def fakes(a, b):
    clock, log = Clock(), []
    return clock, log, Fake(clock, a, log, "a"), Fake(clock, b, log, "b")


def test_the_ratio_of_steady_sessions_is_exact():
    clock, _, a, b = fakes(forever(0.010), forever(0.004))
    found = compare_latency(a, b, FEEDS, repeats=20, clock=clock)
    assert (found.ratio, found.low, found.high) == pytest.approx((0.4, 0.4, 0.4))
    assert (found.a_seconds, found.b_seconds) == pytest.approx((0.010, 0.004))
    assert (found.pairs, found.runs, found.warmup) == (20, 1, 3)
    assert found.confidence >= 0.95


def test_pairs_share_their_sample_and_alternate_in_order():
    clock, log, a, b = fakes(forever(0.01), forever(0.01))
    compare_latency(a, b, FEEDS, repeats=6, warmup=1, clock=clock)
    assert log[:2] == [("a", 0), ("b", 0)]
    assert log[2:] == [
        ("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2), ("b", 0), ("a", 0), ("a", 1), ("b", 1),
        ("b", 2), ("a", 2),
    ]  # fmt: skip


def test_a_machine_that_slows_down_for_both_does_not_change_the_ratio():
    drift = [0.001 * 1.1**i for i in range(100)]
    clock, _, a, b = fakes(iter(drift), iter([2 * value for value in drift]))
    found = compare_latency(a, b, FEEDS, repeats=30, clock=clock)
    assert (found.low, found.ratio, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_outliers_move_neither_median_nor_interval_far():
    clock, _, a, b = fakes(forever(0.01), forever(*[0.02] * 9, 1.0))
    found = compare_latency(a, b, FEEDS, repeats=40, clock=clock)
    assert (found.low, found.ratio, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_short_runs_are_repeated_within_a_measurement():
    clock, log, a, b = fakes(forever(0.0001), forever(0.0002))
    found = compare_latency(a, b, FEEDS, repeats=6, warmup=1, clock=clock)
    assert found.runs == 20  # 2 ms
    assert len(log) == 2 + 6 * 2 * 20
    assert found.a_seconds == pytest.approx(0.0001)


def test_measuring_goes_on_until_the_least_time_is_reached():
    clock, _, a, b = fakes(forever(0.01), forever(0.01))
    ticks = []
    found = compare_latency(a, b, FEEDS, repeats=6, min_seconds=1.0, clock=clock, tick=lambda: ticks.append(1))
    assert found.pairs == len(ticks) == 50


def test_too_few_pairs_are_refused():
    clock, _, a, b = fakes(forever(0.01), forever(0.01))
    with pytest.raises(UsageError, match="5 pairs of runs have no 95% interval") as caught:
        compare_latency(a, b, FEEDS, repeats=5, clock=clock)
    assert caught.value.code == "G204"


def test_timing_without_a_sample_is_refused():
    clock, _, a, b = fakes(forever(0.01), forever(0.01))
    with pytest.raises(DataError, match="no sample to time"):
        compare_latency(a, b, [], repeats=6, clock=clock)


def test_real_sessions_are_timed():
    text = '<ir_version: 8, opset_import: ["" : 13]> net (float[N,64] x) => (float[N,64] y) { y = %s(x) }'
    sessions = [Session(onnx.parser.parse_model(text % op).SerializeToString()) for op in ("Relu", "Erf")]
    found = compare_latency(*sessions, [{"x": np.ones((8, 64), np.float32)}], repeats=8)
    assert 0 < found.low <= found.ratio <= found.high
    assert found.a_seconds > 0


def test_rounds_of_three_sessions_go_through_all_orders_on_one_sample_each():
    clock, log = Clock(), []
    sessions = [Fake(clock, forever(seconds), log, name) for name, seconds in (("a", 0.4), ("b", 0.1), ("c", 0.2))]
    rounds = Rounds(sessions, FEEDS, warmup=1, clock=clock)
    for _ in range(6):
        rounds.measure()
    turns = [log[3 + 3 * turn : 6 + 3 * turn] for turn in range(6)]
    assert {"".join(name for name, _ in turn) for turn in turns} == {"abc", "acb", "bac", "bca", "cab", "cba"}
    assert [{sample for _, sample in turn} for turn in turns] == [{0}, {1}, {2}, {0}, {1}, {2}]
    assert rounds.ratio(1, 0).ratio == pytest.approx(0.25)
    assert rounds.ratio(2, 1).high == pytest.approx(2.0)
    assert rounds.seconds(2) == pytest.approx(0.2)
    assert rounds.measured == pytest.approx(6 * 0.7)
