"""The report as JUnit XML: one test case for each gate.

A failed gate is a ``failure``, one that was not measured an ``error``, one that is undecided is ``skipped``. A
gate of severity "warn" never fails; its result stands in ``system-out``. Without gates there is one case, skipped,
because readers of JUnit take a file without cases for a mistake.

There is no time in it: the same report gives the same bytes.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from quantcli.report import format as fmt
from quantcli.report.schema import GateResult, Report

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped (production 2, ``Char``)."""


def render_junit(report: Report) -> str:
    """XML text, in UTF-8 with its declaration."""
    root = ET.Element("testsuites", {"name": "quantcli"})
    name = f"{fmt.name(report.original.name)} → {fmt.name(report.quantized.name)}"
    suite = ET.SubElement(root, "testsuite", {"name": _text(name)})
    _properties(report, suite)
    group = "quantcli." + re.sub(r"[^\w-]", "_", fmt.name(report.quantized.name))
    for gate in report.gates:
        _case(gate, group, suite)
    if not report.gates:
        case = ET.SubElement(suite, "testcase", {"classname": _text(group), "name": "no gates"})
        ET.SubElement(case, "skipped", {"message": _text(report.verdict.sentence)})
    for tag, counted in (
        ("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error"),
        ("skipped", "testcase/skipped"),
    ):  # fmt: skip
        count = str(len(suite.findall(counted)))
        suite.set(tag, count)
        root.set(tag, count)
    _summary(report, suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _text(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)


def _properties(report: Report, suite: ET.Element) -> None:
    values = {
        "verdict": report.verdict.status,
        "original.sha256": report.original.sha256,
        "quantized.sha256": report.quantized.sha256,
        **{f"version.{tool}": version for tool, version in sorted(report.tools.items())},
    }
    if report.data is not None:
        values["data"] = fmt.name(report.data.name)
        values["data.samples"] = str(report.data.samples)
        values["data.synthetic"] = str(report.data.synthetic).lower()
    holder = ET.SubElement(suite, "properties")
    for key, value in values.items():
        ET.SubElement(holder, "property", {"name": _text(key), "value": _text(value)})


def _case(gate: GateResult, group: str, suite: ET.Element) -> None:
    case = ET.SubElement(suite, "testcase", {"classname": _text(group), "name": _text(gate.expression)})
    message = {"message": _text(gate.sentence)}
    figures = _text(_figures(gate))
    if gate.severity == "warn":
        ET.SubElement(case, "system-out").text = _text(f"{gate.status} (warn): {gate.sentence}\n{figures}")
    elif gate.status == "fail":
        ET.SubElement(case, "failure", {**message, "type": "gate"}).text = figures
    elif gate.status == "not-measured":
        ET.SubElement(case, "error", {**message, "type": "not-measured"}).text = figures
    elif gate.status == "undecided":
        ET.SubElement(case, "skipped", {"message": _text(f"undecided: {gate.sentence}")})
    else:
        ET.SubElement(case, "system-out").text = _text(f"{gate.sentence}\n{figures}")


def _figures(gate: GateResult) -> str:
    parts = [f"value {fmt.number(gate.value, 6)}"]
    if gate.low is not None or gate.high is not None:
        parts.append(f"interval {fmt.interval(gate.low, gate.high, 6)}")
    parts.append(f"limit {fmt.number(gate.limit, 6)}")
    if gate.margin is not None:
        parts.append(f"margin {fmt.number(gate.margin, 6)}")
    return ", ".join(parts)


def _summary(report: Report, suite: ET.Element) -> None:
    """What helps to understand a failure: the verdict, and the layers to look at."""
    lines: Sequence[str] = [
        *([fmt.SYNTHETIC] if report.synthetic else []),
        f"{report.verdict.status}: {report.verdict.sentence}",
        *(
            f"look at {fmt.name(item.node)} ({fmt.name(item.op)}): {item.sentence}"
            for item in (() if report.tensors is None else report.tensors.suspects[:5])
        ),
    ]
    ET.SubElement(suite, "system-out").text = _text("\n".join(lines))
