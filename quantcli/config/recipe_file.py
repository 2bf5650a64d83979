"""Recipe files: the options of ``convert`` that decide what a model becomes, as TOML.

    target = "ort-cpu"
    method = "minmax"
    exclude = ["op:Softmax", "tensor:relu_3"]

A key is the name of the option without its dashes. Flags are stronger than the file. Unknown keys are errors
with line and suggestion, because a misspelt one would otherwise change nothing in silence. Writing gives the
same text for the same values: keys in the order of ``KEYS``, one element of a list a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quantcli.config.document import Document, parse_document, read_document
from quantcli.config.schema import Key, Value, dashed, nearest, shown, written
from quantcli.errors import ConfigError
from quantcli.ops.targets import TARGETS

HEADER = "# A recipe of quantcli: quantcli convert MODEL --data SPEC --recipe FILE\n"

KEYS: tuple[Key, ...] = (
    Key(name="target", kind=str, choices=tuple(TARGETS)),
    Key(name="dynamic", kind=bool),
    Key(name="weight-only", kind=bool),
    Key(name="format", kind=str, choices=("qdq", "qoperator")),
    Key(name="opset", kind=int),
    Key(name="effort", kind=str),
    Key(name="placement", kind=str, choices=("measured", "static")),
    Key(name="mask", kind=str),
    Key(name="bits", kind=str, numbers=True),
    Key(name="weight-bits", kind=int),
    Key(name="activation-bits", kind=int),
    Key(name="method", kind=str),
    Key(name="granularity", kind=str),
    Key(name="symmetric", kind=bool),
    Key(name="weight-symmetric", kind=bool),
    Key(name="pow2-scales", kind=bool),
    Key(name="contrib-qdq", kind=bool),
    Key(name="accuracy-level", kind=int),
    Key(name="dynamic-lstm", kind=bool),
    Key(name="keep-io", kind=bool),
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
    return _values(read_document(path, code="C106", what="recipe", advice="name a file of quantcli tune"))


def parse_recipe(text: str, name: str) -> dict[str, Value]:
    """Values of the text of a recipe; ``name`` is for messages. Raises as ``read_recipe``."""
    return _values(parse_document(text, name, code="C106", what="recipe"))


def _values(document: Document) -> dict[str, Value]:
    keys = {key.name: key for key in KEYS}
    found: dict[str, Value] = {}
    for entry, value in document.data.items():
        key = keys.get(dashed(entry))
        if key is None:
            raise ConfigError(
                "C107", f"{document.at(entry)}: there is no key '{entry}'", hint=nearest(entry, keys)
            )
        fitted = key.fitted(value)
        if fitted is None:
            raise ConfigError(
                "C108",
                f"{document.at(entry)}: '{key.name}' has to be {key.wanted}, not {shown(value)}",
                hint="correct that line",
            )
        found[key.name.replace("-", "_")] = fitted
    return found


def recipe_text(values: Mapping[str, Value]) -> str:
    """The recipe file of ``values``, by names of keys; empty lists are left out."""
    unknown = sorted(set(values) - {key.name for key in KEYS})
    if unknown:
        raise ValueError(f"recipes have no key '{unknown[0]}'")
    lines = [f"{key.name} = {written(values[key.name])}\n" for key in KEYS if values.get(key.name, ()) != ()]
    return HEADER + "".join(lines)
