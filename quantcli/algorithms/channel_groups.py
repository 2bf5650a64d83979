"""Scale variables of channels, joined where the function forces them to be equal: a union-find.

Variable 0 is the number 1. A variable that is pinned is joined with it: its scale is 1, for a reason that is
remembered.
"""

from __future__ import annotations

import numpy as np

ONE = 0
"""The variable whose value is 1."""


class ChannelGroups:
    """Variables 0 … n−1, each in one group; arrays of variables are int64 of any shape."""

    def __init__(self) -> None:
        self._parent = [ONE]
        self._reasons: dict[int, str] = {ONE: ""}
        self._normalized: set[int] = set()

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, count: int, *, normalized: bool = False) -> np.ndarray:
        """``count`` new variables, (count,); ``normalized`` for those of a normalization's output."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        if normalized:
            self._normalized.update(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    def join(self, a: np.ndarray, b: np.ndarray) -> None:
        """Make the variables equal, one by one; both (n,)."""
        for left, right in zip(a.tolist(), b.tolist(), strict=True):
            self._union(left, right)

    def pin(self, variables: np.ndarray, reason: str) -> None:
        """Set the variables to 1; the first reason of a group stays."""
        for variable in np.unique(variables).tolist():
            root = self._root(variable)
            if root not in self._reasons:
                self._reasons[root] = reason

    def roots(self) -> np.ndarray:
        """Root of every variable, (n,)."""
        return np.array([self._root(variable) for variable in range(len(self._parent))], dtype=np.int64)

    def reason(self, variable: int) -> str | None:
        """Why ``variable`` is pinned; None where it is not."""
        return self._reasons.get(self._root(variable))

    def normalized(self) -> np.ndarray:
        """Which roots consist of variables of normalizations only: bool (n,), False where it is no root."""
        roots = self.roots()
        found = np.zeros(len(roots), dtype=bool)
        found[roots] = True
        others = [variable for variable in range(len(roots)) if variable not in self._normalized]
        found[roots[others]] = False
        return found

    def _root(self, variable: int) -> int:
        parent = self._parent
        while parent[variable] != variable:
            parent[variable] = parent[parent[variable]]
            variable = parent[variable]
        return variable

    def _union(self, a: int, b: int) -> None:
        """The smaller root stays, so that results do not depend on the order of joins."""
        first, second = sorted((self._root(a), self._root(b)))
        if first == second:
            return
        self._parent[second] = first
        reason = self._reasons.pop(second, None)
        if reason is not None:
            self._reasons.setdefault(first, reason)
