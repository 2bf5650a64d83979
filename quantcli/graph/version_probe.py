"""Tiny models that ask a runtime which versions it loads."""

from __future__ import annotations

from onnx import parser

_COPY = "g (float[1] x) => (float[1] y) { y = Identity(x) }"

_QUANTIZED = """g (float[1] x) => (float[1] y)
    <float s = {1.0}, uint8 z = {0}> { q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }"""


def version_probe(opset: int, ir_version: int, *, quantized: bool = False) -> bytes:
    """A model of one element.

    Args:
        opset: Version of ai.onnx.
        ir_version: IR version.
        quantized: Whether it goes through QuantizeLinear and DequantizeLinear; it is a copy otherwise.
    """
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>'
    message = parser.parse_model(f"{header} {_QUANTIZED if quantized else _COPY}")
    return bytes(message.SerializeToString())
