"""By which factors the channels of a quantized weight were scaled before it was rounded.

Equalization multiplies row o of a weight by a_o and column i by b_i, and compensates in the neighbouring layers.
Given the original W and the quantized V ≈ diag(a)·W·diag(b) + rounding noise, the factors are the least-squares
fit, found by turns (each turn has a closed form):

    a_o = Σ V·(W b) / Σ (W b)²,      b_i = Σ V·(a W) / Σ (a W)²,

rows weighted by the inverse of their step. Of the models "nothing scaled", "one factor for all", "rows",
"columns", "rows and columns", the simplest is taken whose noise σ̂ = rms · √(n / (n − p)) is no larger than the
smallest found, by more than 5 % and three standard errors (1 / √(2(n − p)) of it): a fit always follows the noise
a little, and W itself is best wherever it explains V.

(a, b) and (k·a, b/k) give the same weight; which k is right shows only in the bias, so ``bias_factor`` fits it
there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_TOLERANCE = 1.05
_TURNS = 12
_UNIFORM = 0.02
"""Factors this close to each other are one: a wrong scale, for equalization never scales all channels alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescaling:
    """Factors of a weight's channels.

    Attributes:
        rows: a, float64 (outputs,).
        columns: b, float64 (groups, inputs of a group).
        scaled: Whether any factor is not 1.
        ambiguous: Whether (k·rows, columns/k) would do as well.
    """

    rows: np.ndarray
    columns: np.ndarray
    scaled: bool
    ambiguous: bool

    def apply(self, weight: np.ndarray) -> np.ndarray:
        """diag(a)·W·diag(b); ``weight`` is (outputs, inputs of a group, …)."""
        groups = self.columns.shape[0]
        shaped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        scaled = shaped * self.rows.reshape(groups, -1, 1, 1) * self.columns[:, None, :, None]
        return np.asarray(scaled.reshape(weight.shape))

    def bias_factor(self, reference: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Factors of the bias: the rows', times k where that is open. Both biases are float64 (outputs,)."""
        if not self.ambiguous:
            return self.rows
        expected = self.rows * reference
        power = float(np.sum(expected * expected))
        k = float(np.sum(expected * other)) / power if power else 1.0
        return self.rows * (k if k > 0 else 1.0)


def find_rescaling(reference: np.ndarray, other: np.ndarray, groups: int, *, integers: bool) -> Rescaling:
    """Factors that lead from ``reference`` to ``other``.

    Args:
        reference: Original weight, float64 (outputs, inputs of a group, …).
        other: The quantized one, same shape.
        groups: Groups of the convolution; 1 otherwise.
        integers: Whether ``other`` is in steps, so that a common factor is its scale.
    """
    outputs, inputs = reference.shape[:2]
    shape = (groups, outputs // groups, inputs, int(np.prod(reference.shape[2:])))
    w, v = reference.reshape(shape), other.reshape(shape)
    largest = np.abs(v).max(axis=(2, 3), keepdims=True, initial=0.0)
    weight = np.where(largest > 0, 1.0 / np.where(largest > 0, largest, 1.0), 0.0)
    if integers:  # all rows have the step 1
        weight = np.ones_like(weight)
    fits = [_Fit(w, v, weight, rows=False, columns=False, common=False)]
    if integers:
        fits.append(_Fit(w, v, weight, rows=False, columns=False, common=True))
    if reference.size > 2 * outputs:
        fits.append(_Fit(w, v, weight, rows=True, columns=False))
    if inputs > 1 and reference.size > 2 * (outputs + groups * inputs):
        fits.append(_Fit(w, v, weight, rows=False, columns=True))
        fits.append(_Fit(w, v, weight, rows=True, columns=True))
    best = min(fits, key=lambda fit: fit.noise)
    allowed = best.noise * (_TOLERANCE + 3 / math.sqrt(2 * best.freedom))
    chosen = next(fit for fit in fits if fit.noise <= allowed)
    if chosen.uniform and not integers:
        chosen = fits[0]
    return Rescaling(
        rows=chosen.a.reshape(-1),
        columns=chosen.b.reshape(groups, inputs),
        scaled=not chosen.uniform and chosen is not fits[0],
        ambiguous=chosen.both,
    )


class _Fit:
    """One model of the factors, fitted."""

    def __init__(
        self, w: np.ndarray, v: np.ndarray, weight: np.ndarray, *, rows: bool, columns: bool, common: bool = False
    ) -> None:
        groups, per_group, inputs, _ = w.shape
        self.both = rows and columns
        self.a = np.ones((groups, per_group, 1, 1))
        self.b = np.ones((groups, 1, inputs, 1))
        scaled_w, scaled_v = w * weight, v * weight
        for _ in range(_TURNS if self.both else 1):
            if rows or common:
                axes = (2, 3) if rows else (0, 1, 2, 3)
                self.a = np.broadcast_to(_ratio(scaled_v, scaled_w * self.b, axes), self.a.shape)
            if columns:
                self.b = _ratio(scaled_v, scaled_w * self.a, (1, 3))
        error = scaled_v - scaled_w * self.a * self.b
        free = (self.a.size if rows else int(common)) + (self.b.size if columns else 0)
        self.freedom = max(w.size - free, 1)
        self.noise = float(np.sqrt(np.sum(error * error) / self.freedom))

    @property
    def uniform(self) -> bool:
        """Whether all factors are the same and not 1."""
        rows, columns = self.a.reshape(-1), self.b.reshape(-1)
        product = float(np.median(rows) * np.median(columns))
        return (
            bool(np.all(np.abs(rows / np.median(rows) - 1) < _UNIFORM))
            and bool(np.all(np.abs(columns / np.median(columns) - 1) < _UNIFORM))
            and abs(product - 1) > _UNIFORM
        )


def _ratio(v: np.ndarray, w: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Σ v·w / Σ w² over ``axes``; 1 where that is not a positive number."""
    top, bottom = np.sum(v * w, axis=axes, keepdims=True), np.sum(w * w, axis=axes, keepdims=True)
    usable = (bottom > 0) & (top > 0)
    return np.where(usable, top / np.where(usable, bottom, 1.0), 1.0)
