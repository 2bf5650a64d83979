"""Two files that should be the same: whether they are, and what differs first, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantcli.calibration.file_format import load_statistics
from quantcli.calibration.statistics import CalibrationStatistics
from quantcli.errors import QuantcliError
from quantcli.graph.metadata import provenance
from quantcli.graph.model_io import load_model
from quantcli.graph.view import GraphView
from quantcli.pipeline.run_digests import MISSING, output_digest

_TIMED = ("latency", "memory")
"""Sections of a report that no second run reproduces; gates on them are named after them."""


def difference(committed: Path, again: Path) -> str:
    """What differs between two files of one kind; empty where nothing does.

    Of reports (.json of a comparison), what was timed and the command are left out.
    """
    if output_digest(committed) == MISSING:
        return "it is missing"
    if output_digest(committed) == output_digest(again):
        return ""
    try:
        return _KINDS.get(committed.suffix, _of_bytes)(committed, again)
    except QuantcliError as error:
        return error.message
    except ValueError as error:
        return f"it is damaged: {error}"


def _of_models(committed: Path, again: Path) -> str:
    first, second = load_model(committed), load_model(again)
    told = _of_mappings(provenance(first.metadata), provenance(second.metadata))
    return told or _of_graphs(first.view(), second.view()) or _of_bytes(committed, again)


def _of_graphs(committed: GraphView, again: GraphView) -> str:
    ours, theirs = [node.name for node in committed.nodes], [node.name for node in again.nodes]
    for name in sorted(set(ours) ^ set(theirs)):
        return f"node '{name}' is only in {'the committed file' if name in ours else 'the new one'}"
    for name in sorted(set(filter(committed.is_constant, committed.tensors))):
        if not again.is_constant(name):
            return f"the initializer '{name}' is only in the committed file"
        one, other = committed.constant(name), again.constant(name)
        if (one.dtype, one.shape, one.tobytes()) != (other.dtype, other.shape, other.tobytes()):
            return f"the values of '{name}' differ"
    return ""


def _of_statistics(committed: Path, again: Path) -> str:
    first, second = load_statistics(committed), load_statistics(again)
    told = _of_mappings(_head(first), _head(second))
    if told:
        return told
    for name in sorted({*first.tensors, *second.tensors}):
        one, other = first.tensors.get(name), second.tensors.get(name)
        if one is None or other is None:
            return f"tensor '{name}' is only in {'the new file' if one is None else 'the committed one'}"
        before, now = (f"[{found.minimum:.9g}, {found.maximum:.9g}]" for found in (one, other))
        if before != now:
            return f"the range of '{name}' is {before}, and now {now}"
    return _of_bytes(committed, again)


def _head(statistics: CalibrationStatistics) -> dict[str, str]:
    return {
        "digest of the model": statistics.model_digest,
        "fingerprint of the data": statistics.data_fingerprint,
        "number of samples": str(statistics.samples),
    }


def _of_json(committed: Path, again: Path) -> str:
    first, second = (json.loads(path.read_text("utf-8")) for path in (committed, again))
    return _of_values(_reproducible(first), _reproducible(second), "")


def _reproducible(data: Any) -> Any:
    """The parts of a report that depend on nothing but its inputs; anything else as it is."""
    if not isinstance(data, dict) or "verdict" not in data:
        return data
    timed = any(data.get(name) is not None for name in _TIMED)
    left_out = {"command", *_TIMED, *(["verdict"] if timed else [])}
    kept = {key: value for key, value in data.items() if key not in left_out}
    kept["gates"] = [gate for gate in data.get("gates", []) if not str(gate["metric"]).startswith(_TIMED)]
    return kept


def _of_values(committed: Any, again: Any, where: str) -> str:
    if isinstance(committed, dict) and isinstance(again, dict):
        for key in sorted({*committed, *again}):
            inner = f"{where}.{key}" if where else str(key)
            if key not in committed or key not in again:
                return f"'{inner}' is only in the {'new' if key in again else 'committed'} file"
            if told := _of_values(committed[key], again[key], inner):
                return told
        return ""
    if isinstance(committed, list) and isinstance(again, list) and len(committed) == len(again):
        pairs = enumerate(zip(committed, again, strict=True))
        return next((told for i, (a, b) in pairs if (told := _of_values(a, b, f"{where}[{i}]"))), "")
    if committed == again:
        return ""
    return f"'{where}' is {_short(committed)}, and now {_short(again)}"


def _of_mappings(committed: Mapping[str, str], again: Mapping[str, str]) -> str:
    for key in sorted({*committed, *again}):
        if committed.get(key) != again.get(key):
            return f"{key} is {_short(committed.get(key))}, and now {_short(again.get(key))}"
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:20]}…{text[-6:]}"


def _of_bytes(committed: Path, again: Path) -> str:
    """The first byte that differs."""
    with committed.open("rb") as one, again.open("rb") as other:
        position = 0
        while True:
            a, b = one.read(2**20), other.read(2**20)
            if a != b:
                same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
                return f"byte {position + same} differs"
            if not a:
                return "its external data differ"
            position += len(a)


_KINDS = {".onnx": _of_models, ".calib": _of_statistics, ".json": _of_json}
