import math
import shlex
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from full_analysis import analysis
from full_report import EVIL
from test_html import Page

from quantcli.report.html.analysis import analysis_page, render_analysis_html


def test_a_full_analysis_says_everything():
    page = Page(render_analysis_html(analysis()))
    for part in (
        "28.4 dB", "/features/conv0 (Conv) makes 20 % of the noise: outlier channels",
        "4 of them make half of the noise", "Exclude block", "--exclude /features/conv0", "What leaving out gains",
        "Most sensitive layers", "+0.02 ms", "quantcli analyze net.onnx",
        "the prediction was checked", "0.4 dB",
    ):  # fmt: skip
        assert part in page.text, part


def test_bars_are_shares_split_by_what_makes_them():
    """The first layer has 20 % of the noise, 7 parts of 10 of it by activations."""
    figure = analysis_page(analysis()).sections[0].figures[0]
    titles = [title.text or "" for title in ET.fromstring(figure.markup).iter("title")]
    assert len(titles) == 60
    assert titles[0].startswith("/features/conv0 (Conv): 20 % of the noise")


def test_an_analysis_without_layers_renders():
    page = Page(render_analysis_html(replace(analysis(), layers=(), exclude=(), checks=None)))
    assert "no layer makes any error" in page.text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_can_be_rendered(value):
    found = analysis(layers=2)
    broken = tuple(replace(item, share=value, gain=value, sqnr=value, weight_noise=value) for item in found.layers)
    steps = tuple(replace(item, predicted=value, measured=value) for item in found.exclude)
    Page(render_analysis_html(replace(found, layers=broken, exclude=steps, sqnr=value, sqnr_predicted=value)))


def test_names_from_files_bring_in_no_elements():
    plain, evil = (Page(render_analysis_html(analysis(name))) for name in ("conv", EVIL))
    count = [
        [tag for tag, _ in page.elements if tag not in ("text", "path", "g", "line")] for page in (plain, evil)
    ]
    assert count[0] == count[1]


def test_made_up_samples_are_stamped():
    assert render_analysis_html(analysis(synthetic=True)).count("SYNTHETIC") >= 2


def test_the_exclude_block_can_be_pasted_into_a_shell():
    page = Page(render_html_of("a'b $(x)"))
    block = page.text.partition("--exclude")[1:]
    words = shlex.split("".join(block).partition("Exclude block")[0].replace("\\\n", " "))
    assert words == [word for i in range(5) for word in ("--exclude", f"a'b $(x){i}")]


def render_html_of(name: str) -> str:
    return render_analysis_html(analysis(name, layers=5))
