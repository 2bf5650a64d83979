"""Outputs: refused before any work where they must not be written; written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantcli.errors import OutputError
from quantcli.staged import staged_files


def check_output(path: Path, overwrite: bool, *, inputs: Sequence[Path | None] = ()) -> None:
    """Refuse an output that would overwrite something, before any work is done.

    Raises:
        OutputError: O101, it exists and ``overwrite`` is False; O102, it is one of the inputs; O103, its
            folder does not exist.
    """
    if not path.parent.is_dir():
        raise OutputError(
            "O103", f"the folder of '{path.name}' does not exist", hint=f"create it first: mkdir -p {path.parent}"
        )
    for source in inputs:
        if source is not None and path.exists() and source.exists() and path.samefile(source):
            raise OutputError("O102", f"'{path.name}' is an input as well", hint="choose another name with -o")
    if path.exists() and not overwrite:
        raise OutputError("O101", f"'{path.name}' exists", hint="add -f to replace it, or choose another name")


def write_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Write UTF-8 text.

    Raises:
        OutputError: O101 to O103 as ``check_output`` says.
    """
    check_output(path, overwrite)
    with staged_files([path], overwrite=overwrite) as (file,):
        file.write(text.encode("utf-8"))
