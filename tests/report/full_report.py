"""A report in which every part is filled, and a bare one."""

import math
from dataclasses import replace

from quantcli.report.schema import (
    Accuracy,
    Attribution,
    Baseline,
    ClassValue,
    Coverage,
    CoverageRow,
    DataFacts,
    DtypeBytes,
    EmulatedOutput,
    FloatReason,
    FusionDifference,
    GateResult,
    Histogram,
    KernelFacts,
    Latency,
    LayerWeightError,
    Memory,
    ModelFacts,
    NodeRef,
    OpCount,
    OutputFidelity,
    Rate,
    Report,
    Saturation,
    SaturationRisk,
    SizeComparison,
    StructureComparison,
    StructureFacts,
    Suspect,
    TaskMetric,
    TensorComparison,
    TensorError,
    TopK,
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
        topk=(TopK(k=5, agreement=rate(0.9967)),), psnr=42.5, peak=255.0,
    )  # fmt: skip


def gate(name: str, status: str = "pass", severity: str = "fail") -> GateResult:
    return GateResult(
        expression=f"{name}.sqnr>=25", metric="sqnr", output=name, severity=severity, status=status, value=31.27,
        limit=25.0, margin=6.27, sentence=f"sqnr of '{name}' is 31.27 dB, and has to be >= 25 dB",
    )  # fmt: skip


def metric(name: str, label: str = "cat") -> TaskMetric:
    return TaskMetric(
        name=name, sentence=f"mean over classes of {name}", better="higher", samples=300, original=0.712,
        original_low=0.66, original_high=0.76, quantized=0.698, quantized_low=0.64, quantized_high=0.75,
        drop=0.014, drop_low=-0.003, drop_high=0.031, confidence=0.95, interval="bootstrap",
        classes=(
            ClassValue(label=label, samples=120, original=0.8, quantized=0.62),
            ClassValue(label="dog", samples=180, original=0.65, quantized=0.66),
            ClassValue(label="unseen", samples=0, original=None, quantized=None),
        ),
    )  # fmt: skip


def tensor(name: str, position: int = 0, *, local: float | None = 38.5) -> TensorError:
    return TensorError(
        name=name, quantized_name=f"{name}_dq", node=name, op="Conv", position=position, elements=9600,
        sqnr=31.0 - position / 10, local_sqnr=local, cosine=0.9991, max_abs=0.82, bias=0.031, step_rmse=0.301,
        dtype="uint8", scale=0.0235, zero_point=12, low=-0.282, high=5.7105, observed_low=-0.3, observed_high=6.2,
        clipped=0.0021, range_used=0.993,
        histogram=Histogram(low=-0.3, high=6.2, counts=(2, 30, 900, 400, 220, 90, 40, 12, 3, 1)),
    )  # fmt: skip


def tensors(name: str, many: int = 1) -> TensorComparison:
    plain = TensorError(
        name=f"{name}_out", quantized_name=f"{name}_out", node=name, op="Gemm", position=many, elements=100,
        sqnr=math.inf,
    )  # fmt: skip
    return TensorComparison(
        samples=32, activations=14 + many, matched=1 + many, notes=("12 inside fused operators",),
        tensors=(*(tensor(name if i == 0 else f"{name}{i}", i) for i in range(many)), plain),
        first_divergence=name,
        suspects=(
            Suspect(
                node=name, op="Conv", tensor=name, finding="scale", severity=18.4,
                sentence=f"the scale of '{name}' is twice what its range needs: calibrate it again",
            ),
        ) * many,
    )  # fmt: skip


def saturation(name: str) -> Saturation:
    return Saturation(
        layers=5, safe=4, risks=(SaturationRisk(node=name, op="Conv", worst_pair=64_770, channels=3, of=16),),
        saturated=0.0004, samples=8,
        outputs=(EmulatedOutput(output=name, sqnr=24.6, sqnr_exact=31.27, top1=0.97),),
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
            effective_trials=300.0, broken=5, fixed=2, ignored=1, p_value=0.453, topk=(metric("top5", name),),
            classes=(ClassValue(label=name, samples=30, original=0.9, quantized=0.7),),
        ),
        metrics=(metric(name, name),) * many,
        latency=Latency(
            threads=1, pairs=50, runs=2, warmup=3, original_ms=3.46, quantized_ms=1.76, ratio=0.507, low=0.49,
            high=0.52, confidence=0.96, runtime="1.31.1",
        ),
        memory=Memory(
            baseline_bytes=60_000_000, original_bytes=91_000_000, quantized_bytes=76_000_000, ratio=16 / 31
        ),
        tensors=tensors(name, many),
        attribution=(Attribution(output=name, weights_only=36.1, activations_only=32.9, both=31.2),) * many,
        fusion=(
            FusionDifference(
                output=name, steps=3.5, sqnr=44.0, sqnr_optimized=31.27, sqnr_plain=31.4, flagged=True
            ),
        ) * many,
        saturation=saturation(name),
        baseline=Baseline(
            name="last.json", quantized_sha256="c" * 64, same_data=False, notes=("other samples: no rates",)
        ),
        data=DataFacts(name="eval.npz", samples=300, synthetic=synthetic, notes=("cast to float32",)),
        notes=(f"note on {name}",) * many,
    )  # fmt: skip


def large(layers: int = 900) -> Report:
    """A report of a network that is larger than usual ones, with long names; one layer in it is broken."""
    names = [
        f"/backbone/stage{i // 60}/block{i // 6}/branch{i % 3}/conv{i % 6}/Conv_output_0" for i in range(layers)
    ]
    broken = layers // 3
    counts = tuple(round(9e4 / (1 + (b - 30) ** 2)) for b in range(128))
    found = tuple(
        replace(
            tensor(name, i, local=12.0 if i == broken else 36.0 + 8 * math.sin(1.7 * i) * math.cos(0.3 * i)),
            node=name.removesuffix("_output_0"), sqnr=(45.0 if i < broken else 28.0) - 10 * i / layers,
            histogram=Histogram(low=-1.0, high=6.2, counts=counts),
        )
        for i, name in enumerate(names)
    )  # fmt: skip
    weights = tuple(
        LayerWeightError(
            node=item.node, op="Conv", dtype="int8", granularity="per-channel", elements=100 + 37 * i % 9000,
            sqnr=28.0 + i % 17, step_rmse=0.288,
        )
        for i, item in enumerate(found)
    )  # fmt: skip
    guilty = Suspect(
        node=found[broken].node, op="Conv", tensor=found[broken].name, finding="scale", severity=24.0,
        sentence="the scale of its output is twice what its range needs: calibrate it again",
    )  # fmt: skip
    report = full()
    assert report.weights is not None
    return replace(
        report,
        weights=replace(report.weights, weights=layers, matched=layers, layers=weights),
        tensors=TensorComparison(
            samples=32, activations=layers, matched=layers, tensors=found, first_divergence=found[broken].name,
            suspects=(guilty,),
        ),
    )  # fmt: skip
