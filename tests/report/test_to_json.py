import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from full_report import EVIL, bare, full
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.errors import DataError
from quantcli.report.json_schema import report_schema, report_schema_text
from quantcli.report.to_json import from_json, to_json

DOCUMENTED = Path(__file__).parents[2] / "docs" / "report.schema.json"


@pytest.mark.parametrize("report", [bare(), full(), full(EVIL, synthetic=True, many=3)])
def test_a_report_survives_json_unchanged(report):
    text = to_json(report)
    assert from_json(text) == report
    assert to_json(from_json(text)) == text


def test_keys_are_sorted_and_the_text_ends_in_one_newline():
    text = to_json(full())
    assert text.endswith("}\n")
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def test_infinities_are_strings_and_what_was_not_measured_is_null():
    outputs = json.loads(to_json(full()))["outputs"]
    assert [item["sqnr"] for item in outputs] == [31.27, "inf", "-inf", None]
    assert json.loads(to_json(bare()))["latency"] is None


def test_nan_survives():
    report = replace(bare(), size=replace(bare().size, ratio=math.nan))
    assert json.loads(to_json(report))["size"]["ratio"] == "nan"
    assert math.isnan(from_json(to_json(report)).size.ratio)


@given(st.floats(allow_nan=False))
@settings(deadline=None, derandomize=True)
def test_every_float_reads_back_to_the_same_bits(value):
    report = replace(bare(), size=replace(bare().size, ratio=value))
    assert from_json(to_json(report)).size.ratio.hex() == value.hex()


def test_integers_in_float_fields_become_floats():
    report = replace(bare(), size=replace(bare().size, ratio=1))
    assert json.loads(to_json(report), parse_int=lambda text: f"int {text}")["size"]["ratio"] == 1.0


def test_the_text_does_not_depend_on_the_hash_seed():
    code = (
        "import sys; sys.path.insert(0, 'tests/report'); from full_report import full\n"
        "from quantcli.report.to_json import to_json; print(to_json(full()))"
    )
    root = Path(__file__).parents[2]
    texts = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d.pop("schema_version"), "no 'schema_version'"),
        (lambda d: d.update(schema_version=99), "schema version 99, and this quantcli reads 1"),
        (lambda d: d.pop("original"), "'report.original' is missing"),
        (lambda d: d.update(original=[]), "'report.original' is not an object"),
        (lambda d: d["size"].update(ratio="big"), "'report.size.ratio' holds \"big\""),
        (lambda d: d["size"].update(ratio=True), "'report.size.ratio' holds true"),
        (lambda d: d["gates"][1].update(status="maybe"), r"'report.gates\[1\].status' holds"),
        (lambda d: d.update(threads="1"), "'report.threads'"),
        (lambda d: d.update(notes="x"), "'report.notes'"),
        (lambda d: d.update(tools=["x"]), "'report.tools'"),
    ],
)
def test_what_is_no_report_is_refused_with_its_place(change, complaint):
    data = json.loads(to_json(full()))
    change(data)
    with pytest.raises(DataError, match=complaint) as caught:
        from_json(json.dumps(data))
    assert caught.value.code == "G301"


@pytest.mark.parametrize("text", ["", "[]", "3", "{"])
def test_text_that_is_no_json_object_is_refused(text):
    with pytest.raises(DataError, match="not a quantcli report"):
        from_json(text)


def test_unknown_keys_are_ignored_and_missing_optional_ones_filled():
    data = json.loads(to_json(full()))
    data["future"] = 1
    data["size"]["future"] = 2
    del data["notes"]
    assert from_json(json.dumps(data)) == replace(full(), notes=())


@pytest.mark.parametrize("report", [bare(), full(), full(EVIL, synthetic=True, many=2)])
def test_the_json_schema_accepts_every_report(report):
    validator = jsonschema.Draft202012Validator(report_schema())
    validator.check_schema(report_schema())
    validator.validate(json.loads(to_json(report)))


def test_the_schema_names_its_version():
    schema = report_schema()
    assert schema["$id"] == f"urn:quantcli:report:{full().schema_version}"
    assert schema["properties"]["schema_version"]["const"] == full().schema_version


def test_the_json_schema_refuses_what_from_json_refuses():
    data = json.loads(to_json(full()))
    data["gates"][0]["status"] = "maybe"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, report_schema())


def test_every_field_of_the_schema_is_described():
    schema = report_schema()
    objects = [schema, *(item for item in schema["$defs"].values() if "properties" in item)]
    documented = {"OpCount", "DtypeBytes", "NodeRef", "SizeComparison", "StructureComparison", "CoverageRow",
                  "FloatReason", "Coverage", "UnfusedNode", "KernelFacts", "Verdict"}  # fmt: skip
    for name, item in [("Report", schema), *schema["$defs"].items()]:
        assert item["description"]
        if "properties" in item and name not in documented:
            assert all("description" in field for field in item["properties"].values()), name
    assert len(objects) > 20


def test_the_documented_schema_is_the_generated_one():
    """Regenerate: python -c "from quantcli.report.json_schema import *; print(report_schema_text(), end='')"."""
    assert DOCUMENTED.read_text(encoding="utf-8") == report_schema_text()
