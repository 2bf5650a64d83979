"""A report against an earlier one: what got worse by more than is allowed fails, noise does not."""

import dataclasses
import math

import numpy as np
import pytest
from test_gates import accuracy, output, rate, report, structure

from quantcli.core.intervals import paired_difference, wilson
from quantcli.errors import UsageError
from quantcli.evaluate.allowance_syntax import parse_allowed_regression
from quantcli.evaluate.baseline import EarlierReport, hold_against
from quantcli.report.schema import DataFacts, Latency, SizeComparison, StructureComparison, TaskMetric, Verdict


def data(fingerprint="f", **other):
    return DataFacts(name="eval.npz", samples=300, synthetic=False, fingerprint=fingerprint, **other)


def timing(ratio, half, threads=1):
    return Latency(
        threads=threads, pairs=50, runs=1, warmup=3, original_ms=2.0, quantized_ms=2 * ratio, ratio=ratio,
        low=ratio - half, high=ratio + half, confidence=0.95, runtime="1",
    )  # fmt: skip


def task(value, half=None, better="higher"):
    low, high = (None, None) if half is None else (value - half, value + half)
    return TaskMetric(
        name="mine", sentence="a metric", better=better, samples=9, original=1.0, quantized=value,
        quantized_low=low, quantized_high=high, drop=0.0,
    )  # fmt: skip


def held(before, now, *allow, tasks=("mine",)):
    parsed = tuple(parse_allowed_regression(text, tasks) for text in allow)
    return hold_against(now, EarlierReport(name="base.json", report=before, allowed=parsed))


def gates(before, now, *allow):
    return {(gate.metric, gate.output): gate for gate in held(before, now, *allow).gates}


def with_sqnr(value, **other):
    return report(outputs=(output(sqnr=value),), data=data(), **other)


@pytest.mark.parametrize(
    ("now", "status"), [(30.0, "pass"), (29.5, "pass"), (29.49, "fail"), (31.0, "pass"), (math.nan, "fail")]
)
def test_half_a_decibel_may_be_lost(now, status):
    gate = gates(with_sqnr(30.0), with_sqnr(now))["sqnr", "logits"]
    assert (gate.status, gate.origin) == (status, "baseline")
    assert gate.limit == 29.5


def test_the_sentence_says_what_is_what_was_and_what_has_to_be():
    gate = gates(with_sqnr(31.0), with_sqnr(27.25))["sqnr", "logits"]
    assert gate.sentence == "sqnr of 'logits' is 27.25 dB, but has to be >= 30.5 dB (baseline: 31 dB)"
    assert gate.expression == "logits.sqnr>=30.5"
    assert gate.margin == -3.25


def test_a_regression_fails_the_verdict_and_a_warning_does_not():
    assert held(with_sqnr(31.0), with_sqnr(27.0)).verdict.status == "fail"
    assert held(with_sqnr(31.0), with_sqnr(27.0), "sqnr=1dB:warn").verdict.status == "pass"
    assert held(with_sqnr(31.0), with_sqnr(27.0), "sqnr=5dB").verdict.status == "pass"


def test_gates_that_were_asked_for_stay_and_count():
    now = with_sqnr(31.0)
    asked = gates(with_sqnr(31.0), now)["sqnr", "logits"]
    failed = dataclasses.replace(asked, status="fail", origin="asked")
    found = held(with_sqnr(31.0), dataclasses.replace(now, gates=(failed,)))
    assert found.gates[0] == failed
    assert found.verdict.status == "fail"


def test_what_was_exact_has_to_stay_exact():
    assert gates(with_sqnr(math.inf), with_sqnr(math.inf))["sqnr", "logits"].status == "pass"
    assert gates(with_sqnr(math.inf), with_sqnr(90.0))["sqnr", "logits"].status == "fail"


def test_a_share_is_of_the_value_and_of_the_distance_from_one_for_cosine():
    before = report(outputs=(output(cosine=0.99, rmse=2.0),), data=data())
    found = gates(before, before, "rmse=10%", "logits.cosine=50%")
    assert found["rmse", "logits"].limit == pytest.approx(2.2)
    assert found["cosine", "logits"].limit == pytest.approx(0.985)


def test_counts_and_sizes_are_held_without_samples():
    before, now = report(outputs=()), report(outputs=(), size=SizeComparison(ratio=0.27))
    now = dataclasses.replace(
        now, structure=StructureComparison(original=structure(10, 0), quantized=structure(3, 8))
    )
    found = gates(before, now)
    assert {key[0]: gate.status for key, gate in found.items()} == {
        "size_ratio": "fail", "float_nodes": "fail", "quantized_nodes": "pass",
    }  # fmt: skip


def with_agreement(hits, trials=300, fingerprint="f"):
    return report(outputs=(output(top1=rate(hits, trials)),), data=data(fingerprint))


@pytest.mark.parametrize(("hits", "status"), [(294, "pass"), (293, "pass"), (292, "undecided"), (270, "fail")])
def test_on_the_same_samples_what_is_within_passes_and_beyond_it_noise_counts(hits, status):
    found = gates(with_agreement(294), with_agreement(hits))["top1_agreement", "logits"]
    assert found.status == status  # 98 % − 0.5 pp is 292.5 of 300
    assert (found.low is None) == (status == "pass")


def test_an_undecided_gate_on_the_same_samples_says_how_many_would_decide_it():
    found = gates(with_agreement(294), with_agreement(286))["top1_agreement", "logits"]
    assert found.status == "undecided"
    assert f"300 samples cannot decide, about {found.samples_needed} would" in found.sentence
    share = found.samples_needed / 300
    more = gates(
        with_agreement(round(294 * share), found.samples_needed),
        with_agreement(round(286 * share), found.samples_needed),
    )["top1_agreement", "logits"]
    # Wilson's intervals do not shrink with the root exactly, so "about" is within a quarter
    assert more.status == "fail" or abs(more.high - more.limit) < 0.25 * (found.high - found.limit)


@pytest.mark.parametrize(
    ("hits", "status"), [(294, "undecided"), (290, "undecided"), (270, "fail"), (300, "pass")]
)
def test_on_other_samples_the_interval_of_the_difference_decides(hits, status):
    found = held(with_agreement(294), with_agreement(hits, fingerprint="other"))
    gate = next(gate for gate in found.gates if gate.metric == "top1_agreement")
    assert gate.status == status
    assert gate.low <= gate.value <= gate.high <= 1
    assert found.baseline.same_data is False
    assert any("other samples" in note for note in found.baseline.notes)


@pytest.mark.parametrize(("value", "status"), [(29.6, "pass"), (28.0, "undecided"), (24.9, "fail")])
def test_sqnr_on_other_samples_fails_only_where_they_are_no_explanation(value, status):
    now = dataclasses.replace(with_sqnr(value), data=data("other"))
    assert gates(with_sqnr(30.0), now)["sqnr", "logits"].status == status


def test_values_that_are_not_finite_are_no_matter_of_samples():
    now = report(outputs=(output(nonfinite_differ=1),), data=data("other"))
    assert gates(with_sqnr(30.0), now)["nonfinite", "logits"].status == "fail"


def test_sizes_and_counts_are_no_matter_of_samples():
    now = dataclasses.replace(with_sqnr(30.0, size=SizeComparison(ratio=0.27)), data=data("other"))
    assert gates(with_sqnr(30.0), now)["size_ratio", None].status == "fail"


def test_many_other_samples_can_show_that_nothing_got_worse():
    found = gates(with_agreement(29_400, 30_000), with_agreement(29_400, 30_000, "other"))
    assert found["top1_agreement", "logits"].status == "pass"


def test_false_alarms_on_other_samples_are_as_rare_as_the_interval_says():
    """A model exactly as much worse as is allowed fails in 2.5 % of all pairs of reports."""
    rng = np.random.default_rng(0)
    trials, count = 400, 2500
    old, new = rng.binomial(trials, 0.9, count), rng.binomial(trials, 0.895, count)
    decided = {}
    for pair in zip(old, new, strict=True):
        if pair not in decided:
            decided[pair] = gates(with_agreement(pair[0], trials), with_agreement(pair[1], trials, "other"))[
                "top1_agreement", "logits"
            ].status
    alarms = np.mean([decided[pair] == "fail" for pair in zip(old, new, strict=True)])
    # 0.025 ± 3 standard errors of 0.0031; counts are discrete
    assert 0.013 < alarms < 0.037


def test_a_baseline_without_a_fingerprint_counts_as_other_samples():
    before = dataclasses.replace(with_agreement(294), data=data(None))
    found = held(before, with_agreement(290))
    assert found.baseline.same_data is None
    assert found.verdict.status == "undecided"
    assert any("does not say which samples" in note for note in found.baseline.notes)


def test_times_are_noisy_even_on_the_same_samples():
    def with_time(*values):
        return with_sqnr(30.0, latency=timing(*values))

    def status(before, now):
        return gates(before, now)["latency_ratio", None].status

    assert status(with_time(0.5, 0.001), with_time(0.51, 0.001)) == "pass"
    assert status(with_time(0.5, 0.02), with_time(0.53, 0.02)) == "undecided"
    assert status(with_time(0.5, 0.02), with_time(0.6, 0.02)) == "fail"


def test_times_of_other_threads_are_not_compared():
    found = held(with_sqnr(30.0, latency=timing(0.5, 0.01)), with_sqnr(30.0, latency=timing(0.9, 0.01, threads=4)))
    assert not [gate for gate in found.gates if gate.metric == "latency_ratio"]
    assert any("threads" in note for note in found.baseline.notes)


def right(broken, fixed, trials=300, hits=200):
    low, high = paired_difference(broken, fixed, trials)
    return dataclasses.replace(
        accuracy(broken, fixed, trials), original=rate(hits, trials),
        quantized=rate(hits - broken + fixed, trials), drop_low=low, drop_high=high,
    )  # fmt: skip


def with_accuracy(*counts, **other):
    return with_sqnr(30.0, accuracy=right(*counts), **other)


def test_accuracy_is_held_and_its_drop_only_where_it_is_named():
    before, now = with_accuracy(6, 3), with_accuracy(40, 3)
    found = gates(before, now)
    assert found["accuracy", None].status == "fail"
    assert ("accuracy_drop", None) not in found
    assert gates(before, now, "accuracy_drop=1pp")["accuracy_drop", None].status == "fail"


def test_a_drop_of_accuracy_is_seen_through_its_pairs_where_its_own_interval_is_too_wide():
    """200 → 188 right of 300: Wilson's intervals overlap widely, the changed decisions do not."""
    before, now = with_accuracy(0, 0), with_accuracy(12, 0)
    assert gates(before, now)["accuracy", None].status == "fail"
    other = dataclasses.replace(now, data=data("other"))
    assert gates(before, other)["accuracy", None].status == "undecided"
    retrained = dataclasses.replace(now, original=dataclasses.replace(now.original, sha256="1" * 64))
    assert gates(before, retrained)["accuracy", None].status == "undecided"


def test_a_few_changed_decisions_are_noise():
    assert gates(with_accuracy(4, 3), with_accuracy(6, 2))["accuracy", None].status == "undecided"
    assert gates(with_accuracy(4, 3), with_accuracy(5, 3))["accuracy", None].status == "pass"


@pytest.mark.parametrize(("loss", "most"), [(0.0, 0.01), (0.005, 0.035)])
def test_false_alarms_on_the_same_samples_are_rare(loss, most):
    """Two models that flip decisions at random; the new one loses none, or just what is allowed."""
    rng = np.random.default_rng(1)
    trials, hits, count = 500, 450, 1500
    verdicts = {}
    alarms = 0
    for _ in range(count):
        counts = []
        for extra in (0.0, loss):  # each model breaks 2 % and fixes 2 % of all decisions, the new one breaks more
            broken = rng.binomial(hits, (0.02 + extra) * trials / hits)
            counts += [broken, rng.binomial(trials - hits, 0.02 * trials / (trials - hits))]
        key = tuple(counts)
        if key not in verdicts:
            before = with_accuracy(*key[:2], trials, hits)
            now = with_accuracy(*key[2:], trials, hits)
            verdicts[key] = gates(before, now)["accuracy", None].status
        alarms += verdicts[key] == "fail"
    assert alarms / count < most  # 2.5 % at the limit, and 2.5 standard errors


def test_metrics_of_tasks_are_held_by_a_hundredth_of_their_value():
    before = with_sqnr(30.0, metrics=(task(0.50),))
    assert gates(before, with_sqnr(30.0, metrics=(task(0.495),)))["mine", None].status == "pass"
    assert gates(before, with_sqnr(30.0, metrics=(task(0.494),)))["mine", None].status == "fail"
    assert gates(before, with_sqnr(30.0, metrics=(task(0.4),)), "mine=20pp")["mine", None].status == "pass"
    loss = with_sqnr(30.0, metrics=(task(2.0, better="lower"),))
    worse = with_sqnr(30.0, metrics=(task(2.1, better="lower"),))
    assert gates(loss, worse)["mine", None].expression == "mine<=2.02"
    assert gates(loss, worse)["mine", None].status == "fail"


def test_what_is_no_longer_measured_is_noted():
    before = with_accuracy(6, 3, metrics=(task(0.5),))
    (note,) = [note for note in held(before, with_sqnr(30.0)).baseline.notes if "not measured now" in note]
    assert "accuracy" in note
    assert "mine" in note


def test_an_output_that_is_gone_is_noted_while_others_are_held():
    before = report(outputs=(output("a"), output("b")), data=data())
    found = held(before, report(outputs=(output("b"),), data=data()))
    assert any("sqnr of 'a'" in note for note in found.baseline.notes)
    assert any(gate.output == "b" for gate in found.gates)


def test_a_named_regression_that_cannot_be_judged_is_an_error():
    with pytest.raises(UsageError, match=r"the baseline 'base.json' does not have") as caught:
        held(with_sqnr(30.0), with_sqnr(30.0, accuracy=right(6, 3)), "accuracy=1pp")
    assert caught.value.code == "G303"
    assert "labels" in caught.value.hint
    with pytest.raises(UsageError, match="the new report does not have"):
        held(with_sqnr(30.0, accuracy=right(6, 3)), with_sqnr(30.0), "accuracy=1pp")


def test_a_baseline_about_other_outputs_is_refused():
    with pytest.raises(UsageError, match="'boxes'") as caught:
        held(report(outputs=(output("boxes"),)), report(outputs=(output("logits"),)))
    assert caught.value.code == "G302"


def test_nothing_to_hold_is_an_error():
    before = report(outputs=())
    with pytest.raises(UsageError) as caught:
        held(before, before, "size_ratio=off", "float_nodes=off", "quantized_nodes=off")
    assert caught.value.code == "G302"


def test_made_up_samples_are_never_held_against_real_ones():
    before = dataclasses.replace(
        with_sqnr(30.0), data=DataFacts(name="random", samples=8, synthetic=True, fingerprint="r")
    )
    found = held(before, with_sqnr(10.0))
    assert {gate.metric for gate in found.gates} == {"size_ratio", "float_nodes", "quantized_nodes"}
    assert any("made-up" in note for note in found.baseline.notes)


def test_what_makes_the_reports_less_comparable_is_noted():
    before = with_sqnr(30.0, tools={"onnxruntime": "1.30"}, verdict=Verdict(status="fail", sentence=""))
    before = dataclasses.replace(before, original=dataclasses.replace(before.original, sha256="1" * 64))
    text = " ".join(held(before, with_sqnr(30.0, tools={"onnxruntime": "1.32"})).baseline.notes)
    for part in ("another original", "onnxruntime 1.30", "itself failed"):
        assert part in text


def test_metrics_of_tasks_use_the_noise_of_their_change():
    def with_task(value, half):
        found = dataclasses.replace(
            task(value, 0.2),
            original=0.6,
            drop=0.6 - value,
            drop_low=0.6 - value - half,
            drop_high=0.6 - value + half,
        )
        return with_sqnr(30.0, metrics=(found,))

    assert gates(with_task(0.5, 0.01), with_task(0.45, 0.01))["mine", None].status == "fail"
    assert gates(with_task(0.5, 0.1), with_task(0.45, 0.1))["mine", None].status == "undecided"


def test_the_interval_of_a_rate_is_wider_than_its_own_where_the_baseline_is_noisy_too():
    gate = gates(with_agreement(294), with_agreement(290, fingerprint="other"))["top1_agreement", "logits"]
    assert gate.low < wilson(290, 300)[0]


def test_accuracy_by_more_classes_is_held_like_a_metric_of_a_task():
    def with_top5(value):
        top5 = dataclasses.replace(task(value), name="top5_accuracy_of_mine")
        return with_sqnr(30.0, accuracy=dataclasses.replace(right(6, 3), topk=(top5,)))

    assert gates(with_top5(0.9), with_top5(0.8))["top5_accuracy_of_mine", None].status == "fail"
