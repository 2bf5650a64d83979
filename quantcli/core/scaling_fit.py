"""How one weight differs from another, up to a scale for each of its input and output channels.

Equalization leaves a layer's function as it is and gives its weight other scales: ŵ[o, i] = ρ[o] · w[o, i] · β[i]
with ρ, β > 0. So a weight is compared with its original only after the two vectors that fit best,

    min over ρ, β of Σ ((ŵ − ρ·w·β) / step)²,

(errors in steps of the rounding: an output channel with a wide step must not decide about an input) found by
alternating least squares. Only the product is known: (c·ρ, β/c) fits as well for every c > 0; here β has median 1.
Where each output channel reads one input channel (depthwise), β is 1 and ρ holds the product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDS = 12
"""Rounds of alternation; what is not rank one after a few of them is no scaling."""

_PLAIN = 1.0 + 1e-2
"""A fit with β is worth it where the one without leaves this many times the error per degree of freedom."""


_CERTAIN = 0.01
"""Square of the relative standard error up to which a scale is known: a tenth."""

_ABOVE = 10.0
"""Mean square of weights over that of rounding from which rounding acts as noise (RMS about one step)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingFit:
    """The best scales.

    Attributes:
        rows: ρ, float64 (groups, outputs of a group).
        columns: β, float64 (groups, inputs of a group), median 1.
        error: Σ over what is left, in steps², float64 (groups, outputs of a group).
        rows_known: Whether ρ is known to a tenth: its standard error, from what is left, against its size.
        columns_known: The same for β.
    """

    rows: np.ndarray
    columns: np.ndarray
    error: np.ndarray
    rows_known: np.ndarray
    columns_known: np.ndarray

    @property
    def spread(self) -> float:
        """Largest over smallest column scale, the outer tenths left out; 1 where columns were not scaled."""
        known = self.columns[self.columns_known]
        if known.size < 2:
            return 1.0
        low, high = np.quantile(known, [0.1, 0.9])
        return float(high / low)


def fit_scaling(reference: np.ndarray, found: np.ndarray, step: np.ndarray | None = None) -> ScalingFit:
    """The scales that bring ``reference`` closest to ``found``.

    Args:
        reference: w, float64 (groups, outputs, inputs, positions).
        found: ŵ, the same shape.
        step: Scale of each element where ŵ was rounded: no error is taken to be below that of rounding. None for
            floats, whose error is relative to the output channel.
    """
    if step is None:
        step = np.maximum(np.linalg.norm(reference, axis=(2, 3), keepdims=True), np.finfo(np.float64).tiny)
        floor = 0.0
    else:
        floor = 1 / 12
    reference, found = reference / step, found / step
    groups, _, inputs, _ = reference.shape
    columns = np.ones((groups, inputs))
    square, cross = np.einsum("goik->goi", reference**2), np.einsum("goik->goi", reference * found)
    rows = _rows(square, cross, columns)
    plain = _error(square, cross, found, rows, columns)
    if inputs > 1:
        fitted_rows, fitted = rows, columns
        for _ in range(ROUNDS):
            fitted = _columns(square, cross, fitted_rows)
            fitted_rows = _rows(square, cross, fitted)
        error = _error(square, cross, found, fitted_rows, fitted)
        freedom = reference.size / max(1, reference.size - rows.size - columns.size)
        if plain.sum() > _PLAIN * freedom * error.sum() and (fitted > 0).any():
            middle = float(np.median(fitted[fitted > 0]))
            return _result(square, fitted_rows * middle, fitted / middle, error, floor, reference)
    return _result(square, rows, columns, plain, floor, reference)


def _result(
    square: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    error: np.ndarray,
    floor: float,
    reference: np.ndarray,
) -> ScalingFit:
    """The fit with its certainty: var ρ = σ²/Σ(w·β)², var β = Σ σ²(w·ρ)² / (Σ (w·ρ)²)².

    Rows and columns whose weights are not above rounding, in the mean of their squares, are not known either:
    there rounding is no noise, but takes most of them to 0.
    """
    count = reference.shape[2] * reference.shape[3]
    noise = np.maximum(error / count, floor)
    rows_below = np.einsum("goi,gi->go", square, columns**2)
    columns_below = np.einsum("goi,go->gi", square, rows**2)
    columns_noise = np.einsum("goi,go->gi", square, rows**2 * noise)
    return ScalingFit(
        rows=rows,
        columns=columns,
        error=error,
        rows_known=(rows > 0)
        & (noise < _CERTAIN * rows**2 * rows_below)
        & (_ABOVE * noise * count < rows**2 * rows_below),
        columns_known=(columns > 0)
        & (columns_noise < _CERTAIN * columns**2 * columns_below**2)
        & (_ABOVE * columns_noise * reference.shape[3] * reference.shape[1] < columns**2 * columns_below**2),
    )


def _rows(square: np.ndarray, cross: np.ndarray, columns: np.ndarray) -> np.ndarray:
    below = np.einsum("goi,gi->go", square, columns**2)
    above = np.einsum("goi,gi->go", cross, columns)
    rows: np.ndarray = np.divide(above, below, out=np.ones_like(above), where=below > 0)
    return rows


def _columns(square: np.ndarray, cross: np.ndarray, rows: np.ndarray) -> np.ndarray:
    below = np.einsum("goi,go->gi", square, rows**2)
    above = np.einsum("goi,go->gi", cross, rows)
    columns: np.ndarray = np.maximum(np.divide(above, below, out=np.ones_like(above), where=below > 0), 0.0)
    return columns


def _error(
    square: np.ndarray, cross: np.ndarray, found: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Σ (ŵ − ρ·w·β)² of each output channel, (groups, outputs)."""
    scale = rows[:, :, None] * columns[:, None, :]
    total: np.ndarray = np.einsum("goik->go", found**2) - np.einsum(
        "goi->go", 2 * scale * cross - scale**2 * square
    )
    error: np.ndarray = np.maximum(total, 0.0)
    return error
