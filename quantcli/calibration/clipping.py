"""What chosen ranges leave out: notes for the report.

Two things tell that a range method clips much: the share of the values that lie outside, and how little is left
of the extremes. They are not the same: one spike in a million values is no share worth a word, and yet a range
of a tenth of the extremes replaces it by something ten times smaller.
"""

from __future__ import annotations

from collections.abc import Mapping

from quantcli.calibration.estimators import Method, Range
from quantcli.core.stats import TensorStats

MUCH = 1e-3
"""Share of the values outside that is worth a note."""

LITTLE = 0.5
"""Share of the observed extremes inside below which it is worth a note."""

_NAMED = 3


def clipping_notes(
    ranges: Mapping[str, Range],
    tensors: Mapping[str, TensorStats],
    method: Method,
    *,
    much: float = MUCH,
    little: float = LITTLE,
) -> tuple[str, ...]:
    """Which tensors lose much by their ranges, at most one note for each of the two measures.

    Args:
        ranges: What was chosen, by tensor name.
        tensors: What was observed, of at least these tensors.
        method: How it was chosen.
        much: Share of the values from which on it is told, exclusive.
        little: Share of the extremes below which it is told.

    Returns:
        Notes that name the tensors that lose most, and count the others; none where nothing is to be told.
    """
    clipped = {name: found.clipped_fraction for name, found in ranges.items() if found.clipped_fraction > much}
    inside = {name: covered(found, tensors[name]) for name, found in ranges.items()}
    narrow = {name: share for name, share in inside.items() if share < little}
    notes = []
    if clipped:
        worst = sorted(clipped, key=lambda name: (-clipped[name], name))
        shown = [f"{_percent(clipped[name])} of the values of '{name}'" for name in worst]
        notes.append(f"range method {method} clips {_listed(shown)}")
    if narrow:
        worst = sorted(narrow, key=lambda name: (narrow[name], name))
        shown = [f"{_percent(narrow[name])} of the extremes of '{name}'" for name in worst]
        notes.append(f"range method {method} keeps only {_listed(shown)}")
    return tuple(notes)


def covered(found: Range, stats: TensorStats) -> float:
    """Length of a range as a share of the observed extremes, with 0 among them; 1 where these have no length."""
    if not stats.samples:
        return 1.0
    length = max(0.0, stats.maximum) - min(0.0, stats.minimum)
    return (found.max - found.min) / length if length else 1.0


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _listed(shown: list[str]) -> str:
    rest = len(shown) - _NAMED
    text = ", ".join(shown[:_NAMED])
    return f"{text} (and {rest} more tensor{'s' if rest > 1 else ''} like that)" if rest > 0 else text
