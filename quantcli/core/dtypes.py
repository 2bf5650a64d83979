"""Integer types that tensors are quantized to.

The table is the ONNX type list (onnx.TensorProto.DataType) restricted to integers that
``DequantizeLinear`` accepts; sub-byte types are held unpacked in the next larger numpy type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class QType:
    """An integer type.

    Attributes:
        name: ONNX name, lower case ("uint8", "int4", …).
        bits: Width in bits.
        signed: Whether negative values exist.
    """

    name: str
    bits: int
    signed: bool

    @property
    def qmin(self) -> int:
        """Smallest value."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """Largest value."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def storage(self) -> np.dtype[np.signedinteger | np.unsignedinteger]:
        """The numpy type that holds unpacked values."""
        width = max(8, self.bits)
        return np.dtype(f"{'int' if self.signed else 'uint'}{width}")


INT2 = QType(name="int2", bits=2, signed=True)
UINT2 = QType(name="uint2", bits=2, signed=False)
INT4 = QType(name="int4", bits=4, signed=True)
UINT4 = QType(name="uint4", bits=4, signed=False)
INT8 = QType(name="int8", bits=8, signed=True)
UINT8 = QType(name="uint8", bits=8, signed=False)
INT16 = QType(name="int16", bits=16, signed=True)
UINT16 = QType(name="uint16", bits=16, signed=False)
INT32 = QType(name="int32", bits=32, signed=True)

QTYPES: dict[str, QType] = {t.name: t for t in (INT2, UINT2, INT4, UINT4, INT8, UINT8, INT16, UINT16, INT32)}
"""Every type by its name."""


def integer_type(bits: int, *, signed: bool) -> QType:
    """The integer type of so many bits.

    Raises:
        KeyError: There is none in ONNX.
    """
    return QTYPES[f"{'int' if signed else 'uint'}{bits}"]
