"""Rounded layers: the guard, the corrected bias, what is representable, and that threads change nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.algorithms.layer_form import LayerForm
from quantcli.algorithms.rounding import Pair, RoundedLayer, RoundingOptions, round_layer
from quantcli.algorithms.samples import SampleRows
from quantcli.core.affine import dequantize, fake_quantize, params_from_range
from quantcli.core.dtypes import INT8, UINT8, QType
from quantcli.core.spec import QuantParams, QuantSpec
from quantcli.quantize.weights import QuantizedLayer, quantize_layer

INT4 = QType(name="int4", bits=4, signed=True)
LAYER = LayerForm("Gemm", {"transB": 1}, (12, 40))
SPEC = QuantSpec(dtype=INT8, symmetric=True, axis=0, narrow=True)
SPEC4 = QuantSpec(dtype=INT4, symmetric=True, axis=0, narrow=True)
NEAREST_ONLY = RoundingOptions(gptq=False, bias=False)


def weight_and_bias(seed: int, form: LayerForm = LAYER) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=form.weight_shape).astype(np.float32), rng.normal(size=form.channels).astype(np.float32)


def samples(
    seed: int, count: int, rows: int, inputs: int = 40, offset: float = 0.0
) -> tuple[list[Pair], QuantParams]:
    """Correlated inputs, and the same quantized to 8 bits; ``offset`` is a mean error of the quantized stream."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(6, inputs))
    drawn = [rng.normal(size=(rows, 6)) @ mix + 0.3 * rng.normal(size=(rows, inputs)) + 1 for _ in range(count)]
    x = [sample.astype(np.float32) for sample in drawn]
    params = params_from_range(min(map(np.min, x)), max(map(np.max, x)), QuantSpec(dtype=UINT8))
    return [Pair(sample, fake_quantize(sample + np.float32(offset), params)) for sample in x], params


def error(layer: QuantizedLayer, weight: np.ndarray, bias: np.ndarray | None, pairs: list[Pair]) -> float:
    """Σ ‖(W x + b) − (Ŵ x̂ + b̂)‖² / Σ ‖W x − mean‖² of a Gemm with transB, in float64 and all at once."""
    x = np.concatenate([pair.x for pair in pairs]).astype(np.float64)
    x_hat = np.concatenate([pair.x_hat for pair in pairs]).astype(np.float64)
    exact = x @ weight.T.astype(np.float64) + (0 if bias is None else bias)
    found = x_hat @ dequantize(layer.weight, layer.weight_params).T.astype(np.float64)
    if layer.bias is not None:
        found += layer.bias * layer.bias_params.scale.astype(np.float64)
    return float(np.square(exact - found).sum() / np.square(exact - exact.mean(axis=0)).sum())


def held_out(pairs: list[Pair]) -> list[Pair]:
    return pairs[3::4]


def test_gptq_with_a_corrected_bias_wins_where_inputs_are_correlated_and_off() -> None:
    (weight, bias), (pairs, params) = weight_and_bias(1), samples(2, 16, 60, offset=0.05)
    found = round_layer(LAYER, weight, bias, params, SPEC4, pairs, RoundingOptions(), may_create_bias=True)
    assert found.variant == "gptq+bias"
    assert list(found.errors) == ["nearest", "nearest+bias", "gptq", "gptq+bias"]
    assert found.errors["gptq+bias"] < 0.7 * found.errors["nearest"]


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    st.integers(0, 10**6),
    st.sampled_from([8, 13]),
    st.integers(1, 40),
    st.sampled_from([SPEC, SPEC4]),
    st.booleans(),
)
def test_no_layer_is_worse_on_held_out_samples_than_by_rounding_to_nearest(
    seed: int, count: int, rows: int, spec: QuantSpec, with_bias: bool
) -> None:
    weight, bias = weight_and_bias(seed)
    bias = bias if with_bias else None
    pairs, params = samples(seed, count, rows)
    found = round_layer(LAYER, weight, bias, params, spec, pairs, RoundingOptions(), may_create_bias=True)
    plain = quantize_layer(weight, bias, params, spec)
    own, nearest = (error(layer, weight, bias, held_out(pairs)) for layer in (found.layer, plain))
    # Products in float32 leave 2^-24·K of each output, whose square is far below the error of 8 bits.
    assert found.errors[found.variant] == pytest.approx(own, rel=1e-3)
    assert found.errors["nearest"] == pytest.approx(nearest, rel=1e-3)
    assert own <= nearest * (1 + 1e-3)
    assert np.abs(found.layer.weight).max() <= spec.qmax


def test_a_corrected_bias_leaves_no_mean_error_on_the_rows_it_was_fitted_on() -> None:
    (weight, bias), (pairs, params) = weight_and_bias(3), samples(4, 16, 50, offset=0.2)
    options = RoundingOptions(gptq=False)
    found = round_layer(LAYER, weight, bias, params, SPEC, pairs, options, may_create_bias=False)
    assert found.variant == "nearest+bias"
    fitting = [pair for number, pair in enumerate(pairs) if number % 4 != 3]
    x, x_hat = (np.concatenate([getattr(p, name) for p in fitting]).astype(np.float64) for name in ("x", "x_hat"))
    values = dequantize(found.layer.weight, found.layer.weight_params).astype(np.float64)
    step = found.layer.bias_params.scale.astype(np.float64)
    mean = (x @ weight.T + bias - x_hat @ values.T - found.layer.bias * step).mean(axis=0)
    # The bias is rounded to half a step; sums of float32 inputs around 1 add their own rounding.
    assert np.all(np.abs(mean) <= step / 2 + 1e-6)


def test_few_samples_are_divided_by_rows() -> None:
    (weight, bias), (pairs, params) = weight_and_bias(5), samples(6, 2, 200)
    found = round_layer(LAYER, weight, bias, params, SPEC, pairs, NEAREST_ONLY, may_create_bias=False)
    judged = [Pair(pair.x[3::4], pair.x_hat[3::4]) for pair in pairs]
    assert found.errors["nearest"] == pytest.approx(error(found.layer, weight, bias, judged), rel=1e-3)


def test_samples_of_one_row_are_divided_too() -> None:
    (weight, bias), (pairs, params) = weight_and_bias(5), samples(6, 5, 1)
    found = round_layer(LAYER, weight, bias, params, SPEC, pairs, NEAREST_ONLY, may_create_bias=False)
    # The only row held out has no spread of its own: the error is the sum of squares itself.
    x, x_hat = (getattr(pairs[3], name).astype(np.float64) for name in ("x", "x_hat"))
    step = found.layer.bias_params.scale.astype(np.float64)
    exact = x @ weight.T.astype(np.float64) + bias
    got = x_hat @ dequantize(found.layer.weight, found.layer.weight_params).T + found.layer.bias * step
    assert found.errors["nearest"] == pytest.approx(np.square(exact - got).sum(), rel=1e-2)


@pytest.mark.parametrize("count", [0, 1])
def test_without_rows_to_judge_by_weights_are_rounded_to_nearest(count: int) -> None:
    (weight, bias), (pairs, params) = weight_and_bias(5), samples(6, 1, 1)
    found = round_layer(LAYER, weight, bias, params, SPEC, pairs[:count], RoundingOptions(), may_create_bias=True)
    assert (found.variant, found.errors) == ("nearest", {})
    assert np.array_equal(found.layer.weight, quantize_layer(weight, bias, params, SPEC).weight)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_inputs_whose_moments_are_not_finite_round_to_nearest(value: float) -> None:
    (weight, bias), (pairs, params) = weight_and_bias(5), samples(6, 8, 9)
    pairs[0].x_hat[0, 0] = value
    found = round_layer(LAYER, weight, bias, params, SPEC, pairs, RoundingOptions(), may_create_bias=True)
    assert found.variant == "nearest"


def test_inputs_that_are_not_finite_when_judging_round_to_nearest() -> None:
    (weight, bias), (pairs, params) = weight_and_bias(5), samples(6, 8, 9)
    pairs[3].x_hat[0, 0] = np.nan
    found = round_layer(LAYER, weight, bias, params, SPEC, pairs, RoundingOptions(), may_create_bias=True)
    assert found.variant == "nearest"
    assert np.isnan(found.errors["nearest"])


def test_weights_without_an_error_stay_as_they_are() -> None:
    weight = np.eye(12, 40, dtype=np.float32)
    pairs, params = samples(6, 8, 9)
    exact = [Pair(pair.x_hat, pair.x_hat) for pair in pairs]
    found = round_layer(LAYER, weight, None, params, SPEC, exact, RoundingOptions(), may_create_bias=True)
    assert found.variant == "nearest"
    assert found.layer.bias is None


def test_a_bias_is_made_only_where_one_may_be() -> None:
    (weight, _), (pairs, params) = weight_and_bias(3), samples(4, 16, 50, offset=0.2)
    make = lambda may: round_layer(  # noqa: E731
        LAYER, weight, None, params, SPEC, pairs, RoundingOptions(), may_create_bias=may
    )
    assert make(True).variant == "gptq+bias"
    assert make(True).layer.bias is not None
    assert list(make(False).errors) == ["nearest", "gptq"]
    assert make(False).layer.bias is None


def test_without_a_bias_to_correct_the_mean_of_the_inputs_counts_too() -> None:
    """Inputs far from 0 compared with their spread: then nearly all of the error is in the mean."""
    (weight, _), rng = weight_and_bias(3), np.random.default_rng(4)
    x = [rng.normal(5, 0.1, (50, 40)).astype(np.float32) for _ in range(16)]
    params = params_from_range(0.0, 6.0, QuantSpec(dtype=UINT8))
    pairs = [Pair(sample, fake_quantize(sample, params)) for sample in x]
    found = round_layer(LAYER, weight, None, params, SPEC, pairs, RoundingOptions(), may_create_bias=False)
    assert found.variant == "gptq"
    # Rounding to nearest leaves Σ w·5 with an error of sqrt(40/12) steps per unit, GPTQ that of one last weight.
    assert found.errors["gptq"] < 0.3 * found.errors["nearest"]


def test_a_corrected_bias_does_not_overflow_the_accumulator() -> None:
    (weight, bias), (pairs, params) = weight_and_bias(3), samples(4, 16, 50, offset=0.2)
    huge = np.where(np.arange(12) == 0, np.float32(1e7), bias)
    found = round_layer(LAYER, weight, huge, params, SPEC, pairs, RoundingOptions(), may_create_bias=False)
    assert found.layer.widened == 1
    room = 2**31 - 1 - 255 * np.abs(found.layer.weight.astype(np.int64)).sum(axis=1)
    assert np.all(np.abs(found.layer.bias.astype(np.int64)) <= room)


@pytest.mark.parametrize(
    ("form", "axis", "shape"),
    [
        (LayerForm("Conv", {"group": 6, "pads": (1, 1, 1, 1)}, (6, 1, 3, 3)), 0, (1, 6, 12, 12)),
        (LayerForm("Conv", {"strides": (2, 2)}, (5, 6, 3, 3)), 0, (1, 6, 12, 12)),
        (LayerForm("ConvTranspose", {"strides": (2, 2)}, (6, 4, 3, 3)), 1, (1, 6, 8, 8)),
        (LayerForm("ConvTranspose", {"group": 2, "strides": (2, 2)}, (6, 4, 3, 3)), None, (1, 6, 8, 8)),
        (LayerForm("MatMul", {}, (7, 6)), 1, (1, 30, 7)),
        (LayerForm("MatMul", {}, (3, 7, 6)), None, (2, 3, 30, 7)),
    ],
    ids=lambda value: f"{value.op_type}{value.weight_shape}" if isinstance(value, LayerForm) else "",
)
def test_every_form_of_layer_profits(form: LayerForm, axis: int | None, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(9)
    weight, bias = weight_and_bias(9, form)
    x = [(rng.normal(size=shape).cumsum(axis=-1) + 2).astype(np.float32) for _ in range(8)]
    params = params_from_range(min(map(np.min, x)), max(map(np.max, x)), QuantSpec(dtype=UINT8))
    pairs = [Pair(sample, fake_quantize(sample, params) + np.float32(0.3)) for sample in x]
    spec = QuantSpec(dtype=INT4, symmetric=True, axis=axis, narrow=True)
    found = round_layer(form, weight, bias, params, spec, pairs, RoundingOptions(), may_create_bias=True)
    assert found.variant == "gptq+bias"
    assert found.errors["gptq+bias"] < found.errors["nearest+bias"] < found.errors["nearest"]
    assert found.layer.weight.shape == form.weight_shape
    assert found.layer.bias.shape == (form.channels,)


def test_a_layer_that_is_no_matrix_product_is_rounded_to_nearest() -> None:
    weight = np.ones((4, 4), np.float32)
    pairs, params = samples(1, 8, 4, inputs=4)
    form = LayerForm("Gemm", {"transA": 1}, (4, 4))
    found = round_layer(form, weight, None, params, SPEC, pairs, RoundingOptions(), may_create_bias=True)
    assert (found.variant, found.errors) == ("nearest", {})


def test_rows_are_enough_for_the_inputs_whatever_is_asked_for() -> None:
    form = LayerForm("Conv", {}, (2, 400, 1, 1))
    x = np.random.default_rng(0).normal(size=(1, 400, 40, 40)).astype(np.float32)
    sample = SampleRows(form=form, pairs=[Pair(x, x)] * 10, wanted=100)
    counts = [part.shape[1] for part, _ in sample.fitting()]
    assert len(counts) == 8
    assert sum(counts) >= 2.5 * 400


THREADS = """
import hashlib, sys
sys.path[:0] = {path!r}
import numpy as np
from test_rounding import LayerForm, RoundingOptions, SPEC, round_layer, samples, weight_and_bias
form = LayerForm("Gemm", {{"transB": 1}}, (96, 320))
weight, bias = weight_and_bias(1, form)
pairs, params = samples(2, 8, 200, inputs=320)
found = round_layer(form, weight, bias, params, SPEC, pairs, RoundingOptions(), may_create_bias=True)
print(found.variant, dict(found.errors), hashlib.sha256(found.layer.weight.tobytes()).hexdigest())
"""


def test_the_number_of_threads_changes_no_bit() -> None:
    path = [str(Path(__file__).parent), str(Path.cwd())]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", THREADS.format(path=path)],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(outputs) == 1


def test_the_same_samples_give_the_same_layer() -> None:
    (weight, bias), (pairs, params) = weight_and_bias(1), samples(2, 9, 60)

    def make() -> RoundedLayer:
        return round_layer(LAYER, weight, bias, params, SPEC4, pairs, RoundingOptions(), may_create_bias=True)

    first, second = make(), make()
    assert np.array_equal(first.layer.weight, second.layer.weight)
    assert dict(first.errors) == dict(second.errors)
