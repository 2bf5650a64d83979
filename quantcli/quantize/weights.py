"""Codes of weights and biases of a layer.

Weights: per output channel o, symmetric ``s_o = max|W_o| / qmax``, or asymmetric with a zero point from the range
of W_o and 0; ``q = round_half_even(W / s) + z`` unless codes found otherwise are assembled
(``quantcli.algorithms``).
Biases: int32 with the scale of the accumulator, exactly ``float32(s_x · s_o)``: onnxruntime's QGemm does not
check it, and a bias scale that differs gives wrong sums in silence. Where activations or weights are of a float
type there is no accumulator of integers, and the bias stays float32.

A scale fitted to the least squared error of few bits, which clips the largest weights, is worse here: resnet56
with weights of 4 bits has 19.5 dB with the scale of max|W|, 14.1 dB with the fitted one.

Overflow: the accumulator holds ``Σ (q_x − z_x)·(q_w − z_w) + q_b``. With |q_x − z_x| ≤ X and |q_w − z_w| ≤ M over
K products it stays inside int32 if ``|q_b| ≤ 2³¹ − 1 − X·M·K``; where a bias is larger, the weight scale of its
channel is widened until it fits (Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient
inference", section 2, gives the accumulator's form). X is 255 for 8 bits. Products of 16-bit activations fill
int32 by themselves, hardware for them has wider accumulators and onnxruntime computes in float: then only the
bias itself must fit, into half of int32. It stays int32 there, too, because onnxruntime 1.32 makes int32 of a
float bias between quantizers, saturates it where it does not fit, and is wrong in silence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from quantcli.core.affine import (
    MIN_SCALE,
    dequantize,
    next_power_of_two,
    params_from_range,
    quantize,
)
from quantcli.core.dtypes import INT32
from quantcli.core.spec import QuantParams, QuantSpec
from quantcli.quantize.unsaturated import keep_apart

_INT32_MAX = 2**31 - 1
_BIAS_BITS_OF_DEAD_CHANNEL = 24
"""A channel without weights still has a bias: its scale gives that bias 24 bits, a float32's precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRules:
    """What a target asks of a layer besides the form of its weight.

    Attributes:
        float_bias: The bias stays in float.
        pairs: The order in which the kernel adds products up in pairs that saturate (``core.saturation``): no
            pair of the weight's integers may reach that. "" where nothing saturates.
    """

    float_bias: bool = False
    pairs: str = ""


NO_RULES = LayerRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedLayer:
    """Codes of one layer.

    Attributes:
        weight: Storage of the weight's type (int8), shape of the weight.
        weight_params: Its scale and zero point.
        bias: int32 (channels,), or float32 where ``bias_params`` is None; None where there is none.
        bias_params: Scale float32(s_x·s_w) and zero point 0; None for a bias in float.
        widened: Number of channels whose weight scale was widened for the bias.
    """

    weight: np.ndarray
    weight_params: QuantParams
    bias: np.ndarray | None = None
    bias_params: QuantParams | None = None
    widened: int = 0

    @property
    def bias_values(self) -> np.ndarray | None:
        """What the bias stands for, float32 (channels,); None where there is none."""
        if self.bias is None or self.bias_params is None:
            return self.bias
        return dequantize(self.bias, self.bias_params)


def weight_range(weight: np.ndarray, spec: QuantSpec) -> np.ndarray:
    """max|W|: () per tensor or (channels,) per channel, float64."""
    low, high = _bounds(weight, spec)
    return np.asarray(np.maximum(-low, high))


def _bounds(weight: np.ndarray, spec: QuantSpec) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value and 0: () per tensor or (channels,) per channel, float64."""
    other = tuple(axis for axis in range(weight.ndim) if axis != spec.axis)
    low, high = weight.min(axis=other, initial=0.0), weight.max(axis=other, initial=0.0)
    return np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)


def quantize_layer(
    weight: np.ndarray,
    bias: np.ndarray | None,
    input_params: QuantParams,
    spec: QuantSpec,
    rules: LayerRules = NO_RULES,
) -> QuantizedLayer:
    """Quantize a weight and its bias by rounding to nearest.

    Args:
        weight: float32, any shape.
        bias: float32 (channels,) or None.
        input_params: Per-tensor parameters of the layer's input.
        spec: Form of the weight.
        rules: What else the target asks for.

    Raises:
        ValueError: A value is not finite.
    """
    params, widened = weight_params(weight, bias, input_params, spec, rules)
    integers = quantize(weight, params)
    return assemble(integers, params, bias, input_params, widened=widened, rules=rules)


def weight_params(
    weight: np.ndarray,
    bias: np.ndarray | None,
    input_params: QuantParams,
    spec: QuantSpec,
    rules: LayerRules = NO_RULES,
) -> tuple[QuantParams, int]:
    """Parameters of a weight, and the number of channels whose scale was widened for the bias.

    Args: as of ``quantize_layer``.

    Raises:
        ValueError: A value is not finite.
    """
    if not np.isfinite(weight).all() or (bias is not None and not np.isfinite(bias).all()):
        raise ValueError("a weight or bias is not finite")
    low, high = _bounds(weight, spec)
    params = params_from_range(low, high, spec)
    widened = 0
    if bias is not None and not _bias_in_float(rules, input_params, params):
        params, widened = _widen(params, (low, high), bias, input_params, weight.shape)
    return keep_apart(weight, params, rules.pairs), widened


def assemble(
    codes: np.ndarray,
    params: QuantParams,
    bias: np.ndarray | None,
    input_params: QuantParams,
    *,
    widened: int = 0,
    rules: LayerRules = NO_RULES,
) -> QuantizedLayer:
    """The layer with these codes of the weight, however they were found.

    Args:
        codes: Shape of the weight, inside the range of ``params.spec``.
        params: As ``weight_params`` gives them.
        bias: float (channels,) or None; rounded to nearest here.
        input_params: Per-tensor parameters of the layer's input.
        widened: As ``weight_params`` gives it.
        rules: What else the target asks for.
    """
    codes = codes.astype(params.spec.dtype.storage, copy=False)
    if bias is None:
        return QuantizedLayer(weight=codes, weight_params=params)
    if _bias_in_float(rules, input_params, params):
        return QuantizedLayer(weight=codes, weight_params=params, bias=bias.astype(np.float32))
    bias_params = accumulator_params(input_params, params)
    q = np.rint(bias.astype(np.float64) / bias_params.scale.astype(np.float64))
    return QuantizedLayer(
        weight=codes,
        weight_params=params,
        bias=np.clip(q, -_INT32_MAX, _INT32_MAX).astype(np.int32),
        bias_params=bias_params,
        widened=widened,
    )


def _bias_in_float(rules: LayerRules, input_params: QuantParams, params: QuantParams) -> bool:
    return rules.float_bias or not _sums_integers(input_params, params)


def _sums_integers(input_params: QuantParams, params: QuantParams) -> bool:
    """Whether the sums of the layer are of integers, so that its bias is one."""
    return not (input_params.spec.dtype.floating or params.spec.dtype.floating)


def largest_bias(params: QuantParams, input_params: QuantParams, weight_shape: tuple[int, ...]) -> np.ndarray:
    """float64, shape of the scale: largest magnitude of a bias at which no accumulator overflows."""
    step = input_params.scale.astype(np.float64) * params.scale.astype(np.float64)
    if not _sums_integers(input_params, params):
        return np.full(step.shape, np.inf)
    return np.asarray(step * _room(params.spec, input_params.spec, weight_shape))


def accumulator_params(input_params: QuantParams, weight_params: QuantParams) -> QuantParams:
    """Parameters of the int32 accumulator: scale float32(s_x·s_w), zero point 0."""
    scale = (input_params.scale * weight_params.scale).astype(np.float32)
    spec = QuantSpec(
        dtype=INT32,
        symmetric=True,
        axis=0 if weight_params.spec.per_channel else None,
        pow2=input_params.spec.pow2 and weight_params.spec.pow2,
    )
    return QuantParams(spec=spec, scale=scale, zero_point=np.zeros(scale.shape, np.int32))


def _room(spec: QuantSpec, input_spec: QuantSpec, weight_shape: tuple[int, ...]) -> int:
    """Largest integer of a bias that leaves room for the products in int32."""
    channels = 1 if spec.axis is None else weight_shape[spec.axis]
    products = math.prod(weight_shape) // max(channels, 1)
    largest = max(spec.qmax, -spec.qmin) if spec.symmetric else spec.qmax - spec.qmin
    largest_input = input_spec.qmax - input_spec.qmin
    return max(_INT32_MAX - largest_input * largest * products, 2**30)


def _widen(
    params: QuantParams,
    bounds: tuple[np.ndarray, np.ndarray],
    bias: np.ndarray,
    input_params: QuantParams,
    weight_shape: tuple[int, ...],
) -> tuple[QuantParams, int]:
    """Scales at which every bias fits, and how many had to grow."""
    spec, (low, high) = params.spec, bounds
    magnitude = np.abs(bias.astype(np.float64))
    if spec.axis is None:
        magnitude = magnitude.max(initial=0.0)
    step = input_params.scale.astype(np.float64)
    scale = params.scale.astype(np.float64)
    dead = np.maximum(magnitude / (step * 2**_BIAS_BITS_OF_DEAD_CHANNEL), float(MIN_SCALE))
    empty = (low == 0) & (high == 0) & (magnitude > 0)
    scale = np.where(empty, dead, scale)
    # A float32 rounding may shrink the scale by 2^-24; the limit leaves room for that.
    needed = magnitude / (step * _room(spec, input_params.spec, weight_shape)) * (1 + 2**-20)
    wide = needed > scale
    grown = np.where(wide, needed, scale)
    if spec.pow2:
        grown = next_power_of_two(grown)
    grown = grown.astype(np.float32)
    zero = params.zero_point
    if not spec.symmetric:  # with the wider scale, the range lies elsewhere among the codes
        moved = np.clip(np.rint(spec.qmin - low / grown.astype(np.float64)), spec.qmin, spec.qmax)
        zero = np.where(wide, moved, zero)
    return QuantParams(spec=spec, scale=grown, zero_point=zero), int(np.sum(wide))
