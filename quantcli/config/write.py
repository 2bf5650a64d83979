"""Writes configurations that people go on with by hand: every key under a sentence that says what it does."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from quantcli.config.schema import MODEL_KEYS, Key, Section, Value, written

HEADER = """\
# A configuration of quantcli: quantcli run
# Names of files count from the folder of this file. Flags and variables are stronger than what stands here.
# A key of a section is an option of the command, without its dashes: quantcli COMMAND --help
"""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_GATE = re.compile(r"\s*(?P<left>.+?)\s*(?P<limit>(?:>=|<=|==|>|<).*?)\s*(?::\s*(?P<severity>\w+)\s*)?", re.DOTALL)


def config_text(
    stated: Mapping[str, Mapping[str, Value]],
    gates: Sequence[str],
    models: Sequence[Mapping[str, Value]],
    sections: Sequence[Section],
) -> str:
    """The text of a configuration; the same values give the same text.

    Args:
        stated: Values by section and key.
        gates: Gate expressions.
        models: Values of each entry by key.
        sections: All sections, which say order and sentences.
    """
    parts = [HEADER]
    for section in sections:
        values = stated.get(section.name, {})
        if values:
            parts.append(
                "\n".join([f"# {section.help}", f"[{section.name}]", *_rows(section.keys, values)]) + "\n"
            )
    if gates:
        parts.append(
            "\n".join(["# What a model has to reach: exit code 1 where it does not.", *_gates(gates)]) + "\n"
        )
    for number, values in enumerate(models):
        rows = [*_rows(MODEL_KEYS, values, told=number == 0)]
        if number == len(models) - 1:
            others = [f"{key.name}: {key.help}" for key in MODEL_KEYS if key.name not in values]
            rows += ["", "# More keys of an entry:", *(line for text in others for line in _comment(text, "#   "))]
        parts.append("\n".join(["[[models]]", *rows]) + "\n")
    return "\n".join(parts)


def _rows(keys: Sequence[Key], values: Mapping[str, Value], *, told: bool = True) -> Iterator[str]:
    for key in keys:
        if key.name not in values:
            continue
        value = values[key.name]
        if told and key.help:
            yield from _comment(key.help)
        single = isinstance(value, tuple) and len(value) == 1
        yield f"{key.name} = {written(value[0] if single and isinstance(value, tuple) else value)}"


def _comment(text: str, mark: str = "# ") -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=mark, subsequent_indent=mark)


def _gates(expressions: Sequence[str]) -> Iterator[str]:
    yield "[gates]"
    found: dict[str, list[str]] = {}
    for text in expressions:
        match = _GATE.fullmatch(text)
        if match is None:
            raise ValueError(f"'{text}' is no gate")
        limit = json.dumps(match["limit"], ensure_ascii=False)
        severity = match["severity"]
        value = f'{{ limit = {limit}, severity = "{severity}" }}' if severity else limit
        found.setdefault(match["left"], []).append(value)
    for left, items in found.items():
        key = left if _BARE.fullmatch(left) else written(left)
        yield f"{key} = {items[0] if len(items) == 1 else '[' + ', '.join(items) + ']'}"
