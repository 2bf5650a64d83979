"""Targets: what executes the quantized model, as data. One row each; see ``target_spec`` for the columns."""

from __future__ import annotations

from quantcli.ops.accelerator_targets import OPENVINO, QNN, TENSORRT
from quantcli.ops.cpu_targets import CPU_ARM, CPU_AVX2, ORT_CPU
from quantcli.ops.target_spec import Target

__all__ = ["DEFAULT_TARGET", "GENERIC", "ORT_CPU", "TARGETS", "Target"]

GENERIC = Target(
    name="generic",
    summary="any runtime of standard ONNX: Q/DQ around every operator that has an integer meaning",
    contrib=False,
    fuses_qdq=False,
    guards_float=False,
    opset=10,
    measured=True,
    float_residuals=True,
    facts=(
        "only operators of ai.onnx are emitted.",
        (
            "nothing is assumed about which patterns are fused; accelerators with full integer pipelines want as "
            "few float islands as possible."
        ),
        (
            "weights of 4 bits are int4 behind a Cast to int8; a runtime that does not fold it computes it at "
            "every run."
        ),
        (
            "a sum in front of a LayerNormalization stays in float, as the normalization does: outliers of "
            "transformers leave its small channels no bits (MiniLM: 4.2 dB in integers, 23.8 in float)."
        ),
        "operators whose range is known by definition (Sigmoid, Softmax, Tanh) get fixed parameters.",
    ),
    source="ONNX operator specification, ai.onnx 10 to 21",
)

TARGETS: dict[str, Target] = {
    target.name: target for target in (ORT_CPU, CPU_AVX2, CPU_ARM, GENERIC, TENSORRT, QNN, OPENVINO)
}
"""Targets by name; the first one is the default."""

DEFAULT_TARGET = ORT_CPU.name
