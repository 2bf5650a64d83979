"""Which rule of ``error_bound`` an operator follows."""

BILINEAR = {"Conv", "ConvTranspose", "MatMul", "Gemm", "Mul"}
SUMS = {"Add", "Sum", "Mean", "ReduceSum", "ReduceMean", "AveragePool", "GlobalAveragePool", "CumSum"}
NONDECREASING = {
    "Relu", "Clip", "MaxPool", "GlobalMaxPool", "Max", "Min", "Sigmoid", "Tanh", "ReduceMax", "ReduceMin",
    "LeakyRelu", "Elu", "Celu", "Selu", "HardSigmoid", "Softplus", "Softsign", "ThresholdedRelu", "Exp", "Sqrt",
    "Log", "Atan", "Floor", "Ceil", "Round", "Sign", "Erf", "Cast",
}  # fmt: skip
MOVES = {
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Concat", "Gather",
    "GatherElements",
    "GatherND", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Pad", "Compress", "ReverseSequence", "Identity",
    "Trilu", "Dropout", "Where", "ScatterND", "ScatterElements", "CastLike",
}  # fmt: skip
SHAPES = {"Shape", "Size"}
COMPARISONS = {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"}
LIPSCHITZ = {
    "Abs": 1.0,
    "Neg": 1.0,
    "Sin": 1.0,
    "Cos": 1.0,
    "Gelu": 1.13,
    "Mish": 1.09,
    "HardSwish": 1.5,
    "Swish": 1.1,
    "QuickGelu": 1.1,
}
