from pathlib import Path

import pytest
from toy_models import FLOAT, Samples, half_steps, save

from quantcli.errors import UsageError
from quantcli.evaluate.compare import compare_models
from quantcli.evaluate.gate_list import parse_gates


def test_all_bad_gates_are_named_at_once_with_what_each_should_be():
    with pytest.raises(UsageError) as caught:
        parse_gates(["sqrn>=1", "sqnr>=20", "accuracy_drop<=1", "cosine is 1"])
    error = caught.value
    assert error.code == "G111"
    assert error.message.splitlines()[0] == "3 gates are wrong:"
    for part in (
        "1. [G101]",
        "did you mean 'sqnr'",
        "2. [G103]",
        "did you mean '1pp'?",
        "3. [G102] the gate 'cosine is 1'",
    ):
        assert part in error.message


def test_one_bad_gate_keeps_its_own_code():
    with pytest.raises(UsageError) as caught:
        parse_gates(["sqnr>=20", "sqrn>=1"])
    assert caught.value.code == "G101"


def test_the_same_mistake_is_told_once():
    with pytest.raises(UsageError) as caught:
        parse_gates(["sqrn>=1", "sqrn>=1"])
    assert caught.value.code == "G101"


def test_gates_that_are_parsed_already_stay():
    gates = parse_gates(["sqnr>=20", "cosine>=0.9:warn"])
    assert parse_gates(gates) == gates


def test_everything_that_was_not_given_is_named_at_once_before_anything_is_read():
    gates = ["sqnr>=1", "accuracy>=0.5", "size_ratio<=1", "latency_ratio<=1"]
    with pytest.raises(UsageError, match="3 gates are wrong") as caught:
        compare_models(Path("nowhere.onnx"), Path("nowhere.onnx"), gates=gates)
    for metric in ("sqnr", "accuracy", "latency_ratio"):
        assert f"the gate '{metric}" in caught.value.message


def test_all_outputs_that_do_not_exist_are_named_at_once(tmp_path):
    model = save(FLOAT, tmp_path / "a.onnx")
    gates = ["logit.sqnr>=1", "boxes.sqnr>=1", "logits.sqnr>=1"]
    with pytest.raises(UsageError, match="2 gates are wrong") as caught:
        compare_models(model, model, dataset=Samples({"x": half_steps(2)}), gates=gates)
    assert "'logit'" in caught.value.message
    assert "'boxes'" in caught.value.message
