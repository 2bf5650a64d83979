"""The lowest ai.onnx version in which a weight-only plan can be written.

Types: int4 from 21 on, int2 from 25 on. DequantizeLinear: 10, per channel 13, in blocks or of 16 bits 21. Plain
arithmetic of int8 and int16 has no version that matters.
"""

from __future__ import annotations

from quantcli.core.spec import QuantSpec

PER_TENSOR = 10
PER_CHANNEL = 13
BLOCKED = 21

_TYPES = {2: 25, 4: 21}
_WIDE = 8


def type_opset(spec: QuantSpec) -> int:
    """The version that has the integer type as a tensor."""
    return _TYPES.get(spec.dtype.bits, 0)


def dequantize_opset(spec: QuantSpec) -> int:
    """The version that has DequantizeLinear in this form."""
    form = BLOCKED if spec.block or spec.dtype.bits > _WIDE else PER_TENSOR if spec.axis is None else PER_CHANNEL
    return max(form, type_opset(spec))
