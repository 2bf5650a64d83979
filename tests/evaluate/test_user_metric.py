import numpy as np
import pytest

from quantcli.core.intervals import paired_difference, wilson
from quantcli.errors import DataError, UsageError
from quantcli.evaluate.scoring import Observation
from quantcli.evaluate.user_metric import UserScorer, load_metric

CODE = """
import neighbour

def score(outputs):
    '''How much there is.

    And more.'''
    return outputs["y"].sum()

def error(outputs, labels, inputs, index):
    return abs(float(outputs["y"][0]) - labels[0]) + 0 * inputs["x"][0] + 0 * index
error.better = "lower"

def right(outputs, *, labels):
    return outputs["y"][0] > labels[0]

def sometimes(outputs, index):
    return None if index % 2 else 1.5

def one_sided(outputs):
    return None if outputs["y"][0] > 1 else 1.0

def never(outputs): return None
def text(outputs): return "1"
def pair(outputs): return [1, 2]
def fails(outputs): raise KeyError("gone")
def greedy(outputs, temperature): return 1
def wrong_way(outputs): return 1
wrong_way.better = "up"

def optional(outputs, labels=None): return 2.0

def spoils(outputs):
    outputs.clear()
    return 1.0

class Total:
    '''Sum of everything.'''
    def __init__(self): self.sum = 0.0
    def update(self, outputs, index): self.sum += float(outputs["y"].sum()) + 0 * index
    def result(self): return self.sum

class Half:
    def update(self, outputs): pass
"""


@pytest.fixture
def metric(tmp_path):
    (tmp_path / "own.py").write_text(CODE)
    (tmp_path / "neighbour.py").write_text("")
    return lambda name, prefix="": load_metric(f"{prefix}{tmp_path / 'own.py'}:{name}")


def call(index, original, quantized, label=0.0):
    return Observation(
        index=index,
        inputs={"x": np.array([1.0])},
        original={"y": np.array([original])},
        quantized={"y": np.array([quantized])},
        labels=np.array([label]),
    )


def scored(metric, pairs, label=0.0):
    scorer = UserScorer(metric)
    for index, (original, quantized) in enumerate(pairs):
        scorer.observe(call(index, original, quantized, label))
    (found,) = scorer.results()
    return found


def test_the_metric_is_the_mean_over_the_samples(metric):
    found = scored(metric("score"), [(1.0, 0.5), (2.0, 2.5), (6.0, 3.0)])
    assert (found.name, found.sentence, found.better, found.samples) == (
        "score",
        "How much there is.",
        "higher",
        3,
    )
    assert (found.original, found.quantized, found.drop) == (3.0, 2.0, 1.0)
    assert found.interval == "bootstrap"
    assert found.drop_low <= found.drop <= found.drop_high


def test_where_less_is_better_a_rise_is_a_drop(metric):
    found = scored(metric("error"), [(1.0, 1.5), (2.0, 2.0)], label=0.5)
    assert (found.better, found.original, found.quantized, found.drop) == ("lower", 1.0, 1.25, 0.25)


def test_scores_of_0_and_1_are_a_rate_with_the_intervals_of_rates(metric):
    pairs = [(1.0, 1.0)] * 30 + [(1.0, -1.0)] * 6 + [(-1.0, 1.0)] * 2 + [(-1.0, -1.0)] * 2
    found = scored(metric("right"), pairs)
    assert found.interval == "paired"
    assert (found.original, found.quantized, found.drop) == (0.9, 0.8, pytest.approx(0.1))
    assert (found.drop_low, found.drop_high) == paired_difference(6, 2, 40)
    assert found.original_low == wilson(36, 40)[0]


def test_samples_without_a_score_count_nowhere(metric):
    assert scored(metric("sometimes"), [(1.0, 1.0)] * 5).samples == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one_sided", "for one model only in call 0"),
        ("never", "no score for any of 1 samples"),
        ("pair", "gave list in call 0, not a number"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(metric, name, message):
    with pytest.raises(DataError, match=message) as caught:
        scored(metric(name), [(2.0, 0.5)])
    assert caught.value.code == "G110"


def test_a_number_in_text_is_a_number_and_other_text_is_none(metric):
    assert scored(metric("text"), [(1.0, 1.0)]).original == 1.0


def test_an_error_of_the_users_code_says_where(metric):
    with pytest.raises(DataError, match=r"'own\.py:fails' failed at line \d+ of 'own\.py': KeyError") as caught:
        scored(metric("fails"), [(1.0, 1.0)])
    assert caught.value.code == "D109"


def test_a_metric_that_spoils_its_dictionary_spoils_no_other(metric):
    observation = call(0, 1.0, 1.0)
    UserScorer(metric("spoils")).observe(observation)
    assert list(observation.original) == ["y"]


def test_a_score_that_is_not_finite_is_a_metric_that_is_not(metric):
    found = scored(metric("score"), [(1.0, np.nan), (2.0, 1.0)])
    assert np.isnan(found.quantized)
    assert np.isnan(found.drop)
    assert (found.interval, found.drop_low) == ("none", None)


def test_a_class_scores_the_set_and_has_no_interval(metric):
    found = scored(metric("Total"), [(1.0, 1.0), (2.0, 1.0)])
    assert (found.name, found.sentence) == ("Total", "Sum of everything.")
    assert (found.original, found.quantized, found.drop, found.samples) == (3.0, 2.0, 1.0, 2)
    assert (found.interval, found.original_low) == ("none", None)


def test_labels_are_needed_where_the_parameter_has_no_default(metric):
    assert metric("right").needs_labels
    assert not metric("optional").needs_labels
    assert metric("optional").wants == ("labels",)
    assert not metric("score").needs_labels


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("greedy", "needs 'temperature', which is not given"),
        ("wrong_way", "has better = 'up'"),
        ("Half", "has no 'result'"),
        ("scroe", "did you mean"),
    ],
)
def test_what_is_no_metric_is_refused_when_it_is_loaded(metric, name, message):
    with pytest.raises(DataError, match=message):
        metric(name)


def test_another_name_may_be_given(metric):
    assert metric("score", "wer=").name == "wer"


@pytest.mark.parametrize("text", ["own.py", "own.py:", "9=m:f", "a_drop=m.n:f", "a-b=m.n:f", "a.b"])
def test_text_that_names_no_metric_is_refused(text):
    with pytest.raises(UsageError) as caught:
        load_metric(text)
    assert caught.value.code == "G108"


def test_a_function_of_a_module_is_found():
    assert load_metric("area=statistics:fmean").name == "area"
