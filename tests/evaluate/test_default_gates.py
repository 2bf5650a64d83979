"""The gates that hold unasked, and what they say."""

from __future__ import annotations

import dataclasses

import pytest
from full_report import output
from toy_models import CODES, FLOAT, Samples, half_steps, qdq_text, save

from quantcli.evaluate.compare import compare_models
from quantcli.evaluate.default_gates import default_gates
from quantcli.evaluate.gate_syntax import parse_gate
from quantcli.evaluate.gates import evaluate_gates
from quantcli.evaluate.tensors import TensorOptions

SWAPPED = tuple(CODES[index - index % 3 + (1, 0, 2)[index % 3]] for index in range(12))


def judged(tmp_path, text, gates=(), *, data=True):
    return compare_models(
        save(FLOAT, tmp_path / "net.onnx"),
        save(text, tmp_path / "net.int8.onnx"),
        dataset=Samples({"x": half_steps(20)}) if data else None,
        gates=gates,
        tensors=TensorOptions(),
        default=True,
    )


@pytest.mark.parametrize("data", [True, False])
def test_an_exact_model_passes(tmp_path, data):
    report = judged(tmp_path, qdq_text(), data=data)
    assert report.verdict.status == "pass"
    assert [(gate.expression, gate.origin) for gate in report.gates] == [
        (name, "default") for name in (["suspects<=0", "nonfinite<=0", "sqnr>=10"] if data else ["suspects<=0"])
    ]


@pytest.mark.parametrize("data", [True, False])
@pytest.mark.parametrize("text", [qdq_text(scale=1.0), qdq_text(codes=SWAPPED)], ids=["scale", "channels"])
def test_a_fault_fails_and_the_sentence_names_the_layer(tmp_path, text, data):
    report = judged(tmp_path, text, data=data)
    assert report.verdict.status == "fail"
    assert "1 suspect: 'fc' (MatMul)" in report.verdict.sentence


def test_a_gate_of_ones_own_takes_the_place_of_the_default(tmp_path):
    report = judged(tmp_path, qdq_text(scale=1.0), ["suspects<=3", "sqnr>=-30"])
    assert [gate.expression for gate in report.gates] == ["suspects<=3", "sqnr>=-30", "nonfinite<=0"]
    assert report.verdict.status == "pass"


def test_gates_that_cannot_be_measured_are_left_out():
    assert default_gates((), data=False, tensors=False, synthetic=False) == ()
    asked = [parse_gate("suspects<=1")]
    gates = default_gates(asked, data=True, tensors=True, synthetic=False)
    assert [gate.metric for gate in gates] == ["nonfinite", "sqnr"]
    assert [gate.metric for gate in default_gates(asked, data=True, tensors=True, synthetic=True)] == ["nonfinite"]


def test_class_numbers_have_no_noise():
    outputs = [output("scores"), dataclasses.replace(output("class"), integers=True)]
    gates = default_gates((), data=True, tensors=False, outputs=outputs, synthetic=False)
    assert [gate.expression for gate in gates] == ["nonfinite<=0", "scores.sqnr>=10"]


def test_a_model_that_is_all_noise_fails_without_any_gate_of_ones_own(tmp_path):
    report = judged(tmp_path, qdq_text(codes=(7, -8, 7, -8, 7, -8, 7, -8, 7, -8, 7, -8)))
    failed = {gate.metric for gate in report.gates if gate.status == "fail"}
    assert "sqnr" in failed


def test_clipping_and_the_worst_layer_can_be_gated(tmp_path):
    report = judged(tmp_path, qdq_text(), ["clipped<=0%", "worst_tensor_sqnr>=20"])
    assert [gate.status for gate in report.gates] == ["pass"] * 5
    without = dataclasses.replace(report, tensors=None)
    assert evaluate_gates([parse_gate("clipped<=1%")], without)[0].status == "not-measured"
