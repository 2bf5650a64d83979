"""Every row of the operator table, built, quantized, run and bounded: the table cannot lie."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import defs
from small_graphs import Quantized, graph, quantize_graph

from quantcli.core.dtypes import INT8, UINT8
from quantcli.ops.spec import Kernel, Trait
from quantcli.ops.table import BODY_OPS, QUANTIZED_OPS, TABLE
from quantcli.ops.targets import TARGETS
from quantcli.quantize.plan import Action
from quantcli.runtime.kernels import kernel_report, optimized_view
from quantcli.runtime.session import SessionSettings

RNG = np.random.default_rng(7)
IMAGE = {"x": RNG.normal(0, 1, (1, 8, 8, 8)).astype(np.float32)}
MATRIX = {"x": RNG.normal(0, 1, (4, 16)).astype(np.float32)}


def _conv(channels_out: int = 8, channels_in: int = 8, kernel: int = 3) -> np.ndarray:
    return RNG.normal(0, 0.2, (channels_out, channels_in, kernel, kernel)).astype(np.float32)


def _between_convs(middle: str, output_shape: str = "1,8,8,8", **constants: np.ndarray):
    """Conv → middle → Conv → mean: the operator in question stands where its integer kernel is used."""
    text = f"""g (float[1,8,8,8] x) => (float[1,8,1,1] y) {{
        a = Conv <pads = [1,1,1,1]> (x, w0)
        {middle}
        c = Conv <pads = [1,1,1,1]> (b, w1)
        r = Relu(c)
        y = ReduceMean <axes = [2,3]> (r)
    }}"""
    return graph(text, w0=_conv(), w1=_conv(), **constants), IMAGE


def _int64(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _channels_after(middle: str, channels: int, **constants: np.ndarray):
    text = f"""g (float[1,8,8,8] x) => (float[1,8,1,1] y) {{
        a = Conv <pads = [1,1,1,1]> (x, w0)
        {middle}
        c = Conv <pads = [1,1,1,1]> (b, w1)
        y = ReduceMean <axes = [2,3]> (c)
    }}"""
    return graph(text, w0=_conv(), w1=_conv(8, channels), **constants), IMAGE


CASES = {
    "Conv": lambda: _between_convs("b = Relu(a)"),
    "ConvTranspose": lambda: _between_convs("b = ConvTranspose <pads = [1,1,1,1]> (a, wt)", wt=_conv()),
    "Gemm": lambda: (
        graph(
            "g (float[4,16] x) => (float[4,8] y) { a = Gemm <transB = 1> (x, w0, b0) b = Relu(a) "
            "y = Gemm <transB = 0> (b, w1, b1) }",
            w0=RNG.normal(0, 0.3, (12, 16)).astype(np.float32),
            b0=RNG.normal(0, 1, 12).astype(np.float32),
            w1=RNG.normal(0, 0.3, (12, 8)).astype(np.float32),
            b1=RNG.normal(0, 1, 8).astype(np.float32),
        ),
        MATRIX,
    ),
    "MatMul": lambda: (
        graph(
            "g (float[4,16] x) => (float[4,8] y) { a = MatMul(x, w0) s = Add(a, b0) b = Relu(s) "
            "y = MatMul(b, w1) }",
            w0=RNG.normal(0, 0.3, (16, 12)).astype(np.float32),
            b0=RNG.normal(0, 1, 12).astype(np.float32),
            w1=RNG.normal(0, 0.3, (12, 8)).astype(np.float32),
        ),
        MATRIX,
    ),
    "Add": lambda: _between_convs("d = Conv <pads = [1,1,1,1]> (a, w2) b = Add(a, d)", w2=_conv()),
    "Mul": lambda: _between_convs("b = Mul(a, k)", k=RNG.uniform(0.5, 2, (1, 8, 1, 1)).astype(np.float32)),
    "Sub": lambda: _between_convs("d = Conv <pads = [1,1,1,1]> (a, w2) b = Sub(a, d)", w2=_conv()),
    "Div": lambda: _between_convs("b = Div(a, k)", k=RNG.uniform(0.5, 2, (1, 8, 1, 1)).astype(np.float32)),
    "GlobalAveragePool": lambda: _between_convs("p = GlobalAveragePool(a) b = Mul(a, p)"),
    "AveragePool": lambda: _between_convs("b = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (a)"),
    "LeakyRelu": lambda: _between_convs("b = LeakyRelu <alpha = 0.1> (a)"),
    "PRelu": lambda: _between_convs("b = PRelu(a, k)", k=RNG.uniform(0.1, 0.3, (8, 1, 1)).astype(np.float32)),
    "Sigmoid": lambda: _between_convs("b = Sigmoid(a)"),
    "Softmax": lambda: _between_convs("b = Softmax <axis = 1> (a)"),
    "Tanh": lambda: _between_convs("b = Tanh(a)"),
    "Concat": lambda: _channels_after(
        "d = Conv <pads = [1,1,1,1]> (a, w2) b = Concat <axis = 1> (a, d)", 16, w2=_conv()
    ),
    "Reshape": lambda: _channels_after("b = Reshape(a, s)", 4, s=_int64(1, 4, 8, 16)),
    "Transpose": lambda: _between_convs("b = Transpose <perm = [0,1,3,2]> (a)"),
    "Squeeze": lambda: _between_convs("u = Unsqueeze(a, s) b = Squeeze(u, s)", s=_int64(0)),
    "Unsqueeze": lambda: _between_convs("u = Unsqueeze(a, s) b = Squeeze(u, s)", s=_int64(0)),
    "Flatten": lambda: (
        graph(
            "g (float[1,8,8,8] x) => (float[1,4] y) { a = Conv <pads = [1,1,1,1]> (x, w0) b = Flatten(a) "
            "y = Gemm(b, w1) }",
            w0=_conv(),
            w1=RNG.normal(0, 0.1, (512, 4)).astype(np.float32),
        ),
        IMAGE,
    ),
    "Slice": lambda: _between_convs("b = Slice(a, s, e, ax)", s=_int64(0), e=_int64(4), ax=_int64(2)),
    "Gather": lambda: _between_convs("b = Gather <axis = 2> (a, i)", i=_int64(3, 0, 1, 5)),
    "GatherElements": lambda: _between_convs(
        "b = GatherElements <axis = 3> (a, i)", i=np.zeros((1, 8, 8, 4), np.int64)
    ),
    "Expand": lambda: _channels_after("b = Expand(a, s)", 8, s=_int64(2, 8, 8, 8)),
    "Tile": lambda: _channels_after("b = Tile(a, s)", 16, s=_int64(1, 2, 1, 1)),
    "Split": lambda: _channels_after("b, d = Split <axis = 1> (a, s)", 4, s=_int64(4, 4)),
    "DepthToSpace": lambda: _channels_after("b = DepthToSpace <blocksize = 2> (a)", 2),
    "SpaceToDepth": lambda: _channels_after("b = SpaceToDepth <blocksize = 2> (a)", 32),
    "Pad": lambda: _between_convs("b = Pad(a, s)", s=_int64(0, 0, 1, 0, 0, 0, 0, 1)),
    "GatherND": lambda: _between_convs(
        "t = GatherND(a, i) b = Unsqueeze(t, s)",
        i=_int64(0, 3, 0, 5, 0, 0, 0, 1, 0, 2, 0, 6, 0, 7, 0, 4).reshape(8, 2),
        s=_int64(0),
    ),
    "Compress": lambda: _between_convs("b = Compress <axis = 2> (a, k)", k=np.arange(8) % 2 == 0),
    "ReverseSequence": lambda: _between_convs(
        "b = ReverseSequence <batch_axis = 0, time_axis = 1> (a, s)", s=_int64(8)
    ),
    "MaxPool": lambda: _between_convs("b = MaxPool <kernel_shape = [2,2], strides = [2,2]> (a)"),
    "GlobalMaxPool": lambda: _between_convs("b = GlobalMaxPool(a)"),
    "ReduceMax": lambda: _between_convs("b = ReduceMax <axes = [2]> (a)"),
    "ReduceMin": lambda: _between_convs("b = ReduceMin <axes = [2]> (a)"),
    "Resize": lambda: _between_convs(
        'b = Resize <mode = "nearest", nearest_mode = "floor", coordinate_transformation_mode = "asymmetric">'
        " (a, , k)",
        k=np.array([1, 1, 2, 2], np.float32),
    ),
    "Relu": lambda: _between_convs("b = Relu(a)"),
    "Clip": lambda: _between_convs("b = Clip(a, lo, hi)", lo=np.float32(0), hi=np.float32(1)),
}

QUANTIZABLE = sorted(
    op for (domain, op), row in TABLE.items() if not domain and row.trait not in {Trait.FLOAT, Trait.SHAPE}
)


def test_every_operator_with_an_integer_form_has_a_case() -> None:
    assert sorted(CASES) == QUANTIZABLE


def _noise_bound_db(quantized: Quantized, feeds: dict[str, np.ndarray]) -> float:
    """SQNR of the outputs in dB."""
    (name, reference), *_ = quantized.run_float(feeds).items()
    error = quantized.run(feeds)[name] - reference
    return float(10 * np.log10(np.sum(reference**2) / max(np.sum(error**2), 1e-30)))


@pytest.mark.parametrize(
    ("target", "form"), [(target.name, form) for target in TARGETS.values() for form in target.formats]
)
@pytest.mark.parametrize("op", QUANTIZABLE)
def test_a_row_keeps_its_promise(op: str, target: str, form: str) -> None:
    model, feeds = CASES[op]()
    row = TARGETS[target]
    activations = INT8 if row.signed_activations else UINT8
    quantized = quantize_graph(
        model, feeds, form, target=target, activation_dtype=activations, symmetric=row.symmetric
    )
    support = row.support(TABLE["", op])
    asked = [node for node in quantized.plan.nodes if node.op_type == op]
    taken = [node for node in asked if node.action is not Action.FLOAT]
    if support.kernel is Kernel.INTEGER:
        assert taken, [node.reason for node in asked]
    else:
        assert not taken
        assert {node.reason.code for node in asked if node.reason} <= {"F201", "F202"}
    # Every quantized value contributes at most step²/12 to the noise; with 8 bits and a handful of values
    # in a row that stays above 6.02·8 + 10.8 − 20·log10(range/rms) − 10·log10(values) ≈ 25 dB for normal data
    # (range/rms ≈ 7); a wrong scale, axis or zero point falls far below.
    assert _noise_bound_db(quantized, feeds) > 22


@pytest.mark.parametrize("op", QUANTIZABLE)
def test_qoperator_computes_what_qdq_computes(op: str) -> None:
    model, feeds = CASES[op]()
    qdq = quantize_graph(model, feeds, "qdq").run(feeds)
    qoperator = quantize_graph(model, feeds, "qoperator").run(feeds)
    for name, values in qdq.items():
        scale = np.abs(values).max()
        # Both run integer kernels; where one of them is a float sum, the last bits may differ.
        np.testing.assert_allclose(qoperator[name], values, rtol=0, atol=2e-2 * scale)


@pytest.mark.parametrize("op", [op for op in QUANTIZABLE if TABLE["", op].on("ort-cpu").kernel is Kernel.INTEGER])
def test_what_is_planned_for_onnxruntime_fuses_there(op: str) -> None:
    model, feeds = CASES[op]()
    quantized = quantize_graph(model, feeds)
    report = kernel_report(quantized.model.to_bytes(), quantized.expected_kernels())
    assert not report.unfused
    assert report.fused == report.expected > 0


MOVED = sorted(
    op
    for op in QUANTIZABLE
    if TABLE["", op].trait is Trait.PASSTHROUGH and TABLE["", op].on("ort-cpu").kernel is Kernel.INTEGER
)


@pytest.mark.parametrize("op", MOVED)
def test_moves_that_are_planned_for_onnxruntime_run_on_integers(op: str) -> None:
    model, feeds = CASES[op]()
    quantized = quantize_graph(model, feeds)
    view = optimized_view(quantized.model.to_bytes(), SessionSettings())
    # Squeeze and Unsqueeze of one axis cancel out
    moves = [node for node in view.nodes if node.op_type in {op, f"Nhwc{op}"}]
    assert moves or op in {"Squeeze", "Unsqueeze"}
    for node in moves:
        maker = view.producer(node.inputs[0])
        assert maker is None or maker.op_type != "DequantizeLinear"


def test_padding_with_another_value_than_zero_stays_in_float() -> None:
    model, feeds = _between_convs(
        "b = Pad(a, s, k)", s=_int64(0, 0, 1, 0, 0, 0, 0, 1), k=np.array(2.5, np.float32)
    )
    plan = quantize_graph(model, feeds).plan
    assert [node.reason.code for node in plan.nodes if node.op_type == "Pad" and node.reason] == ["F303"]


def test_every_operator_of_onnx_has_a_row() -> None:
    known = {op for domain, op in TABLE if not domain} | {*QUANTIZED_OPS, *BODY_OPS}
    assert not {schema.name for schema in defs.get_all_schemas_with_history() if not schema.domain} - known


@pytest.mark.parametrize("op", QUANTIZABLE)
def test_an_excluded_operator_really_runs_in_float(op: str) -> None:
    model, feeds = CASES[op]()
    quantized = quantize_graph(model, feeds, exclude=(f"op:{op}",))
    excluded = {node.name: op for node in quantized.plan.nodes if node.op_type == op}
    report = kernel_report(quantized.model.to_bytes(), excluded)
    moved = TABLE["", op].trait in {Trait.PASSTHROUGH, Trait.FUSED}
    assert moved or set(report.unfused) == set(excluded)
