"""Integers of a layer chosen by what they do to its output, and judged on rows that had no part in the choice.

Four variants are made at the same scales: rounding to nearest or GPTQ (see ``gptq``), each with the bias as it is
or corrected (see ``bias``). The error of a variant, over held-out rows x of the float graph and x̂ of the graph
quantized so far, is

    Σ ‖(W x + b) − (Ŵ x̂ + b̂)‖² / Σ ‖W x − mean(W x)‖²

with Ŵ and b̂ what the integers stand for, so the rounding of the bias to int32 and every widened scale are in it.
The variant of the smallest error is kept, and rounding to nearest unless another is strictly better: on the
held-out rows no layer becomes worse than by rounding to nearest.

The sums need no outputs in memory: with d = W x − Ŵ x̂ and δ = b − b̂, ``Σ (d + δ)² = Σ d² + 2 δ Σ d + R δ²``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from quantcli.algorithms.bias import corrected_bias
from quantcli.algorithms.gptq import gptq
from quantcli.algorithms.layer_form import LayerForm
from quantcli.algorithms.moments import Moments, MomentSums
from quantcli.algorithms.samples import Pair, SampleRows
from quantcli.algorithms.threads import one_blas_thread
from quantcli.core.affine import dequantize, quantize
from quantcli.core.spec import QuantParams, QuantSpec
from quantcli.quantize.unsaturated import reaching
from quantcli.quantize.weights import (
    NO_RULES,
    LayerRules,
    QuantizedLayer,
    assemble,
    largest_bias,
    weight_params,
)

__all__ = ["NEAREST", "Pair", "RoundedLayer", "RoundingOptions", "round_layer"]

NEAREST = "nearest"
GPTQ = "gptq"
WITH_BIAS = "+bias"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingOptions:
    """How weights are rounded.

    Attributes:
        gptq: Whether GPTQ is tried.
        bias: Whether corrected biases are tried.
        rows: Rows to fit on, over all samples; more where a layer has many inputs (see ``samples``).
        damp: Damping of GPTQ, over the mean second moment.
    """

    gptq: bool = True
    bias: bool = True
    rows: int = 4000
    damp: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedLayer:
    """The integers of a layer, and how they were chosen.

    Attributes:
        layer: The integers.
        variant: "nearest", "nearest+bias", "gptq" or "gptq+bias".
        errors: Variant → relative error on the held-out rows, of all that were tried; empty where there was
            nothing to judge by.
    """

    layer: QuantizedLayer
    variant: str = NEAREST
    errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What all variants of a layer have in common."""

    form: LayerForm
    weight: np.ndarray
    bias: np.ndarray | None
    input_params: QuantParams
    params: QuantParams
    widened: int
    rules: LayerRules

    @property
    def matrices(self) -> np.ndarray:
        return self.form.to_matrices(self.weight).astype(np.float32, copy=False)

    @property
    def bias_values(self) -> np.ndarray:
        """b, float64 (G, O)."""
        return self.form.per_output(np.zeros(1) if self.bias is None else self.bias.astype(np.float64))

    def layer(self, integers: np.ndarray, bias: np.ndarray | None) -> QuantizedLayer:
        return assemble(integers, self.params, bias, self.input_params, widened=self.widened, rules=self.rules)

    def values(self, integers: np.ndarray) -> np.ndarray:
        """Ŵ, float32 (G, O, K)."""
        return self.form.to_matrices(dequantize(integers, self.params))


def round_layer(
    form: LayerForm,
    weight: np.ndarray,
    bias: np.ndarray | None,
    input_params: QuantParams,
    spec: QuantSpec,
    pairs: Sequence[Pair],
    options: RoundingOptions,
    *,
    may_create_bias: bool,
    rules: LayerRules = NO_RULES,
) -> RoundedLayer:
    """Round the weight and bias of a layer.

    Args:
        form: The layer; of one that is not ``supported`` the weight is rounded to nearest.
        weight: float32, ``form.weight_shape``.
        bias: float32 (channels,) or None.
        input_params: Per-tensor parameters of the layer's input.
        spec: Form of the weight.
        pairs: Samples of the layer's input.
        options: What is tried.
        may_create_bias: Whether a layer without a bias may get one.
        rules: What else the target asks for.

    Raises:
        ValueError: A weight or bias is not finite.
    """
    params, widened = weight_params(weight, bias, input_params, spec, rules)
    task = _Task(
        form=form,
        weight=weight,
        bias=bias,
        input_params=input_params,
        params=params,
        widened=widened,
        rules=rules,
    )
    nearest = task.layer(quantize(weight, params), bias)
    if not form.supported:
        return RoundedLayer(layer=nearest)
    sample = SampleRows(form=form, pairs=pairs, wanted=options.rows)
    # Inputs may be so large that sums overflow; what is not finite is found where it matters.
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        moments = _moments(sample, second=options.gptq)
        if moments is None or not moments.finite:
            return RoundedLayer(layer=nearest)
        variants = _variants(task, nearest, moments, options, may_create_bias=may_create_bias)
        errors = _errors(task, variants, sample)
    return _best(variants, errors)


def _moments(sample: SampleRows, *, second: bool) -> Moments | None:
    """Moments of the rows to fit on, None where there are none."""
    sums = MomentSums(sample.form.groups, sample.form.inputs, second=second)
    for x, x_hat in sample.fitting():
        sums.add(x, x_hat)
    return sums.moments() if sums.rows else None


def _variants(
    task: _Task, nearest: QuantizedLayer, moments: Moments, options: RoundingOptions, *, may_create_bias: bool
) -> dict[str, QuantizedLayer]:
    """Variants to be judged, by name; rounding to nearest first."""
    spec = task.params.spec
    correct = options.bias and (task.bias is not None or may_create_bias)
    found = {NEAREST: nearest}
    if options.gptq:
        scale = task.form.per_output(task.params.scale)
        zero = task.form.per_output(task.params.zero_point.astype(np.int32))
        second = moments.second if correct else moments.about_zero
        nearest_code = np.rint if spec.dtype.format is None else spec.dtype.format.nearest
        low, high = spec.qmin - zero, spec.qmax - zero
        rounded = gptq(task.matrices, scale, second, options.damp, low, high, nearest_code) + zero[:, :, None]
        found[GPTQ] = task.layer(_unsaturated(task, rounded, nearest.weight), task.bias)
    if not correct:
        return found
    limit = largest_bias(task.params, task.input_params, task.weight.shape)
    biased = {}
    for name, layer in found.items():
        values = task.values(layer.weight)
        corrected = corrected_bias(task.bias_values, task.matrices, values, moments.mean, moments.mean_hat)
        bias = task.form.to_channels(corrected)
        bias = bias if task.rules.float_bias else np.clip(bias, -limit, limit)
        biased[name] = layer
        biased[name + WITH_BIAS] = task.layer(layer.weight, bias)
    return biased


def _unsaturated(task: _Task, rounded: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """The weight with integers (G, O, K), and with those of ``nearest`` in outputs whose pairs could saturate."""
    integers = task.form.from_matrices(rounded)
    if not task.rules.pairs:
        return integers
    reached = reaching(integers, task.rules.pairs).reshape(rounded.shape[:2])
    return task.form.from_matrices(np.where(reached[:, :, None], task.form.to_matrices(nearest), rounded))


def _errors(task: _Task, variants: Mapping[str, QuantizedLayer], sample: SampleRows) -> dict[str, float]:
    """Variant → relative error on the held-out rows; empty where there are none."""
    weights = {name: task.values(layer.weight) for name, layer in variants.items() if WITH_BIAS not in name}
    matrices = task.matrices
    output = _Sums(matrices.shape[:2])
    deviation = {name: _Sums(matrices.shape[:2]) for name in weights}
    for x, x_hat in sample.held_out():
        exact = x @ matrices.transpose(0, 2, 1)
        output.add(exact)
        for name, values in weights.items():
            deviation[name].add(exact - x_hat @ values.transpose(0, 2, 1))
    if not output.rows:
        return {}
    spread = float(output.squares_around(-output.mean).sum())
    # A layer whose output never changes has no spread to compare with: its error is absolute.
    spread = spread if spread > 0 else 1.0
    errors = {}
    for name, layer in variants.items():
        bias = np.zeros(1) if layer.bias is None else layer.bias.astype(np.float64)
        if layer.bias_params is not None:
            bias = bias * layer.bias_params.scale.astype(np.float64)
        offset = task.bias_values - task.form.per_output(bias)
        squares = deviation[name.removesuffix(WITH_BIAS)].squares_around(offset)
        errors[name] = float(squares.sum()) / spread
    return errors


class _Sums:
    """Sums of values v (G, R, O) over rows: enough for ``Σ (v + δ)²`` of any δ (G, O)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.rows = 0
        self._sum = np.zeros(shape)
        self._squares = np.zeros(shape)

    def add(self, values: np.ndarray) -> None:
        self.rows += values.shape[1]
        self._sum += values.sum(axis=1, dtype=np.float64)
        self._squares += np.square(values, dtype=np.float64).sum(axis=1)

    @property
    def mean(self) -> np.ndarray:
        """(G, O)."""
        return self._sum / self.rows

    def squares_around(self, offset: np.ndarray) -> np.ndarray:
        """``Σ (v + δ)²``, (G, O); rounding may leave a sum of 0 a little below."""
        total = self._squares + 2 * offset * self._sum + self.rows * np.square(offset)
        return np.asarray(np.maximum(total, 0.0))


def _best(variants: Mapping[str, QuantizedLayer], errors: Mapping[str, float]) -> RoundedLayer:
    """The variant of the smallest error; rounding to nearest on a tie, and where an error is not finite."""
    best = NEAREST
    if all(math.isfinite(error) for error in errors.values()):
        best = min(errors, key=errors.__getitem__, default=NEAREST)
    return RoundedLayer(layer=variants[best], variant=best, errors=errors)
