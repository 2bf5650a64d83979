"""Gates on top-k, PSNR, tasks and metrics of the user's own."""

import dataclasses
import math

import pytest
from test_gates import accuracy, gate, output, rate

from quantcli.core.intervals import wilson
from quantcli.errors import UsageError
from quantcli.evaluate.gate_syntax import parse_gate, require_measurable
from quantcli.evaluate.gates import evaluate_gates
from quantcli.evaluate.metric_names import find_metric, given_metrics, top_k
from quantcli.evaluate.metric_table import Needs
from quantcli.evaluate.user_metric import UserMetric
from quantcli.report.schema import TaskMetric, TopK

OWN = given_metrics(
    [
        UserMetric(name="wer", sentence="word errors", better="lower", code=None, wants=()),
        UserMetric(name="bleu", sentence="likeness", better="higher", code=None, wants=()),
    ]
)


def task(name="miou", value=0.7, drop=0.01, spread=0.02, samples=50, **other):
    return dataclasses.replace(
        TaskMetric(
            name=name, sentence="", better="higher", samples=samples, original=value + drop, quantized=value,
            quantized_low=value - spread, quantized_high=value + spread, drop=drop, drop_low=drop - spread,
            drop_high=drop + spread, confidence=0.95, interval="bootstrap",
        ),
        **other,
    )  # fmt: skip


def own(text, **other):
    from test_gates import report

    return evaluate_gates([parse_gate(text, OWN)], report(**other))[0]


def test_any_number_of_classes_has_a_name():
    assert [top_k(name) for name in ("top5_agreement", "top12_accuracy", "top3_accuracy_drop")] == [5, 12, 3]
    assert [top_k(name) for name in ("top1_agreement", "top0_accuracy", "top5", "atop5_accuracy", "accuracy")] == [
        None
    ] * 5
    assert "7 best" in find_metric("top7_agreement").sentence
    assert "top-7" in find_metric("top7_accuracy_drop").sentence
    assert find_metric("top7_nonsense") is None


def test_top_1_accuracy_is_accuracy():
    assert parse_gate("top1_accuracy>=70%").expression == "accuracy>=70%"
    assert parse_gate("top1_accuracy_drop<=1pp").metric == "accuracy_drop"


def test_a_drop_of_nothing_needs_as_many_samples_as_an_unseen_event():
    most = wilson(0, 64)[1]
    result = gate("miou_drop<=1pp", metrics=(task(drop=0.0, spread=most, samples=64),))
    assert (result.status, result.samples_needed) == ("undecided", 381)  # as full agreement needs to prove 99 %
    assert wilson(0, 381)[1] < 0.01 < wilson(0, 380)[1]


def test_the_user_s_metrics_have_rows_of_their_own_and_of_their_drops():
    assert list(OWN) == ["wer", "wer_drop", "bleu", "bleu_drop"]
    assert (OWN["wer"].better, OWN["bleu"].better, OWN["bleu_drop"].better) == ("lower", "higher", "lower")
    assert parse_gate("wer<=5%", OWN).limit == pytest.approx(0.05)
    assert parse_gate("wer_drop<=1pp", OWN).limit == pytest.approx(0.01)
    assert parse_gate("wer<=12", OWN).row.sentence == "word errors"


def test_the_user_s_metrics_are_known_only_where_they_are_given():
    with pytest.raises(UsageError, match="'wer', which is no metric"):
        parse_gate("wer<=1")
    with pytest.raises(UsageError) as caught:
        parse_gate("bleus>=1", OWN)
    assert "'bleu'" in caught.value.hint
    with pytest.raises(UsageError, match="belongs to the whole model"):
        parse_gate("logits.wer<=1", OWN)


@pytest.mark.parametrize(
    ("text", "need"),
    [
        ("psnr>=30", Needs.RANGE),
        ("miou>=0.5", Needs.SEGMENTATION),
        ("map50_drop<=1pp", Needs.DETECTION),
        ("wer<=1", Needs.METRIC),
    ],
)
def test_what_is_not_given_cannot_be_asked_for(text, need):
    options = {"data": True, "labels": True, "latency": True, "synthetic": False}
    gates = [parse_gate(text, OWN)]
    require_measurable(gates, **options, more=[need])
    with pytest.raises(UsageError) as caught:
        require_measurable(gates, **options)
    assert caught.value.code == "G104"
    with pytest.raises(UsageError):
        require_measurable(gates, **{**options, "data": False}, more=[need])


def test_a_truth_of_made_up_samples_is_refused():
    with pytest.raises(UsageError) as caught:
        require_measurable(
            [parse_gate("miou>=0.5")], data=True, labels=False, latency=False, synthetic=True,
            more=[Needs.SEGMENTATION],
        )  # fmt: skip
    assert caught.value.code == "G105"


def test_psnr_is_judged_where_the_range_is_known():
    known, unknown = output("a", psnr=31.0, peak=1.0), output("b")
    assert gate("psnr>=30", outputs=(known, unknown)).status == "pass"
    assert gate("psnr>=30", outputs=(known, unknown)).output == "a"
    missing = gate("b.psnr>=30", outputs=(known, unknown))
    assert (missing.status, "range is not given" in missing.sentence) == ("not-measured", True)
    assert gate("psnr>=99", outputs=(output("a", psnr=math.inf, peak=1.0),)).status == "pass"


def test_top_k_agreement_is_judged_by_its_interval():
    many = output("many", topk=(TopK(k=3, agreement=rate(290, 300)), TopK(k=5, agreement=rate(300, 300))))
    few = output("few")
    assert gate("top5_agreement>=95%", outputs=(many, few)).status == "pass"
    assert gate("top3_agreement>=99%", outputs=(many, few)).status == "fail"
    assert gate("top5_agreement>=99%", outputs=(many, few)).samples_needed == 381
    missing = gate("top7_agreement>=1%", outputs=(many, few))
    assert (missing.status, "no 7 classes" in missing.sentence) == ("not-measured", True)


def test_top_k_accuracy_and_its_drop_are_judged_by_their_intervals():
    labelled = dataclasses.replace(accuracy(), topk=(task("top5_accuracy", 0.9, drop=0.005),))
    assert gate("top5_accuracy>=85%", accuracy=labelled).status == "pass"
    assert gate("top5_accuracy_drop<=3pp", accuracy=labelled).status == "pass"
    assert gate("top5_accuracy_drop<=2pp", accuracy=labelled).status == "undecided"
    assert "no 9 classes" in gate("top9_accuracy>=85%", accuracy=labelled).sentence
    assert "no real samples with labels" in gate("top5_accuracy>=85%").sentence


@pytest.mark.parametrize(
    ("text", "status", "needed"),
    [
        ("miou>=65%", "pass", None),
        ("miou>=75%", "fail", None),
        ("miou>=69%", "undecided", 200),  # the interval of ±0.02 has to shrink to ±0.01: four times as many
        ("miou_drop<=4pp", "pass", None),
        ("miou_drop<=-2pp", "fail", None),
        ("miou_drop<=2pp", "undecided", 200),
        ("miou_drop<=1pp", "undecided", None),
    ],
)
def test_tasks_are_judged_by_their_intervals(text, status, needed):
    result = gate(text, metrics=(task(),))
    assert result.status == status
    assert result.samples_needed == (None if needed is None else pytest.approx(needed, abs=1))  # rounded up
    assert result.status != "undecided" or "50 samples cannot decide" in result.sentence


def test_a_metric_of_sets_has_no_interval_and_is_taken_as_it_is():
    plain = task("bleu", quantized_low=None, quantized_high=None, drop_low=None, drop_high=None)
    assert own("bleu>=0.7", metrics=(plain,)).status == "pass"
    assert own("bleu>=0.701", metrics=(plain,)).status == "fail"
    assert own("bleu_drop<=0.009", metrics=(plain,)).status == "fail"


def test_a_metric_that_is_no_number_fails():
    broken = task("wer", quantized=math.nan, drop=math.nan, quantized_low=None, quantized_high=None)
    assert own("wer<=1", metrics=(broken,)).status == "fail"
    assert own("wer_drop<=1", metrics=(broken,)).status == "fail"


def test_a_task_that_was_not_asked_for_is_not_measured():
    assert gate("map>=10%").status == "not-measured"
    assert own("wer<=1").status == "not-measured"


def test_a_rate_at_its_end_needs_what_wilson_says():
    low, _ = wilson(50, 50)
    assert gate("top5_agreement>=92%", outputs=(output(topk=(TopK(k=5, agreement=rate(50, 50)),)),)).status == (
        "pass" if low >= 0.92 else "undecided"
    )
