"""The affine mapping between floats and integers.

``q = clip(round_half_even(x / scale) + zero_point, qmin, qmax)`` and ``x̂ = scale · (q − zero_point)``:
ONNX QuantizeLinear/DequantizeLinear (ai.onnx opset 21), bit for bit as the CPU kernels compute them
(division in float32, rounding half to even, then saturation).

Codes of a float type are its numbers: ``q = nearest(x / scale)`` and ``x̂ = scale · q``, without a zero point.

Invariants: 0 is exactly representable; a range of width 0 around 0 gives scale 1; scales never fall below
``MIN_SCALE``, so that products of an activation and a weight scale stay normal float32 numbers.
"""

from __future__ import annotations

import numpy as np

from quantcli.core.spec import QuantParams, QuantSpec

MIN_SCALE = np.float32(2.0**-62)
"""Smallest scale: the product of two is 2^-124, still a normal float32 (the smallest is 2^-126)."""

_PART_VALUES = 2**20
"""Values that are rounded at a time: on the way they take 8 bytes each, several times."""


def params_from_range(rmin: np.ndarray | float, rmax: np.ndarray | float, spec: QuantSpec) -> QuantParams:
    """Parameters that cover [rmin, rmax] and 0; scales that must be powers of two are the smallest that do.

    Args:
        rmin: Lower end, scalar or (channels,) as ``spec`` says.
        rmax: Upper end, same shape, not below ``rmin``.
        spec: Wanted form.

    Returns:
        Scale in float32 and zero point; computed in float64 and rounded once.

    Raises:
        ValueError: A bound is not finite, or rmin > rmax.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", section 3 (zero point nudged to an integer).
    """
    lo = np.minimum(np.asarray(rmin, dtype=np.float64), 0.0)
    hi = np.maximum(np.asarray(rmax, dtype=np.float64), 0.0)
    if not (np.isfinite(lo).all() and np.isfinite(hi).all()):
        raise ValueError("a range must be finite")
    if (np.asarray(rmin) > np.asarray(rmax)).any():
        raise ValueError("a range must not be empty")
    qmin, qmax = spec.qmin, spec.qmax
    if spec.symmetric:
        if spec.dtype.signed:
            middle, half = 0, qmax
        else:
            middle, half = (qmax + 1) // 2, qmax // 2
        # An unsigned type spends no codes on the negative side of a tensor that has none.
        nonnegative = (not spec.dtype.signed) & (lo >= 0)
        bound = np.maximum(-lo, hi)
        scale64 = np.where(nonnegative, hi / (qmax - qmin), bound / half)
        zero = np.where(nonnegative, qmin, middle)
        scale = _usable(scale64, spec)
    else:
        scale = _usable((hi - lo) / (qmax - qmin), spec)
        zero = np.clip(np.rint(qmin - lo / scale.astype(np.float64)), qmin, qmax)
    return QuantParams(spec=spec, scale=scale, zero_point=zero.astype(spec.dtype.storage))


def _usable(scale: np.ndarray, spec: QuantSpec) -> np.ndarray:
    """Float32 scales: 1 where the range was empty, never below MIN_SCALE, powers of two where they must be."""
    wanted = next_power_of_two(scale) if spec.pow2 else scale
    return np.where(scale == 0, np.float32(1), np.maximum(wanted.astype(np.float32), MIN_SCALE)).astype(np.float32)


def next_power_of_two(scale: np.ndarray) -> np.ndarray:
    """The smallest powers of two that are not below ``scale`` (float, ≥ 0, any shape); same dtype."""
    mantissa, exponent = np.frexp(scale)  # scale = mantissa · 2^exponent, mantissa in [1/2, 1)
    powers: np.ndarray = np.ldexp(np.ones_like(scale), exponent - (mantissa <= 0.5))
    return powers


def broadcastable(params: QuantParams, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point in a form that broadcasts over a tensor of ``shape``; blocks are repeated."""
    axis = params.spec.axis
    if axis is None:
        return params.scale, params.zero_point
    if params.spec.per_block:
        part = (slice(None),) * axis + (slice(shape[axis]),)
        scale, zero = (np.repeat(v, params.spec.block, axis)[part] for v in (params.scale, params.zero_point))
        return scale, zero
    form = [1] * len(shape)
    form[axis] = -1
    return params.scale.reshape(form), params.zero_point.reshape(form)


def quantize(x: np.ndarray, params: QuantParams) -> np.ndarray:
    """Codes of ``x`` (float32, any shape), in ``params.spec.dtype.storage``; a part of a large ``x`` at a time."""
    scale, zero = broadcastable(params, x.shape)
    if x.size <= _PART_VALUES or not x.ndim:
        return _quantize(x, scale, zero, params.spec)
    found = np.empty(x.shape, params.spec.dtype.storage)
    step = max(1, _PART_VALUES * len(x) // x.size)
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        found[part] = _quantize(x[part], _rows(scale, part), _rows(zero, part), params.spec)
    return found


def _rows(values: np.ndarray, part: slice) -> np.ndarray:
    """What a part of the first axis broadcasts with."""
    return values[part] if values.ndim and len(values) > 1 else values


def _quantize(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, spec: QuantSpec) -> np.ndarray:
    form = spec.dtype.format
    with np.errstate(over="ignore"):  # an infinite quotient saturates, as the kernel does
        steps = x.astype(np.float32) / scale
    if form is not None:
        return form.nearest(steps)
    q = np.rint(steps).astype(np.float64) + zero
    clipped: np.ndarray = np.clip(q, spec.qmin, spec.qmax).astype(spec.dtype.storage)
    return clipped


def dequantize(q: np.ndarray, params: QuantParams) -> np.ndarray:
    """Float32 values of codes ``q`` (any shape)."""
    scale, zero = broadcastable(params, q.shape)
    if params.spec.dtype.floating:
        return np.asarray(q * scale, dtype=np.float32)
    steps: np.ndarray = (q.astype(np.int64) - zero.astype(np.int64)).astype(np.float32)
    values: np.ndarray = steps * scale
    return values


def fake_quantize(x: np.ndarray, params: QuantParams) -> np.ndarray:
    """``dequantize(quantize(x))``: what is left of ``x`` (float32, any shape), without the detour over integers.

    The same bit for bit: clip(r + z, qmin, qmax) − z = clip(r, qmin − z, qmax − z), and all of that is exact in
    float32 for types of up to 16 bits.
    """
    if params.spec.dtype.floating:
        return dequantize(quantize(np.asarray(x), params), params)
    scale, zero = broadcastable(params, x.shape)
    wide = zero.astype(np.int64)
    with np.errstate(over="ignore"):  # as in ``quantize``
        steps: np.ndarray = np.asarray(x, dtype=np.float32) / scale
    steps = np.asarray(steps)  # a quotient of scalars is no array
    np.rint(steps, out=steps)
    np.clip(
        steps,
        (params.spec.qmin - wide).astype(np.float32),
        (params.spec.qmax - wide).astype(np.float32),
        out=steps,
    )
    steps *= scale
    return steps


def representable_range(params: QuantParams) -> tuple[float, float]:
    """Smallest and largest value of a per-tensor form, in the tensor's unit."""
    scale, zero = np.float32(params.scale), int(params.zero_point)
    return (
        float(scale * np.float32(params.spec.qmin - zero)),
        float(scale * np.float32(params.spec.qmax - zero)),
    )
