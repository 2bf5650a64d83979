"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from quantcli.errors import OutputError


@contextmanager
def staged_files(targets: Sequence[Path], *, overwrite: bool, durable: bool = True) -> Iterator[list[BinaryIO]]:
    """Open a temporary file for each target; publish all of them if the block ends well.

    Each file is flushed to disk and then renamed to its target, in the order given, so that the last one
    may refer to the others. If anything fails, an interrupt included, the targets are as they were before
    and the temporaries are gone. Modes follow the umask.

    The temporaries lie in a directory beside their targets and have the targets' names, so that files that
    refer to each other by name can be read before they are published.

    Args:
        targets: Final paths.
        overwrite: Replace files that exist.
        durable: Whether the files are to survive a power failure; False for what is deleted soon.

    Yields:
        Binary files to write to, one for each target.

    Raises:
        OutputError: A target exists (O101) or cannot be written (O103).
    """
    for target in targets:
        _check_target(target, overwrite)
    folders = {target.parent: _sibling(target) for target in targets}
    temporaries = [folders[target.parent] / target.name for target in targets]
    replaced: list[tuple[Path, Path | None]] = []
    try:
        with ExitStack() as stack:
            for folder in folders.values():
                folder.mkdir(mode=0o700)
            files: list[BinaryIO] = [stack.enter_context(path.open("xb")) for path in temporaries]
            yield files
            for file in files:
                file.flush()
                if durable:
                    os.fsync(file.fileno())
        for temporary, target in zip(temporaries, targets, strict=True):
            _check_target(target, overwrite)
            if target is not targets[-1]:  # a later failure must be able to undo this one
                backup = _sibling(target) if target.exists() else None
                replaced.append((target, backup))
                if backup is not None:
                    target.replace(backup)
            temporary.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            "O103",
            f"cannot write '{targets[-1]}': {reason}",
            hint="check that the directory exists, is writable, and has room",
        ) from error
    finally:
        published = not temporaries[-1].exists()
        for path in temporaries:
            path.unlink(missing_ok=True)
        for target, backup in replaced:
            _settle(target, backup, published=published)
        for folder in folders.values():
            if folder.exists():
                folder.rmdir()


def _settle(target: Path, backup: Path | None, *, published: bool) -> None:
    """Drop the backup of ``target`` after success, put it back after failure."""
    if backup is None:
        if not published:
            target.unlink(missing_ok=True)
    elif published:
        backup.unlink(missing_ok=True)
    elif backup.exists():
        backup.replace(target)


def _check_target(target: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_file():
        raise OutputError("O103", f"cannot write '{target}': it is not a regular file", hint="name a file")
    if target.exists() and not overwrite:
        raise OutputError(
            "O101", f"'{target}' exists already", hint="choose another name, or overwrite it with -f"
        )


def _sibling(target: Path) -> Path:
    """A name beside ``target`` that nothing has yet; on the same file system, so that renames are atomic."""
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
