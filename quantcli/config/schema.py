"""Keys of configuration files: one row a key, with the kind of its value and a help text.

Recipes and ``quantcli.toml`` are checked by such rows, and the page of the docs is made of them. A key is the
name of an option without its dashes; underscores are read as dashes.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass

Value = str | bool | int | float | tuple[str, ...]
"""What a key can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of a file.

    Attributes:
        name: As written; with underscores for dashes, the name of the option's value.
        kind: Type of its value.
        choices: Texts that are allowed; empty for any.
        numbers: Whether a number may stand for a text ("resize = 256"), or for one of a list.
        is_path: Whether its texts are names of files, which count from the folder of the configuration.
        help: What it does, a sentence.
    """

    name: str
    kind: type[Value]
    choices: tuple[str, ...] = ()
    numbers: bool = False
    is_path: bool = False
    help: str = ""

    @property
    def wanted(self) -> str:
        """What its value has to be, for messages."""
        if self.choices:
            return "one of " + ", ".join(f"'{choice}'" for choice in self.choices)
        return _WANTED[self.kind]

    def fitted(self, value: object) -> Value | None:
        """The value as the option takes it; None where it is of another kind.

        A text may stand for a list of one, a whole number for a number.
        """
        if self.kind is tuple:
            items = [self._text(item) for item in (value if isinstance(value, list) else [value])]
            return None if None in items else tuple(item for item in items if item is not None)
        if self.kind is float and type(value) is int:
            return float(value)
        if self.kind is str and not self.choices:
            return self._text(value)
        if type(value) is not self.kind or (self.choices and value not in self.choices):
            return None
        assert isinstance(value, str | bool | int | float)
        return value

    def _text(self, value: object) -> str | None:
        """A text, or a number where one may stand for it."""
        if isinstance(value, str):
            return value
        number = self.numbers and isinstance(value, int | float) and not isinstance(value, bool)
        return str(value) if number else None


_WANTED: dict[type, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list of texts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A table of a configuration file.

    Attributes:
        name: Its heading.
        keys: Its rows.
        help: What it is for, a sentence.
    """

    name: str
    keys: tuple[Key, ...]
    help: str = ""


MODEL_KEYS: tuple[Key, ...] = (
    Key(name="path", kind=str, help="The float model; a glob stands for every file that it matches."),
    Key(
        name="name",
        kind=str,
        help="What the model is called in the output, in reports/{name}.json and for --only.  [default: {stem}]",
    ),
    Key(name="data", kind=tuple, help="Samples to calibrate on, in the forms of calibrate --data."),
    Key(
        name="eval-data",
        kind=tuple,
        help="Other samples, on which compare judges the model; without any, files and weights are compared.",
    ),
    Key(name="labels", kind=str, help="True classes of the samples of eval-data, for accuracy."),
    Key(name="labels-output", kind=str, help="Output that the labels belong to."),
    Key(
        name="calibration",
        kind=str,
        help="Statistics that are written; without data, those that are there are used.  "
        "[default: {folder}/{stem}.calib]",
    ),
    Key(name="output", kind=str, help="Quantized model.  [default: {folder}/{stem}.int8.onnx]"),
    Key(
        name="plan",
        kind=str,
        help="Every decision of the conversion, as JSON.  [default: OUTPUT with .plan.json for .onnx]",
    ),
    Key(
        name="reports",
        kind=tuple,
        help="Reports; the ending says the form.  [default: reports/{name}.json and reports/{name}.md]",
    ),
)
"""Keys of a [[models]] entry. All but path may stand at the top of the file as well, for all models."""

GATE_KEYS: tuple[Key, ...] = (
    Key(name="limit", kind=str, help="Operator and limit: '>=25', '<=1pp'."),
    Key(name="severity", kind=str, help="What a failure means, as behind the colon of compare --gate."),
)
"""Keys of a gate that is written as a table."""


def dashed(name: str) -> str:
    """A key as it is listed: dashes, where underscores were written."""
    return name.replace("_", "-")


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint for a key that does not exist."""
    names = list(known)
    near = difflib.get_close_matches(dashed(name), names, n=2, cutoff=0.5)
    meant = " or ".join(f"'{item}'" for item in near)
    return f"did you mean {meant}?" if near else f"the keys are {', '.join(names)}"


def shown(value: object) -> str:
    """A value of a file for messages, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def written(value: Value) -> str:
    """A value as TOML: one element of a list a line."""
    if isinstance(value, tuple):
        return "[\n" + "".join(f"    {written(item)},\n" for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    # JSON escapes all that TOML must have escaped, except for DEL
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
