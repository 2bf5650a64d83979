import math
from dataclasses import replace

import pytest
from full_report import bare, gate

from quantcli.report import format as fmt
from quantcli.report.schema import Verdict


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "–"), (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (99_949, "99.9 kB"), (999_960, "1.00 MB"),
        (4_948_123, "4.95 MB"), (90_485_000, "90.5 MB"), (2_700_000_000, "2.70 GB"), (10**13, "10000.0 GB"),
    ],
)  # fmt: skip
def test_sizes_are_decimal(count, text):
    assert fmt.size(count) == text


def test_sqnr_is_exact_where_there_is_no_error():
    assert [fmt.decibel(v) for v in (None, math.inf, -math.inf, 31.249)] == ["–", "exact", "-inf dB", "31.2 dB"]


def test_cosine_shows_its_nines():
    assert [fmt.cosine(v) for v in (None, 1.0, 0.9999911, 0.5, math.nan)] == ["–", "1", "0.999991", "0.5", "nan"]


def test_numbers_have_four_digits():
    assert [fmt.number(v) for v in (None, 0.000123456, 12345.6, math.inf)] == [
        "–",
        "0.0001235",
        "1.235e+04",
        "inf",
    ]


def test_no_change_has_no_minus():
    assert fmt.points(-0.0) == "+0.00 pp"


def test_percent_and_plural():
    assert (fmt.percent(0.9867), fmt.percent(None)) == ("98.67 %", "–")
    assert (fmt.plural(1, "node"), fmt.plural(0, "node")) == ("1 node", "0 nodes")


def test_intervals_have_two_ends():
    assert (fmt.interval(None, None), fmt.interval(0.25, None), fmt.interval(-1, 2)) == ("–", "0.25 … –", "-1 … 2")


def test_characters_that_xml_cannot_hold_are_replaced():
    assert fmt.name("a\ufffeb\uffffc\x00d") == "a b c d"


def test_long_names_lose_their_middle_and_control_characters():
    assert fmt.name("a\nb\x1bc\u202ed") == "a b c d"
    short = fmt.name("x" * 50 + "y" * 50, 21)
    assert (len(short), short[0], short[-1], "…" in short) == (21, "x", "y", True)


@pytest.mark.parametrize(
    ("status", "gates", "text"),
    [
        ("fail", ("pass", "undecided", "fail"), "sqnr of 'fail' is 31.27 dB, and has to be >= 25 dB"),
        ("fail", ("fail", "fail"), "sqnr of 'fail' is 31.27 dB, and has to be >= 25 dB (and 1 more failed gate)"),
        ("fail", ("not-measured",), "sqnr of 'not-measured' is 31.27 dB, and has to be >= 25 dB"),
        ("undecided", ("pass", "undecided"), "sqnr of 'undecided' is 31.27 dB, and has to be >= 25 dB"),
        ("pass", ("pass",), "all is well"),
        ("fail", (), "all is well"),
    ],
)
def test_the_headline_says_why(status, gates, text):
    verdict = Verdict(status=status, sentence="all is well")
    assert fmt.headline(replace(bare(), verdict=verdict, gates=tuple(gate(name, name) for name in gates))) == text


def test_gates_that_only_warn_are_no_headline():
    verdict = Verdict(status="fail", sentence="1 failed")
    report = replace(bare(), verdict=verdict, gates=(gate("a", "fail", "warn"), gate("b", "fail")))
    assert fmt.headline(report).startswith("sqnr of 'b'")


def test_the_tally_does_not_repeat_the_headline():
    report = replace(bare(), gates=(gate("a", "fail"),))
    told = [
        fmt.tally(replace(report, verdict=Verdict(status=status, sentence=sentence)))
        for status, sentence in (
            ("fail", "0 of 1 gates passed, 1 failed"),
            ("fail", f"0 of 1 gates passed, 1 failed: {report.gates[0].sentence}"),
            ("pass", "all passed"),
        )
    ]
    assert told == ["0 of 1 gates passed, 1 failed", "0 of 1 gates passed, 1 failed", ""]
