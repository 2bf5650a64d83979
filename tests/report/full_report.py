"""A report in which every part is filled, and a bare one."""

import math

from quantcli.report.schema import (
    Accuracy,
    Coverage,
    CoverageRow,
    DataFacts,
    DtypeBytes,
    FloatReason,
    GateResult,
    KernelFacts,
    Latency,
    LayerWeightError,
    ModelFacts,
    NodeRef,
    OpCount,
    OutputFidelity,
    Rate,
    Report,
    SizeComparison,
    StructureComparison,
    StructureFacts,
    UnfusedNode,
    Verdict,
    WeightComparison,
)

EVIL = "a|b`c`<script>alert(1)</script>[red]x[/red]\n# @someone *b* ![i](http://e)\x1b[31m"


def rate(value: float) -> Rate:
    return Rate(
        value=value, low=value - 0.02, high=value + 0.01, confidence=0.95, samples=300, trials=300,
        effective_trials=300.0,
    )  # fmt: skip


def bare() -> Report:
    return Report(
        original=ModelFacts(name="net.onnx", sha256="a" * 64, bytes=4_948_000, opset=13, ir_version=8),
        quantized=ModelFacts(name="net.int8.onnx", sha256="b" * 64, bytes=1_333_950, opset=13, ir_version=8),
        verdict=Verdict(status="no-gates", sentence="no gates were set"),
        size=SizeComparison(ratio=0.2696),
    )


def output(name: str, sqnr: float | None = 31.27) -> OutputFidelity:
    return OutputFidelity(
        name=name, quantized_name=name, samples=300, elements=300_000, sqnr=sqnr, cosine=0.9990861,
        cosine_min=0.97, cosine_global=0.9992, rmse=0.21, max_abs=1.73, top1=rate(0.9867), class_axis=1,
    )  # fmt: skip


def gate(name: str, status: str = "pass", severity: str = "fail") -> GateResult:
    return GateResult(
        expression=f"{name}.sqnr>=25", metric="sqnr", output=name, severity=severity, status=status, value=31.27,
        limit=25.0, margin=6.27, sentence=f"sqnr of '{name}' is 31.27 dB, and has to be >= 25 dB",
    )  # fmt: skip


def structure(ops: tuple[OpCount, ...], left: tuple[NodeRef, ...] = ()) -> StructureFacts:
    return StructureFacts(
        nodes=9, ops=ops, initializers=(DtypeBytes(dtype="int8", tensors=3, bytes=1000),), quantize_nodes=2,
        dequantize_nodes=4, compute_quantized=3, compute_weight_only=1, compute_float=len(left),
        float_compute=left,
    )  # fmt: skip


def full(name: str = "logits", *, synthetic: bool = False, many: int = 1) -> Report:
    layer = LayerWeightError(
        node=name, op="Conv", dtype="int8", granularity="per-channel", elements=27, sqnr=39.5, step_rmse=0.288
    )
    return Report(
        tools={"quantcli": "0.1", "onnxruntime": "1.31.1"},
        command=f"quantcli compare net.onnx net.int8.onnx --gate '{name}.sqnr>=25'",
        threads=1,
        original=ModelFacts(
            name="net.onnx", sha256="a" * 64, bytes=4_948_000, gzip_bytes=4_000_000, opset=13, ir_version=8
        ),
        quantized=ModelFacts(
            name=name, sha256="b" * 64, bytes=1_333_950, gzip_bytes=1_000_000, opset=13, ir_version=8
        ),
        verdict=Verdict(status="fail", sentence="1 of 2 gates passed, 1 failed"),
        gates=(gate(name), gate(name, "fail"), gate(name, "undecided", "warn")) * many,
        size=SizeComparison(ratio=0.2696, gzip_ratio=0.25),
        structure=StructureComparison(
            original=structure((OpCount(op="Conv", count=3),)),
            quantized=structure((OpCount(op="QLinearConv", count=3),), (NodeRef(name=name, op="MatMul"),) * many),
        ),
        weights=WeightComparison(
            weights=3, matched=1, kept_float=1, not_found=1, batchnorm_folded=0, layers=(layer,) * many
        ),
        coverage=Coverage(
            quantized=3, passthrough=2, float=4,
            rows=(CoverageRow(op="Conv", quantized=3, passthrough=0, float=1),),
            reasons=(FloatReason(code="F201", sentence="no integer kernel", nodes=4, examples=(name, "other")),),
        ),
        kernels=KernelFacts(
            runtime="1.31.1", integer=(OpCount(op="QLinearConv", count=3),), float_compute=(),
            unfused=(UnfusedNode(name=name, op="Conv", code="F405", sentence="two readers"),),
        ),
        outputs=(output(name), output("exact", math.inf), output("dead", -math.inf), output("none", None)) * many,
        accuracy=Accuracy(
            output=name, original=rate(0.7), quantized=rate(0.69), drop=0.01, drop_low=-0.005, drop_high=0.025,
            effective_trials=300.0, broken=5, fixed=2, ignored=1,
        ),
        latency=Latency(
            threads=1, pairs=50, runs=2, warmup=3, original_ms=3.46, quantized_ms=1.76, ratio=0.507, low=0.49,
            high=0.52, confidence=0.96, runtime="1.31.1",
        ),
        data=DataFacts(name="eval.npz", samples=300, synthetic=synthetic, notes=("cast to float32",)),
        notes=(f"note on {name}",) * many,
    )  # fmt: skip
