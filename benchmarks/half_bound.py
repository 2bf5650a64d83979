"""The bound of a model in float16: every value that is rounded to it is off by half of its last digit.

The model is walked as one of float32 that has the values of the float16 run (``error_bound``). Rounding adds to a
value v the radius ROUNDINGS · (2^-11 |v| + 2^-25): the unit roundoff of float16 and half of its smallest step
(IEEE 754-2019), times the roundings that one operator does where the runtime computes it in parts.
"""

from __future__ import annotations

import numpy as np
import onnx
from error_bound import Bound, bound_of_rounded
from onnx import AttributeProto, TensorProto, numpy_helper
from run_nodes import Arrays, run_all

UNIT, SMALLEST = 2.0**-11, 2.0**-25

ROUNDINGS = 2
"""Of the operands' sum or product and of the result: kernels of one operator round its float32 result once; what
onnxruntime fuses or computes in float16 itself rounds a part of it as well."""


def half_bound(model: onnx.ModelProto, feeds: Arrays) -> Bound:
    """The bound of ``model``, in which some types are float16, on ``feeds``."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values = {**constants, **feeds, **run_all(model, feeds)}
    rounded = {name: _radius(value) for name, value in constants.items() if value.dtype == np.float16}
    for node in model.graph.node:
        endless = any(not _finite(values[name]) for name in node.input if name in values)
        for name in node.output:
            if name in values and values[name].dtype == np.float16:
                radius = ROUNDINGS * _radius(values[name])
                rounded[name] = radius if endless else np.where(np.isfinite(values[name]), radius, np.inf)
    return bound_of_rounded(widened(model), {name: _wide(value) for name, value in values.items()}, rounded)


def _finite(value: np.ndarray) -> bool:
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())


def _radius(value: np.ndarray) -> np.ndarray:
    """Of one rounding; none of infinity, which only what is too large is rounded to."""
    wide = np.abs(value.astype(np.float32))
    return np.where(np.isfinite(wide), UNIT * wide + np.float32(SMALLEST), np.float32(0))


def _wide(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if value.dtype == np.float16 else value


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which float32 stands for float16: constants, attributes, types of the main graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for tensor in copy.graph.initializer:
        _widen(tensor)
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in copy.graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _widen(attribute.t)
            elif attribute.name in {"to", "dtype"} and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    return copy


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
