"""Natural order of file names: runs of digits compare as numbers, so that "2.npy" comes before "10.npy"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

_DIGITS = re.compile(r"([0-9]+)")


def natural_key(text: str) -> tuple[tuple[str | int, ...], str]:
    """Sort key; ties ("01" and "1", letter case) are broken by the text itself, so the order is total."""
    # re.split with one group alternates text and digits, so equal positions hold equal types.
    parts = _DIGITS.split(text.casefold())
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), text


def natural_sorted(paths: Iterable[Path], root: PurePath) -> list[Path]:
    """Paths in natural order of their parts below ``root``."""
    return sorted(paths, key=lambda path: [natural_key(part) for part in path.relative_to(root).parts])
