"""Where a class stands among the classes of a decision: what top-k agreement and top-k accuracy are made of.

The rank of class b in the values v is the number of classes that are better: #{j : v_j > v_b} + #{j < b : v_j =
v_b}. So the argmax (the first of equal ones, as ``numpy.argmax``) has rank 0, every class has a rank of its own,
and class b is among the k best exactly where its rank is below k.
"""

from __future__ import annotations

import numpy as np

_BLOCK = 1 << 22
"""Values compared at once: bounds the memory of large vocabularies."""


def class_ranks(values: np.ndarray, axis: int, classes: np.ndarray) -> np.ndarray:
    """Rank of one class at every position.

    Args:
        values: Any numeric dtype; classes along ``axis``.
        axis: Class axis.
        classes: Class numbers, integers, the shape of ``values`` without ``axis``; those outside of the axis
            have no rank.

    Returns:
        int64, shape of ``classes``; the number of classes where there is no rank: at positions that hold a
        NaN, and for classes outside of the axis.
    """
    moved = np.moveaxis(values, axis, -1)
    count = moved.shape[-1]
    rows = moved.reshape(-1, count)
    wanted = classes.reshape(-1)
    inside = (wanted >= 0) & (wanted < count)
    index = np.where(inside, wanted, 0)[:, None]
    ranks = np.empty(len(rows), np.int64)
    order = np.arange(count)
    step = max(1, _BLOCK // max(1, count))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        block, own = rows[part], index[part]
        value = np.take_along_axis(block, own, axis=1)
        better = (block > value) | ((block == value) & (order < own))
        ranks[part] = better.sum(axis=1)
        if block.dtype.kind == "f":
            ranks[part][np.isnan(block).any(axis=1)] = count
    ranks[~inside] = count
    return ranks.reshape(classes.shape)
