"""The record of a run: what each step was made of, and what it wrote. A text file beside the configuration.

It holds digests, versions and values of options, no times, hosts or folders outside: the same run writes the
same bytes, so the file can be committed with the artefacts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quantcli.errors import ConfigError
from quantcli.pipeline.run_types import Finding, Step
from quantcli.pipeline.writing import write_text

VERSION = 1
"""Of the format."""

_DIGITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One step of one model.

    Attributes:
        inputs: What it was made of, by name.
        outputs: Digests of what it wrote, by name.
        finding: What a comparison said.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    finding: Finding | None = None


@dataclass(slots=True)
class RunState:
    """All records, written to ``path`` whenever one is put.

    Attributes:
        path: The file.
        models: By name of the model and by step.
    """

    path: Path
    models: dict[str, dict[Step, Record]] = field(default_factory=dict)

    def get(self, name: str, step: Step) -> Record | None:
        """The record of a step."""
        return self.models.get(name, {}).get(step)

    def put(self, name: str, step: Step, record: Record) -> None:
        """Keep a record."""
        self.models.setdefault(name, {})[step] = record
        self.write()

    def knows(self, path: Path) -> bool:
        """Whether a file was written by a run."""
        records = (record for steps in self.models.values() for record in steps.values())
        return any(path.as_posix() in record.outputs for record in records)

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget models that the configuration no longer has."""
        gone = set(self.models) - set(names)
        for name in gone:
            del self.models[name]
        if gone:
            self.write()

    def write(self) -> None:
        """Write the file."""
        models = {
            name: {step.value: _plain(record) for step, record in sorted(steps.items())}
            for name, steps in sorted(self.models.items())
        }
        text = json.dumps({"version": VERSION, "models": models}, indent=2, ensure_ascii=False) + "\n"
        write_text(self.path, text, overwrite=True)


def read_state(path: Path) -> RunState:
    """The records in a file; none where there is no file.

    Raises:
        ConfigError: C208, it is damaged, or of another version.
    """
    if not path.exists():
        return RunState(path)
    try:
        data = json.loads(path.read_text("utf-8"))
        version = data["version"]
        models = {
            name: {Step(step): _record(record) for step, record in steps.items()}
            for name, steps in data["models"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    if version != VERSION:
        raise _unreadable(path, f"it has version {version!r}, and this quantcli reads {VERSION}")
    return RunState(path, models)


def _unreadable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        "C208",
        f"'{path.name}' is no record of quantcli run: {why}",
        hint="remove it; everything is then made again (with -f, over the files that are there)",
    )


def _plain(record: Record) -> dict[str, Any]:
    return {key: value for key, value in asdict(record).items() if value is not None}


def _record(data: Mapping[str, Any]) -> Record:
    finding = data.get("finding")
    return Record(
        inputs=dict(data["inputs"]),
        outputs=dict(data["outputs"]),
        finding=None if finding is None else Finding(**{key: _tupled(value) for key, value in finding.items()}),
    )


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def why_stale(record: Record | None, inputs: Mapping[str, str], outputs: Mapping[str, str], missing: str) -> str:
    """Why a step has to be done; empty where what it wrote is still good.

    Args:
        record: Of the last time.
        inputs: What it would be made of now.
        outputs: Digests of what is there now.
        missing: The digest of a file that is not there.
    """
    if record is None:
        return "there is no record of it"
    for name in [*inputs, *(name for name in record.inputs if name not in inputs)]:
        before, now = record.inputs.get(name, ""), inputs.get(name, "")
        if before != now:
            return _changed(name, before, now)
    for name, digest in outputs.items():
        if digest == missing:
            return f"'{name}' is missing"
        if record.outputs.get(name) != digest:
            return f"'{name}' was changed" if name in record.outputs else f"'{name}' is asked for now"
    return ""


def _changed(name: str, before: str, now: str) -> str:
    if not before or not now:
        return f"{name} is {'new' if now else 'gone'}"
    if len(before) >= _DIGITS or len(now) >= _DIGITS:
        return f"{name} changed"
    return f"{name} changed from {before} to {now}"
