"""``quantcli explain``: everything that has a name can be explained."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest
from cli_fakes import invoke

from quantcli import errors
from quantcli.calibration.estimators import ESTIMATORS
from quantcli.cli.error_guide import ADVICE, exit_code_of_error
from quantcli.cli.input_guide import INPUT_ADVICE
from quantcli.cli.metric_examples import example_allowance, example_gate
from quantcli.cli.reason_guide import REMEDIES
from quantcli.cli.topics import find_topic, topics
from quantcli.errors import ERROR_CODES, UsageError
from quantcli.evaluate.allowance_syntax import parse_allowed_regression
from quantcli.evaluate.gate_syntax import parse_gate
from quantcli.evaluate.metric_table import METRICS, Better
from quantcli.ops.reasons import REASONS
from quantcli.ops.targets import TARGETS
from quantcli.report.analysis import Cause
from quantcli.report.tensors import Finding


def test_every_registry_is_there():
    names = set(topics())
    assert set(ERROR_CODES) <= names
    assert set(REASONS) <= names
    assert {f"target:{name}" for name in TARGETS} <= names
    assert {f"gate:{name}" for name in METRICS} <= names
    assert {f"method:{name}" for name in ESTIMATORS} <= names


def test_codes_are_unique_across_registries():
    assert not set(ERROR_CODES) & set(REASONS)


@pytest.mark.parametrize("name", sorted(topics()))
def test_every_topic_is_found_by_its_name_and_says_something(name):
    topic = find_topic(name.lower())
    assert topic.name == name
    assert topic.summary.strip()


def test_explaining_a_code_prints_its_sentence():
    result = invoke("explain", "f203")
    assert result.exit_code == 0
    assert result.stdout.startswith("F203  why a node stays in float\n  A grouped convolution")
    assert result.stderr == ""


def test_a_prefix_may_be_left_out_where_one_topic_fits():
    assert find_topic("conv").name == "op:Conv"
    assert find_topic("ort-cpu").name == "target:ort-cpu"
    assert find_topic("tensorrt").name == "target:tensorrt"


def test_nearest_topics_are_offered():
    with pytest.raises(UsageError) as caught:
        find_topic("gate:sqrn")
    assert caught.value.hint is not None
    assert "'gate:sqnr'" in caught.value.hint


def test_the_list_has_every_group_and_names_every_operator():
    text = invoke("explain").stdout
    for topic in topics().values():
        assert topic.group in text
        assert topic.name in text


def test_the_long_list_has_summaries_of_errors_too():
    assert "damaged: truncated" in invoke("explain", "-v").stdout


def test_every_reason_says_what_can_be_done():
    assert set(REMEDIES) == set(REASONS), "say in reason_guide what to do about a new reason"


def test_every_error_has_a_cause_a_remedy_and_its_exit_code():
    advice = {**ADVICE, **INPUT_ADVICE}
    assert set(advice) == set(ERROR_CODES), "write what stands behind a new code, in error_guide or input_guide"
    assert not set(ADVICE) & set(INPUT_ADVICE)
    for code in ERROR_CODES:
        facts = dict(find_topic(code).facts)
        assert list(facts) == ["cause", "remedy", "exit code"]
        assert all(text.endswith((".", "…", "?")) for text in (facts["cause"], facts["remedy"])), code


def exit_codes_raised() -> dict[str, set[int]]:
    """Code → exit codes of the classes of errors that are raised with it somewhere in the package."""
    classes = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    found: dict[str, set[int]] = {}
    for path in Path(errors.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in classes
                and node.args
            ):
                code = node.args[0]
                if isinstance(code, ast.Constant):
                    found.setdefault(code.value, set()).add(classes[node.func.id].exit_code)
    return found


def test_the_exit_code_of_an_error_is_that_of_the_class_it_is_raised_as():
    raised = exit_codes_raised()
    assert len(raised) > 60
    assert {code: {exit_code_of_error(code)} for code in raised} == raised


def test_every_word_of_a_report_and_every_exit_code_is_explained():
    names = set(topics())
    assert {f"finding:{name}" for name in get_args(Finding)} == {
        name for name in names if name.startswith("finding:")
    }
    assert {f"cause:{name}" for name in get_args(Cause)} == {name for name in names if name.startswith("cause:")}
    exits = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {f"exit:{code}" for code in exits} == {name for name in names if name.startswith("exit:")}


def test_an_exit_code_is_found_by_its_number():
    assert find_topic("70").name == "exit:70"
    assert invoke("explain", "exit:1").stdout.startswith("exit:1  exit codes\n  A gate failed")


@pytest.mark.parametrize("row", METRICS.values(), ids=lambda row: row.name)
def test_the_example_of_a_metric_is_a_gate_of_it_and_its_allowance_reads_back(row):
    gate = parse_gate(example_gate(row))
    assert gate.metric == row.name
    assert gate.op == (">=" if row.better is Better.HIGHER else "<=")
    found = parse_allowed_regression(example_allowance(row))
    assert found.allowance.amount == pytest.approx(row.allowance.amount)
    assert found.allowance.measure is row.allowance.measure
    facts = dict(find_topic(f"gate:{row.name}").facts)
    assert {"better", "needs", "example", "baseline"} <= set(facts)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_target_says_what_it_takes_and_how_far_that_was_checked(target):
    facts = dict(find_topic(f"target:{target.name}").facts)
    assert facts["forms"].startswith("static")
    assert ("not run here" in facts["checked"]) == bool(target.runtime)
    assert facts["checked"].startswith("measured") == target.measured
    assert facts["source"]
    assert ("weights alone" in facts) == bool(target.stored_widths)
