"""Integers of a weight in a layer whose activations stay float, chosen by what they do to its output.

Two variants at the same scales and zero points: rounding to nearest and GPTQ (``algorithms.gptq``), whose second
moment is about zero, for no bias takes up the mean. Scales of blocks are those of the weight as it was, so that
columns may be rounded in order of falling second moment whatever block they are in. The error of a variant, over
held-out rows x of the float graph and x̂ of the graph rounded so far, is

    Σ ‖W x − Ŵ x̂‖² / Σ ‖W x‖²

and the variant of the smaller one is kept, rounding to nearest on a tie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from quantcli.algorithms.gptq import gptq
from quantcli.algorithms.layer_form import LayerForm
from quantcli.algorithms.moments import MomentSums
from quantcli.algorithms.rounding import GPTQ, NEAREST
from quantcli.algorithms.samples import Pair, SampleRows
from quantcli.algorithms.threads import one_blas_thread
from quantcli.core.affine import broadcastable, dequantize
from quantcli.core.spec import QuantParams
from quantcli.quantize.weight_grid import round_to_grid


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedWeight:
    """The integers of a weight, and how they were chosen.

    Attributes:
        integers: Storage type of the weight's integers, shape of the weight.
        variant: "nearest" or "gptq".
        errors: Variant → relative error on the held-out rows; empty where there was nothing to judge by.
    """

    integers: np.ndarray
    variant: str = NEAREST
    errors: Mapping[str, float] = field(default_factory=dict)


def round_weight(
    form: LayerForm, weight: np.ndarray, params: QuantParams, pairs: Sequence[Pair], *, rows: int, damp: float
) -> RoundedWeight:
    """Round the weight of a layer.

    Args:
        form: The layer; of one that is not ``supported`` the weight is rounded to nearest.
        weight: float32, finite, ``form.weight_shape``.
        params: Its scales and zero points.
        pairs: Samples of the layer's input.
        rows: Rows to fit on, over all samples; more where a layer has many inputs (see ``samples``).
        damp: Damping of GPTQ, over the mean second moment.
    """
    nearest = round_to_grid(weight, params)
    if not form.supported:
        return RoundedWeight(integers=nearest)
    sample = SampleRows(form=form, pairs=pairs, wanted=rows)
    # Inputs may be so large that sums overflow; what is not finite is found where it matters.
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        sums = MomentSums(form.groups, form.inputs)
        for x, x_hat in sample.fitting():
            sums.add(x, x_hat)
        if not sums.rows:
            return RoundedWeight(integers=nearest)
        second = sums.moments().about_zero
        if not np.isfinite(second).all():
            return RoundedWeight(integers=nearest)
        variants = {NEAREST: nearest, GPTQ: _fitted(form, weight, params, second, damp)}
        errors = _errors(form, weight, params, variants, sample)
    best = NEAREST
    if all(math.isfinite(error) for error in errors.values()):
        best = min(errors, key=errors.__getitem__, default=NEAREST)
    return RoundedWeight(integers=variants[best], variant=best, errors=errors)


def _fitted(
    form: LayerForm, weight: np.ndarray, params: QuantParams, second: np.ndarray, damp: float
) -> np.ndarray:
    """Integers by GPTQ, which rounds ``q − z``."""
    scale, zero = (
        form.to_matrices(np.broadcast_to(part, weight.shape)) for part in broadcastable(params, weight.shape)
    )
    offset = zero.astype(np.float32)
    low, high = params.spec.qmin - offset, params.spec.qmax - offset
    steps = gptq(form.to_matrices(weight), scale, second, damp, low, high)
    integers = form.from_matrices(steps + zero.astype(np.int32))
    return np.ascontiguousarray(integers.astype(params.spec.dtype.storage))


def _errors(
    form: LayerForm,
    weight: np.ndarray,
    params: QuantParams,
    variants: Mapping[str, np.ndarray],
    sample: SampleRows,
) -> dict[str, float]:
    """Variant → relative error on the held-out rows; empty where there are none."""
    exact = form.to_matrices(weight).transpose(0, 2, 1)
    values = {
        name: form.to_matrices(dequantize(integers, params)).transpose(0, 2, 1)
        for name, integers in variants.items()
    }
    signal, noise = 0.0, dict.fromkeys(variants, 0.0)
    for x, x_hat in sample.held_out():
        wanted = x @ exact
        signal += float(np.square(wanted, dtype=np.float64).sum())
        for name, found in values.items():
            noise[name] += float(np.square(wanted - x_hat @ found, dtype=np.float64).sum())
    return {name: error / signal for name, error in noise.items()} if signal > 0 else {}
