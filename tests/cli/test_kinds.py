"""Values of the command line become values of the program, or are refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from quantcli.cli.kinds import ByteSize, Provider, ReportFile, Shape
from quantcli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [("2GB", 2_000_000_000), ("512MiB", 512 * 2**20), ("1.5 kb", 1500), ("4096", 4096), ("3G", 3 * 10**9)],
)
def test_sizes_are_decimal_or_binary_as_their_unit_says(text, value):
    assert ByteSize().convert(text, None, None) == value


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2XB", "0", "1e9"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(click.BadParameter, match="no size"):
        ByteSize().convert(text, None, None)


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
    with pytest.raises(UsageError, match=r"'r\.html' ends in '\.html'") as caught:
        ReportFile().convert("out/r.html", None, None)
    assert caught.value.code == "U103"
