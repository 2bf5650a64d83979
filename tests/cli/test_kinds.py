"""Values of the command line become values of the program, or are refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from quantcli.cli.kinds import Provider, ReportFile, ReportForms, Shape
from quantcli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=1x3x224x224", ("x", (1, 3, 224, 224))),
        ("a=b=2", ("a=b", (2,))),
        ("scalar=", ("scalar", ())),
        ("x=0x4", ("x", (0, 4))),
    ],
)
def test_shapes_belong_to_a_name(text, value):
    assert Shape().convert(text, None, None) == value


@pytest.mark.parametrize("text", ["1x3", "=1x3", "x=1x-3", "x=1,3", "x=axb", "x=²"])
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(click.BadParameter, match="no shape"):
        Shape().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cpu", "CPUExecutionProvider"),
        ("CUDA", "CUDAExecutionProvider"),
        ("QNNExecutionProvider", "QNNExecutionProvider"),
    ],
)
def test_providers_have_short_names(text, name):
    assert Provider().convert(text, None, None) == name


def test_what_is_no_provider_is_refused():
    with pytest.raises(click.BadParameter, match="no execution provider"):
        Provider().convert("gpu", None, None)


def test_the_ending_of_a_report_says_its_form():
    assert ReportFile().convert("out/r.JSON", None, None) == Path("out/r.JSON")
    with pytest.raises(UsageError, match=r"'r\.pdf' ends in '\.pdf'") as caught:
        ReportFile().convert("out/r.pdf", None, None)
    assert (caught.value.code, caught.value.hint) == ("U103", "name it .json, .md, .html or .xml")


def test_forms_of_reports_are_separated_by_commas():
    assert ReportForms().convert("md, HTML,junit", None, None) == ("md", "html", "junit")
    with pytest.raises(click.BadParameter, match="'pdf' is no form of a report; there are terminal, json"):
        ReportForms().convert("md,pdf", None, None)
