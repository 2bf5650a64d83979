"""onnxruntime's CPU execution provider, on the kinds of CPUs that differ for integers."""

from __future__ import annotations

from dataclasses import replace

from quantcli.ops.target_spec import ORT_TABLE, Target

_ADVICE = (
    "onnxruntime.quantization.quantize_static, 'Choosing parameters for CPU inference' (docstring of 1.32), and "
    "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, 'Data type selection'"
)

ORT_CPU = Target(
    name="ort-cpu",
    summary="onnxruntime's CPU execution provider: Q/DQ only where it becomes a fused integer kernel",
    contrib=True,
    fuses_qdq=True,
    guards_float=True,
    opset=13,
    silu_operator="QuickGelu",
    residual_sum=True,
    measured=True,
    timed=True,
    table=ORT_TABLE,
    float_outputs=True,
    contrib_qdq=True,
    smallest_block=16,
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
            "weights have a narrow range, [-127, 127] of int8: the type's -128 has no counterpart, so a symmetric "
            "scale makes no use of it."
        ),
        (
            "weights of 4 bits are int4 behind a Cast to int8, which is folded at load, so that layers are as "
            "fast as with 8 bits (squeezenet, resnet56: 0.99 to 1.00 of the time on onnxruntime 1.32); "
            "DequantizeLinear of int4 would make them float."
        ),
        "MaxPool takes integers from opset 12 on: squeezenet takes 0.57 of float at opset 10, 0.44 at 13.",
        (
            "activations of 16, 4 or 2 bits have no integer kernels: such models compute in float, and serve "
            "studies of accuracy or other hardware."
        ),
    ),
    source="measured on onnxruntime 1.31.1, one x86 machine with AVX512-VNNI; not measured on ARM or on x86 "
    "without VNNI",
)

CPU_AVX2 = replace(
    ORT_CPU,
    name="cpu-avx2",
    summary="onnxruntime on x86 CPUs without VNNI: as ort-cpu, with less than 8 bits for weights whose products "
    "could saturate",
    measured=False,
    timed=False,
    saturates=True,
    facts=(
        "placement, formats and widths are those of ort-cpu.",
        (
            "VPMADDUBSW adds two products of uint8 and int8 in 16 bits with saturation: 255·(127 + 127) = 64 770 "
            "does not fit into 32 767, and the result is wrong in silence."
        ),
        (
            "a layer whose 8-bit integers prove that no pair of products can saturate, whatever the activations "
            "are, keeps them. Elsewhere the scales of those output channels that could are widened until none "
            "can: by a bit at most (7-bit weights, ±64, can never saturate: 255·(64 + 64) = 32 640), mostly by a "
            "fraction of one."
        ),
        "depthwise convolutions have kernels that widen every product, so they always keep 8 bits.",
        "the plan says for which layers that is so, and how far their worst pair would have reached.",
        (
            "measured placement times the machine that converts; this target is placed by the static rules of "
            "ort-cpu."
        ),
    ),
    source=f"{_ADVICE}; MLAS, QgemmU8X8KernelAvx2.S and ConvSymKernelAvx2.S; the saturation itself was checked "
    "on an emulated Haswell, and quantcli compare emulates it for every model",
)

CPU_ARM = replace(
    ORT_CPU,
    name="cpu-arm",
    summary="onnxruntime on ARM CPUs: as ort-cpu, with int8 activations",
    measured=False,
    timed=False,
    signed_activations=True,
    session={"session.qdqisint8allowed": "1"},
    facts=(
        "placement, formats and widths are those of ort-cpu; which layers pay was measured on x86 only.",
        (
            "activations are int8, as onnxruntime advises for ARM, where kernels multiply signed by signed. On "
            "x86 such a model gives the same results, but fewer of its kernels are fused."
        ),
        (
            "zero points are free, because a Relu is part of a kernel only with the zero point at the lower end "
            "(-128); --symmetric fixes them at 0, and then Relu nodes stay."
        ),
        (
            "which kernels fuse on ARM is found on x86, too: with session.qdqisint8allowed=1 onnxruntime fuses "
            "there as it does on ARM."
        ),
        "sums of products do not saturate, so weights keep 8 bits.",
    ),
    source=_ADVICE,
)
