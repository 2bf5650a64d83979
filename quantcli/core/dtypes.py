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


UINT8 = QType(name="uint8", bits=8, signed=False)
INT4 = QType(name="int4", bits=4, signed=True)
INT8 = QType(name="int8", bits=8, signed=True)
INT32 = QType(name="int32", bits=32, signed=True)

QTYPES: dict[str, QType] = {t.name: t for t in (UINT8, INT4, INT8, INT32)}
