"""Codes of every type: onnxruntime's own kernels say the same, bit for bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantcli.core import affine
from quantcli.core.affine import dequantize, fake_quantize, params_from_range, quantize
from quantcli.core.dtypes import FLOAT8E4M3FN, QTYPES, UINT8, FloatFormat
from quantcli.core.spec import QuantSpec
from quantcli.quantize.weight_grid import value_range
from quantcli.runtime.session import Session, SessionSettings

ONNX_TYPES = {name: getattr(TensorProto, name.upper().replace("FLOAT8_", "FLOAT8")) for name in QTYPES}
CODED = sorted(set(QTYPES) - {"int32"})
PLAIN = SessionSettings(optimization="disabled")


def both_ways(dtype: str, scale: np.ndarray, zero: np.ndarray) -> bytes:
    """x → QuantizeLinear → DequantizeLinear → y."""
    zeros = helper.make_tensor("z", ONNX_TYPES[dtype], (), [zero.item()])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in "xy"]
    constants = [numpy_helper.from_array(scale, "s"), zeros]
    made = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)
    return onnx.ModelProto.SerializeToString(model)


@pytest.mark.parametrize("name", CODED)
def test_rounding_is_that_of_the_runtime_bit_for_bit(name: str) -> None:
    rng = np.random.default_rng(3)
    spec = QuantSpec(dtype=QTYPES[name], symmetric=QTYPES[name].floating)
    params = params_from_range(-1.7, 2.9, spec)
    ties = params.scale * (np.arange(-40, 40, dtype=np.float32) + np.float32(0.5))
    x = np.concatenate([rng.normal(0, 1, 4000), rng.normal(0, 40, 200), ties, [0.0, -0.0]]).astype(np.float32)
    expected = Session(both_ways(name, params.scale, params.zero_point), PLAIN).run({"x": x})["y"]
    assert np.array_equal(dequantize(quantize(x, params), params), expected)
    assert np.array_equal(fake_quantize(x, params), expected)


def test_float8_numbers_are_those_of_the_type_and_large_ones_saturate() -> None:
    rng = np.random.default_rng(4)
    parts = [rng.normal(0, size, 20000) for size in (1e-4, 1e-3, 0.02, 1.0, 60.0)]
    edges = [0.0, -0.0, 464.0, 465.0, -1e30, 2.0**-10, 3 * 2.0**-10, 2.0**-9, np.inf]
    x = np.concatenate([*parts, edges]).astype(np.float32)
    assert isinstance(FLOAT8E4M3FN.format, FloatFormat)
    expected = np.clip(x, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    assert np.array_equal(FLOAT8E4M3FN.format.nearest(x), expected)


def test_float8_steps_are_the_distances_between_neighbouring_numbers() -> None:
    assert FLOAT8E4M3FN.format is not None
    numbers = np.arange(0x7E, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    following = np.arange(1, 0x7F, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    assert np.array_equal(FLOAT8E4M3FN.format.steps(numbers), following - numbers)


def test_the_largest_value_of_a_range_becomes_the_largest_float8() -> None:
    params = params_from_range(-3.0, 2.0, QuantSpec(dtype=FLOAT8E4M3FN, symmetric=True))
    assert quantize(np.float32([-3.0]), params).tolist() == [-448.0]


def test_float_types_have_no_zero_point() -> None:
    with pytest.raises(ValueError, match="no zero points"):
        QuantSpec(dtype=FLOAT8E4M3FN)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", CODED)
def test_scales_that_are_powers_of_two_cover_the_range_and_half_of_them_would_not(
    name: str, symmetric: bool
) -> None:
    dtype = QTYPES[name]
    if dtype.floating and not symmetric:
        pytest.skip("floats are symmetric")
    rng = np.random.default_rng(5)
    low, high = -rng.uniform(0.01, 9, 50), rng.uniform(0.01, 9, 50)
    plain = params_from_range(low, high, QuantSpec(dtype=dtype, symmetric=symmetric, axis=0))
    found = params_from_range(low, high, QuantSpec(dtype=dtype, symmetric=symmetric, axis=0, pow2=True))
    assert (np.frexp(found.scale)[0] == 0.5).all()
    assert ((found.scale >= plain.scale) & (found.scale < 2 * plain.scale)).all()


def test_a_power_of_two_stays_itself() -> None:
    spec = QuantSpec(dtype=UINT8, pow2=True)
    assert params_from_range(0.0, 255 * 0.25, spec).scale == np.float32(0.25)


@pytest.mark.parametrize("spec", [
    QuantSpec(dtype=QTYPES["int8"], symmetric=True),
    QuantSpec(dtype=QTYPES["uint8"], symmetric=False, axis=0),
    QuantSpec(dtype=QTYPES["int8"], symmetric=True, axis=1),
    QuantSpec(dtype=QTYPES["uint4"], symmetric=False, axis=0, block=16),
    QuantSpec(dtype=QTYPES["int4"], symmetric=True, axis=1, block=16),
    QuantSpec(dtype=FLOAT8E4M3FN, symmetric=True, axis=1),
], ids=str)  # fmt: skip
def test_parts_of_a_large_tensor_have_the_codes_of_the_whole(
    spec: QuantSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = np.random.default_rng(4).standard_normal((70, 48)).astype(np.float32)
    low, high = value_range(weight, spec)
    params = params_from_range(np.minimum(low, -high), np.maximum(high, -low), spec)
    whole = quantize(weight, params)
    monkeypatch.setattr(affine, "_PART_VALUES", 48 * 9)
    np.testing.assert_array_equal(quantize(weight, params).view(np.uint8), whole.view(np.uint8))
