"""Constants with the same values: equal, or one the transpose of the other.

A language model reads its embedding twice, row by row at its begin and as the weight of its last product;
exporters that fold the Transpose write both matrices down. The first of them, in order of reading, is the
*source* of the others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from quantcli.graph.view import GraphView
from quantcli.quantize.plan import TiedPlan

_MATRIX = 2


def find_tied(view: GraphView, names: Sequence[str], upright: Collection[str] = ()) -> dict[str, TiedPlan]:
    """Ties among float32 initializers, by the one that gives up its own values.

    Args:
        view: The graph.
        names: Initializers, in order of preference as a source.
        upright: Those that nobody can read transposed.
    """
    alike: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        shape = tuple(dim for dim in view.tensors[name].shape or () if isinstance(dim, int))
        alike.setdefault(tuple(sorted(shape)), []).append(name)
    found: dict[str, TiedPlan] = {}
    for members in alike.values():
        if len(members) > 1:
            found |= _among(view, members, upright)
    return found


def _among(view: GraphView, names: Sequence[str], upright: Collection[str]) -> dict[str, TiedPlan]:
    """Ties among constants of the same sizes; most differ in their corners already."""
    sources: dict[bytes, list[str]] = {}
    found: dict[str, TiedPlan] = {}
    for name in names:
        values = view.constant(name)
        corners = np.array([values[(0,) * values.ndim], values[(-1,) * values.ndim]], np.float32).tobytes()
        for source in sources.get(corners, ()):
            other = view.constant(source)
            if np.array_equal(values, other):
                found[name] = TiedPlan(constant=name, source=source, transposed=False)
                break
            if values.ndim == _MATRIX and name not in upright and np.array_equal(values, other.T):
                found[name] = TiedPlan(constant=name, source=source, transposed=True)
                break
        else:
            sources.setdefault(corners, []).append(name)
    return found
