r"""The grammar of ``--data``: ``[NAME=]PATH[?option=value&…]``.

In the place of PATH: ``FILE.py:FUNCTION`` or ``MODULE:FUNCTION`` (runs code) and ``random:COUNT``. The
characters that the grammar uses may be part of file names; what exists wins: if the whole text, or what
follows ``NAME=``, names an existing file, it is that file. ``C:\data\x.npz`` is a path (what follows a
function's colon must be an identifier, and one letter before a colon is a drive, never a module).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from quantcli.data.options import SpecOptions, parse_options
from quantcli.data.problems import printable
from quantcli.errors import UsageError

_OPTIONS_TAIL = re.compile(r"[A-Za-z_]\w*(=[^&]*)?(&[A-Za-z_]\w*(=[^&]*)?)*")
_RANDOM = "random:"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """A parsed data specification.

    Attributes:
        text: As the user wrote it.
        name: The input that it feeds, None where the data itself says.
        kind: "path", "function" or "random".
        target: The path; "FILE.py:FUNCTION" or "MODULE:FUNCTION"; the number of random samples.
        options: Parsed options.
    """

    text: str
    name: str | None
    kind: str
    target: str
    options: SpecOptions = field(default_factory=SpecOptions)

    @property
    def path(self) -> Path:
        """The path; ``~`` is expanded, which no shell does behind ``NAME=``."""
        path = Path(self.target)
        return path.expanduser() if self.target.startswith("~") else path

    @property
    def label(self) -> str:
        """Printable name without directories: what reports show."""
        if self.kind == "random":
            return f"{_RANDOM}{self.target}"
        tail = re.split(r"[/\\]", self.target.rstrip("/\\"))[-1]
        return printable(tail or self.target)


def parse_data_spec(text: str) -> DataSpec:
    """Parse ``[NAME=]PATH[?option=value&…]``.

    Looks at the file system only to tell names apart that hold "?" or "="; whether the path exists is for
    :func:`~quantcli.data.dataset.open_dataset` to say.

    Raises:
        UsageError: D101, the text has no such form; D102, an option is unknown or wrong.
    """
    for name, target in _splits(text):
        if target and (name is None or "?" not in name) and not _is_python(target) and _exists(target):
            return DataSpec(text=text, name=name, kind="path", target=target)
    head, options = _split_options(text)
    name, target = _split_name(head)
    if name == "" or not target:
        raise UsageError(
            "D101",
            f"data '{printable(text)}' has no {'name before' if name == '' else 'path after'} '='"
            if "=" in head
            else f"data '{printable(text)}' has no path",
            hint="write [NAME=]PATH[?option=value&...], for example calib.npz or x=calib.npy?rows=feed",
        )
    kind, target = _kind(text, target)
    return DataSpec(
        text=text,
        name=name,
        kind=kind,
        target=target,
        options=parse_options(options, f"data '{printable(text)}'"),
    )


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Parse ``NAME=1x3x224x224``; "scalar" is the shape of rank 0.

    Raises:
        UsageError: D101, the text has no such form.
    """
    name, equals, dims = text.rpartition("=")
    parts = [] if dims == "scalar" else dims.lower().split("x")
    if not (equals and name and all(part.isascii() and part.isdigit() for part in parts)):
        raise UsageError(
            "D101", f"shape '{printable(text)}' is no NAME=DIMENSIONS", hint="write input=1x3x224x224"
        )
    return name, tuple(int(part) for part in parts)


def _splits(text: str) -> Iterator[tuple[str | None, str]]:
    """Every way to read NAME and the rest, the whole text as the rest first."""
    yield None, text
    for match in re.finditer("=", text):
        yield text[: match.start()], text[match.end() :]


def _split_name(head: str) -> tuple[str | None, str]:
    """The first reading whose rest exists or runs code or is random; else the one at the first "="."""
    for name, target in _splits(head):
        function = named_function(target)
        is_function = function is not None and ("=" not in target or _exists(function[0]))
        if target.startswith(_RANDOM) or is_function or _exists(target):
            return name, target
    before, equals, after = head.partition("=")
    return (before, after) if equals else (None, head)


def _split_options(text: str) -> tuple[str, dict[str, str]]:
    head, mark, tail = text.rpartition("?")
    if not mark or (tail and _OPTIONS_TAIL.fullmatch(tail) is None):
        return text, {}
    options: dict[str, str] = {}
    for part in tail.split("&") if tail else ():
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise UsageError(
                "D101",
                f"option '{name}' of data '{printable(text)}' has no value",
                hint=f"write ?{name}=VALUE",
            )
        if name in options:
            raise UsageError("D101", f"data '{printable(text)}' gives option '{name}' twice")
        options[name] = value
    return head, options


def named_function(target: str) -> tuple[str, str] | None:
    """(FILE.py or MODULE, FUNCTION) where the text has this form."""
    where, colon, function = target.rpartition(":")
    if not colon or not function.isidentifier():
        return None
    is_module = len(where) > 1 and all(part.isidentifier() for part in where.split("."))
    return (where, function) if where.endswith(".py") or (is_module and where != "random") else None


def _kind(text: str, target: str) -> tuple[str, str]:
    """Kind and target of what stands in the place of PATH."""
    if not _is_python(target) and _exists(target):
        return "path", target
    if target.startswith(_RANDOM) or target == "random":
        count = target.removeprefix(_RANDOM)
        if not (count.isascii() and count.isdigit() and int(count) > 0):
            raise UsageError(
                "D101",
                f"data '{printable(text)}' does not say how many random samples are wanted",
                hint="write random:128 or random:128?seed=0&low=0&high=1",
            )
        return "random", str(int(count))
    if named_function(target) is not None:
        return "function", target
    if _is_python(target.rstrip(":")):
        raise UsageError(
            "D101",
            f"data '{printable(text)}' names a Python file, but no function in it",
            hint=f"write {target.rstrip(':')}:FUNCTION; it is called without arguments and yields "
            "dictionaries of arrays",
        )
    return "path", target


def split_function(spec: DataSpec) -> tuple[str, str]:
    """(FILE.py or MODULE, FUNCTION) of a spec of kind "function"."""
    found = named_function(spec.target)
    assert found is not None, spec
    return found


def _is_python(target: str) -> bool:
    """Whether the text is a Python file: no data by itself, a function in it may give data."""
    return target.endswith(".py")


def _exists(target: str) -> bool:
    """Whether the text names something in the file system; text that cannot be a name does not."""
    try:
        return Path(target).expanduser().exists() if target.startswith("~") else Path(target).exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, an unknown home
        return False
