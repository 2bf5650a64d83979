"""What onnxruntime's CPU provider does with float16 and bfloat16, as data.

float16: where there is no kernel, onnxruntime inserts Casts and computes in float32 (InsertCastTransformer), so
that nearly every operator runs. bfloat16: nothing is inserted; what has no kernel does not load.

Measured on onnxruntime 1.32.0 by running the node models of the ONNX backend suite that have float32 inputs or
outputs (1 344) in both types, in processes of their own. GRU and LSTM run in float16; models in which onnxruntime
ends with a segmentation fault have another cause, a Transpose in float16 behind them, and it is found by bisection
(``pipeline.float_work``).
"""

from __future__ import annotations

from collections.abc import Mapping

FLOAT16_WITHOUT_KERNEL: dict[str, str] = {
    "BitCast": "the bits of a narrower number mean something else",
    "MeanVarianceNormalization": "its definition holds constants of float32",
}
"""Operators of ai.onnx that do not run in float16 → why."""

_WITH_REDUCTION = frozenset({"ScatterElements", "ScatterND"})
"""Operators without a float16 kernel where their attribute "reduction" is given."""

BFLOAT16_KERNELS = frozenset({
    "Cast", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice",
    "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators of ai.onnx that run in bfloat16: those that only move values."""


def missing_kernel(op_type: str, dtype: str, attributes: Mapping[str, object]) -> str:
    """Why an operator of ai.onnx is not to compute in ``dtype``; "" where it runs."""
    if dtype == "bfloat16":
        return "" if op_type in BFLOAT16_KERNELS else "onnxruntime has no kernel for it on CPUs"
    if op_type in _WITH_REDUCTION and attributes.get("reduction", "none") != "none":
        return f"onnxruntime has no kernel with reduction '{attributes['reduction']}'"
    return FLOAT16_WITHOUT_KERNEL.get(op_type, "")
