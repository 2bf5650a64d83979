"""Reports and analyses as JSON and back.

The text is deterministic: keys sorted, two spaces of indentation, floats as ``repr`` gives them (shortest
form that reads back to the same float64), UTF-8, one newline at the end. JSON has no infinities, so a float
that is not finite becomes one of the strings "inf", "-inf", "nan"; what was not measured is null.

Reading ignores keys that it does not know (a later quantcli of the same schema version may have added them)
and refuses other versions.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from quantcli.errors import DataError
from quantcli.report.analysis import ANALYSIS_VERSION, Analysis
from quantcli.report.schema import SCHEMA_VERSION, Report

NONFINITE = ("-inf", "inf", "nan")
"""Strings that stand for floats which JSON cannot hold."""


def to_json(report: Report) -> str:
    """The report as JSON text."""
    return _text(report, Report)


def analysis_to_json(analysis: Analysis) -> str:
    """The analysis as JSON text."""
    return _text(analysis, Analysis)


def from_json(text: str) -> Report:
    """The report that ``to_json`` wrote.

    Raises:
        DataError: G301, the text is no report, or one of another schema version.
    """
    report = _read(text, Report, "report", "schema_version", SCHEMA_VERSION)
    assert isinstance(report, Report)
    return report


def analysis_from_json(text: str) -> Analysis:
    """The analysis that ``analysis_to_json`` wrote.

    Raises:
        DataError: G301, the text is no analysis, or one of another version.
    """
    analysis = _read(text, Analysis, "analysis", "analysis_version", ANALYSIS_VERSION)
    assert isinstance(analysis, Analysis)
    return analysis


def _text(value: object, kind: type) -> str:
    plain = _encode(value, kind)
    return json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _read(text: str, kind: type, what: str, key: str, version: int) -> object:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise _unreadable(what, f"it is not JSON ({error})") from error
    if not isinstance(data, dict) or key not in data:
        raise _unreadable(what, f"there is no '{key}' in it")
    if data[key] != version:
        named = key.replace("_", " ")
        raise _unreadable(what, f"it has {named} {data[key]!r}, and this quantcli reads {version}")
    return _decode(data, kind, what)


def _unreadable(what: str, why: str) -> DataError:
    command = "compare" if what == "report" else "analyze"
    return DataError(
        "G301", f"the file is not a quantcli {what}: {why}", hint=f"write it with {command} --report FILE.json"
    )


def optional_inner(kind: Any) -> Any | None:
    """``X`` of an annotation ``X | None``, None for anything else."""
    if get_origin(kind) in (types.UnionType, Union):
        inner = [arg for arg in get_args(kind) if arg is not type(None)]
        assert len(inner) == 1, kind
        return inner[0]
    return None


def _encode(value: Any, kind: Any) -> Any:
    """Plain JSON value of ``value``, which is declared as ``kind``."""
    inner = optional_inner(kind)
    if inner is not None:
        return None if value is None else _encode(value, inner)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return {f.name: _encode(getattr(value, f.name), hints[f.name]) for f in dataclasses.fields(kind)}
    origin = get_origin(kind)
    if origin is tuple:
        return [_encode(item, get_args(kind)[0]) for item in value]
    if origin is Mapping:
        return {str(key): _encode(item, get_args(kind)[1]) for key, item in value.items()}
    if kind is float:
        number = float(value)
        return number if math.isfinite(number) else str(number)
    return value


def _decode(data: Any, kind: Any, where: str) -> Any:
    """Value of declared type ``kind``; ``where`` is the path for messages."""
    inner = optional_inner(kind)
    if inner is not None:
        return None if data is None else _decode(data, inner, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_object(data, kind, where)
    origin = get_origin(kind)
    if origin is tuple and isinstance(data, list):
        return tuple(_decode(item, get_args(kind)[0], f"{where}[{i}]") for i, item in enumerate(data))
    if origin is Mapping and isinstance(data, dict):
        return {key: _decode(item, get_args(kind)[1], f"{where}.{key}") for key, item in data.items()}
    if origin is Literal and data in get_args(kind):
        return data
    if kind is float and (data in NONFINITE or (isinstance(data, int | float) and not isinstance(data, bool))):
        return float(data)
    if isinstance(kind, type) and type(data) is kind:
        return data
    raise _unreadable(_what(where), f"'{where}' holds {json.dumps(data)[:40]}, which does not belong there")


def _decode_object(data: Any, kind: type, where: str) -> Any:
    if not isinstance(data, dict):
        raise _unreadable(_what(where), f"'{where}' is not an object")
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for item in dataclasses.fields(kind):
        if item.name in data:
            values[item.name] = _decode(data[item.name], hints[item.name], f"{where}.{item.name}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise _unreadable(_what(where), f"'{where}.{item.name}' is missing")
    return kind(**values)


def _what(where: str) -> str:
    """The kind of file that a path inside it begins with."""
    return where.partition(".")[0]
