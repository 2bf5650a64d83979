"""``quantcli.toml``, or ``[tool.quantcli]`` of a ``pyproject.toml``: sections of options, gates, and models.

    [convert]                       # options of quantcli convert
    method = "minmax"

    [gates]
    sqnr = ">=25"
    accuracy_drop = { limit = "<=1pp", severity = "warn" }

    [[models]]
    path = "models/*.onnx"
    data = "calib.npz"

    [[models]]                      # says more of one of them
    path = "models/small.onnx"
    [models.gates]
    sqnr = ">=15"

The file is a stack of layers: its top, then every ``[[models]]`` entry in order. Where several entries match
a model, a later one is stronger, key by key and gate by gate. Every problem is told, with its line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantcli.config.document import Document, Place, read_document
from quantcli.config.problems import raise_problems
from quantcli.config.schema import GATE_KEYS, MODEL_KEYS, Key, Section, Value, dashed, nearest, shown
from quantcli.errors import ConfigError

CONFIG_NAME = "quantcli.toml"
PYPROJECT = "pyproject.toml"

_LEFT = re.compile(r"\s*(.+?)\s*(?:>=|<=|==|>|<)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A value and where it is written: "quantcli.toml:4"."""

    value: Value
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one part of the file says.

    Attributes:
        place: Where it is written, for messages: "quantcli.toml, line 4".
        keys: Keys of ``MODEL_KEYS``.
        sections: Options of commands, by section.
        gates: Gate expressions by what they judge ("sqnr", "logits.cosine"); none for a gate that is switched off.
    """

    place: str
    keys: Mapping[str, Setting] = field(default_factory=dict)
    sections: Mapping[str, Mapping[str, Setting]] = field(default_factory=dict)
    gates: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def expressions(self) -> tuple[str, ...]:
        """All gates, as ``compare --gate`` takes them."""
        return tuple(text for gate in self.gates.values() for text in _texts(gate.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A configuration file.

    Attributes:
        path: The file; names in it count from its folder.
        top: What holds for all models.
        models: The [[models]] entries, in order.
    """

    path: Path
    top: Layer
    models: tuple[Layer, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder from which names of files count."""
        return self.path.parent


def find_config(folder: Path) -> Path | None:
    """The configuration of a folder: ``quantcli.toml``, else a ``pyproject.toml`` that speaks of quantcli."""
    if (folder / CONFIG_NAME).is_file():
        return folder / CONFIG_NAME
    other = folder / PYPROJECT
    if other.is_file() and b"tool.quantcli" in other.read_bytes():
        return other
    return None


def load_config(path: Path, sections: Sequence[Section]) -> Config:
    """Read and check a configuration.

    Args:
        path: The file.
        sections: Tables of options that there are.

    Raises:
        ConfigError: C201, it cannot be read, or is no TOML; C202, a key is unknown; C203, a value is of the
            wrong kind; C204, an entry has no path; C210, several of these.
    """
    document = read_document(path, code="C201", what="configuration", advice="quantcli init writes one")
    if path.name == PYPROJECT:
        part = document.below("tool", "quantcli")
        if part is None:
            raise ConfigError(
                "C201", f"'{path.name}' has no table [tool.quantcli]", hint="quantcli init writes a quantcli.toml"
            )
        document = part
    reader = _Reader(document, sections)
    config = Config(path=path, top=reader.layer(document.data, (), top=True), models=reader.models())
    raise_problems(reader.problems, path.name)
    return config


def overlay(layers: Sequence[Layer]) -> Layer:
    """The layers as one; the later ones are stronger, key by key."""
    keys: dict[str, Setting] = {}
    sections: dict[str, dict[str, Setting]] = {}
    gates: dict[str, Setting] = {}
    for layer in layers:
        keys.update(layer.keys)
        gates.update(layer.gates)
        for name, values in layer.sections.items():
            sections.setdefault(name, {}).update(values)
    return Layer(place=layers[-1].place, keys=keys, sections=sections, gates=gates)


class _Reader:
    """Reads the tables of one document and gathers what is wrong with them."""

    def __init__(self, document: Document, sections: Sequence[Section]) -> None:
        self._document = document
        self._sections = {section.name: section for section in sections}
        self.problems: list[ConfigError] = []

    def models(self) -> tuple[Layer, ...]:
        """The [[models]] entries."""
        entries = self._document.data.get("models", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self._wrong(("models",), "'models' has to be a list of tables", "write [[models]] above every entry")
            return ()
        return tuple(self.layer(entry, ("models", number)) for number, entry in enumerate(entries))

    def layer(self, data: Mapping[str, Any], place: Place, *, top: bool = False) -> Layer:
        """A part of the file; ``top`` is the one that may hold [[models]], and needs no path."""
        rows = {key.name: key for key in MODEL_KEYS if not top or key.name not in ("path", "name")}
        known = [*rows, *self._sections, "gates", *(["models"] if top else [])]
        keys: dict[str, Setting] = {}
        sections: dict[str, dict[str, Setting]] = {}
        gates: dict[str, Setting] = {}
        for entry, value in data.items():
            name, where = dashed(entry), (*place, entry)
            if name in rows:
                self._take(keys, rows[name], value, where)
            elif name in self._sections:
                sections[name] = self._section(self._sections[name], value, where)
            elif name == "gates":
                gates = self._gates(value, where)
            elif not (top and name == "models"):
                self._unknown(where, entry, known)
        if not top and "path" not in data:
            self._tell("C204", place, "the entry has no path", 'add path = "model.onnx"')
        return Layer(place=self._document.at(*place), keys=keys, sections=sections, gates=gates)

    def _section(self, section: Section, data: object, place: Place) -> dict[str, Setting]:
        found: dict[str, Setting] = {}
        if not isinstance(data, dict):
            self._wrong(place, f"'{section.name}' has to be a table, not {shown(data)}", f"write [{section.name}]")
            return found
        rows = {key.name: key for key in section.keys}
        for entry, value in data.items():
            if dashed(entry) in rows:
                self._take(found, rows[dashed(entry)], value, (*place, entry))
            else:
                self._unknown((*place, entry), entry, rows, f" of [{section.name}]")
        return found

    def _take(self, found: dict[str, Setting], key: Key, value: object, place: Place) -> None:
        fitted = key.fitted(value)
        if fitted is None:
            self._wrong(place, f"'{key.name}' has to be {key.wanted}, not {shown(value)}")
        else:
            found[key.name] = Setting(value=fitted, origin=self._origin(place))

    # Gates ------------------------------------------------------------------------------------------------

    def _gates(self, data: object, place: Place) -> dict[str, Setting]:
        """Gates as a list of expressions, or as a table by what they judge."""
        found: dict[str, Setting] = {}
        if isinstance(data, str | list):
            for text in _texts(data):
                match = _LEFT.match(text) if isinstance(text, str) else None
                if match is None:
                    self._wrong(
                        place, f"the gate {shown(text)} has no limit", 'write METRIC OP LIMIT, as in "sqnr>=25"'
                    )
                    continue
                before = _texts(found[match[1]].value) if match[1] in found else ()
                found[match[1]] = Setting(value=(*before, text), origin=self._origin(place))
        elif isinstance(data, dict):
            for name, value in data.items():
                self._gate(found, name, value, (*place, name))
        else:
            self._wrong(place, f"'gates' has to be a table or a list of texts, not {shown(data)}")
        return found

    def _gate(self, found: dict[str, Setting], left: str, value: object, place: Place) -> None:
        if value is False:
            found[left] = Setting(value=(), origin=self._origin(place))
        elif isinstance(value, dict) and not {"limit", "severity"} & set(value):
            for name, inner in value.items():  # logits.cosine without quotes is a table in a table
                self._gate(found, f"{left}.{name}", inner, (*place, name))
        else:
            texts = (self._expression(left, item, place) for item in _texts(value))
            found[left] = Setting(value=tuple(text for text in texts if text), origin=self._origin(place))

    def _expression(self, left: str, value: object, place: Place) -> str:
        """The gate as ``compare --gate`` takes it; empty where it is wrong."""
        if isinstance(value, str):
            return f"{left}{value.strip()}"
        if not isinstance(value, dict):
            self._wrong(
                place,
                f"the gate '{left}' has to be a text such as \">=25\", not {shown(value)}",
                'write operator and limit, a list of them, { limit = ">=25", severity = "warn" }, or false',
            )
            return ""
        rows = {key.name: key for key in GATE_KEYS}
        parts: dict[str, Setting] = {}
        for entry, inner in value.items():
            if entry in rows:
                self._take(parts, rows[entry], inner, (*place, entry))
            else:
                self._unknown((*place, entry), entry, rows, f" of the gate '{left}'")
        if "limit" not in value:
            self._tell("C204", place, f"the gate '{left}' has no limit", 'add limit = ">=25"')
        if "limit" not in parts:
            return ""
        severity = f":{parts['severity'].value}" if "severity" in parts else ""
        return f"{left}{parts['limit'].value}{severity}"

    # Messages ---------------------------------------------------------------------------------------------

    def _origin(self, place: Place) -> str:
        return f"{self._document.name}:{self._document.line(*place)}"

    def _wrong(self, place: Place, message: str, hint: str = "correct that line") -> None:
        self._tell("C203", place, message, hint)

    def _unknown(self, place: Place, entry: str, known: Sequence[str] | Mapping[str, Key], of: str = "") -> None:
        self._tell("C202", place, f"there is no key '{entry}'{of}", nearest(entry, known))

    def _tell(self, code: str, place: Place, message: str, hint: str) -> None:
        self.problems.append(ConfigError(code, f"{self._document.at(*place)}: {message}", hint=hint))


def _texts(value: object) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)
