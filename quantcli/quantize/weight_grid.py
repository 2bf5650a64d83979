"""Scales, zero points and integers of a weight, per tensor, channel or block.

Symmetric: ``s = max|W| / qmax`` of each channel or block, zero point 0. Asymmetric: the grid covers the smallest
and the largest value and 0, as ``params_from_range`` says. Blocks are those of DequantizeLinear's ``block_size``
(ai.onnx 21): consecutive values along an axis, the last block perhaps shorter.

Large weights are rounded in parts along their first axis, so that no temporary array is as large as the weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from quantcli.core.affine import params_from_range, quantize
from quantcli.core.spec import QuantParams, QuantSpec

_PART_VALUES = 2**20
"""Values rounded at a time; float64 temporaries of them take 8 MiB."""


def scale_shape(shape: tuple[int, ...], spec: QuantSpec) -> tuple[int, ...]:
    """Shape of the scales of a tensor of ``shape``."""
    if spec.axis is None:
        return ()
    if not spec.block:
        return (shape[spec.axis],)
    return tuple(-(-dim // spec.block) if axis == spec.axis else dim for axis, dim in enumerate(shape))


def value_range(weight: np.ndarray, spec: QuantSpec) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of every channel or block, float32 of the shape of the scales.

    Args:
        weight: float32, any shape, at least one value.
        spec: Its form.
    """
    if spec.per_block:
        assert spec.axis is not None
        starts = np.arange(0, weight.shape[spec.axis], spec.block)
        low = np.minimum.reduceat(weight, starts, axis=spec.axis)
        return low, np.maximum.reduceat(weight, starts, axis=spec.axis)
    axes = None if spec.axis is None else tuple(axis for axis in range(weight.ndim) if axis != spec.axis)
    return np.asarray(weight.min(axis=axes)), np.asarray(weight.max(axis=axes))


def grid_params(weight: np.ndarray, spec: QuantSpec) -> QuantParams:
    """Parameters that cover every value.

    Raises:
        ValueError: A value is not finite.
    """
    low, high = value_range(weight, spec)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("a weight is not finite")
    return params_from_range(low, high, spec)


def round_to_grid(weight: np.ndarray, params: QuantParams) -> np.ndarray:
    """Integers of ``weight`` (float32) by rounding to nearest; storage type of ``params``, shape of ``weight``."""
    found = np.empty(weight.shape, params.spec.dtype.storage)
    for part in _parts(weight.shape, params.spec):
        found[part] = quantize(weight[part], part_params(params, part))
    return found


def part_params(params: QuantParams, part: slice) -> QuantParams:
    """The parameters of a part of a tensor along axis 0; the part begins with a block where axis 0 has blocks."""
    spec = params.spec
    if spec.axis is None or (spec.axis != 0 and not spec.block):
        return params
    own = slice(part.start // spec.block, -(-part.stop // spec.block)) if spec.block and spec.axis == 0 else part
    return QuantParams(spec=spec, scale=params.scale[own], zero_point=params.zero_point[own])


def _parts(shape: tuple[int, ...], spec: QuantSpec) -> Iterator[slice]:
    if not shape:
        yield slice(None)
        return
    step = max(1, _PART_VALUES // max(1, math.prod(shape[1:])))
    if spec.block and spec.axis == 0:
        step = -(-step // spec.block) * spec.block
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))
