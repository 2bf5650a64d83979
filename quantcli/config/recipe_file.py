"""Recipe files: the options of ``convert`` that decide what a model becomes, as TOML.

    target = "ort-cpu"
    method = "minmax"
    exclude = ["op:Softmax", "tensor:relu_3"]

A key is the name of the option without its dashes. Flags are stronger than the file. Unknown keys are errors
with line and suggestion, because a misspelt one would otherwise change nothing in silence. Writing gives the
same text for the same values: keys in the order of ``KEYS``, one element of a list a line.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quantcli.errors import ConfigError
from quantcli.ops.targets import TARGETS

Value = str | bool | int | tuple[str, ...]
"""What a key can hold."""

HEADER = "# A recipe of quantcli: quantcli convert MODEL --data SPEC --recipe FILE\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of recipe files.

    Attributes:
        name: As written; with underscores for dashes, the name of the option's value.
        kind: Type of its value.
        choices: Texts that are allowed; empty for any.
    """

    name: str
    kind: type[Value]
    choices: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        """What its value has to be, for messages."""
        if self.choices:
            return "one of " + ", ".join(f"'{choice}'" for choice in self.choices)
        return {str: "a text", bool: "true or false", int: "a whole number", tuple: "a list of texts"}[self.kind]


KEYS: tuple[Key, ...] = (
    Key(name="target", kind=str, choices=tuple(TARGETS)),
    Key(name="format", kind=str, choices=("qdq", "qoperator")),
    Key(name="opset", kind=int),
    Key(name="effort", kind=str),
    Key(name="placement", kind=str, choices=("measured", "static")),
    Key(name="mask", kind=str),
    Key(name="weight-bits", kind=int),
    Key(name="method", kind=str),
    Key(name="granularity", kind=str, choices=("channel", "tensor")),
    Key(name="symmetric", kind=bool),
    Key(name="include", kind=tuple),
    Key(name="exclude", kind=tuple),
)
"""Every key, in the order in which they are written."""


def read_recipe(path: Path) -> dict[str, Value]:
    """Values of a recipe file by the names of options' values (underscores for dashes).

    Raises:
        ConfigError: C106, it cannot be read or is no TOML; C107, a key is unknown; C108, a value is of the wrong
            kind.
    """
    try:
        return parse_recipe(path.read_text("utf-8"), path.name)
    except OSError as error:
        raise ConfigError(
            "C106", f"recipe '{path.name}' cannot be read: {error.strerror or error}", hint="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            "C106", f"recipe '{path.name}' is no text", hint="name a file of quantcli tune"
        ) from error


def parse_recipe(text: str, name: str) -> dict[str, Value]:
    """Values of the text of a recipe; ``name`` is for messages. Raises as ``read_recipe``."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            "C106", f"recipe '{name}' is no TOML: {error}", hint='a line is KEY = "text", or KEY = ["a", "b"]'
        ) from error
    keys = {key.name: key for key in KEYS}
    found: dict[str, Value] = {}
    for entry, value in raw.items():
        where = f"{name}, line {_line(text, entry)}"
        if entry not in keys:
            near = difflib.get_close_matches(entry, keys, n=2, cutoff=0.5)
            meant = " or ".join(f"'{item}'" for item in near)
            raise ConfigError(
                "C107",
                f"{where}: there is no key '{entry}'",
                hint=f"did you mean {meant}?" if near else f"the keys are {', '.join(keys)}",
            )
        found[entry.replace("-", "_")] = _value(keys[entry], value, where)
    return found


def _value(key: Key, value: object, where: str) -> Value:
    if key.kind is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    fits = type(value) is key.kind and (not key.choices or value in key.choices)
    if not fits:
        raise ConfigError(
            "C108", f"{where}: '{key.name}' has to be {key.wanted}, not {_shown(value)}", hint="correct that line"
        )
    assert isinstance(value, str | bool | int)
    return value


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _line(text: str, key: str) -> int:
    """Number of the line on which ``key`` is given, 1 where it is written in an unusual way."""
    pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[\].=]""")
    lines = text.splitlines()
    return next((number for number, line in enumerate(lines, 1) if pattern.match(line)), 1)


def recipe_text(values: Mapping[str, Value]) -> str:
    """The recipe file of ``values``, by names of keys; empty lists are left out."""
    unknown = sorted(set(values) - {key.name for key in KEYS})
    if unknown:
        raise ValueError(f"recipes have no key '{unknown[0]}'")
    lines = [f"{key.name} = {_written(values[key.name])}\n" for key in KEYS if values.get(key.name, ()) != ()]
    return HEADER + "".join(lines)


def _written(value: Value) -> str:
    if isinstance(value, tuple):
        return "[\n" + "".join(f"    {_written(item)},\n" for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    # JSON escapes all that TOML must have escaped, except for DEL
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
