import numpy as np
import pytest

from quantcli.core.intervals import mcnemar_p, paired_difference
from quantcli.evaluate.labels import LabelScorer
from quantcli.evaluate.top_k import TopAccuracy, TopAgreement, counts_for

RNG = np.random.default_rng(0)
REFERENCE = RNG.normal(size=(40, 20)).astype(np.float32)
OTHER = (REFERENCE + RNG.normal(size=(40, 20))).astype(np.float32)
LABELS = RNG.integers(0, 20, 40)


def best(values, k):
    return np.argsort(-values, axis=1, kind="stable")[:, :k]


def test_five_is_the_usual_number_of_many_classes():
    assert counts_for((), 10) == ()
    assert counts_for((), 11) == (5,)
    assert counts_for((3, 5), 20) == (3, 5)
    assert counts_for((2, 12), 11) == (2, 5)  # 12 of 11 classes always agree


def test_agreement_asks_for_the_best_class_among_the_k_best():
    top = TopAgreement((2,))
    for row in range(40):
        top.observe(REFERENCE[row : row + 1], OTHER[row : row + 1], 1)
    whole = TopAgreement((2,))
    whole.observe(REFERENCE, OTHER, 1)
    assert top.results() == whole.results()
    for found in top.results():
        expected = np.mean([REFERENCE[i].argmax() in best(OTHER, found.k)[i] for i in range(40)])
        assert found.agreement.value == pytest.approx(expected)
    assert [found.k for found in top.results()] == [2, 5]


def test_positions_of_one_sample_are_no_samples():
    top = TopAgreement()
    top.observe(REFERENCE.reshape(4, 10, 20), OTHER.reshape(4, 10, 20), 2)
    (found,) = top.results()
    assert (found.agreement.samples, found.agreement.trials) == (4, 40)


def test_a_position_that_holds_a_nan_never_agrees():
    broken = OTHER.copy()
    broken[:, 3] = np.nan
    top = TopAgreement()
    top.observe(REFERENCE, broken, 1)
    top.observe(broken, REFERENCE, 1)
    assert top.results()[0].agreement.value == 0


def test_accuracy_asks_for_the_label_among_the_k_best():
    scorer = LabelScorer(LABELS, top_k=(3,))
    scorer.choose({"y": (40, 20)}, None)
    scorer.observe(REFERENCE, OTHER)
    found = scorer.result()
    assert [metric.name for metric in found.topk] == ["top3_accuracy", "top5_accuracy"]
    for metric, k in zip(found.topk, (3, 5), strict=True):
        right = [np.array([LABELS[i] in best(values, k)[i] for i in range(40)]) for values in (REFERENCE, OTHER)]
        assert (metric.original, metric.quantized) == (
            pytest.approx(right[0].mean()),
            pytest.approx(right[1].mean()),
        )
        lost, gained = (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()
        assert (metric.drop_low, metric.drop_high) == paired_difference(lost, gained, 40)
        assert metric.interval == "paired"
    assert found.p_value == mcnemar_p(found.broken, found.fixed)


def test_accuracy_by_class_adds_up_to_the_accuracy():
    scorer = LabelScorer(LABELS)
    scorer.choose({"y": (40, 20)}, None)
    for row in range(40):
        scorer.observe(REFERENCE[row : row + 1], OTHER[row : row + 1])
    found = scorer.result()
    assert sum(one.samples for one in found.classes) == 40
    assert {one.label for one in found.classes} == {str(label) for label in set(LABELS.tolist())}
    hits = sum(one.quantized * one.samples for one in found.classes)
    assert hits / 40 == pytest.approx(found.quantized.value)


def test_labels_below_zero_have_no_part():
    top = TopAccuracy()
    top.observe(np.full(40, -1), REFERENCE, OTHER, 1)
    assert (top.results(), top.classes()) == ((), ())


def test_positions_along_a_middle_axis_are_scored_as_along_the_last():
    labels = RNG.integers(0, 20, (4, 10))
    last, middle = TopAccuracy((2,)), TopAccuracy((2,))
    values = REFERENCE.reshape(4, 10, 20), OTHER.reshape(4, 10, 20)
    last.observe(labels, *values, 2)
    middle.observe(labels, *(np.moveaxis(value, 2, 1) for value in values), 1)
    assert last.results() == middle.results()
    assert last.classes() == middle.classes()


def test_correlated_decisions_have_no_mcnemar_test():
    scorer = LabelScorer(RNG.integers(0, 20, (4, 10)))
    scorer.choose({"y": (1, 10, 20)}, 4)
    for row in range(4):
        scorer.observe(*(values.reshape(4, 10, 20)[row : row + 1] for values in (REFERENCE, OTHER)))
    assert scorer.result().p_value is None
