"""Products of uint8 activations and int8 weights as x86 CPUs without VNNI add them up.

VPMADDUBSW multiplies neighbouring bytes and adds each pair in int16 *with saturation*, then VPMADDWD adds pairs of
those in int32. With x in 0…255,

    p = sat16(x₀·w₀ + x₁·w₁),
    255·(max(w₀, 0) + max(w₁, 0)) > 32 767   or   255·(min(w₀, 0) + min(w₁, 0)) < −32 768

says which pairs can saturate; all others are exact for every x. Pairs are elements 2j and 2j+1 along the
reduction, in the order in which the kernel reads it (MLAS: QgemmU8X8KernelAvx2.S and ConvSymKernelAvx2.S of
onnxruntime broadcast four bytes of x at a time). Everything else of the kernel is exact, so its result is the
exact one plus the sum of sat16(v) − v over those pairs. Checked against onnxruntime itself on an emulated Haswell
(``tests/evaluate/test_avx2_emulation.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PAIR_LIMIT = 128
"""Largest sum of two weights of one sign at which no pair can saturate: 255·128 = 32 640."""

CONVOLUTION, ROWS, COLUMNS = "convolution", "rows", "columns"
"""How a kernel reads a weight along the reduction: (M, C, k…) position by position, channels together (QLinearConv
works on channels-last data); (N, K); (…, K, N)."""

INT16_MAX = 32767
INT16_MIN = -32768

_CHUNK = 1 << 22
"""Pair sums computed at once: bounds the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBound:
    """What the weights of a layer allow.

    Attributes:
        worst: Pair sum of largest absolute value, over all pairs and all activations.
        channels: Output channels with a pair that can saturate.
    """

    worst: int
    channels: int


def kernel_rows(weight: np.ndarray, order: str) -> np.ndarray:
    """A weight (any type) as (outputs, reduction), in the order in which the kernel reads it."""
    if order == CONVOLUTION:
        return np.ascontiguousarray(np.moveaxis(weight, 1, -1)).reshape(weight.shape[0], -1)
    if order == ROWS:
        return np.ascontiguousarray(weight)
    return np.ascontiguousarray(np.moveaxis(weight, -2, -1)).reshape(-1, weight.shape[-2])


def pair_sums(rows: np.ndarray) -> np.ndarray:
    """Largest sum of the weights of one sign in a pair, for each row of (outputs, reduction): (outputs,)."""
    if rows.shape[1] % 2:
        rows = np.pad(rows, ((0, 0), (0, 1)))
    wide = rows if rows.dtype.kind == "f" else rows.astype(np.int32)
    first, second = wide[:, 0::2], wide[:, 1::2]
    high = np.maximum(first, 0) + np.maximum(second, 0)
    low = np.minimum(first, 0) + np.minimum(second, 0)
    sums: np.ndarray = np.maximum(high.max(axis=1, initial=0), -low.min(axis=1, initial=0))
    return sums


def _pairs(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and second elements of the pairs, int32 (outputs, pairs); an odd end is paired with 0."""
    wide = weight.astype(np.int32)
    if wide.shape[1] % 2:
        wide = np.pad(wide, ((0, 0), (0, 1)))
    return wide[:, 0::2], wide[:, 1::2]


def pair_bound(weight: np.ndarray) -> PairBound:
    """The largest pair sum that ``weight``, int8 (outputs, reduction), can give."""
    first, second = _pairs(weight)
    if not first.size:
        return PairBound(worst=0, channels=0)
    high = 255 * (np.maximum(first, 0) + np.maximum(second, 0))
    low = 255 * (np.minimum(first, 0) + np.minimum(second, 0))
    risky = ((high > INT16_MAX) | (low < INT16_MIN)).any(axis=1)
    top, bottom = int(high.max()), int(low.min())
    return PairBound(worst=top if top >= -bottom else bottom, channels=int(risky.sum()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What saturation takes from a product.

    Attributes:
        delta: saturated − exact, int64 (rows, outputs).
        saturated: Pair sums that saturated.
        pairs: All pair sums.
    """

    delta: np.ndarray
    saturated: int
    pairs: int


def saturation_loss(x: np.ndarray, weight: np.ndarray) -> Lost:
    """The difference between the saturating product and the exact one.

    Args:
        x: uint8 (rows, reduction).
        weight: int8 (outputs, reduction).
    """
    first, second = _pairs(weight)
    risky = (255 * (np.maximum(first, 0) + np.maximum(second, 0)) > INT16_MAX) | (
        255 * (np.minimum(first, 0) + np.minimum(second, 0)) < INT16_MIN
    )
    delta = np.zeros((x.shape[0], weight.shape[0]), dtype=np.int64)
    outputs, positions = np.nonzero(risky)  # sorted by output
    wide = x.astype(np.int32)
    if wide.shape[1] % 2:
        wide = np.pad(wide, ((0, 0), (0, 1)))
    saturated = 0
    step = max(1, _CHUNK // max(x.shape[0], 1))
    for start in range(0, outputs.size, step):
        o, j = outputs[start : start + step], positions[start : start + step]
        sums = wide[:, 2 * j] * first[o, j] + wide[:, 2 * j + 1] * second[o, j]
        loss = np.clip(sums, INT16_MIN, INT16_MAX) - sums
        saturated += int(np.count_nonzero(loss))
        heads = np.flatnonzero(np.r_[True, o[1:] != o[:-1]])
        delta[:, o[heads]] += np.add.reduceat(loss.astype(np.int64), heads, axis=1)
    return Lost(delta=delta, saturated=saturated, pairs=x.shape[0] * first.size)
