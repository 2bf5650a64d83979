import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from full_report import EVIL, bare, full, gate

from quantcli.report.junit import render_junit
from quantcli.report.schema import Verdict

ALLOWED = {
    "testsuites": ({"name", "tests", "failures", "errors", "skipped"}, ["testsuite"]),
    "testsuite": ({"name", "tests", "failures", "errors", "skipped"}, ["properties", "testcase", "system-out"]),
    "properties": (set(), ["property"]),
    "property": ({"name", "value"}, []),
    "testcase": ({"classname", "name"}, ["skipped", "error", "failure", "system-out"]),
    "failure": ({"message", "type"}, []),
    "error": ({"message", "type"}, []),
    "skipped": ({"message"}, []),
    "system-out": (set(), []),
}
"""Element → attributes and children in order: the common core of the schemas of Ant, Maven and Jenkins."""


def check(element: ET.Element) -> None:
    attributes, children = ALLOWED[element.tag]
    assert set(element.attrib) <= attributes
    order = [children.index(child.tag) for child in element]
    assert order == sorted(order)
    for child in element:
        check(child)


def suite(report) -> ET.Element:
    root = ET.fromstring(render_junit(report))
    check(root)
    found = root.find("testsuite")
    assert found is not None
    return found


@pytest.mark.parametrize("report", [bare(), full(), full(EVIL, many=3), full(synthetic=True)])
def test_the_text_follows_the_common_schema(report):
    found = suite(report)
    for tag in ("failure", "error", "skipped"):
        attribute = {"failure": "failures", "error": "errors"}.get(tag, tag)
        assert int(found.attrib[attribute]) == len(found.findall(f"testcase/{tag}"))
    assert int(found.attrib["tests"]) == len(found.findall("testcase"))


@pytest.mark.parametrize(
    ("status", "severity", "child"),
    [
        ("pass", "fail", "system-out"),
        ("fail", "fail", "failure"),
        ("not-measured", "fail", "error"),
        ("undecided", "fail", "skipped"),
        ("fail", "warn", "system-out"),
        ("not-measured", "warn", "system-out"),
        ("undecided", "warn", "system-out"),
    ],
)
def test_a_gate_is_a_test_case(status, severity, child):
    case = suite(replace(bare(), gates=(gate("a", status, severity),))).find("testcase")
    assert case is not None
    assert case.attrib == {"classname": "quantcli.net_int8_onnx", "name": "a.sqnr>=25"}
    assert [item.tag for item in case] == [child]
    told = case[0].get("message") or case[0].text or ""
    assert "sqnr of 'a' is 31.27 dB" in told


def test_a_failure_has_its_figures():
    case = suite(replace(bare(), gates=(replace(gate("a", "fail"), low=30.0, high=32.5),))).find(
        "testcase/failure"
    )
    assert case is not None
    assert case.text == "value 31.27, interval 30 … 32.5, limit 25, margin 6.27"


def test_an_undecided_gate_is_skipped_and_says_why():
    skipped = suite(replace(bare(), gates=(gate("a", "undecided"),))).find("testcase/skipped")
    assert skipped is not None
    assert skipped.attrib["message"].startswith("undecided: sqnr of 'a' is 31.27 dB")


def test_without_gates_there_is_one_case_that_is_skipped():
    found = suite(bare())
    assert [(case.get("name"), case[0].tag) for case in found.findall("testcase")] == [("no gates", "skipped")]


def test_suspects_stand_in_the_output_of_the_suite():
    output = suite(full()).find("system-out")
    assert output is not None
    assert "look at logits (Conv): the scale of 'logits' is twice" in (output.text or "")


def test_samples_and_versions_are_properties():
    found = {item.get("name"): item.get("value") for item in suite(full(synthetic=True)).iter("property")}
    assert found["data.synthetic"] == "true"
    assert found["version.onnxruntime"] == "1.31.1"
    assert found["verdict"] == "fail"


@pytest.mark.parametrize("character", ["\x00", "\x0b", "\x1b", "\ud800", "\ufffe", "\uffff"])
def test_characters_that_xml_cannot_hold_are_replaced(character):
    nasty = f"a{character}b]]>&<x>"
    report = replace(
        bare(),
        gates=(replace(gate("a", "fail"), expression=nasty, sentence=nasty),),
        verdict=Verdict(status="fail", sentence=nasty),
        tools={nasty: nasty},
    )
    found = suite(report)
    case = found.find("testcase")
    assert case is not None
    assert case.attrib["name"] == "a\ufffdb]]>&<x>"
    assert "\ufffd" in case[0].attrib["message"]
    render_junit(report).encode("utf-8")


def test_there_is_no_time_and_no_host_in_it():
    assert render_junit(full()) == render_junit(full())
    assert not re.search(r"timestamp|hostname|time=", render_junit(full()))
