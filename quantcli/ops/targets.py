"""Targets: what executes the quantized model, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An execution target.

    Attributes:
        name: Name on the command line.
        summary: One sentence.
        contrib: Whether operators of com.microsoft exist there.
        fuses_qdq: Whether placement follows the fusion rules of onnxruntime: a Q/DQ pair is put only where a
            fused integer kernel results.
        guards_float: Whether a float layer between DQ and Q must be guarded, because the runtime would
            quantize its weight per tensor by itself.
        opset: Lowest ai.onnx version whose operators the target runs well in integers.
        silu_operator: Fused operator for x·sigmoid(x), "" where there is none.
        residual_sum: Whether the Add in front of a LayerNormalization is better written as Sum.
        facts: What was measured or read, sentence by sentence.
        source: Where the facts come from.
    """

    name: str
    summary: str
    contrib: bool
    fuses_qdq: bool
    guards_float: bool
    opset: int
    silu_operator: str = ""
    residual_sum: bool = False
    facts: tuple[str, ...] = ()
    source: str = ""


ORT_CPU = Target(
    name="ort-cpu",
    summary="onnxruntime's CPU execution provider: Q/DQ only where it becomes a fused integer kernel",
    contrib=True,
    fuses_qdq=True,
    guards_float=True,
    opset=13,
    silu_operator="QuickGelu",
    residual_sum=True,
    facts=(
        (
            "uint8 activations with int8 weights are the fast pair; uint8 weights take 2 to 2.7 times as long, "
            "int8 activations are turned into uint8 at load."
        ),
        (
            "a Conv becomes QLinearConv only when its output feeds one QuantizeLinear and nothing else; without "
            "it the weights would be dequantized at every run."
        ),
        (
            "a MatMul or Gemm may keep its output in float (MatMulIntegerToFloat, QGemm); its bias is given as "
            "int32, because a float bias makes the runtime fall back to a float Gemm that is 2.7 times slower."
        ),
        (
            "grouped (not depthwise) convolutions, AveragePool and Softmax have integer kernels that are slower "
            "than the float ones."
        ),
        (
            "onnxruntime quantizes the float weight of a Conv or Gemm between DequantizeLinear and "
            "QuantizeLinear to per-tensor int8 by itself; a layer that must stay in float gets a LeakyRelu "
            "behind it (alpha 1, or 0 in place of its Relu), which stops that and fuses into the float kernel."
        ),
        "x·sigmoid(x) is written as QuickGelu: its two integer kernels cost more than the fused float one.",
        (
            "an Add in front of a LayerNormalization is written as Sum, because onnxruntime fuses the two into a "
            "slower kernel otherwise (MiniLM: 0.49 of the float time with Add, 0.38 with Sum)."
        ),
        "per-channel weights cost nothing.",
        (
            "weights of 4 bits are int4 behind a Cast to int8, which is folded at load, so that layers are as "
            "fast as with 8 bits (squeezenet, resnet56: 0.99 to 1.00 of the time on onnxruntime 1.32); "
            "DequantizeLinear of int4 would make them float."
        ),
        "MaxPool takes integers from opset 12 on: squeezenet takes 0.57 of float at opset 10, 0.44 at 13.",
    ),
    source="measured on onnxruntime 1.31.1, one x86 machine with AVX512-VNNI; not measured on ARM or on x86 "
    "without VNNI",
)

GENERIC = Target(
    name="generic",
    summary="any runtime of standard ONNX: Q/DQ around every operator that has an integer meaning",
    contrib=False,
    fuses_qdq=False,
    guards_float=False,
    opset=10,
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
        "operators whose range is known by definition (Sigmoid, Softmax, Tanh) get fixed parameters.",
    ),
    source="ONNX operator specification, ai.onnx 10 to 21",
)

TARGETS: dict[str, Target] = {target.name: target for target in (ORT_CPU, GENERIC)}
"""Targets by name; the first one is the default."""

DEFAULT_TARGET = ORT_CPU.name
