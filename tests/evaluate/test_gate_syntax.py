import pytest

from quantcli.errors import UsageError
from quantcli.evaluate.gate_syntax import Gate, parse_gate, require_measurable, require_outputs
from quantcli.evaluate.metric_table import METRICS, show


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqnr>=25", ("sqnr", None, ">=", 25.0, "fail")),
        ("sqnr >= 25dB", ("sqnr", None, ">=", 25.0, "fail")),
        ("sqnr>=inf", ("sqnr", None, ">=", float("inf"), "fail")),
        ("top1_agreement>=0.99", ("top1_agreement", None, ">=", 0.99, "fail")),
        ("top1_agreement>=99%", ("top1_agreement", None, ">=", 0.99, "fail")),
        ("accuracy_drop<=0.01:warn", ("accuracy_drop", None, "<=", 0.01, "warn")),
        ("accuracy_drop <= 1pp : warn", ("accuracy_drop", None, "<=", 0.01, "warn")),
        ("accuracy_drop<-.5e-2", ("accuracy_drop", None, "<", -0.005, "fail")),
        ("size_ratio<=30%", ("size_ratio", None, "<=", 0.30, "fail")),
        ("latency_ratio<1x", ("latency_ratio", None, "<", 1.0, "fail")),
        ("float_nodes==3:fail", ("float_nodes", None, "==", 3.0, "fail")),
        ("logits.cosine>=0.999", ("cosine", "logits", ">=", 0.999, "fail")),
        ("a/b.c:0.max_abs<2", ("max_abs", "a/b.c:0", "<", 2.0, "fail")),
        ("x>=1.rmse<=3", ("rmse", "x>=1", "<=", 3.0, "fail")),
        ("out.sqnr.sqnr>7", ("sqnr", "out.sqnr", ">", 7.0, "fail")),
    ],
)
def test_a_gate_is_read_as_metric_operator_and_limit(text, expected):
    gate = parse_gate(text)
    assert (gate.metric, gate.output, gate.op, gate.severity) == (*expected[:3], expected[4])
    assert gate.limit == pytest.approx(expected[3], rel=1e-12)


def test_the_expression_is_kept_without_spaces_and_severity():
    assert parse_gate(" a b.cosine >= 0.9 :warn").expression == "a b.cosine>=0.9"


@pytest.mark.parametrize(
    "text",
    ["", "sqnr", "sqnr>=", ">=3", "sqnr>=nan", "sqnr>=3:loud", "sqnr>=3 4", "sqnr=3", "sqnr>=3%",
     "accuracy_drop<=1%", "rmse<=3dB", "logits.size_ratio<=1"],
)  # fmt: skip
def test_what_is_no_gate_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_gate(text)
    assert caught.value.code == "G102"


def test_a_misspelt_metric_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="'top_1_agreement', which is no metric") as caught:
        parse_gate("top_1_agreement>=0.9")
    assert caught.value.code == "G101"
    assert "'top1_agreement'" in caught.value.hint


def test_an_output_without_a_metric_is_answered_with_all_metrics():
    with pytest.raises(UsageError) as caught:
        parse_gate("zzz>=0.9")
    assert all(name in caught.value.hint for name in METRICS)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("top1_agreement>=99", "99%"),
        ("accuracy>=75", "75%"),
        ("accuracy_drop<=1", "1pp"),
        ("size_ratio<=-1", None),
        ("cosine>=1.01", None),
        ("accuracy_drop<=100pp", None),
    ],
)
def test_a_limit_that_can_never_or_always_hold_is_refused(text, meant):
    with pytest.raises(UsageError) as caught:
        parse_gate(text)
    assert caught.value.code == "G103"
    assert meant is None or meant in caught.value.hint


def test_gates_on_what_is_not_measured_are_refused_at_once():
    everything = {"data": True, "labels": True, "latency": True, "synthetic": False}
    cases = {"sqnr>=1": "data", "accuracy>=0.5": "labels", "latency_ratio<=1": "latency"}
    for text, missing in cases.items():
        require_measurable([parse_gate(text)], **everything)
        with pytest.raises(UsageError) as caught:
            require_measurable([parse_gate(text + ":warn")], **{**everything, missing: False})
        assert caught.value.code == "G104"
    require_measurable([parse_gate("size_ratio<=1")], data=False, labels=False, latency=False, synthetic=False)


def test_accuracy_gates_on_made_up_samples_are_refused():
    with pytest.raises(UsageError, match="made-up") as caught:
        require_measurable([parse_gate("accuracy_drop<=0")], data=True, labels=True, latency=False, synthetic=True)
    assert caught.value.code == "G105"
    require_measurable([parse_gate("sqnr>=1")], data=True, labels=False, latency=False, synthetic=True)


def test_a_gate_on_an_output_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="'logit'") as caught:
        require_outputs([parse_gate("logit.sqnr>=1")], ["boxes", "logits"])
    assert caught.value.code == "G106"
    assert "'logits'" in caught.value.hint
    require_outputs([parse_gate("boxes.sqnr>=1"), parse_gate("sqnr>=1")], ["boxes", "logits"])


def test_every_metric_says_what_it_is_and_takes_its_own_value_back():
    for name, metric in METRICS.items():
        assert metric.name == name
        assert len(metric.sentence) > 30
        assert parse_gate(f"{name}>=0.5") == Gate(
            expression=f"{name}>=0.5", metric=name, output=None, op=">=", limit=0.5
        )
        for unit in metric.units:
            assert parse_gate(f"{name}<=50{unit}").limit == pytest.approx(50 * metric.units[unit])


def test_values_are_shown_in_the_unit_of_their_metric():
    shown = [show(METRICS[name], value) for name, value in (
        ("sqnr", 31.234), ("top1_agreement", 0.98666), ("accuracy_drop", -0.02), ("size_ratio", 0.26955),
        ("cosine", 0.9990861), ("float_nodes", 3.0),
    )]  # fmt: skip
    assert shown == ["31.23 dB", "98.67 %", "-2 pp", "0.2696 ×", "0.999086", "3"]
