"""Rows of the operators that stay in float, and of those that do not compute on floats.

Together with the other rows and the operators of ``QUANTIZED_OPS`` and ``BODY_OPS`` they cover ai.onnx up to the
newest opset that is known; ``tests/ops/test_table.py`` holds them against onnx's own list.
"""

from __future__ import annotations

from collections.abc import Iterable

from quantcli.ops.spec import OpSpec, Role, Trait

_FLOAT = {
    "CenterCropPad": "pads with zeros that are no zero points; no integer form under Q/DQ",
    "Upsample": "interpolation; written as Resize from opset 10 on",
    "BatchNormalization": "not folded into a convolution before it; no integer kernel",
    "LayerNormalization": "no integer kernel (1.34)",
    "InstanceNormalization": "no integer kernel (1.67)",
    "GroupNormalization": "no integer kernel",
    "LpNormalization": "no integer kernel",
    "MeanVarianceNormalization": "no integer kernel",
    "RMSNormalization": "no integer kernel",
    "LRN": "no integer kernel",
    "Gelu": "no integer kernel (1.35)",
    "Erf": "no integer kernel",
    "Elu": "no integer kernel",
    "Selu": "no integer kernel",
    "Celu": "no integer kernel",
    "Mish": "no integer kernel",
    "Softplus": "no integer kernel",
    "Softsign": "no integer kernel",
    "ThresholdedRelu": "no integer kernel",
    "HardSigmoid": "no integer kernel (2.4)",
    "HardSwish": "no integer kernel",
    "Swish": "no integer kernel",
    "LogSoftmax": "no integer kernel; its range is open below",
    "Hardmax": "no integer kernel",
    "Exp": "no integer kernel",
    "Log": "no integer kernel",
    "Sqrt": "no integer kernel",
    "Reciprocal": "no integer kernel",
    "Pow": "no integer kernel",
    "Abs": "no integer kernel",
    "Neg": "no integer kernel",
    "Sin": "no integer kernel",
    "Cos": "no integer kernel",
    "Max": "runs on integers that have one common scale (0.3 of float), which its operands have not",
    "Min": "runs on integers that have one common scale (0.3 of float), which its operands have not",
    "Sum": "no integer kernel",
    "Mean": "no integer kernel",
    "ReduceMean": "no integer kernel",
    "ReduceSum": "no integer kernel",
    "ReduceSumSquare": "no integer kernel",
    "ReduceL1": "no integer kernel",
    "ReduceL2": "no integer kernel",
    "ReduceProd": "no integer kernel",
    "ReduceLogSum": "no integer kernel",
    "ReduceLogSumExp": "no integer kernel",
    "CumSum": "no integer kernel",
    "TopK": "no gain in integers",
    "Einsum": "no integer kernel",
    "Attention": "no integer kernel for the operator as a whole",
    "RotaryEmbedding": "no integer kernel",
    "LSTM": "static integers have no kernel; dynamic quantization is another form",
    "GRU": "no integer kernel",
    "RNN": "no integer kernel",
    "LpPool": "no integer kernel",
    "GlobalLpPool": "no integer kernel",
    "GridSample": "no integer kernel",
    "RoiAlign": "no integer kernel",
    "AffineGrid": "no integer kernel",
    "DFT": "no integer kernel",
    "STFT": "no integer kernel",
    "NonMaxSuppression": "selects boxes; coordinates need more than 8 bits",
    "ScatterND": "its two operands have ranges of their own; a common scale would coarsen one of them",
    "ScatterElements": "as ScatterND",
    "Trilu": "no gain in integers",
    "Floor": "its steps and those of 8 bits do not agree",
    "Ceil": "its steps and those of 8 bits do not agree",
    "Round": "its steps and those of 8 bits do not agree",
    "Identity": "moves nothing",
    "Dropout": "does nothing at inference",
    "Cast": "changes the type; what is behind it is another kind of number",
    "CastLike": "changes the type; what is behind it is another kind of number",
    "Acos": "no integer kernel",
    "Acosh": "no integer kernel",
    "Asin": "no integer kernel",
    "Asinh": "no integer kernel",
    "Atan": "no integer kernel",
    "Atanh": "no integer kernel",
    "CausalConvWithState": "no integer kernel for the operator as a whole",
    "Col2Im": "no integer kernel: it adds what overlaps",
    "Cosh": "no integer kernel",
    "CumProd": "no integer kernel",
    "DeformConv": "no integer kernel: its samples are interpolated",
    "Det": "no integer kernel",
    "LinearAttention": "no integer kernel for the operator as a whole",
    "MaxRoiPool": "no integer kernel",
    "MaxUnpool": "no integer kernel",
    "NegativeLogLikelihoodLoss": "a loss, in float",
    "Scatter": "no integer form under Q/DQ; written as ScatterElements from opset 11 on",
    "Shrink": "no integer kernel",
    "Sinh": "no integer kernel",
    "SoftmaxCrossEntropyLoss": "a loss, in float",
    "SwiGLU": "no integer kernel; the products in front of it are quantized",
    "Tan": "no integer kernel",
    "TensorScatter": "no integer form under Q/DQ: it writes into a cache that other runs read",
}
"""Operator → why it is better left in float; figures are those of ``ops.table``."""

_SHAPE_OPS = (
    "Shape", "Size", "Range", "ConstantOfShape", "Constant", "NonZero", "ArgMax", "ArgMin", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor", "IsNaN", "IsInf", "OneHot", "EyeLike",
    "Mod", "Sign", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "RandomNormal",
    "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Unique",
    "StringNormalizer", "TfIdfVectorizer",
    "BitCast", "BlackmanWindow", "ConcatFromSequence", "HammingWindow", "HannWindow", "ImageDecoder",
    "MelWeightMatrix", "Optional", "OptionalGetElement", "OptionalHasElement", "RegexFullMatch", "SequenceAt",
    "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
    "SplitToSequence", "StringConcat", "StringSplit",
)  # fmt: skip

_FUSED_BY_RUNTIME = {
    "Attention": "no integer kernel for the operator as a whole; its weight becomes a MatMul where that is exact",
    "BiasGelu": "one float kernel",
    "ConvTransposeWithDynamicPads": "no integer kernel",
    "DecoderMaskedMultiHeadAttention": "no integer kernel for the operator as a whole",
    "EmbedLayerNormalization": "looks up three tables and normalises in float",
    "FastGelu": "no integer kernel",
    "FusedConv": "an activation that is no operator of its own here",
    "FusedGemm": "an activation that is no operator of its own here",
    "FusedMatMul": "scaled or transposed activations: the integer kernel has neither",
    "GatedAdd": "no integer kernel",
    "GatedRMSNorm": "no integer kernel",
    "Gelu": "no integer kernel (1.35)",
    "GroupNorm": "no integer kernel",
    "GroupQueryAttention": "no integer kernel for the operator as a whole",
    "LinearAttention": "no integer kernel for the operator as a whole",
    "MoE": "no integer kernel for the operator as a whole",
    "MultiHeadAttention": "no integer kernel for the operator as a whole",
    "NhwcConv": "a layout of another execution provider",
    "PackedAttention": "no integer kernel for the operator as a whole",
    "PackedMultiHeadAttention": "no integer kernel for the operator as a whole",
    "PagedAttention": "no integer kernel for the operator as a whole",
    "QuickGelu": "x·sigmoid(x) in one float kernel, faster than its two integer kernels",
    "RotaryEmbedding": "no integer kernel",
    "ScaledSiLU": "no integer kernel",
    "SkipGroupNorm": "no integer kernel",
    "SkipLayerNormalization": "no integer kernel",
    "SkipSimplifiedLayerNormalization": "no integer kernel",
    "SparseAttention": "no integer kernel for the operator as a whole",
    "SwiGLU": "no integer kernel; the products in front of it are quantized",
    "TransposeMatMul": "transposed activations: the integer kernel has none",
}
"""Operators of com.microsoft that optimized and exported transformers have → why they stay in float."""


def float_rows() -> Iterable[OpSpec]:
    """Rows of ai.onnx and of the fused operators of onnxruntime that stay in float."""
    for op, note in _FLOAT.items():
        yield OpSpec(op_type=op, trait=Trait.FLOAT, rest=Role.ACTIVATION, note=note)
    for op in _SHAPE_OPS:
        yield OpSpec(op_type=op, trait=Trait.SHAPE, ports=(), rest=Role.INDEX)
    for op, note in _FUSED_BY_RUNTIME.items():
        yield OpSpec(op_type=op, domain="com.microsoft", trait=Trait.FLOAT, rest=Role.ACTIVATION, note=note)
    # The runtime registers this one in ai.onnx, where no schema has it.
    yield OpSpec(op_type="SimplifiedLayerNormalization", trait=Trait.FLOAT, note="no integer kernel")
