"""What a report says of files and graphs: everything that is known without running a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OpCount:
    """How many nodes of an operator; ``op`` carries its domain where that is not ai.onnx."""

    op: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DtypeBytes:
    """Initializers of one dtype: how many, and their bytes."""

    dtype: str
    tensors: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRef:
    """A node by name."""

    name: str
    op: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model file.

    Attributes:
        name: Base name of the file.
        sha256: Of the file's bytes; with external data, of the digests of all files (``model_digest``).
        bytes: Model file and external data together.
        external_bytes: External data alone.
        gzip_bytes: The same compressed with gzip (level 6); None where it was not asked for.
        opset: Version of ai.onnx.
        ir_version: Version of the file format.
    """

    name: str
    sha256: str
    bytes: int
    external_bytes: int = 0
    gzip_bytes: int | None = None
    opset: int
    ir_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeComparison:
    """Sizes as ratios quantized / original; ``gzip_ratio`` None where it was not asked for."""

    ratio: float
    gzip_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureFacts:
    """What a model's main graph is made of.

    Attributes:
        nodes: Number of nodes.
        ops: Operators by count, most frequent first.
        initializers: Bytes by dtype, largest first.
        quantize_nodes: QuantizeLinear and DynamicQuantizeLinear nodes.
        dequantize_nodes: DequantizeLinear nodes.
        compute_quantized: Compute nodes (Conv, MatMul, Gemm, …) that are integer operators, or whose data
            inputs all come from DequantizeLinear.
        compute_weight_only: Compute nodes with a quantized weight and float activations.
        compute_float: Compute nodes left in float.
        float_compute: These nodes.
    """

    nodes: int
    ops: tuple[OpCount, ...]
    initializers: tuple[DtypeBytes, ...]
    quantize_nodes: int
    dequantize_nodes: int
    compute_quantized: int
    compute_weight_only: int
    compute_float: int
    float_compute: tuple[NodeRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureComparison:
    """The structure of both models."""

    original: StructureFacts
    quantized: StructureFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeightError:
    """Error of one quantized weight.

    Attributes:
        node: Name of the original node.
        op: Its operator.
        dtype: Integer type of the quantized weight.
        granularity: "per-tensor", "per-channel" or "per-block".
        elements: Number of weights.
        sqnr: Of the weight, in dB.
        step_rmse: RMS of (w − ŵ) / scale; 0.289 (1/√12) is that of perfect rounding.
        rescaled: Whether channels were scaled before rounding; the errors are then those after the same scaling.
    """

    node: str
    op: str
    dtype: str
    granularity: str
    elements: int
    sqnr: float
    step_rmse: float
    rescaled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightComparison:
    """Weights of compute nodes matched between the two models.

    Attributes:
        weights: Compute nodes of the original with a constant weight.
        matched: Of these, quantized in the other model and found there.
        kept_float: Found there with a float weight.
        not_found: Not found, or of another shape.
        batchnorm_folded: Matched after folding the original's BatchNormalization into the weight.
        layers: The matched ones, worst SQNR first.
    """

    weights: int
    matched: int
    kept_float: int
    not_found: int
    batchnorm_folded: int
    layers: tuple[LayerWeightError, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRow:
    """Nodes of one operator by what became of them; ``narrow`` ones compute in float16 or bfloat16."""

    op: str
    quantized: int
    passthrough: int
    float: int
    narrow: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatReason:
    """Why nodes stayed in float: a coded reason, how many nodes, and some of their names."""

    code: str
    sentence: str
    nodes: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What was quantized, by operator, with the reasons for the rest; known to ``convert`` only."""

    quantized: int
    passthrough: int
    float: int
    rows: tuple[CoverageRow, ...]
    reasons: tuple[FloatReason, ...]
    narrow: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfusedNode:
    """A quantized node for which the runtime has no integer kernel, and why."""

    name: str
    op: str
    code: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFacts:
    """What the runtime really executes: integer kernels by operator, and what did not fuse.

    ``note`` says of which types there are no integer kernels at all; nodes of these are not among ``unfused``.
    """

    runtime: str
    integer: tuple[OpCount, ...]
    float_compute: tuple[OpCount, ...]
    unfused: tuple[UnfusedNode, ...]
    note: str = ""
