"""Runtimes that read ONNX models with Q/DQ and have kernels of their own. Their rules are from documentation."""

from __future__ import annotations

from quantcli.ops.spec import Kernel, Support
from quantcli.ops.target_spec import Target


def _float(*operators: str, note: str) -> dict[str, Support]:
    return {operator: Support(kernel=Kernel.NONE, note=note) for operator in operators}


def _layer(note: str) -> Support:
    return Support(kernel=Kernel.INTEGER, float_output=True, note=note)


_WEIGHTED = _layer("weighted layer: its inputs are quantized, its output only where something reads integers")
_CAUTIOUS = "left in high precision: an INT8 input would demand an INT8 output as well"

TENSORRT = Target(
    name="tensorrt",
    summary="NVIDIA TensorRT, explicit quantization: symmetric int8 in front of layers with weights",
    contrib=False,
    fuses_qdq=False,
    guards_float=False,
    opset=13,
    runtime="TensorRT",
    overrides={
        "Conv": _WEIGHTED,
        "ConvTranspose": _WEIGHTED,
        "Gemm": _WEIGHTED,
        "MatMul": _WEIGHTED,
        "Add": _layer("behind a convolution: the other operand is quantized, and the sum joins the convolution"),
        **_float(
            "Mul", "Sub", "Div", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LeakyRelu", "PRelu",
            "Sigmoid", "Softmax", "Tanh", "ReduceMax", "ReduceMin", "Gather", "GatherElements", "Resize",
            "DepthToSpace", "SpaceToDepth", "Tile", "Expand",
            note=_CAUTIOUS,
        ),
    },
    quantizes_tables=False,
    one_residual=True,
    float_outputs=True,
    float_bias=True,
    signed_activations=True,
    symmetric=True,
    only_symmetric=True,
    forms=("static", "weight-only", "float"),
    formats=("qdq",),
    activation_widths=(8,),
    weight_widths=(8,),
    stored_widths=(4,),
    smallest_block=16,
    facts=(
        "the scheme is symmetric: int8 with zero point 0, for activations and for weights.",
        "weights have a scale per output channel, activations one per tensor.",
        (
            "all inputs of weighted layers (Conv, ConvTranspose, Gemm, MatMul) are quantized; their outputs are "
            "not, unless the next layer reads them as integers."
        ),
        (
            "of a sum behind a convolution the other operand (the residual) is quantized, so that convolution, "
            "sum and the next quantizer become one kernel."
        ),
        "BatchNormalization is folded; Relu stays in the graph, because TensorRT fuses it itself.",
        (
            "layers without weights stay in high precision: TensorRT asks for INT8 outputs where their inputs "
            "are INT8, and its advice is to add Q/DQ to them with care."
        ),
        "biases stay in float.",
        "int4 is for weights only; fp8 (E4M3) is for activations and weights.",
    ),
    source="NVIDIA TensorRT documentation, 'Working with Quantized Types' and 'Explicit Quantization' (sections "
    "Q/DQ Layer-Placement Recommendations, Q/DQ Limitations): "
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html",
)  # fmt: skip

QNN = Target(
    name="qnn",
    summary="NPUs of Qualcomm through onnxruntime's QNN execution provider: Q/DQ around every operator",
    contrib=False,
    fuses_qdq=False,
    guards_float=False,
    opset=13,
    runtime="QNN",
    wraps=frozenset({
        "LayerNormalization", "InstanceNormalization", "LpNormalization", "Gelu", "Elu", "HardSwish",
        "HardSigmoid", "Exp", "Log", "Sqrt", "Pow", "Abs", "Neg", "Max", "Min", "ReduceMean", "ReduceSum", "Pad",
    }),
    everything=True,
    quantizes_tables=False,
    per_channel_ops=frozenset({"Conv", "ConvTranspose"}),
    power_of_two_outputs=True,
    forms=("static",),
    formats=("qdq",),
    activation_widths=(16, 8),
    weight_widths=(8,),
    stored_widths=(),
    float_types=(),
    contrib_qdq=True,
    facts=(
        ("activations are uint8 or uint16 with free zero points; uint16 with 8-bit weights is the usual remedy "
        "where 8 bits lose too much (--activation-bits 16 --weight-bits 8)."),
        ("weights are int8, symmetric; Conv and ConvTranspose have a scale per output channel, MatMul and Gemm "
        "one per tensor, because QNN has no MatMul with more."),
        "biases are int32 with the scale s_x·s_w.",
        (
            "every operator has Q/DQ around it, also Softmax, LayerNormalization and those that make outputs of "
            "the graph, as get_qnn_qdq_config does it."
        ),
        (
            "residuals of transformers have outliers that 8 bits do not fit (MiniLM: -1 dB; 13 with 16-bit "
            "activations, of 8-bit weights with one scale)."
        ),
        "Sigmoid and Tanh with 16-bit results have the scales 2^-16 (zero point 0) and 2^-15 (zero point 32768).",
        "16-bit Q/DQ are of ai.onnx 21; --contrib-qdq writes those of com.microsoft and keeps the opset.",
        "shapes have to be fixed.",
    ),
    source="onnxruntime documentation, 'QNN Execution Provider' (Running a model with QNN EP's HTP backend): "
    "https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html; "
    "onnxruntime.quantization.execution_providers.qnn.get_qnn_qdq_config (1.32)",
)  # fmt: skip

OPENVINO = Target(
    name="openvino",
    summary="Intel OpenVINO, which reads Q/DQ as FakeQuantize: uint8 activations, int8 weights per channel",
    contrib=False,
    fuses_qdq=False,
    guards_float=False,
    opset=13,
    runtime="OpenVINO",
    overrides=_float(
        "Sigmoid", "Softmax", "Tanh", "LeakyRelu", "PRelu", "Gather", "GatherElements", "DepthToSpace",
        "SpaceToDepth", "ReduceMin", "GlobalMaxPool",
        note="not among the operators that NNCF quantizes for CPUs",
    ),
    wraps=frozenset({"Max", "Min", "ReduceMean"}),
    quantizes_tables=False,
    float_residuals=True,
    float_bias=True,
    forms=("static", "weight-only", "float"),
    formats=("qdq",),
    activation_widths=(8,),
    weight_widths=(8,),
    stored_widths=(8, 4),
    float_types=("fp16",),
    smallest_block=16,
    facts=(
        "OpenVINO turns Q/DQ of an ONNX model into FakeQuantize and computes what stands between in int8.",
        "activations have one scale per tensor; weights are symmetric int8 with a scale per output channel.",
        (
            "free zero points of activations are NNCF's preset 'mixed', which it takes for transformers; "
            "--symmetric is its preset 'performance'."
        ),
        (
            "Conv, MatMul, Gemm, sums, products, pools and means are quantized, as NNCF does it for CPUs; "
            "Sigmoid, Softmax and Tanh are not."
        ),
        (
            "sums in front of a LayerNormalization are not: NNCF leaves all sums of transformers out "
            "(model_type=ModelType.TRANSFORMER), because of the outliers there."
        ),
        "operands of a Concat share their parameters.",
        "biases stay in float.",
        ("on x86 CPUs without VNNI OpenVINO saturates, too: NNCF has its parameter overflow_fix for that."),
    ),
    source="OpenVINO documentation, 'Quantizing Models Post-training' and 'Model Optimization' "
    "(https://docs.openvino.ai/nightly/openvino-workflow/model-optimization.html); NNCF, "
    "nncf/common/hardware/configs/cpu.json and nncf/quantization/algorithms/min_max/onnx_backend.py",
)  # fmt: skip
