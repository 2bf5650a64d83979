"""How far one tensor is from another: streaming, mergeable, in float64.

With reference r and measured q over all finite elements of all samples:

* SQNR = 10·log10(Σ r² / Σ (r − q)²) dB. +inf where nothing differs (two all-zero tensors included), −inf
  where the reference is all zero and something differs.
* RMSE = sqrt(mean (r − q)²), max_abs = max |r − q|, in the tensor's unit.
* Cosine similarity of flattened tensors: ``cosine_global`` over all samples at once, ``cosine`` the mean
  and ``cosine_min`` the lowest of each sample by itself. Two all-zero tensors have 1, one of them 0.
* Top-1 agreement: share of positions whose argmax over the class axis is the same (see ``class_axis``); for
  its interval, rows of axis 0 count as samples. A position that holds a NaN never agrees.

Non-finite elements enter no sum. Where both tensors hold the same (NaN and NaN, +inf and +inf) they are
counted and agree; where they differ, the error is without bound: SQNR −inf, RMSE and max_abs inf, cosine
NaN. So a single NaN cannot hide in an average. Sums that overflow float64 (elements beyond 1e154) give NaN.

Invariant: ``merge(measure(a), measure(b))`` equals measuring a and b together, up to the rounding of
float64 sums; merging in the same order gives the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from quantcli.core.rates import RateSums, count_rate, merge_rates

_BLOCK = 1 << 20
"""Elements converted to float64 at once: bounds the memory of large outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSums:
    """Sums over one or more samples of a pair of tensors.

    Attributes:
        samples: Pairs of tensors measured.
        elements: Elements finite in both.
        nonfinite_reference: NaN and infinite elements of the reference.
        nonfinite_other: The same of the other.
        nonfinite_differ: Elements not finite in at least one and not the same in both.
        ref_squared: Σ r².
        other_squared: Σ q².
        error_squared: Σ (r − q)².
        dot: Σ r·q.
        max_abs: max |r − q|, 0 without elements.
        cosine_sum: Sum of the samples' cosine similarities.
        cosine_samples: Samples in that sum (those with finite elements).
        cosine_min: Lowest of them, inf without.
        agreement: Positions with the same argmax.
    """

    samples: int = 0
    elements: int = 0
    nonfinite_reference: int = 0
    nonfinite_other: int = 0
    nonfinite_differ: int = 0
    ref_squared: float = 0.0
    other_squared: float = 0.0
    error_squared: float = 0.0
    dot: float = 0.0
    max_abs: float = 0.0
    cosine_sum: float = 0.0
    cosine_samples: int = 0
    cosine_min: float = math.inf
    agreement: RateSums = field(default_factory=RateSums)

    @property
    def sqnr(self) -> float | None:
        """SQNR in dB; None where nothing was compared."""
        if self.nonfinite_differ:
            return -math.inf
        if not self.elements:
            return None
        return sqnr_db(self.ref_squared, self.error_squared)

    @property
    def rmse(self) -> float | None:
        """Root mean squared error in the tensor's unit; None where nothing was compared."""
        if self.nonfinite_differ:
            return math.inf
        return math.sqrt(self.error_squared / self.elements) if self.elements else None

    @property
    def largest_error(self) -> float | None:
        """Largest absolute error in the tensor's unit; None where nothing was compared."""
        if self.nonfinite_differ:
            return math.inf
        return self.max_abs if self.elements else None

    @property
    def cosine(self) -> float | None:
        """Mean over samples of each sample's cosine similarity; None where nothing was compared."""
        if self.nonfinite_differ:
            return math.nan
        return self.cosine_sum / self.cosine_samples if self.cosine_samples else None

    @property
    def lowest_cosine(self) -> float | None:
        """Cosine similarity of the worst sample; None where nothing was compared."""
        if self.nonfinite_differ:
            return math.nan
        return self.cosine_min if self.cosine_samples else None

    @property
    def cosine_global(self) -> float | None:
        """Cosine similarity over all samples at once; None where nothing was compared."""
        if self.nonfinite_differ:
            return math.nan
        if not self.elements:
            return None
        return _cosine(self.ref_squared, self.other_squared, self.dot, self.error_squared)


def sqnr_db(ref_squared: float, error_squared: float) -> float:
    """10·log10(signal / noise) of two sums of squares, with the limits of the module docstring."""
    if math.isinf(ref_squared) or math.isinf(error_squared):
        return math.nan
    if error_squared == 0:
        return math.inf
    if ref_squared == 0:
        return -math.inf
    return 10 * (math.log10(ref_squared) - math.log10(error_squared))


def _cosine(ref_squared: float, other_squared: float, dot: float, error_squared: float) -> float:
    if math.isinf(ref_squared) or math.isinf(other_squared):
        return math.nan
    if error_squared == 0:
        return 1.0
    if ref_squared == 0 or other_squared == 0:
        return 0.0
    return max(-1.0, min(1.0, dot / (math.sqrt(ref_squared) * math.sqrt(other_squared))))


def class_axis(shape: tuple[int, ...]) -> int | None:
    """The axis that a classifier's argmax runs over, by shape alone; None where it makes no sense.

    * [N, C]: axis 1. [N, L, C]: axis 2, one decision per position.
    * Four axes and more: axis 1 where all behind it are 1 ([N, C, 1, 1]). With four axes, the pair of equal
      neighbours is taken for the picture: [N, H, H, C] has axis 3, [N, C, H, H] axis 1. Else the smaller
      of axis 1 and the last; None for a tie.
    * None for fewer than two axes, and where the axis found has fewer than two entries.

    The rule sees no meaning: on an embedding it counts which component is largest, which says little.
    """
    rank = len(shape)
    if rank < 2:
        return None
    axis = rank - 1
    if rank >= 4:
        pooled = all(dim == 1 for dim in shape[2:])
        if pooled or (rank == 4 and shape[2] == shape[3] != shape[1]):
            axis = 1
        elif rank == 4 and shape[1] == shape[2] != shape[3]:
            axis = 3
        elif shape[1] == shape[-1]:
            return None
        elif shape[1] < shape[-1]:
            axis = 1
    return axis if shape[axis] > 1 else None


def measure(reference: np.ndarray, other: np.ndarray, axis: int | None = None) -> PairSums:
    """Sums of one sample.

    Args:
        reference: Any shape, any numeric or bool dtype.
        other: Same shape.
        axis: Class axis for top-1 agreement; None counts none.

    Returns:
        Sums to ``merge`` with those of other samples.

    Raises:
        ValueError: The shapes differ.
    """
    if reference.shape != other.shape:
        raise ValueError(f"shapes {reference.shape} and {other.shape} cannot be compared element by element")
    total = PairSums()
    flat_ref, flat_other = reference.reshape(-1), other.reshape(-1)
    for start in range(0, flat_ref.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        total = merge(total, _block_sums(flat_ref[block].astype(np.float64), flat_other[block].astype(np.float64)))
    hits = RateSums() if axis is None else _agreement(reference, other, axis)
    seen = total.elements > 0
    cosine = _cosine(total.ref_squared, total.other_squared, total.dot, total.error_squared)
    return PairSums(
        samples=1,
        elements=total.elements,
        nonfinite_reference=total.nonfinite_reference,
        nonfinite_other=total.nonfinite_other,
        nonfinite_differ=total.nonfinite_differ,
        ref_squared=total.ref_squared,
        other_squared=total.other_squared,
        error_squared=total.error_squared,
        dot=total.dot,
        max_abs=total.max_abs,
        cosine_sum=cosine if seen else 0.0,
        cosine_samples=int(seen),
        cosine_min=cosine if seen else math.inf,
        agreement=hits,
    )


def _block_sums(r: np.ndarray, q: np.ndarray) -> PairSums:
    """Sums of two flat float64 arrays; np.sum, not BLAS, whose order of addition depends on threads."""
    finite_r, finite_q = np.isfinite(r), np.isfinite(q)
    odd_r, odd_q = int(r.size - finite_r.sum()), int(q.size - finite_q.sum())
    differ = 0
    if odd_r or odd_q:
        both = finite_r & finite_q
        same = (r == q) | (np.isnan(r) & np.isnan(q))
        differ = int((~both & ~same).sum())
        r, q = r[both], q[both]
    with np.errstate(over="ignore", invalid="ignore"):  # an overflowing sum is inf, see the module docstring
        error = r - q
        return PairSums(
            elements=r.size,
            nonfinite_reference=odd_r,
            nonfinite_other=odd_q,
            nonfinite_differ=differ,
            ref_squared=float(np.sum(r * r)),
            other_squared=float(np.sum(q * q)),
            error_squared=float(np.sum(error * error)),
            dot=float(np.sum(r * q)),
            max_abs=float(np.max(np.abs(error), initial=0.0)),
        )


def top1(values: np.ndarray, axis: int) -> np.ndarray:
    """Argmax over ``axis``; −1 at positions that hold a NaN. int64, ``values`` without that axis."""
    best: np.ndarray = np.argmax(values, axis=axis)
    if values.dtype.kind == "f":
        best = np.where(np.isnan(values).any(axis=axis), -1, best)
    return best


def _agreement(reference: np.ndarray, other: np.ndarray, axis: int) -> RateSums:
    """Positions with the same argmax; each row of axis 0 is a sample of its own (a batch)."""
    if reference.size == 0:
        return RateSums()
    best = top1(reference, axis)
    agree = (best == top1(other, axis)) & (best >= 0)
    hits = agree.reshape(agree.shape[0], -1)
    total = RateSums()
    for row in hits.sum(axis=1).tolist():
        total = merge_rates(total, count_rate(row, hits.shape[1]))
    return total


def merge(a: PairSums, b: PairSums) -> PairSums:
    """The sums of both sets of samples."""
    return PairSums(
        samples=a.samples + b.samples,
        elements=a.elements + b.elements,
        nonfinite_reference=a.nonfinite_reference + b.nonfinite_reference,
        nonfinite_other=a.nonfinite_other + b.nonfinite_other,
        nonfinite_differ=a.nonfinite_differ + b.nonfinite_differ,
        ref_squared=a.ref_squared + b.ref_squared,
        other_squared=a.other_squared + b.other_squared,
        error_squared=a.error_squared + b.error_squared,
        dot=a.dot + b.dot,
        max_abs=max(a.max_abs, b.max_abs),
        cosine_sum=a.cosine_sum + b.cosine_sum,
        cosine_samples=a.cosine_samples + b.cosine_samples,
        cosine_min=min(a.cosine_min, b.cosine_min),
        agreement=merge_rates(a.agreement, b.agreement),
    )
