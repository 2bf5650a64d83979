"""onnx-ir's element types and attributes against the plain values of ``quantcli.graph.view``.

Element types carry numpy's names here ("float32", "int4", "bfloat16", "str"), as onnxruntime's adapters in
``quantcli.runtime`` do; types that numpy lacks have the names that ml_dtypes registers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from quantcli.graph.view import AttributeValue, Dim

_STRING_NAME = "str"


def dtype_name(dtype: ir.DataType | None) -> str | None:
    """The numpy name of an element type, None where it is not known."""
    if dtype is None or dtype == ir.DataType.UNDEFINED:
        return None
    return _STRING_NAME if dtype == ir.DataType.STRING else str(dtype.numpy().name)


def dtype_from_name(name: str) -> ir.DataType:
    """Element type of a numpy name.

    Raises:
        ValueError: No ONNX type has this name.
    """
    for dtype in ir.DataType:
        if dtype_name(dtype) == name:
            return dtype
    raise ValueError(f"no ONNX type is called '{name}'")


def tensor_dtype(value: ir.Value) -> str | None:
    """The numpy name of a dense tensor's element type; None for other types and where it is not known."""
    return dtype_name(value.type.dtype) if isinstance(value.type, ir.TensorType) else None


def tensor_shape(value: ir.Value) -> tuple[Dim, ...] | None:
    """Dimensions of a dense tensor, None for unknown rank and for other types."""
    if value.shape is None or not (value.type is None or isinstance(value.type, ir.TensorType)):
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def plain_attribute(attribute: ir.Attr) -> AttributeValue | None:
    """The value of an attribute without onnx types.

    Returns:
        int, float, str, a tuple of these, or an array. None for what has no plain form: graphs, types,
        lists of tensors, references to a function's attributes. Text that is not UTF-8 has its odd bytes
        escaped with backslashes.
    """
    if attribute.is_ref():
        return None
    match attribute.type:
        case ir.AttributeType.INT:
            return int(attribute.value)
        case ir.AttributeType.FLOAT:
            return float(attribute.value)
        case ir.AttributeType.STRING:
            return _text(attribute.value)
        case ir.AttributeType.INTS:
            return tuple(int(value) for value in attribute.value)
        case ir.AttributeType.FLOATS:
            return tuple(float(value) for value in attribute.value)
        case ir.AttributeType.STRINGS:
            return tuple(_text(value) for value in attribute.value)
        case ir.AttributeType.TENSOR:
            return read_only(attribute.value.numpy())
        case _:
            return None


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def read_only(array: np.ndarray) -> np.ndarray:
    """A view of ``array`` (any dtype and shape) that refuses writes, since tensors are shared."""
    view = np.asarray(array).view()
    view.setflags(write=False)
    return view


def ir_attributes(attributes: Mapping[str, AttributeValue] | None) -> list[ir.Attr]:
    """Attributes of plain values, in order of their names.

    Raises:
        TypeError: A value is of another type.
    """
    return [_ir_attribute(name, value) for name, value in sorted((attributes or {}).items())]


def _ir_attribute(name: str, value: AttributeValue) -> ir.Attr:
    if isinstance(value, (bool, int, np.integer)):
        return ir.AttrInt64(name, int(value))
    if isinstance(value, (float, np.floating)):
        return ir.AttrFloat32(name, float(value))
    if isinstance(value, str):
        return ir.AttrString(name, value)
    if isinstance(value, np.ndarray):
        return ir.AttrTensor(name, ir.tensor(value))
    return _ir_list(name, value)


def _ir_list(name: str, value: Sequence[object]) -> ir.Attr:
    """A list attribute; an empty one counts as integers, the only kind that operators leave empty."""
    integers = [int(item) for item in value if isinstance(item, (int, np.integer))]
    if len(integers) == len(value):
        return ir.AttrInt64s(name, integers)
    floats = [float(item) for item in value if isinstance(item, (int, float, np.integer, np.floating))]
    if len(floats) == len(value):
        return ir.AttrFloat32s(name, floats)
    strings = [item for item in value if isinstance(item, str)]
    if len(strings) == len(value):
        return ir.AttrStrings(name, strings)
    raise TypeError(f"attribute '{name}' mixes types or has one that ONNX lacks: {value!r}")
