"""Streaming first and second moments of a layer's inputs.

Per group, over rows x of the float stream and x̂ of the quantized one:

    m = E[x],   μ = E[x̂],   C = E[x̂ x̂ᵀ] − μ μᵀ

C is centred because a corrected bias takes up the mean; where none can, the moment about zero, E[x̂ x̂ᵀ] =
C + μ μᵀ, is what counts. Sums are of ``x̂ − r`` with r the mean of the first rows seen: C does not depend on r, and
without the mean the products of some hundred rows keep float32's precision; sums of them are float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_ROWS_AT_ONCE = 512
"""Rows multiplied at once: an addition to C costs as much as the products of tens of rows."""

_SMALL = 32
"""Inputs below which one call for all groups is faster than one for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Moments of the inputs of G groups of K.

    Attributes:
        rows: Rows seen.
        mean: m, (G, K) float64.
        mean_hat: μ, (G, K) float64.
        second: C, (G, K, K) float64, symmetric.
    """

    rows: int
    mean: np.ndarray
    mean_hat: np.ndarray
    second: np.ndarray

    @property
    def about_zero(self) -> np.ndarray:
        """E[x̂ x̂ᵀ], (G, K, K) float64."""
        return np.asarray(self.second + self.mean_hat[:, :, None] * self.mean_hat[:, None, :])

    @property
    def finite(self) -> bool:
        """Whether all of it is."""
        return all(bool(np.isfinite(part).all()) for part in (self.mean, self.mean_hat, self.second))


class MomentSums:
    """Adds up samples of (G, K) inputs.

    Args:
        groups: G.
        inputs: K.
        second: Whether C is wanted; it costs K² memory per group, and nearly all the time.
    """

    def __init__(self, groups: int, inputs: int, *, second: bool = True) -> None:
        self.rows = 0
        self._reference: np.ndarray | None = None
        self._sum = np.zeros((groups, inputs))
        self._sum_hat = np.zeros((groups, inputs))
        self._pending: list[np.ndarray] = []
        self._products = np.zeros((groups, inputs, inputs)) if second else None

    def add(self, x: np.ndarray, x_hat: np.ndarray) -> None:
        """Add rows (G, R, K) float32 of both streams."""
        if x.shape[1] == 0:
            return
        if self._reference is None:
            self._reference = x_hat.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        self.rows += x.shape[1]
        self._sum += x.sum(axis=1, dtype=np.float64)
        centred = x_hat - self._reference
        self._sum_hat += centred.sum(axis=1, dtype=np.float64)
        if self._products is not None:
            self._pending.append(centred)
            if sum(rows.shape[1] for rows in self._pending) >= _ROWS_AT_ONCE:
                self._multiply()

    def _multiply(self) -> None:
        """Add the products of the rows that wait."""
        if self._products is None or not self._pending:
            return
        rows = np.concatenate(self._pending, axis=1) if len(self._pending) > 1 else self._pending[0]
        self._pending.clear()
        if rows.shape[2] < _SMALL:
            self._products += rows.transpose(0, 2, 1) @ rows
            return
        # numpy knows A.T @ A of two axes for symmetric and computes half of it.
        for group, own in enumerate(rows):
            self._products[group] += own.T @ own

    def moments(self) -> Moments:
        """What was found.

        Raises:
            ValueError: No row was added.
        """
        if self._reference is None:
            raise ValueError("moments need at least one row")
        self._multiply()
        shift = self._sum_hat / self.rows
        second = np.zeros((len(shift), 0, 0))
        if self._products is not None:
            second = self._products / self.rows
            second -= shift[:, :, None] * shift[:, None, :]
        return Moments(
            rows=self.rows,
            mean=self._sum / self.rows,
            mean_hat=self._reference[:, 0].astype(np.float64) + shift,
            second=second,
        )
