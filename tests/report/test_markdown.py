import re
from dataclasses import replace

import pytest
from full_report import EVIL, bare, full, output

from quantcli.report.markdown import LIMIT, escape, render_markdown


def test_a_full_report_says_everything():
    text = render_markdown(full())
    for part in (
        "# FAIL: net.onnx → logits: sqnr of 'logits' is 31.27 dB", "1 of 2 gates passed", "## Gates",
        "| logits.sqnr&gt;=25 |",
        "4.95 MB | 1.33 MB | 0.270 ×", "0.507 × [0.490, 0.520]", "-1.00 pp [-2.50, +0.50]", "31.3 dB", "exact",
        "0.999086", "98.67 % | 96.67 … 99.67", "F201", "F405", "QLinearConv", "39.5 dB", "## How to reproduce",
        "eval.npz, 300 samples", "onnxruntime 1.31.1", "a" * 64, "quantcli compare net.onnx",
    ):  # fmt: skip
        assert part in text, part


def test_a_bare_report_has_no_empty_tables():
    text = render_markdown(bare())
    assert "## Gates" not in text
    assert "## Outputs" not in text
    assert "NO-GATES" in text


def test_made_up_samples_are_stamped():
    text = render_markdown(full(synthetic=True))
    assert text.count("SYNTHETIC") >= 3
    assert "SYNTHETIC" not in render_markdown(full())


def test_names_from_files_bring_in_no_markup():
    text = render_markdown(full(EVIL))
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "@someone" not in text
    without_escapes = re.sub(r"\\.", "", text)
    assert "`" not in without_escapes
    assert "![i]" not in without_escapes
    assert not re.search(r"^# +@", text, flags=re.MULTILINE)


def test_every_row_of_a_table_has_as_many_cells_as_its_head():
    for table in re.findall(r"(?:^\|.*\n)+", render_markdown(full(EVIL, many=3)), flags=re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(counts) == 1


@pytest.mark.parametrize("many", [1, 30, 400, 1500])
def test_the_text_is_never_longer_than_its_limit(many):
    text = render_markdown(full("n" * 300, many=many))
    assert len(text.encode()) <= LIMIT
    assert text.endswith("\n")


def test_shortened_tables_say_how_much_is_missing():
    report = replace(bare(), outputs=tuple(output(f"out{i}") for i in range(1000)))
    text = render_markdown(report)
    cut = re.findall(r"^## (?:Outputs|Top-k)(.*?)^\*… and (\d+) more", text, flags=re.MULTILINE | re.DOTALL)
    assert [table.count("| out") + int(more) for table, more in cut] == [1000, 2000]


def test_a_tiny_limit_is_still_held():
    text = render_markdown(full(many=50), limit=2000)
    assert len(text.encode()) <= 2000
    assert "left out" in text


def test_escape_leaves_plain_text_alone():
    assert escape("conv1.weight:0 (3x3)") == "conv1.weight:0 (3x3)"
    assert escape("a|b") == r"a\|b"
    assert escape("<b>&") == "&lt;b&gt;&amp;"


def test_every_section_of_the_report_has_its_table():
    text = render_markdown(full())
    titles = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    for title in (
        "Look here first", "Outputs", "Top-k agreement", "Task metrics",
        "By class, largest change for the worse first",
        "Baseline", "Whose error it is", "With and without the runtime's optimizations", "Tensors, worst first",
        "Layers that can saturate on CPUs without VNNI", "Outputs on a CPU without VNNI", "Stored values by type",
    ):  # fmt: skip
        assert title in titles
    assert "McNemar p 0.453" in text
    assert "0.516 × (without a model: 60.0 MB)" in text


def test_a_failed_verdict_says_why_on_the_first_line():
    assert render_markdown(full()).startswith("# FAIL: net.onnx → logits: sqnr of 'logits' is 31.27 dB")
    assert render_markdown(bare()).startswith("# NO-GATES: net.onnx → net.int8.onnx: no gates were set\n")
