"""The radius behind LRN.

y = x g(t) with the sum t of squares of neighbouring channels and g(t) = (bias + alpha / size t)^-beta, falling
with t. t is off by at most the sum of 2 |x| e + e^2, so y is off by at most the largest g times e, and |x| times
how far g moves.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper


def local_response_radius(node: onnx.NodeProto, x: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Radius of the output for the input ``x`` (N, C, …) of radius ``e``."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    alpha, beta, bias = given.get("alpha", 1e-4), given.get("beta", 0.75), given.get("bias", 1.0)
    size, x = given["size"], np.abs(x)

    def summed(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, [(0, 0), ((size - 1) // 2, size // 2), *[(0, 0)] * (values.ndim - 2)])
        return np.sum([padded[:, i : i + values.shape[1]] for i in range(size)], axis=0)

    def factor(total: np.ndarray) -> np.ndarray:
        return (bias + alpha / size * np.maximum(total, 0)) ** -beta

    total, reach = summed(x**2), summed(2 * x * e + e**2)
    most, middle, least = factor(total - reach), factor(total), factor(total + reach)
    return np.asarray(e * most + x * np.maximum(most - middle, middle - least))
