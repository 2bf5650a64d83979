import pytest

from quantcli.errors import UsageError
from quantcli.evaluate.allowance import Measure
from quantcli.evaluate.allowance_syntax import allowed, parse_allowed_regression
from quantcli.evaluate.metric_table import METRICS, Better


def parse(text, tasks=()):
    return parse_allowed_regression(text, tasks)


@pytest.mark.parametrize(
    ("text", "output", "amount", "measure", "severity"),
    [
        ("sqnr=1dB", None, 1.0, Measure.UNITS, "fail"),
        ("sqnr = 1.5", None, 1.5, Measure.UNITS, "fail"),
        ("a.b/c.sqnr=.5dB:warn", "a.b/c", 0.5, Measure.UNITS, "warn"),
        ("accuracy=0.5pp", None, 0.005, Measure.UNITS, "fail"),
        ("top1_agreement=0.01", None, 0.01, Measure.UNITS, "fail"),
        ("accuracy_drop=1pp", None, 0.01, Measure.UNITS, "fail"),
        ("cosine=10%", None, 0.1, Measure.DISTANCE, "fail"),
        ("cosine=1e-4", None, 1e-4, Measure.UNITS, "fail"),
        ("rmse=10%", None, 0.1, Measure.SHARE, "fail"),
        ("size_ratio=2%", None, 0.02, Measure.SHARE, "fail"),
        ("latency_ratio=0.05x", None, 0.05, Measure.UNITS, "fail"),
        ("float_nodes=2", None, 2.0, Measure.UNITS, "fail"),
    ],
)
def test_an_allowed_regression_says_how_much_of_what(text, output, amount, measure, severity):
    found = parse(text)
    assert found.output == output
    assert found.allowance.amount == pytest.approx(amount)
    assert found.allowance.measure is measure
    assert found.severity == severity


def test_off_leaves_a_metric_out():
    assert parse("max_abs=off").allowance is None


def test_metrics_of_tasks_are_known_from_the_baseline():
    assert parse("mine=2%", ["mine"]).allowance.measure is Measure.SHARE
    assert parse("mine=2pp", ["mine"]).allowance.amount == pytest.approx(0.02)
    with pytest.raises(UsageError, match="no metric"):
        parse("mine=2%")


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("sqrn=1", "G101", "'sqnr'"),
        ("sqnr", "G112", "METRIC=AMOUNT"),
        ("sqnr=-1", "G112", "METRIC=AMOUNT"),
        ("sqnr=1:loud", "G112", "METRIC=AMOUNT"),
        ("sqnr=5%", "G112", "dB"),
        ("accuracy=0.5%", "G112", "0.5pp"),
        ("logits.accuracy=1pp", "G112", "accuracy="),
        ("float_nodes=1dB", "G112", "plain number"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write(text, code, hint):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.code == code
    assert hint in caught.value.hint


def test_the_last_one_counts_and_one_with_an_output_before_others():
    asked = [parse("sqnr=1"), parse("b.sqnr=3"), parse("sqnr=2")]
    assert allowed("sqnr", "a", asked).allowance.amount == 2
    assert allowed("sqnr", "b", asked).allowance.amount == 3
    assert allowed("sqnr", "a", [*asked, parse("sqnr=off")]) is None


def test_metrics_that_repeat_others_are_held_only_where_they_are_named():
    assert allowed("max_abs", "a", []) is None
    assert allowed("max_abs", "a", [parse("max_abs=1")]) is not None


@pytest.mark.parametrize("row", METRICS.values(), ids=lambda row: row.name)
@pytest.mark.parametrize("value", [0.0, 0.25, 0.999, 1.0])
def test_an_allowance_never_asks_for_more_than_the_baseline_has(row, value):
    higher = row.better is Better.HIGHER
    limit = row.allowance.limit(value, higher_is_better=higher)
    assert limit <= value if higher else limit >= value


def test_half_a_decibel_is_the_same_noise_in_all_its_forms():
    power = 10 ** (METRICS["sqnr"].allowance.amount / 10)
    assert METRICS["rmse"].allowance.amount == pytest.approx(power**0.5 - 1, abs=1e-3)
    assert METRICS["cosine"].allowance.amount == pytest.approx(power - 1, abs=3e-3)
