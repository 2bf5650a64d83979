"""Where each value of a command comes from: command line, environment, file and line, or default."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

ORIGINS = "quantcli.origins"
"""Key of a context's ``meta``: where defaults of its options come from, by name of the value."""


GIVEN = "quantcli.given"
"""Key of a context's ``meta``: the same for values of a command line that ``quantcli run`` has made."""


def origin_of(context: click.Context, name: str) -> str:
    """Where a value comes from, in words; empty for a default."""
    source = context.get_parameter_source(name)
    if source is ParameterSource.COMMANDLINE:
        return str(context.meta.get(GIVEN, {}).get(name, "command line"))
    if source is ParameterSource.ENVIRONMENT:
        return f"variable {context.auto_envvar_prefix}_{name.upper()}"
    if source is ParameterSource.DEFAULT_MAP:
        return str(context.meta.get(ORIGINS, {}).get(name, "recipe"))
    return ""


def origin_lines(context: click.Context) -> Iterator[str]:
    """A line for each value that was given somewhere, and one for the defaults."""
    given, defaults = [], []
    for param in context.command.params:
        name = str(param.name)
        if not param.expose_value or name not in context.params:
            continue
        label, text, origin = name.replace("_", "-"), value_text(context.params[name]), origin_of(context, name)
        if origin:
            given.append((label, text, origin))
        elif text:
            defaults.append(f"{label} {text}")
    width = max((len(label) for label, *_ in given), default=0)
    for label, text, origin in given:
        yield f"{label:<{width}}  {text}  ({origin})"
    if defaults:
        yield f"defaults: {', '.join(defaults)}"


def value_text(value: Any) -> str:
    """A value for people; empty for one that says nothing."""
    if value is None or value is False or value == ():
        return ""
    if value is True:
        return "yes"
    if isinstance(value, tuple):
        return ", ".join(value_text(item) for item in value)
    return value.as_posix() if isinstance(value, Path) else str(value)
