"""Outputs: refused before any work where they must not be written; written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from quantcli.data.spec import parse_data_spec
from quantcli.errors import OutputError, UsageError
from quantcli.pipeline.types import DataOptions
from quantcli.staged import staged_files


def check_output(path: Path, overwrite: bool, *, inputs: Sequence[Path | None] = ()) -> None:
    """Refuse an output that must not be written, before any work is done.

    Args:
        path: The output.
        overwrite: Whether an existing file may be replaced.
        inputs: Files and folders that are read; no file of theirs is ever an output.

    Raises:
        OutputError: O101, it exists and ``overwrite`` is False; O102, it is one of the inputs; O103, it
            cannot be written.
    """
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(
            "O103", f"the folder of '{path.name}' does not exist", hint=f"create it first: mkdir -p {folder}"
        )
    if path.is_dir() or not os.access(folder, os.W_OK):
        what = "it is a folder" if path.is_dir() else "its folder is not writable"
        raise OutputError("O103", f"'{path.name}' cannot be written: {what}", hint="choose another place")
    if path.exists() and any(_reads(source, path) for source in inputs if source is not None):
        raise OutputError("O102", f"'{path.name}' is an input as well", hint="choose another name for the output")
    if path.exists() and not overwrite:
        raise OutputError("O101", f"'{path.name}' exists", hint="add -f to replace it, or choose another name")


def _reads(source: Path, path: Path) -> bool:
    """Whether reading ``source`` may read ``path``."""
    if not source.exists():
        return False
    return path.samefile(source) or (source.is_dir() and path.resolve().is_relative_to(source.resolve()))


def check_outputs(paths: Sequence[Path | None], overwrite: bool, *, inputs: Sequence[Path | None] = ()) -> None:
    """``check_output`` for all outputs of a command, which must differ from each other.

    Raises:
        UsageError: U106, two outputs are one file.
        OutputError: As ``check_output``.
    """
    wanted = [path for path in paths if path is not None]
    seen: set[Path] = set()
    for path in wanted:
        if path.resolve() in seen:
            raise UsageError("U106", f"'{path.name}' is asked for twice", hint="give every output its own name")
        seen.add(path.resolve())
    for path in wanted:
        check_output(path, overwrite, inputs=inputs)


def data_files(*options: DataOptions) -> list[Path]:
    """Files and folders that samples are read from."""
    found = []
    for spec in (parse_data_spec(text) for option in options for text in option.specs):
        if spec.kind == "path":
            found.append(spec.path)
        elif spec.kind == "function" and ".py:" in spec.target:
            found.append(Path(spec.target.rpartition(":")[0]))
    return found


def write_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Write UTF-8 text.

    Raises:
        OutputError: O101 to O103 as ``check_output`` says.
    """
    check_output(path, overwrite)
    with staged_files([path], overwrite=overwrite) as (file,):
        file.write(text.encode("utf-8"))
