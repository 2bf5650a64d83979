"""Names that are free."""

from __future__ import annotations


def unique_name(base: str, taken: set[str]) -> str:
    """Take ``base``, or the first of ``base_1``, ``base_2``, … that is free."""
    name, number = base, 0
    while not name or name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name
