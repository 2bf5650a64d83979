import dataclasses
import math

import pytest

from quantcli.core.intervals import wilson
from quantcli.evaluate.gate_syntax import parse_gate
from quantcli.evaluate.gates import evaluate_gates, verdict
from quantcli.report.schema import (
    Accuracy,
    DataFacts,
    GateResult,
    Latency,
    LayerWeightError,
    ModelFacts,
    OutputFidelity,
    Rate,
    Report,
    SizeComparison,
    StructureComparison,
    StructureFacts,
    Verdict,
    WeightComparison,
)


def rate(hits, trials):
    low, high = wilson(hits, trials)
    return Rate(
        value=hits / trials, low=low, high=high, confidence=0.95, samples=trials, trials=trials,
        effective_trials=float(trials),
    )  # fmt: skip


def output(name="logits", sqnr=30.0, top1=None, **other):
    base = OutputFidelity(
        name=name, quantized_name=name, samples=300, elements=3000, sqnr=sqnr, cosine=0.999, cosine_min=0.99,
        cosine_global=0.9995, rmse=0.1, max_abs=1.0, top1=top1,
    )  # fmt: skip
    return dataclasses.replace(base, **other)


def facts(name, size):
    return ModelFacts(name=name, sha256="0" * 64, bytes=size, opset=13, ir_version=8)


def structure(floats, quantized):
    return StructureFacts(
        nodes=9, ops=(), initializers=(), quantize_nodes=1, dequantize_nodes=1, compute_quantized=quantized,
        compute_weight_only=0, compute_float=floats,
    )  # fmt: skip


def accuracy(broken=6, fixed=3, trials=300):
    return Accuracy(
        output="logits", original=rate(200, trials), quantized=rate(200 - broken + fixed, trials),
        drop=(broken - fixed) / trials, drop_low=-0.01, drop_high=0.03, effective_trials=float(trials),
        broken=broken, fixed=fixed,
    )  # fmt: skip


def report(**other):
    base = Report(
        original=facts("a.onnx", 1000),
        quantized=facts("b.onnx", 260),
        verdict=Verdict(status="no-gates", sentence=""),
        size=SizeComparison(ratio=0.26),
        structure=StructureComparison(original=structure(10, 0), quantized=structure(2, 8)),
        outputs=(output(),),
    )
    return dataclasses.replace(base, **other)


def gate(text, **other):
    return evaluate_gates([parse_gate(text)], report(**other))[0]


@pytest.mark.parametrize(
    ("text", "status", "margin"),
    [
        ("sqnr>=25", "pass", 5.0),
        ("sqnr>=30", "pass", 0.0),
        ("sqnr>30", "fail", 0.0),
        ("sqnr>=31", "fail", -1.0),
        ("max_abs<=1", "pass", 0.0),
        ("rmse<0.1", "fail", 0.0),
        ("rmse<=0.25", "pass", 0.15),
        ("size_ratio<=30%", "pass", 0.04),
        ("float_nodes<=1", "fail", -1.0),
        ("float_nodes==2", "pass", 0.0),
        ("quantized_nodes==9", "fail", -1.0),
        ("nonfinite==0", "pass", 0.0),
    ],
)
def test_plain_values_pass_or_fail_with_their_margin(text, status, margin):
    result = gate(text)
    assert result.status == status
    assert result.margin == pytest.approx(margin)


def test_without_a_named_output_the_worst_one_decides():
    outputs = (output("good", 40.0), output("bad", 12.0), output("fair", 30.0))
    assert gate("sqnr>=20", outputs=outputs).output == "bad"
    assert gate("sqnr>=20", outputs=outputs).status == "fail"
    assert gate("good.sqnr>=20", outputs=outputs).status == "pass"
    assert gate("sqnr<=50", outputs=outputs).output == "good"  # the closest to its limit


def test_a_certain_failure_outweighs_an_uncertain_worse_value():
    outputs = (output("few", top1=rate(9, 10)), output("many", top1=rate(9400, 10_000)))
    result = gate("top1_agreement>=0.95", outputs=outputs)
    assert (result.output, result.status) == ("many", "fail")


def test_infinite_sqnr_passes_and_nan_fails_everything():
    assert gate("sqnr>=25", outputs=(output(sqnr=math.inf),)).status == "pass"
    assert gate("sqnr>=inf", outputs=(output(sqnr=math.inf),)).margin == 0.0
    for text in ("cosine>=0", "cosine<=1"):
        assert gate(text, outputs=(output(cosine=math.nan),)).status == "fail"


def test_an_interval_around_the_limit_is_undecided_and_says_how_many_samples_would_do():
    result = gate("top1_agreement>=99%", outputs=(output(top1=rate(300, 300)),))
    assert (result.status, result.samples_needed) == ("undecided", 381)
    assert "300 samples cannot decide, about 381 would" in result.sentence
    assert gate("top1_agreement>=99%", outputs=(output(top1=rate(381, 381)),)).status == "pass"


def test_an_interval_on_one_side_decides():
    assert gate("top1_agreement>=0.9", outputs=(output(top1=rate(299, 300)),)).status == "pass"
    assert gate("top1_agreement>=0.9", outputs=(output(top1=rate(200, 300)),)).status == "fail"


def test_a_value_on_its_limit_is_never_decided_by_more_samples():
    result = gate("top1_agreement>=0.9", outputs=(output(top1=rate(270, 300)),))
    assert (result.status, result.samples_needed) == ("undecided", None)
    assert "too close" in result.sentence


def test_full_agreement_can_be_asked_of_the_samples_at_hand():
    assert gate("top1_agreement>=1", outputs=(output(top1=rate(300, 300)),)).status == "pass"
    assert gate("top1_agreement==1", outputs=(output(top1=rate(299, 300)),)).status == "fail"


def test_correlated_positions_need_more_samples():
    dense = dataclasses.replace(rate(9900, 10_000), samples=50, effective_trials=100.0, low=0.95, high=0.998)
    result = gate("top1_agreement>=0.98", outputs=(output(top1=dense),))
    # z²·0.98·0.02/0.01² = 753 effective trials, at 2 a sample
    assert (result.status, result.samples_needed) == ("undecided", 377)


def test_outputs_without_a_class_axis_do_not_count_for_agreement():
    outputs = (output("boxes"), output("classes", top1=rate(300, 300)))
    assert gate("top1_agreement>=0.9", outputs=outputs).output == "classes"
    alone = gate("top1_agreement>=0.9", outputs=(output("boxes"),))
    assert (alone.status, alone.value) == ("not-measured", None)
    assert gate("boxes.top1_agreement>=0.9", outputs=outputs).status == "not-measured"


def test_an_output_of_another_shape_passes_no_gate():
    outputs = (output("a"), output("b", shape_mismatches=3))
    assert gate("sqnr>=1", outputs=outputs).status == "not-measured"
    assert "shape" in gate("sqnr>=1", outputs=outputs).sentence


def test_accuracy_and_its_drop_are_judged_by_their_intervals():
    assert gate("accuracy>=50%", accuracy=accuracy()).status == "pass"
    undecided = gate("accuracy_drop<=2pp", accuracy=accuracy())
    assert undecided.status == "undecided"
    assert undecided.samples_needed > 300
    assert gate("accuracy_drop<=5pp", accuracy=accuracy()).status == "pass"
    assert gate("accuracy_drop<=-2pp", accuracy=accuracy()).status == "fail"


def test_accuracy_on_made_up_samples_is_not_measured():
    data = DataFacts(name="random:8", samples=8, synthetic=True)
    assert gate("accuracy>=0.1", accuracy=accuracy(), data=data).status == "not-measured"


def test_latency_is_judged_by_the_interval_of_the_ratio():
    timing = Latency(
        threads=1, pairs=50, runs=1, warmup=3, original_ms=2.0, quantized_ms=1.9, ratio=0.95, low=0.90, high=1.05,
        confidence=0.95, runtime="1",
    )  # fmt: skip
    result = gate("latency_ratio<=1", latency=timing)
    assert (result.status, result.samples_needed) == ("undecided", 200)  # (0.10 / 0.05)² · 50
    assert "50 pairs cannot decide" in result.sentence
    assert gate("latency_ratio<=1.1", latency=timing).status == "pass"
    assert gate("latency_ratio<=0.95", latency=timing).samples_needed is None


def test_what_was_not_measured_fails_and_is_never_silent():
    for text in ("latency_ratio<=1", "accuracy>=0", "weight_sqnr>=1"):
        result = gate(text)
        assert result.status == "not-measured"
        assert "was not measured" in result.sentence
    assert gate("sqnr>=1", outputs=()).status == "not-measured"
    assert gate("float_nodes<=1", structure=None).status == "not-measured"
    assert gate("sqnr>=1", outputs=(output(sqnr=None),)).status == "not-measured"


def test_the_worst_weight_decides():
    layers = tuple(
        LayerWeightError(
            node=n, op="Conv", dtype="int8", granularity="per-tensor", elements=4, sqnr=s, step_rmse=0.3
        )
        for n, s in (("a", 22.0), ("b", 40.0))
    )
    weights = WeightComparison(weights=2, matched=2, kept_float=0, not_found=0, batchnorm_folded=0, layers=layers)
    assert gate("weight_sqnr>=30", weights=weights).value == 22.0


def test_a_value_that_rounds_to_its_limit_is_shown_in_full():
    result = gate("top1_agreement==1", outputs=(output(top1=rate(9_999_999, 10_000_000)),))
    assert result.status == "fail"
    assert "99.99999 %" in result.sentence


def result(status, severity="fail"):
    return GateResult(
        expression="x",
        metric="sqnr",
        severity=severity,
        status=status,
        value=1.0,
        limit=1.0,
        margin=0.0,
        sentence="",
    )


@pytest.mark.parametrize(
    ("results", "status", "sentence"),
    [
        ([], "no-gates", "no gates were set"),
        ([result("pass")], "pass", "1 of 1 gates passed"),
        ([result("pass"), result("fail")], "fail", "1 of 2 gates passed, 1 failed"),
        ([result("not-measured")], "fail", "1 failed"),
        ([result("fail", "warn"), result("pass")], "pass", "1 failed as a warning"),
        ([result("undecided"), result("pass")], "undecided", "1 undecided"),
        ([result("undecided"), result("fail")], "fail", "1 failed, 1 undecided"),
        ([result("undecided", "warn"), result("pass")], "pass", "1 undecided"),
    ],
)
def test_the_verdict_follows_from_all_gates(results, status, sentence):
    answer = verdict(results)
    assert answer.status == status
    assert sentence in answer.sentence
