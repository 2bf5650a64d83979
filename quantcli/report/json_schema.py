"""The JSON Schemas of reports and analyses, made from the dataclasses and their docstrings.

``docs/report.schema.json`` and ``docs/analysis.schema.json`` are these texts; a test holds them together.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from quantcli.report.analysis import ANALYSIS_VERSION, Analysis
from quantcli.report.schema import SCHEMA_VERSION, Report
from quantcli.report.to_json import NONFINITE, optional_inner

_PLAIN = {str: "string", int: "integer", bool: "boolean"}


def report_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the JSON form of ``Report``."""
    return _schema(Report, "quantcli report", "schema_version", SCHEMA_VERSION)


def analysis_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the JSON form of ``Analysis``."""
    return _schema(Analysis, "quantcli analysis", "analysis_version", ANALYSIS_VERSION)


def _schema(kind: type, title: str, key: str, version: int) -> dict[str, Any]:
    definitions: dict[str, Any] = {
        "float": {
            "description": "A float64; not finite ones are strings.",
            "anyOf": [{"type": "number"}, {"enum": list(NONFINITE)}],
        }
    }
    root = _object(kind, definitions)
    root["properties"][key] = {"const": version, "description": "Of this format."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{title.replace(' ', ':')}:{version}",
        "title": title,
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def report_schema_text() -> str:
    """The schema as it stands in the docs."""
    return json.dumps(report_schema(), indent=2, ensure_ascii=False) + "\n"


def analysis_schema_text() -> str:
    """The schema of analyses as it stands in the docs."""
    return json.dumps(analysis_schema(), indent=2, ensure_ascii=False) + "\n"


def _object(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    summary, attributes = _docstring(kind)
    properties: dict[str, Any] = {}
    required: list[str] = []
    assert dataclasses.is_dataclass(kind)
    for item in dataclasses.fields(kind):
        properties[item.name] = _value(hints[item.name], definitions)
        if item.name in attributes:
            properties[item.name]["description"] = attributes[item.name]
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            required.append(item.name)
    return {"type": "object", "description": summary, "properties": properties, "required": required}


def _value(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    inner = optional_inner(kind)
    if inner is not None:
        return {"anyOf": [_value(inner, definitions), {"type": "null"}]}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}  # holds the place while the fields are walked
            definitions[kind.__name__] = _object(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    origin = get_origin(kind)
    if origin is tuple:
        return {"type": "array", "items": _value(get_args(kind)[0], definitions)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _value(get_args(kind)[1], definitions)}
    if origin is Literal:
        return {"enum": list(get_args(kind))}
    if kind is float:
        return {"$ref": "#/$defs/float"}
    return {"type": _PLAIN[kind]}


def _docstring(kind: type) -> tuple[str, dict[str, str]]:
    """Summary and attribute texts of a Google docstring."""
    text = inspect.getdoc(kind) or ""
    summary, _, section = text.partition("\n\nAttributes:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE)
    return " ".join(summary.split()), {name: " ".join(body.split()) for name, body in found}
