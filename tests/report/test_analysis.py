"""Analyses: JSON and back, its schema, and the renderings."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console
from small_analysis import analysis, bare

from quantcli.errors import DataError
from quantcli.report.analysis_lines import block
from quantcli.report.analysis_markdown import render_analysis_markdown
from quantcli.report.analysis_terminal import render_analysis_terminal
from quantcli.report.json_schema import analysis_schema, analysis_schema_text
from quantcli.report.markdown import LIMIT
from quantcli.report.to_json import analysis_from_json, analysis_to_json

DOCUMENTED = Path(__file__).parents[2] / "docs" / "analysis.schema.json"
EVIL = "a|b`<i>[red]@x\n# $(rm)"


def screen(verbose: bool = False, **fields: object) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=160, markup=False, highlight=False, emoji=False)
    render_analysis_terminal(analysis(**fields), console, verbose=verbose)
    return stream.getvalue()


@pytest.mark.parametrize("value", [analysis(), bare(), analysis(EVIL, synthetic=True)])
def test_an_analysis_survives_json_unchanged(value):
    assert analysis_from_json(analysis_to_json(value)) == value
    jsonschema.Draft202012Validator(analysis_schema()).validate(json.loads(analysis_to_json(value)))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "no 'analysis_version'"),
        ('{"schema_version": 1}', "no 'analysis_version'"),
        ('{"analysis_version": 99}', "analysis version 99, and this quantcli reads 1"),
        ('{"analysis_version": 1}', "'analysis.model' is missing"),
    ],
)
def test_a_file_that_is_no_analysis_is_refused(text, why):
    with pytest.raises(DataError, match=f"not a quantcli analysis: .*{why}") as caught:
        analysis_from_json(text)
    assert caught.value.code == "G301"


def test_the_documented_schema_is_the_generated_one():
    """Regenerate: python -c "from quantcli.report.json_schema import *; print(analysis_schema_text(), end='')"."""
    assert DOCUMENTED.read_text(encoding="utf-8") == analysis_schema_text()


def test_every_field_of_the_schema_is_described():
    schema = analysis_schema()
    for item in (schema, schema["$defs"]["LayerSensitivity"], schema["$defs"]["ExcludeStep"]):
        assert all("description" in field for field in item["properties"].values())


def test_the_block_can_be_pasted_into_a_shell():
    text = " ".join(line.removesuffix("\\") for line in block(analysis(EVIL)))
    assert shlex.split(text) == ["--exclude", EVIL.replace("\n", " "), "--exclude", "it's"]
    assert [line.endswith(" \\") for line in block(analysis())] == [True, False]


def test_one_screen_shows_the_ranking_the_remedies_and_the_block():
    text = screen()
    assert len(text.splitlines()) < 40
    for part in (
        "27.0 dB",
        "+3.00 dB",
        "50.0 %",
        "outlier channels",
        "+0.031 ms",
        "+12.0 kB",
        "--exclude conv_1 \\",
    ):
        assert part in text


def test_more_layers_are_shown_when_asked_for():
    assert "and 18 more layers" in screen(many=30)
    assert "conv_1_29" in screen(verbose=True, many=30)


def test_an_analysis_without_anything_to_say_is_rendered():
    stream = io.StringIO()
    render_analysis_terminal(bare(), Console(file=stream, width=100))
    assert "No layer is worth leaving in float" in stream.getvalue()
    assert "No layer is worth it" in render_analysis_markdown(bare())


def test_made_up_samples_are_stamped():
    assert "SYNTHETIC" in screen(synthetic=True)
    assert "SYNTHETIC" in render_analysis_markdown(analysis(synthetic=True))


def test_markdown_escapes_what_comes_from_files():
    text = render_analysis_markdown(analysis(EVIL))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert all("<i>" not in line and "`" not in line.replace("\\`", "") for line in table)
    assert "\n# $(rm)" not in text


def test_markdown_stays_below_its_limit():
    assert len(render_analysis_markdown(analysis("n" * 70, many=3000)).encode()) <= LIMIT
