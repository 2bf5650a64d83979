"""Integer weights and biases of a layer.

Weights: symmetric, per output channel o: ``s_o = max|W_o| / qmax``, ``q = round_half_even(W / s)`` unless integers
found otherwise are assembled (``quantcli.algorithms``). qmax is 127 of int8.
Biases: int32 with the scale of the accumulator, exactly ``float32(s_x · s_o)``: onnxruntime's QGemm does not
check it, and a bias scale that differs gives wrong sums in silence.

Overflow: the accumulator holds ``Σ (q_x − z_x)·q_w + q_b``. With |q_x − z_x| ≤ 255 and |q_w| ≤ qmax over K
products it stays inside int32 if ``|q_b| ≤ 2³¹ − 1 − 255·qmax·K``; where a bias is larger, the weight scale of its
channel is widened until it fits (Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient
inference", section 2, gives the accumulator's form).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from quantcli.core.affine import MIN_SCALE, params_from_range, quantize
from quantcli.core.dtypes import INT32
from quantcli.core.spec import QuantParams, QuantSpec

_INT32_MAX = 2**31 - 1
_LARGEST_INPUT = 255
"""Largest |q_x − z_x| of eight bits."""
_BIAS_BITS_OF_DEAD_CHANNEL = 24
"""A channel without weights still has a bias: its scale gives that bias 24 bits, a float32's precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedLayer:
    """Integers of one layer.

    Attributes:
        weight: Storage of the weight's type (int8), shape of the weight.
        weight_params: Its scale and zero point.
        bias: int32 (channels,), None where there is none.
        bias_params: Scale float32(s_x·s_w) and zero point 0.
        widened: Number of channels whose weight scale was widened for the bias.
    """

    weight: np.ndarray
    weight_params: QuantParams
    bias: np.ndarray | None = None
    bias_params: QuantParams | None = None
    widened: int = 0


def weight_range(weight: np.ndarray, spec: QuantSpec) -> np.ndarray:
    """max|W|: () per tensor or (channels,) per channel, float64."""
    magnitude = np.abs(weight.astype(np.float64))
    if spec.axis is None:
        return np.asarray(magnitude.max(initial=0.0))
    other = tuple(axis for axis in range(weight.ndim) if axis != spec.axis)
    return np.asarray(magnitude.max(axis=other, initial=0.0))


def quantize_layer(
    weight: np.ndarray, bias: np.ndarray | None, input_params: QuantParams, spec: QuantSpec
) -> QuantizedLayer:
    """Quantize a weight and its bias by rounding to nearest.

    Args:
        weight: float32, any shape.
        bias: float32 (channels,) or None.
        input_params: Per-tensor parameters of the layer's input.
        spec: Form of the weight.

    Raises:
        ValueError: A value is not finite.
    """
    params, widened = weight_params(weight, bias, input_params, spec)
    return assemble(quantize(weight, params), params, bias, input_params, widened=widened)


def weight_params(
    weight: np.ndarray, bias: np.ndarray | None, input_params: QuantParams, spec: QuantSpec
) -> tuple[QuantParams, int]:
    """Parameters of a weight, and the number of channels whose scale was widened for the bias.

    Args: as of ``quantize_layer``.

    Raises:
        ValueError: A value is not finite.
    """
    if not np.isfinite(weight).all() or (bias is not None and not np.isfinite(bias).all()):
        raise ValueError("a weight or bias is not finite")
    bound = weight_range(weight, spec)
    params = params_from_range(-bound, bound, spec)
    if bias is None:
        return params, 0
    return _widen(params, bound, bias, input_params, weight.shape)


def assemble(
    integers: np.ndarray,
    params: QuantParams,
    bias: np.ndarray | None,
    input_params: QuantParams,
    *,
    widened: int = 0,
) -> QuantizedLayer:
    """The layer with these integers of the weight, however they were found.

    Args:
        integers: Shape of the weight, inside the range of ``params.spec``.
        params: As ``weight_params`` gives them.
        bias: float (channels,) or None; rounded to nearest here.
        input_params: Per-tensor parameters of the layer's input.
        widened: As ``weight_params`` gives it.
    """
    integers = integers.astype(params.spec.dtype.storage, copy=False)
    if bias is None:
        return QuantizedLayer(weight=integers, weight_params=params)
    bias_params = accumulator_params(input_params, params)
    q = np.rint(bias.astype(np.float64) / bias_params.scale.astype(np.float64))
    return QuantizedLayer(
        weight=integers,
        weight_params=params,
        bias=np.clip(q, -_INT32_MAX, _INT32_MAX).astype(np.int32),
        bias_params=bias_params,
        widened=widened,
    )


def largest_bias(params: QuantParams, input_params: QuantParams, weight_shape: tuple[int, ...]) -> np.ndarray:
    """float64, shape of the scale: largest magnitude of a bias at which no accumulator overflows."""
    step = input_params.scale.astype(np.float64) * params.scale.astype(np.float64)
    return np.asarray(step * _room(params.spec, weight_shape))


def accumulator_params(input_params: QuantParams, weight_params: QuantParams) -> QuantParams:
    """Parameters of the int32 accumulator: scale float32(s_x·s_w), zero point 0."""
    scale = (input_params.scale * weight_params.scale).astype(np.float32)
    spec = QuantSpec(dtype=INT32, symmetric=True, axis=0 if weight_params.spec.per_channel else None)
    return QuantParams(spec=spec, scale=scale, zero_point=np.zeros(scale.shape, np.int32))


def _room(spec: QuantSpec, weight_shape: tuple[int, ...]) -> int:
    """Largest integer of a bias that leaves room for the products in int32."""
    channels = 1 if spec.axis is None else weight_shape[spec.axis]
    products = math.prod(weight_shape) // max(channels, 1)
    largest = max(spec.qmax, -spec.qmin)
    return max(_INT32_MAX - _LARGEST_INPUT * largest * products, 2**30)


def _widen(
    params: QuantParams,
    bound: np.ndarray,
    bias: np.ndarray,
    input_params: QuantParams,
    weight_shape: tuple[int, ...],
) -> tuple[QuantParams, int]:
    """Scales at which every bias fits, and how many had to grow."""
    magnitude = np.abs(bias.astype(np.float64))
    if params.spec.axis is None:
        magnitude = magnitude.max(initial=0.0)
    step = input_params.scale.astype(np.float64)
    scale = params.scale.astype(np.float64)
    dead = np.maximum(magnitude / (step * 2**_BIAS_BITS_OF_DEAD_CHANNEL), float(MIN_SCALE))
    scale = np.where((bound == 0) & (magnitude > 0), dead, scale)
    # A float32 rounding may shrink the scale by 2^-24; the limit leaves room for that.
    needed = magnitude / (step * _room(params.spec, weight_shape)) * (1 + 2**-20)
    wide = needed > scale
    grown = np.where(wide, needed, scale).astype(np.float32)
    return QuantParams(spec=params.spec, scale=grown, zero_point=params.zero_point), int(np.sum(wide))
