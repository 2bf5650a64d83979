"""Types that tensors are quantized to.

The table is the ONNX type list (onnx.TensorProto.DataType) restricted to integers that ``DequantizeLinear``
accepts, and float8e4m3fn; types without a numpy type of their own are held unpacked in a larger one.

Codes of integer types are integers. Codes of a float type are the numbers that it has: with a scale, they cover a
range as those of integers do, but with steps that grow with the magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatFormat:
    """The numbers of a small float type: ±(1 + m/2^digits)·2^e and, below 2^exponent, multiples of the last step.

    Attributes:
        digits: Binary digits behind the leading 1.
        exponent: Exponent of the smallest normal number.
        largest: Largest number.
    """

    digits: int
    exponent: int
    largest: int

    def nearest(self, x: np.ndarray) -> np.ndarray:
        """The nearest numbers of the format, float32; ties go to the even digit, and what is larger saturates.

        ``x``: float32, any shape. Exact in float32: of a magnitude in [2^e, 2^(e+1)) the steps are 2^(e−digits).
        Source: Micikevicius et al. 2022, "FP8 formats for deep learning", section 3; ai.onnx QuantizeLinear 19
        with ``saturate`` 1.
        """
        values = np.clip(np.asarray(x, dtype=np.float32), -self.largest, self.largest)
        _, exponents = np.frexp(values)  # |x| in [2^(e−1), 2^e)
        steps = np.maximum(exponents - 1, self.exponent) - self.digits
        rounded: np.ndarray = np.ldexp(np.rint(np.ldexp(values, -steps)), steps)
        return rounded

    def steps(self, x: np.ndarray) -> np.ndarray:
        """The distance between the numbers around each of ``x`` (of the format, any shape), float32."""
        values = np.asarray(x, dtype=np.float32)
        exponents = np.where(values == 0, self.exponent, np.frexp(values)[1] - 1)
        found: np.ndarray = np.ldexp(np.float32(1), np.maximum(exponents, self.exponent) - self.digits)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class QType:
    """A type of codes.

    Attributes:
        name: numpy's name, which for integers is that of ONNX in lower case ("uint8", "int4", "float8_e4m3fn").
        bits: Width in bits.
        signed: Whether negative values exist.
        format: The numbers of a float type; None for integers.
    """

    name: str
    bits: int
    signed: bool
    format: FloatFormat | None = None

    @property
    def floating(self) -> bool:
        """Whether codes are numbers of a float type."""
        return self.format is not None

    @property
    def qmin(self) -> int:
        """Smallest code."""
        if self.format is not None:
            return -self.format.largest
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """Largest code."""
        if self.format is not None:
            return self.format.largest
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def storage(self) -> np.dtype[np.signedinteger | np.unsignedinteger | np.floating]:
        """The numpy type that holds unpacked codes."""
        if self.format is not None:
            return np.dtype(np.float32)
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
FLOAT8E4M3FN = QType(
    name="float8_e4m3fn", bits=8, signed=True, format=FloatFormat(digits=3, exponent=-6, largest=448)
)

_ALL = (INT2, UINT2, INT4, UINT4, INT8, UINT8, INT16, UINT16, INT32, FLOAT8E4M3FN)

QTYPES: dict[str, QType] = {t.name: t for t in _ALL}
"""Every type by its name."""


def integer_type(bits: int, *, signed: bool) -> QType:
    """The integer type of so many bits.

    Raises:
        KeyError: There is none in ONNX.
    """
    return QTYPES[f"{'int' if signed else 'uint'}{bits}"]
