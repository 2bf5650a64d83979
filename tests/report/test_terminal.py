import io
from dataclasses import replace

from full_report import EVIL, bare, full, gate
from rich.console import Console

from quantcli.report.terminal import TerminalLines, render_terminal


def render(report, *, verbose=False, width=100, **options):
    stream = io.StringIO()
    console = Console(file=stream, width=width, **options)
    render_terminal(report, console, verbose=verbose)
    return stream.getvalue()


def test_a_full_report_fits_one_screen():
    text = render(full())
    assert len(text.splitlines()) <= 28
    for part in (
        "net.onnx → logits", "FAIL", "4.95 MB → 1.33 MB (0.270 ×), gzip 0.250 ×", "3 of 5 compute nodes quantized",
        "1 weight only", "worst 39.5 dB", "logits: SQNR 31.3 dB", "change -1.00 pp [-2.50, +0.50]", "0.507 ×",
        "eval.npz, 300 samples", "4 × F201", "1 quantized node not fused",
    ):  # fmt: skip
        assert part in text, part


def test_many_gates_and_outputs_are_cut_with_a_word():
    text = render(full(many=20))
    assert len(text.splitlines()) <= 70
    assert "52 more gates (-v shows them)" in text
    assert "77 better outputs (-v shows them)" in text


def test_gates_that_failed_come_first():
    report = replace(
        bare(), gates=(gate("a"), gate("b", "undecided"), gate("c", "fail"), gate("d", "not-measured"))
    )
    lines = [line for line in render(report).splitlines() if "sqnr of" in line]
    assert [line.split("'")[1] for line in lines] == ["c", "d", "b", "a"]


def test_verbose_adds_tables():
    text = render(full(), verbose=True)
    for part in (
        "Operators", "QLinearConv", "Why nodes are in float", "Quantized, but not fused", "Weights, worst first",
        "onnxruntime", "Compute nodes left in float", "Outputs",
    ):  # fmt: skip
        assert part in text, part


def test_off_a_terminal_there_are_no_escape_codes():
    assert "\x1b" not in render(full(EVIL), verbose=True)


def test_no_color_leaves_a_terminal_without_colours():
    text = render(full(), force_terminal=True, no_color=True)
    assert "\x1b[31" not in text
    assert "\x1b[1;31" not in text
    assert "\x1b[1;31" in render(full(), force_terminal=True, color_system="standard")


def test_brackets_in_names_are_no_markup():
    assert "[red]x[/red]" in render(full(EVIL), width=200)


def test_made_up_samples_are_stamped():
    assert render(full(synthetic=True)).count("SYNTHETIC") >= 2
    assert render(full(synthetic=True), verbose=True).count("SYNTHETIC") >= 3
    assert "SYNTHETIC" not in render(full(), verbose=True)


def test_a_bare_report_is_short():
    assert len(render(bare()).splitlines()) <= 4


def test_a_console_that_knows_ascii_only_gets_ascii():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", newline="")
    render_terminal(full("café"), Console(file=stream, width=100), verbose=True)
    stream.flush()
    assert b"net.onnx -> caf?" in raw.getvalue()


def test_long_lines_are_not_broken_off_a_terminal():
    report = replace(bare(), gates=(gate("x" * 70),))
    assert any(line.rstrip().endswith(">= 25 dB") for line in render(report, width=40).splitlines())


def test_the_first_line_holds_the_verdict_and_why_it_failed():
    first = render(full(many=3)).splitlines()[0]
    assert first.startswith("FAIL  net.onnx → logits: sqnr of 'logits' is 31.27 dB")
    assert first.endswith("(and 2 more failed gates)")
    assert render(bare()).splitlines()[0] == "NO-GATES  net.onnx → net.int8.onnx: no gates were set"


def test_layers_to_look_at_follow_the_gates():
    text = render(full(many=5))
    assert text.count("look at   logits (Conv): the scale of 'logits' is twice") == 3
    assert "2 more suspects (-v shows them)" in text


def test_what_is_inside_has_a_line_each():
    text = render(full())
    for part in (
        "2 of 15 matched; diverges first at logits", "weights 36.1 dB, activations 32.9 dB, both 31.2 dB (logits)",
        "by 3.5 steps, more than rounding alone", "4 of 5 layers proven safe", "24.6 dB there instead of 31.3 dB",
        "metric    logits 0.712 → 0.698, loss 0.014 [-0.003, 0.031]", "0.516 × (peak 91.0 MB → 76.0 MB",
        "last.json, other samples", "PSNR 42.5 dB",
    ):  # fmt: skip
        assert part in text, part


def test_verbose_has_a_table_of_every_section():
    lines = render(full(), verbose=True, width=200).splitlines()
    for title in (
        "Look here first", "Top-k agreement", "Accuracy (top-1)", "Task metrics", "Time and memory", "Baseline",
        "By class, largest change for the worse first", "Whose error it is", "Tensors, worst first",
        "With and without the runtime's optimizations", "Layers that can saturate on CPUs without VNNI",
        "Outputs on a CPU without VNNI", "Coverage",
    ):  # fmt: skip
        assert title in lines


def test_tables_of_texts_are_drawn_as_well():
    stream = io.StringIO()
    lines = TerminalLines(Console(file=stream, width=40))
    lines.table("Title", ["a", "b"], [["[red]", "1"]])
    lines.table("Nothing", ["a"], [])
    assert [line.split() for line in stream.getvalue().splitlines()] == [[], ["Title"], ["a", "b"], ["[red]", "1"]]
