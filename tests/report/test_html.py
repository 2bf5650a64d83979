import base64
import dataclasses
import hashlib
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from full_report import EVIL, bare, full, gate, output, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.report.html import svg
from quantcli.report.html.comparison import comparison_page
from quantcli.report.html.error_charts import error_along_graph, histograms
from quantcli.report.html.page import ROWS_SHOWN
from quantcli.report.html.render import render_html, sort_value
from quantcli.report.html.size_charts import weight_map
from quantcli.report.schema import Report, TensorComparison, Verdict
from quantcli.report.tables import Cell

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """Elements, their attributes, and all text outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inline: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in ("style", "script"):
            self.inline[self._open[-1]] = data
        else:
            self.text += data


def test_a_full_report_says_everything():
    page = Page(render_html(full()))
    for part in (
        "Fail", "sqnr of 'logits' is 31.27 dB", "1 of 2 gates passed", "net.onnx", "0.270 ×", "0.507 ×", "0.516 ×",
        "-1.00 pp", "Look here first", "Error along the graph", "Whose error it is", "Peak memory",
        "Ratio of times",
        "Accuracy and task metrics", "Layers", "Why nodes are in float", "Quantized, but not fused", "Baseline",
        "Layers that can saturate on CPUs without VNNI", "By class", "quantcli compare net.onnx", "a" * 64,
        "onnxruntime 1.31.1", "note on logits", "F405", "first divergence",
    ):  # fmt: skip
        assert part in page.text, part


def test_a_bare_report_has_no_empty_sections():
    page = Page(render_html(bare()))
    assert "No gates" in page.text
    sections = [attrs["id"] for tag, attrs in page.elements if tag == "section" and attrs.get("class") == "part"]
    assert sections == ["cost", "reproduce"]
    assert not any(tag == "table" for tag, _ in page.elements)


def test_made_up_samples_are_stamped():
    assert render_html(full(synthetic=True)).count("SYNTHETIC") >= 3
    assert "SYNTHETIC" not in render_html(full())


def test_the_file_needs_nothing_else():
    """No address is ever loaded: the only ones are anchors, the empty icon, and the name of SVG's namespace."""
    text = render_html(full(EVIL, many=3))
    for tag, attributes in Page(text).elements:
        assert tag not in ("img", "iframe", "object", "embed", "form", "base", "use", "image", "foreignobject")
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("src", "srcset", "action", "style", "xlink:href", "formaction")
            if name == "href":
                assert (value or "").startswith("#") or value == "data:,"
    assert set(re.findall(r"https?://[^\s\"<&)…]*", text)) <= {"http://www.w3.org/2000/svg", "http://e"}


def test_the_policy_allows_the_style_and_the_script_of_the_page_only():
    page = Page(render_html(full()))
    policy = next(attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv")) or ""
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.inline[kind].encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"


def test_names_from_files_bring_in_no_elements():
    """The evil report has the elements of the plain one, whatever stands in its names."""
    plain, evil = Page(render_html(full())), Page(render_html(full(EVIL)))

    def count(page: Page, *tags: str) -> list[int]:
        return [sum(tag == wanted for tag, _ in page.elements) for wanted in tags]

    tags = ("script", "style", "meta", "link", "h1", "h2", "h3", "table", "tr", "td", "section", "button", "input")
    assert count(plain, *tags) == count(evil, *tags)
    assert "<script>alert(1)</script>" in evil.text
    assert "\x1b" not in render_html(full(EVIL))


NASTY = st.text(alphabet=st.sampled_from("<>&\"'`/=\\{}%#;:() \t\n\x00\x1b\u2028\u202e\ufffeab"), max_size=24)


def everywhere(report: Report, text: str) -> Report:
    """The report with ``text`` in the place of every string that no Literal restricts."""
    fixed = {"status", "severity", "origin", "finding", "better", "interval"}

    def replaced(value, name=""):
        if dataclasses.is_dataclass(value):
            return replace(
                value, **{f.name: replaced(getattr(value, f.name), f.name) for f in dataclasses.fields(value)}
            )
        if isinstance(value, tuple):
            return tuple(replaced(item, name) for item in value)
        if isinstance(value, dict):
            return {text: text}
        return text if isinstance(value, str) and name not in fixed else value

    return replaced(report)


@given(NASTY)
@settings(deadline=None, derandomize=True, max_examples=6)
def test_every_string_is_escaped_in_every_place(text):
    page = Page(render_html(everywhere(full(), f"{text}<i onload=x>")))
    assert not any(tag == "i" or "onload" in attributes for tag, attributes in page.elements)
    assert [tag for tag, _ in page.elements].count("script") == 1


def test_the_same_report_gives_the_same_bytes():
    code = (
        "import sys; sys.path.insert(0, 'tests/report'); from full_report import full\n"
        "from quantcli.report.html.render import render_html; print(render_html(full()))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(texts) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_not_finite_can_be_rendered(value):
    broken = replace(
        tensor("t"), sqnr=value, local_sqnr=value, low=value, high=value, bias=value, clipped=value, max_abs=value
    )
    report = replace(
        full(),
        tensors=TensorComparison(samples=1, activations=1, matched=1, tensors=(broken,)),
        outputs=(output("x", value),),
        gates=(replace(gate("x"), value=value, margin=value, low=value, high=value),),
        attribution=(replace(full().attribution[0], weights_only=value, activations_only=value, both=value),),
    )
    Page(render_html(report))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (math.nan, ""), (math.inf, "Infinity"), (-math.inf, "-Infinity"), (31.27, "31.27"), (0, "0")],
)
def test_cells_are_sorted_by_what_javascript_reads_as_numbers(value, text):
    assert sort_value(Cell(text="x", value=value)) == text


def test_charts_are_of_known_elements_and_classes():
    figures = [figure for section in comparison_page(full(EVIL, many=3)).sections for figure in section.figures]
    assert len(figures) >= 7
    for figure in figures:
        for element in ET.fromstring(figure.markup).iter():
            assert element.tag in (*svg._ELEMENTS, "title")
            assert set(element.attrib) <= {
                *svg._ATTRIBUTES,
                "class",
                "fill",
                "stroke",
                "role",
                "aria-label",
                "xmlns",
            }
            assert element.get("fill", "none") == "none"


def test_every_class_of_a_chart_has_its_colour():
    style = Page(render_html(bare())).inline["style"]
    for name in svg._CLASSES.values():
        assert f".f-{name} " in style
        assert f".s-{name} " in style


def circles(markup: str, name: str) -> list[str]:
    """Labels of the points that are painted in a colour."""
    return [
        element[0].text or ""
        for element in ET.fromstring(markup).iter()
        if element.get("class") == f"f-{name}" and len(element) and element[0].tag == "title"
    ]


def test_suspects_are_marked_along_the_graph():
    report = full("guilty", many=1)
    figure = error_along_graph(report)
    assert figure is not None
    assert circles(figure.markup, "bad") == ["guilty (Conv), position 0: accumulated 31.0 dB, own 38.5 dB"]


def test_suspects_that_show_in_a_weight_are_marked_at_their_result():
    report = full("guilty")
    assert report.tensors is not None
    weight = replace(report.tensors.suspects[0], tensor="guilty.weight")
    figure = error_along_graph(replace(report, tensors=replace(report.tensors, suspects=(weight,))))
    assert figure is not None
    assert [told.partition(",")[0] for told in circles(figure.markup, "bad")] == ["guilty (Conv)", "guilty (Gemm)"]


def test_errors_beyond_the_chart_are_drawn_at_its_edge():
    """Exact tensors and those at 80 dB are at the same height, as are −20 dB and infinite noise."""
    values = (math.inf, 80.0, 30.0, -20.0, -math.inf, None, math.nan)
    tensors = tuple(replace(tensor(str(i), i, local=None), sqnr=value) for i, value in enumerate(values))
    found = TensorComparison(samples=1, activations=7, matched=7, tensors=tensors)
    figure = error_along_graph(replace(bare(), tensors=found))
    assert figure is not None
    heights = [
        float(re.findall(r"[-\d.]+", element.attrib["transform"])[1])
        for element in ET.fromstring(figure.markup).iter("path")
        if element.get("class") == "f-quantized" and len(element)
    ]
    assert len(heights) == 5
    assert heights[0] == heights[1] < heights[2] < heights[3] == heights[4]


def test_clipped_bins_of_a_histogram_stand_out():
    """Ten bins of 0.65 from −0.3; the range ends at 5.7105: only the last bin's middle, 5.875, is outside."""
    (figure,) = histograms(full())
    bins = [title.text for title in ET.fromstring(figure.markup).iter("title")]
    assert [text for text in bins if text and "clipped" in text] == ["5.55 to 6.2: 1, clipped"]
    assert len(bins) == 10


def test_the_worst_tensors_have_histograms():
    own = {"a": 40.0, "b": 10.0, "c": 30.0}
    tensors = tuple(tensor(name, i, local=value) for i, (name, value) in enumerate(own.items()))
    report = replace(bare(), tensors=TensorComparison(samples=1, activations=3, matched=3, tensors=tensors))
    assert [figure.title for figure in histograms(report)] == ["b", "c", "a"]


def test_the_tiles_of_weights_name_every_layer():
    report = full()
    assert report.weights is not None
    layers = tuple(replace(report.weights.layers[0], node=f"n{i}", elements=100 - i) for i in range(5))
    figure = weight_map(replace(report, weights=replace(report.weights, layers=layers)))
    assert figure is not None
    titles = [title.text for title in ET.fromstring(figure.markup).iter("title")]
    assert sorted(titles) == [f"n{i} (Conv): {100 - i} weights, 39.5 dB" for i in range(5)]


def test_long_tables_are_cut_with_a_word():
    report = replace(bare(), outputs=tuple(output(f"out{i}") for i in range(ROWS_SHOWN + 5)))
    text = render_html(report)
    assert "5 more rows are in the JSON report." in text
    assert text.count("<td>out") == 2 * ROWS_SHOWN


def test_the_verdict_is_in_the_title():
    assert "<title>Undecided: net.onnx → net.int8.onnx</title>" in render_html(
        replace(bare(), verdict=Verdict(status="undecided", sentence="x"))
    )


def test_a_model_that_cannot_saturate_is_told_so():
    report = full()
    assert report.saturation is not None
    page = Page(render_html(replace(report, saturation=replace(report.saturation, risks=(), safe=5, outputs=()))))
    assert "Of 5 layers with 8-bit operands none can saturate" in page.text
    assert "none can saturate" not in Page(render_html(report)).text
