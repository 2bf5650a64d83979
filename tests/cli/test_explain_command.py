"""``quantcli explain``: everything that has a name can be explained."""

from __future__ import annotations

import pytest
from cli_fakes import invoke

from quantcli.calibration.estimators import ESTIMATORS
from quantcli.cli.topics import find_topic, topics
from quantcli.errors import ERROR_CODES, UsageError
from quantcli.evaluate.metric_table import METRICS
from quantcli.ops.reasons import REASONS
from quantcli.ops.targets import TARGETS


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
