"""Rounding that lets the weights still to be rounded make up for the errors of those that are.

Wanted are codes q in [low, high] with a small ``tr(E C Eᵀ)``, E = W − sq the errors and C the centred second
moment of the inputs. With ``C + λI = R D Rᵀ``, R unit upper triangular, this is ``Σ_j D_j ‖(E R)_j‖²``, and
column j of E R has only errors of columns up to j in it. So column after column

    q_j = clip(round((W_j + Σ_{i<j} E_i R_ij) / s)),   E_j = W_j − s q_j

makes each term as small as one rounding can. Columns go in order of falling C_jj: the loudest inputs are rounded
first, while most other columns are left to make up for them. λ = damp · mean(diag C).

Sources: Frantar et al. 2022, "GPTQ", algorithm 1, which moves ``U = chol((C + λI)⁻¹)ᵀ`` along; Chee et al. 2023,
"QuIP", theorem 6, shows that it takes the same decisions as the factor R, which needs no inverse. An input that is
always 0 has no correlation and is rounded to nearest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Bound = int | np.ndarray
"""One value for all weights, or values in the shape of their scales."""

_BLOCK = 32
"""Columns between two updates of all that is left: within a block in vector steps, behind it in one product."""

_SMALLEST_RETRY = 1e-8
"""Damping tried when the wanted one, perhaps 0, did not make C positive definite in float64."""


def gptq(
    matrices: np.ndarray,
    scale: np.ndarray,
    second_moment: np.ndarray,
    damp: float,
    low: Bound,
    high: Bound,
    nearest: Callable[[np.ndarray], np.ndarray] = np.rint,
) -> np.ndarray:
    """Round weights to steps of their scales.

    Args:
        matrices: float32 (G, O, K).
        scale: float32 (G, O), or (G, O, K) where blocks of inputs have scales of their own.
        second_moment: float64 (G, K, K), symmetric, positive semidefinite up to rounding.
        damp: λ over the mean of the diagonal, ≥ 0.
        low: Smallest number of steps, one or in the shape of ``scale``: smallest code − zero point.
        high: Largest number of steps.
        nearest: Numbers of steps that codes can say, next to given ones: integers, or those of a float type.

    Returns:
        Steps q: W ≈ s·q; int32 (G, O, K), or float32 where ``nearest`` is not that of integers.

    Raises:
        ValueError: The second moment is not finite.
    """
    diagonal = np.diagonal(second_moment, axis1=1, axis2=2)
    if not np.isfinite(second_moment).all():
        raise ValueError("a second moment is not finite")
    order = np.argsort(-diagonal, axis=1, kind="stable")
    factor = _unit_factor(second_moment, order, damp)
    # (G, K, O): the outputs of a column lie side by side.
    columns = np.take_along_axis(matrices.transpose(0, 2, 1), order[:, :, None], axis=1).astype(np.float32)
    steps, lowest, highest = (_ordered(bound, order, columns.shape) for bound in (scale, low, high))
    rounded = _round_columns(columns, steps, factor, lambda j, q: np.clip(nearest(q), lowest[:, j], highest[:, j]))
    codes = np.empty(columns.shape, np.int32 if nearest is np.rint else np.float32)
    np.put_along_axis(codes, order[:, :, None], rounded, axis=1)
    return np.ascontiguousarray(codes.transpose(0, 2, 1))


def _ordered(bound: Bound, order: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A value for each weight of ordered columns ``shape`` (G, K, O), from one, (G, O) or (G, O, K); float32."""
    values = np.asarray(bound, dtype=np.float32)
    if values.ndim == 3:
        return np.take_along_axis(values.transpose(0, 2, 1), order[:, :, None], axis=1)
    return np.broadcast_to(values[:, None, :] if values.ndim else values, shape)


def _round_columns(
    columns: np.ndarray,
    steps: np.ndarray,
    factor: np.ndarray,
    round_column: Callable[[int, np.ndarray], np.ndarray],
) -> np.ndarray:
    """The recursion over ordered columns (G, K, O); numbers of steps as float32."""
    count = columns.shape[1]
    targets = columns.copy()
    errors = np.empty_like(columns)
    rounded = np.empty_like(columns)
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        for j in range(start, end):
            step = steps[:, j]
            q = round_column(j, targets[:, j] / step)
            rounded[:, j] = q
            errors[:, j] = error = columns[:, j] - step * q
            targets[:, j + 1 : end] += factor[:, j, j + 1 : end, None] * error[:, None, :]
        if end < count:
            targets[:, end:] += factor[:, start:end, end:].transpose(0, 2, 1) @ errors[:, start:end]
    return rounded


def _unit_factor(second_moment: np.ndarray, order: np.ndarray, damp: float) -> np.ndarray:
    """R of ``C + λI = R D Rᵀ`` for columns in ``order``: (G, K, K) float32, unit upper triangular."""
    # The Cholesky factor of the matrix with rows and columns reversed, reversed again, is upper triangular.
    backwards = order[:, ::-1]
    groups = np.arange(len(order))[:, None, None]
    matrix = second_moment[groups, backwards[:, :, None], backwards[:, None, :]]
    lower = _cholesky(matrix, damp)
    lower /= np.diagonal(lower, axis1=1, axis2=2)[:, None, :]
    return np.ascontiguousarray(lower[:, ::-1, ::-1], dtype=np.float32)


def _cholesky(matrix: np.ndarray, damp: float) -> np.ndarray:
    """Lower factor of ``matrix + λI`` (overwritten); λ is doubled until there is one.

    A damping of K makes λ the trace, which no eigenvalue of a semidefinite matrix exceeds; far below that the
    rounding errors that made an eigenvalue negative are outweighed. So the loop ends; what is not even nearly
    semidefinite raises LinAlgError.
    """
    size = matrix.shape[1]
    diagonal = matrix.reshape(len(matrix), -1)[:, :: size + 1]
    original = diagonal.copy()
    mean = original.mean(axis=1, keepdims=True)
    mean[mean <= 0] = 1.0  # a group whose inputs never change
    while True:
        diagonal[:] = original + damp * mean
        # Also with damping 0, an input that never changes must not stop the others.
        diagonal[original <= 0] = np.broadcast_to(mean, original.shape)[original <= 0]
        try:
            factor: np.ndarray = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            if damp > size:
                raise
            damp = max(2 * damp, _SMALLEST_RETRY)
        else:
            return factor
