"""``quantcli compare``: exit code 1 means a failed gate, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_fakes import invoke, replace_use_case, report

from quantcli.report.to_json import from_json

MODELS = ("compare", "m.onnx", "m.int8.onnx")


@pytest.fixture
def spy(monkeypatch):
    return replace_use_case(monkeypatch, "compare", report())


def test_options_reach_the_request(spy):
    from quantcli.pipeline.types import CompareRequest, DataOptions, RunOptions

    result = invoke(
        *MODELS, "--data", "e.npz", "--labels", "l.npy", "--labels-output", "y", "--gate", "sqnr>=20",
        "--gate", "size_ratio<=30%:warn", "--latency", "--repeats", "9", "--report", "r.md", "--threads", "2",
        "--samples", "5", "--memory", "--no-checks", "-f",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    request = spy.request
    assert request == CompareRequest(
        original=Path("m.onnx"),
        quantized=Path("m.int8.onnx"),
        data=DataOptions(specs=("e.npz",), samples=5),
        labels=Path("l.npy"),
        labels_output="y",
        gates=("sqnr>=20", "size_ratio<=30%:warn"),
        latency=True,
        repeats=9,
        checks=False,
        memory=True,
        reports=(Path("r.md"),),
        run=RunOptions(threads=2),
        overwrite=True,
        command=request.command,
    )
    assert request.command.startswith("quantcli compare m.onnx m.int8.onnx --data e.npz")


def test_checks_are_made_unless_they_are_declined(spy):
    invoke(*MODELS)
    assert (spy.request.checks, spy.request.memory) == (True, False)


def test_memory_is_measured_on_samples(spy):
    result = invoke(*MODELS, "--memory")
    assert result.exit_code == 2
    assert "--memory has no effect without --data" in result.stderr


@pytest.mark.parametrize(("status", "exit_code"), [("no-gates", 0), ("pass", 0), ("undecided", 0), ("fail", 1)])
def test_one_means_that_a_gate_failed(monkeypatch, status, exit_code):
    replace_use_case(monkeypatch, "compare", report(status))
    result = invoke(*MODELS)
    assert result.exit_code == exit_code
    assert "a sentence" in result.stdout


@pytest.mark.parametrize(
    ("status", "choice", "exit_code"),
    [("undecided", "fail", 1), ("undecided", "pass", 0), ("pass", "fail", 0), ("no-gates", "fail", 0)],
)
def test_an_undecided_gate_fails_only_where_that_was_asked(monkeypatch, status, choice, exit_code):
    replace_use_case(monkeypatch, "compare", report(status))
    result = invoke(*MODELS, "--undecided", choice)
    assert result.exit_code == exit_code
    assert ("undecided" in result.stderr) == (status == "undecided")


def test_exit_zero_is_stronger_than_undecided_gates(monkeypatch):
    replace_use_case(monkeypatch, "compare", report("undecided"))
    result = invoke(*MODELS, "--undecided", "fail", "--exit-zero")
    assert result.exit_code == 0
    assert "gives exit code 1" not in result.stderr


def test_the_baseline_reaches_the_request(spy):
    result = invoke(
        *MODELS, "--baseline", "b.json", "--allow-regression", "sqnr=1dB", "--allow-regression", "x=off"
    )
    assert result.exit_code == 0, result.output
    assert spy.request.baseline == Path("b.json")
    assert spy.request.allow_regression == ("sqnr=1dB", "x=off")


def test_an_allowed_regression_needs_a_baseline(spy):
    result = invoke(*MODELS, "--allow-regression", "sqnr=1dB")
    assert result.exit_code == 2
    assert "has no effect without --baseline" in result.stderr


def test_exit_zero_only_reports(monkeypatch):
    replace_use_case(monkeypatch, "compare", report("fail"))
    assert invoke(*MODELS, "--exit-zero").exit_code == 0


def test_json_is_the_report_and_nothing_else(monkeypatch):
    replace_use_case(monkeypatch, "compare", report("fail"))
    result = invoke(*MODELS, "--json")
    assert result.exit_code == 1
    assert from_json(result.stdout) == report("fail")


def test_the_table_is_what_was_asked_for_so_quiet_keeps_it(spy):
    result = invoke("-q", *MODELS)
    assert "logits" in result.stdout
    assert result.stderr == ""


def test_off_a_terminal_there_are_no_escape_codes(spy):
    assert "\x1b" not in invoke(*MODELS, "-v").output


def test_other_report_forms_are_refused_before_any_work(spy):
    result = invoke(*MODELS, "--report", "r.pdf")
    assert result.exit_code == 2
    assert "error[U103]" in result.stderr
    assert spy.calls == []


def test_metrics_reach_the_request(spy):
    from quantcli.pipeline.types import MetricRequest

    result = invoke(
        *MODELS, "--data", "e.npz", "--output-range", "y=0:1", "--output-range", "255", "--top-k", "3", "--task",
        "segmentation?truth=t.npy", "--metric", "own.py:score", "--metric", "m:f",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert spy.request.metrics == MetricRequest(
        ranges=("y=0:1", "255"),
        top_k=(3,),
        tasks=("segmentation?truth=t.npy",),
        functions=("own.py:score", "m:f"),
    )


@pytest.mark.parametrize(
    "option",
    [("--top-k", "3"), ("--output-range", "1"), ("--task", "segmentation?truth=t.npy"), ("--metric", "m:f")],
)
def test_metrics_need_samples(spy, option):
    result = invoke(*MODELS, *option)
    assert result.exit_code == 2
    assert "no effect without --data" in result.stderr


def test_one_best_class_is_the_accuracy_that_there_is_anyway(spy):
    assert invoke(*MODELS, "--data", "e.npz", "--top-k", "1").exit_code == 2
