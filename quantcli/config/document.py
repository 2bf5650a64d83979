"""TOML files with the lines on which their keys stand: tomllib tells no positions.

The lines are found by a second look at the text: headings, and keys at the start of a line. A key in an inline
table has the line of the table. Lines serve messages alone, so an unusual way of writing costs no more than a
less exact one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantcli.errors import ConfigError

Place = tuple[str | int, ...]
"""Keys from the top of the file down; of an element of an array of tables, its number from 0."""

_BARE = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_BARE}(?:\s*\.\s*{_BARE})*"
_ARRAY = re.compile(rf"\s*\[\[\s*({_DOTTED})\s*\]\]")
_TABLE = re.compile(rf"\s*\[\s*({_DOTTED})\s*\]\s*(?:#.*)?$")
_ENTRY = re.compile(rf"\s*({_DOTTED})\s*=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A parsed file.

    Attributes:
        name: For messages, without directories.
        data: Its tables.
        lines: Line of each key, from 1.
        root: Keys that lead to ``data`` where it is a part of the file.
    """

    name: str
    data: Mapping[str, Any]
    lines: Mapping[Place, int]
    root: Place = ()

    def line(self, *place: str | int) -> int:
        """Line of a key of ``data``, or of the nearest thing around it."""
        full = (*self.root, *place)
        while full and full not in self.lines:
            full = full[:-1]
        return self.lines.get(full, 1)

    def at(self, *place: str | int) -> str:
        """The place of a key of ``data`` for messages: "quantcli.toml, line 4"."""
        return f"{self.name}, line {self.line(*place)}"

    def below(self, *keys: str) -> Document | None:
        """The part of the file below ``keys``; None where there is none.

        Raises:
            ConfigError: C203, something else than a table is there.
        """
        data: Any = self.data
        for depth, key in enumerate(keys):
            data = data.get(key) if isinstance(data, dict) else None
            if data is None:
                return None
            if not isinstance(data, dict):
                raise ConfigError(
                    "C203",
                    f"{self.at(*keys[: depth + 1])}: '{'.'.join(keys[: depth + 1])}' has to be a table",
                    hint="correct that line",
                )
        return Document(name=self.name, data=data, lines=self.lines, root=(*self.root, *keys))


def read_document(path: Path, *, code: str, what: str, advice: str) -> Document:
    """Read a TOML file.

    Args:
        path: The file.
        code: Code of the error where it cannot be read, or is no TOML.
        what: What it is, for messages: "recipe".
        advice: What to do where it is no text.

    Raises:
        ConfigError: ``code``.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            code, f"{what} '{path.name}' cannot be read: {error.strerror or error}", hint="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(code, f"{what} '{path.name}' is no text", hint=advice) from error
    return parse_document(text, path.name, code=code, what=what)


def parse_document(text: str, name: str, *, code: str, what: str) -> Document:
    """The same for a text. Raises as ``read_document``."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            code, f"{what} '{name}' is no TOML: {error}", hint='a line is KEY = "text", or KEY = ["a", "b"]'
        ) from error
    return Document(name=name, data=data, lines=_lines(text))


def _lines(text: str) -> dict[Place, int]:
    found: dict[Place, int] = {}
    last: dict[Place, int] = {}  # number of the newest element of an array of tables

    def resolved(keys: Place) -> Place:
        place: Place = ()
        for key in keys:
            place = (*place, key)
            if place in last:
                place = (*place, last[place])
        return place

    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        if match := _ARRAY.match(line):
            keys = _keys(match[1])
            array = (*resolved(keys[:-1]), keys[-1])
            last[array] = last.get(array, -1) + 1
            table = (*array, last[array])
            found.setdefault(array, number)
            found.setdefault(table, number)
        elif match := _TABLE.match(line):
            table = resolved(_keys(match[1]))
            found.setdefault(table, number)
        elif match := _ENTRY.match(line):
            place = table
            for key in _keys(match[1]):
                place = (*place, key)
                found.setdefault(place, number)
    return found


def _keys(dotted: str) -> Place:
    """The parts of a dotted key, unquoted as TOML says; none where it does not parse."""
    try:
        data: Any = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return (dotted,)
    keys: Place = ()
    while isinstance(data, dict):
        ((key, data),) = data.items()
        keys = (*keys, key)
    return keys
