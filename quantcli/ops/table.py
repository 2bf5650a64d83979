"""The operator table: one row per operator, for every format and target.

Figures are times relative to the float kernel (below 1 is faster), measured on onnxruntime 1.31.1 (those of
operators written on the integers, and of Where: on 1.32), one thread, AVX512-VNNI. Adding an operator is adding a
row; ``tests/ops/test_table.py`` builds, quantizes, runs and bounds the error of every row. Operators that stay in
float are in ``rows_float``.
"""

from __future__ import annotations

from collections.abc import Iterable

from quantcli.ops.rows_float import float_rows
from quantcli.ops.spec import Kernel, OpSpec, Role, Support, Trait

_A, _W, _B, _I = Role.ACTIVATION, Role.WEIGHT, Role.BIAS, Role.INDEX

_MS = "com.microsoft."


def _support(ort: Support, generic: Support) -> dict[str, Support]:
    return {"ort-cpu": ort, "generic": generic}


def _integer(note: str = "", *, float_output: bool = False, direct: bool = False) -> Support:
    return Support(kernel=Kernel.INTEGER, float_output=float_output, direct=direct, note=note)


def _slow(note: str) -> Support:
    return Support(kernel=Kernel.SLOW, note=note)


def _none(note: str) -> Support:
    return Support(kernel=Kernel.NONE, note=note)


_PLAIN = _integer("Q/DQ by the ONNX specification")
_PLAIN_FLOAT_OUT = _integer("Q/DQ by the ONNX specification", float_output=True)
_LEAVE = _none("no integer meaning in ONNX")


def _compute_rows() -> Iterable[OpSpec]:
    yield OpSpec(
        op_type="Conv",
        trait=Trait.COMPUTE,
        ports=(_A, _W, _B),
        support=_support(_integer("QLinearConv, 0.3 of float; depthwise 1.3 alone, faster in context"), _PLAIN),
        qlinear={"ort-cpu": "QLinearConv", "generic": "QLinearConv"},
        note="weights per channel on axis 0; needs a quantized output to fuse.",
    )
    yield OpSpec(
        op_type="ConvTranspose",
        trait=Trait.COMPUTE,
        ports=(_A, _W, _B),
        support=_support(_none("onnxruntime has no integer ConvTranspose (Q/DQ around it: 1.15)"), _PLAIN),
        note="weights per channel on axis 1 (group 1 only, else per tensor).",
    )
    yield OpSpec(
        op_type="Gemm",
        trait=Trait.COMPUTE,
        ports=(_A, _W, _B),
        support=_support(_integer("QGemm, 0.37; with float output 0.33", float_output=True), _PLAIN_FLOAT_OUT),
        qlinear={"ort-cpu": _MS + "QGemm"},
        note="needs transA 0, alpha and beta 1; the bias is int32 with scale float32(s_x·s_w), exactly.",
    )
    yield OpSpec(
        op_type="MatMul",
        trait=Trait.COMPUTE,
        ports=(_A, _W),
        rest=_A,
        support=_support(
            _integer("QLinearMatMul or MatMulIntegerToFloat, 0.3 of float", float_output=True),
            _PLAIN_FLOAT_OUT,
        ),
        qlinear={"ort-cpu": "QLinearMatMul", "generic": "QLinearMatMul"},
        note="weights of rank 2 per column, of higher rank per tensor; with a constant Add behind it, one "
        "kernel with an int32 bias.",
    )


def _own_rows() -> Iterable[OpSpec]:
    for op, figure in (("Add", "0.8"), ("Mul", "1.5 alone, less than leaving and re-entering integers")):
        yield OpSpec(
            op_type=op,
            trait=Trait.OWN,
            ports=(_A, _A),
            support=_support(_integer(f"QLinear{op}, {figure}"), _PLAIN),
            qlinear={"ort-cpu": f"{_MS}QLinear{op}"},
            note="constant operands go through DequantizeLinear, too; both sides must be integers to fuse.",
        )
    for op in ("Sub", "Div"):
        yield OpSpec(
            op_type=op,
            trait=Trait.OWN,
            ports=(_A, _A),
            support=_support(_none(f"onnxruntime has no integer {op}"), _PLAIN),
        )
    yield OpSpec(
        op_type="GlobalAveragePool",
        trait=Trait.OWN,
        support=_support(
            _integer("QLinearGlobalAveragePool, 0.83 with the Mul of a squeeze-excite block"), _PLAIN
        ),
        qlinear={"ort-cpu": _MS + "QLinearGlobalAveragePool"},
    )
    yield OpSpec(
        op_type="AveragePool",
        trait=Trait.OWN,
        support=_support(_slow("QLinearAveragePool takes 57 times as long as the float pool"), _PLAIN),
        note="a window that covers the whole map is rewritten as GlobalAveragePool.",
    )
    yield OpSpec(
        op_type="LeakyRelu",
        trait=Trait.OWN,
        support=_support(_integer("QLinearLeakyRelu, 1.3 alone"), _PLAIN),
        qlinear={"ort-cpu": _MS + "QLinearLeakyRelu"},
    )
    yield OpSpec(
        op_type="PRelu",
        trait=Trait.OWN,
        ports=(_A, _I),
        support=_support(_none("onnxruntime has no integer PRelu"), _PLAIN),
    )
    yield OpSpec(
        op_type="Where",
        trait=Trait.FLOAT,
        ports=(_I, _A, _A),
        support=_support(
            _slow(
                "QLinearWhere takes 1.5 to 1.7 times as long as the float one; masks have values such as -1e9, "
                "which no 8-bit range can hold"
            ),
            _LEAVE,
        ),
    )
    for op, low, high, ort in (
        ("Sigmoid", 0.0, 1.0, _integer("QLinearSigmoid, 1.05 alone")),
        ("Softmax", 0.0, 1.0, _slow("QLinearSoftmax takes 10 times as long as the float one")),
        ("Tanh", -1.0, 1.0, _none("onnxruntime has no integer Tanh (Q/DQ around it: 1.65)")),
    ):
        yield OpSpec(
            op_type=op,
            trait=Trait.FIXED,
            fixed_range=(low, high),
            support=_support(ort, _PLAIN),
            qlinear={"ort-cpu": _MS + "QLinearSigmoid"} if op == "Sigmoid" else {},
        )
    yield OpSpec(
        op_type="Concat",
        trait=Trait.SHARED,
        rest=_A,
        support=_support(_integer("QLinearConcat, 0.16 with Slice"), _PLAIN),
        qlinear={"ort-cpu": _MS + "QLinearConcat"},
        integer_opset=7,
        note="inputs that feed nothing else take the parameters of the output, so that nothing is rounded twice.",
    )


def _passthrough_rows() -> Iterable[OpSpec]:
    moves = _integer("runs on the integers")
    for op, integer_opset in (
        ("Reshape", 7), ("Transpose", 7), ("Squeeze", 7), ("Unsqueeze", 7), ("Flatten", 9), ("Slice", 7),
        ("Gather", 7), ("GatherElements", 11), ("Expand", 8), ("Tile", 7), ("Split", 7), ("DepthToSpace", 7),
    ):  # fmt: skip
        yield OpSpec(
            op_type=op,
            trait=Trait.PASSTHROUGH,
            integer_opset=integer_opset,
            support=_support(moves, _PLAIN),
            note="a table of constants is stored as int8 with one scale per row (see F208)."
            if op == "Gather"
            else "",
        )
    for op, integer_opset, figure in (
        ("SpaceToDepth", 13, "1.15"), ("Pad", 13, "0.80"), ("GatherND", 12, "0.46"), ("Compress", 11, "0.45"),
        ("ReverseSequence", 10, "0.36"),
    ):  # fmt: skip
        yield OpSpec(
            op_type=op,
            trait=Trait.PASSTHROUGH,
            integer_opset=integer_opset,
            support=_support(
                _integer(f"runs on the integers, {figure}; Q/DQ around it are not fused", direct=True), _PLAIN
            ),
            note="with zeros, or with values of its input." if op == "Pad" else "",
        )
    yield OpSpec(
        op_type="MaxPool",
        trait=Trait.PASSTHROUGH,
        integer_opset=12,
        support=_support(_integer("free between two quantized convolutions, 70 times as long elsewhere"), _PLAIN),
    )
    yield OpSpec(
        op_type="GlobalMaxPool",
        trait=Trait.PASSTHROUGH,
        integer_opset=99,
        support=_support(_none("onnxruntime has no integer GlobalMaxPool"), _PLAIN),
    )
    for op in ("ReduceMax", "ReduceMin"):
        yield OpSpec(
            op_type=op,
            trait=Trait.PASSTHROUGH,
            integer_opset=12,
            support=_support(moves, _PLAIN),
        )
    yield OpSpec(
        op_type="Resize",
        trait=Trait.PASSTHROUGH,
        integer_opset=10,
        support=_support(_integer("nearest: runs on the integers, 0.16"), _PLAIN),
        note="only mode nearest selects values; linear and cubic interpolate, and stay in float.",
    )
    for op in ("Relu", "Clip"):
        yield OpSpec(
            op_type=op,
            trait=Trait.FUSED,
            support=_support(_integer("part of the kernel before it, as the range of its output"), _PLAIN),
            note="dropped where the quantized range proves that it does nothing.",
        )


QUANTIZED_OPS = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
    "ConvInteger", "MatMulInteger",
)  # fmt: skip
"""Operators of ai.onnx that are quantized forms already."""

BODY_OPS = ("If", "Loop", "Scan", "SequenceMap")
"""Operators with bodies."""


def _build() -> dict[tuple[str, str], OpSpec]:
    table: dict[tuple[str, str], OpSpec] = {}
    for rows in (_compute_rows(), _own_rows(), _passthrough_rows(), float_rows()):
        for row in rows:
            key = (row.domain, row.op_type)
            if key in table:
                raise ValueError(f"two rows for {row.op_type}")
            table[key] = row
    return table


TABLE: dict[tuple[str, str], OpSpec] = _build()
"""Rows by (domain, operator)."""


def lookup(domain: str, op_type: str) -> OpSpec | None:
    """The row of an operator, None where there is none. "ai.onnx" and "" are the same domain."""
    return TABLE.get(("" if domain == "ai.onnx" else domain, op_type))
