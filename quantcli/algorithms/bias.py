"""The bias that takes up the mean error of a layer.

With weights Ŵ and inputs x̂ in place of W and x, an output is off by ``W x − Ŵ x̂`` on average. The bias

    b' = b + W E[x] − Ŵ E[x̂]

makes the average error of every output 0 (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization
and Bias Correction", section 4.2, here with the averages of both streams measured).
"""

from __future__ import annotations

import numpy as np


def corrected_bias(
    bias: np.ndarray, matrices: np.ndarray, rounded: np.ndarray, mean: np.ndarray, mean_hat: np.ndarray
) -> np.ndarray:
    """b', float64 (G, O).

    Args:
        bias: b, (G, O).
        matrices: W, (G, O, K).
        rounded: Ŵ, the values that the integers stand for, (G, O, K).
        mean: E[x], (G, K).
        mean_hat: E[x̂], (G, K).
    """
    exact = matrices.astype(np.float64) @ mean[:, :, None]
    found = rounded.astype(np.float64) @ mean_hat[:, :, None]
    corrected: np.ndarray = bias + (exact - found)[:, :, 0]
    return corrected
