"""Integer operators written as float operators between DequantizeLinear and QuantizeLinear.

Every operator of ``onnxruntime`` that computes on integers is by its definition a float operator on dequantized
operands, followed by a rounding where its result is an integer:

    QLinearConv(x, w, b) = Q(Conv(DQ(x), DQ(w), s_x·s_w·b)),  MatMulInteger(a, b) = MatMul(a − z_a, b − z_b), …

So a model in any format can be looked at, and changed, in one form. Weights are dequantized at once, into
constants; DequantizeLinear nodes that the model has by itself stay. Results differ from those of integer kernels
by the order of float sums only, that is: rarely, by one step, where a value lies between two steps.

MatMulInteger and ConvInteger give integers without a scale, which a Cast and a Mul bring back: here they become
the float operators on DQ(·, 1, z), with the very same values; the Cast then does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel
from quantcli.graph.nbits import unpack_nbits
from quantcli.graph.passes.lift_constants import lift_constants
from quantcli.graph.passes.name_nodes import name_nodes
from quantcli.graph.view import AttributeValue, GraphView, NodeInfo

_MS = "com.microsoft"


def float_form(model: OnnxModel) -> OnnxModel:
    """A copy of ``model`` whose integer operators are float operators between DQ and Q; node names stay.

    Operators that lack constant parameters are left as they are.
    """
    copy = model.clone()
    lift_constants(copy.ir)
    name_nodes(copy.ir)
    work = _Work(copy)
    for node in work.view.nodes:
        rewrite = _REWRITES.get(node.op)
        if rewrite is not None:
            rewrite(work, node)
    work.editor.finish()
    return copy


def dequantized(q: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, axis: int | None = None) -> np.ndarray:
    """Scale · (q − zero_point) in float32; parameters with one axis and several entries lie along ``axis``."""

    def spread(value: np.ndarray) -> np.ndarray:
        if value.size == 1:
            return value.reshape(())
        if value.ndim == 1 and axis is not None:
            return value.reshape([-1 if i == axis % q.ndim else 1 for i in range(q.ndim)])
        return value

    steps = q.astype(np.int64) - (0 if zero is None else spread(zero.astype(np.int64)))
    values: np.ndarray = (steps.astype(np.float32) * spread(scale.astype(np.float32))).astype(np.float32)
    return values


class _Work:
    """One model being rewritten."""

    def __init__(self, model: OnnxModel) -> None:
        self.editor = GraphEditor(model)
        self.view: GraphView = model.view()
        self._one = ""

    @property
    def one(self) -> str:
        """A scalar constant 1."""
        if not self._one:
            self._one = self.editor.add_initializer("one", np.ones((), dtype=np.float32))
        return self._one

    def constant(self, name: str) -> np.ndarray | None:
        return self.view.constant(name) if name and self.view.is_constant(name) else None

    def real(self, q: str, scale: str, zero: str, base: str, axis: int | None = None) -> str:
        """The float value of ``q``: a constant where all of it is constant, else behind a DequantizeLinear."""
        array = self.constant(q)
        step = np.ones((), dtype=np.float32) if scale == self._one else self.constant(scale)
        offset = self.constant(zero)
        if array is not None and step is not None and (offset is not None or not zero):
            return self.editor.add_initializer(f"{base}_float", dequantized(array, step, offset, axis))
        output = self.editor.new_value_name(f"{base}_real")
        inputs = [q, scale] + ([zero] if zero else [])
        self.editor.add_node("DequantizeLinear", inputs, [output], name=f"{base}_DequantizeLinear")
        self.editor.set_value_type(output, "float32")
        return output

    def put(
        self,
        node: NodeInfo,
        op: str,
        inputs: list[str],
        *,
        scale: str = "",
        zero: str = "",
        drop: tuple[str, ...] = (),
        extra: Mapping[str, AttributeValue] | None = None,
        domain: str = "",
    ) -> None:
        """The float operator in the place of ``node``, rounded where ``scale`` says so; the node's name stays."""
        attributes = {key: value for key, value in node.attributes.items() if key not in drop} | dict(extra or {})
        if not scale:
            self.editor.replace_node(node.name, op, inputs, attributes=attributes, domain=domain)
            for output in node.outputs:
                if output:
                    self.editor.set_value_type(output, "float32")
            return
        result = node.outputs[0]
        self.editor.remove_node(node.name)
        raw = self.editor.new_value_name(f"{result}_raw")
        self.editor.add_node(op, inputs, [raw], name=node.name, attributes=attributes, domain=domain)
        self.editor.set_value_type(raw, "float32")
        rounding = [raw, scale] + ([zero] if zero else [])
        self.editor.add_node("QuantizeLinear", rounding, [result], name=f"{node.name}_QuantizeLinear")

    def bias(self, name: str, scales: tuple[str, ...], factor: float, base: str) -> str | None:
        """An int32 bias in float: factor · Π scales · b; None where one of them is no constant."""
        steps = [self.constant(scale) for scale in scales]
        array = self.constant(name)
        if array is None or any(step is None for step in steps):
            return None
        scale = np.array(factor, dtype=np.float64)
        for step in steps:
            assert step is not None
            scale = scale * step.astype(np.float64).reshape(-1 if step.size > 1 else ())
        return self.editor.add_initializer(f"{base}_bias_float", (array * scale).astype(np.float32))


def _conv(work: _Work, node: NodeInfo) -> None:
    x, xs, xz, w, ws, wz, ys, yz = node.inputs[:8]
    inputs = [work.real(x, xs, xz, f"{node.name}_x"), work.real(w, ws, wz, f"{node.name}_w", 0)]
    if node.input(8):
        bias = work.bias(node.input(8), (xs, ws), 1.0, node.name)
        if bias is None:
            return
        inputs.append(bias)
    if node.attributes.get("channels_last"):
        return
    work.put(node, "Conv", inputs, scale=ys, zero=yz, drop=("channels_last",))


def _matmul(work: _Work, node: NodeInfo) -> None:
    a, sa, za, b, sb, zb, ys, yz = node.inputs[:8]
    inputs = [work.real(a, sa, za, f"{node.name}_a"), work.real(b, sb, zb, f"{node.name}_b", -1)]
    work.put(node, "MatMul", inputs, scale=ys, zero=yz)


def _gemm(work: _Work, node: NodeInfo) -> None:
    a, sa, za, b, sb, zb = node.inputs[:6]
    axis = 0 if node.attributes.get("transB") else 1
    inputs = [work.real(a, sa, za, f"{node.name}_a"), work.real(b, sb, zb, f"{node.name}_b", axis)]
    if node.input(6):
        alpha = node.attributes.get("alpha", 1.0)
        assert isinstance(alpha, float)
        bias = work.bias(node.input(6), (sa, sb), alpha, node.name)
        if bias is None:
            return
        inputs.append(bias)
    work.put(node, "Gemm", inputs, scale=node.input(7), zero=node.input(8))


def _binary(op: str) -> Callable[[_Work, NodeInfo], None]:
    def rewrite(work: _Work, node: NodeInfo) -> None:
        a, sa, za, b, sb, zb, ys = node.inputs[:7]
        inputs = [work.real(a, sa, za, f"{node.name}_a"), work.real(b, sb, zb, f"{node.name}_b")]
        work.put(node, op, inputs, scale=ys, zero=node.input(7))

    return rewrite


def _unary(op: str, *drop: str) -> Callable[[_Work, NodeInfo], None]:
    def rewrite(work: _Work, node: NodeInfo) -> None:
        if node.attributes.get("channels_last"):
            return
        x, xs, xz, ys = node.inputs[:4]
        work.put(
            node, op, [work.real(x, xs, xz, f"{node.name}_x")], scale=ys, zero=node.input(4),
            drop=("channels_last", *drop),
        )  # fmt: skip

    return rewrite


def _concat(work: _Work, node: NodeInfo) -> None:
    parts = [node.inputs[i : i + 3] for i in range(2, len(node.inputs), 3)]
    inputs = [work.real(x, xs, xz, f"{node.name}_{i}") for i, (x, xs, xz) in enumerate(parts)]
    work.put(node, "Concat", inputs, scale=node.input(0), zero=node.input(1))


def _where(work: _Work, node: NodeInfo) -> None:
    condition, x, xs, xz, y, ys, yz, zs, zz = node.inputs[:9]
    inputs = [condition, work.real(x, xs, xz, f"{node.name}_x"), work.real(y, ys, yz, f"{node.name}_y")]
    work.put(node, "Where", inputs, scale=zs, zero=zz)


def _softmax(work: _Work, node: NodeInfo) -> None:
    opset = node.attributes.get("opset", 13)
    assert isinstance(opset, int)
    if (opset < 13) != (work.view.opset < 13):
        return  # the axis means something else there
    _unary("Softmax", "opset")(work, node)


def _matmul_integer(work: _Work, node: NodeInfo) -> None:
    a, b = node.inputs[:2]
    work.put(
        node, "MatMul",
        [work.real(a, work.one, node.input(2), f"{node.name}_a"),
         work.real(b, work.one, node.input(3), f"{node.name}_b", -1)],
    )  # fmt: skip


def _conv_integer(work: _Work, node: NodeInfo) -> None:
    x, w = node.inputs[:2]
    work.put(
        node, "Conv",
        [work.real(x, work.one, node.input(2), f"{node.name}_x"),
         work.real(w, work.one, node.input(3), f"{node.name}_w", 0)],
    )  # fmt: skip


def _with_bias(work: _Work, node: NodeInfo, a: str, b: str, bias: str) -> None:
    """MatMul and, where there is a float bias, Add: the product keeps the node's name."""
    if not bias:
        work.editor.replace_node(node.name, "MatMul", [a, b])
        return
    result = node.outputs[0]
    work.editor.remove_node(node.name)
    product = work.editor.new_value_name(f"{result}_product")
    work.editor.add_node("MatMul", [a, b], [product], name=node.name)
    work.editor.add_node("Add", [product, bias], [result], name=f"{node.name}_bias")


def _integer_to_float(work: _Work, node: NodeInfo) -> None:
    a, b, sa, sb = node.inputs[:4]
    left = work.real(a, sa, node.input(4), f"{node.name}_a")
    _with_bias(work, node, left, work.real(b, sb, node.input(5), f"{node.name}_b", -1), node.input(6))


def _dynamic_matmul(work: _Work, node: NodeInfo) -> None:
    a, b, sb = node.inputs[:3]
    edit = work.editor
    q, step, zero = (edit.new_value_name(f"{node.name}_{part}") for part in ("a", "a_scale", "a_zero"))
    edit.add_node("DynamicQuantizeLinear", [a], [q, step, zero], name=f"{node.name}_DynamicQuantizeLinear")
    left = work.real(q, step, zero, f"{node.name}_a")
    _with_bias(work, node, left, work.real(b, sb, node.input(3), f"{node.name}_b", -1), node.input(4))


def _dynamic_lstm(work: _Work, node: NodeInfo) -> None:
    """DynamicQuantizeLSTM holds W and R transposed; what it rounds of its inputs is not rounded here."""
    found = []
    for weight, scale, zero in ((1, 8, 9), (2, 10, 11)):
        arrays = [work.constant(node.input(i)) for i in (weight, scale, zero)]
        if arrays[0] is None or arrays[1] is None:
            return
        q, step, offset = arrays[0], arrays[1], arrays[2]
        spread = [None if v is None else v.reshape(v.shape[0], 1, -1) if v.ndim else v for v in (step, offset)]
        assert spread[0] is not None
        found.append(np.ascontiguousarray(dequantized(q, spread[0], spread[1]).transpose(0, 2, 1)))
    w, r = (work.editor.add_initializer(f"{node.name}_{n}_float", a) for n, a in zip("WR", found, strict=True))
    work.put(node, "LSTM", [node.input(0), w, r, *node.inputs[3:8]])


def _nbits(work: _Work, node: NodeInfo) -> None:
    """MatMulNBits: weights of few bits in blocks along the rows of the product (K)."""
    arrays = [work.constant(name) for name in node.inputs[1:4]]
    if arrays[0] is None or arrays[1] is None or node.input(4):
        return
    size = [node.attributes.get(key) for key in ("K", "N", "bits", "block_size")]
    rows, columns, bits, block = (value if isinstance(value, int) else 0 for value in size)
    weight = unpack_nbits(
        arrays[0], arrays[1], arrays[2] if len(arrays) > 2 else None, rows, columns, bits or 4, block
    )
    if weight is None:
        return
    name = work.editor.add_initializer(f"{node.name}_w_float", weight)
    _with_bias(work, node, node.input(0), name, node.input(5))


_REWRITES: Mapping[str, Callable[[_Work, NodeInfo], None]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    f"{_MS}.QGemm": _gemm,
    f"{_MS}.QLinearAdd": _binary("Add"),
    f"{_MS}.QLinearMul": _binary("Mul"),
    f"{_MS}.QLinearConcat": _concat,
    f"{_MS}.QLinearWhere": _where,
    f"{_MS}.QLinearAveragePool": _unary("AveragePool"),
    f"{_MS}.QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    f"{_MS}.QLinearLeakyRelu": _unary("LeakyRelu"),
    f"{_MS}.QLinearSigmoid": _unary("Sigmoid"),
    f"{_MS}.QLinearSoftmax": _softmax,
    "MatMulInteger": _matmul_integer,
    "ConvInteger": _conv_integer,
    f"{_MS}.MatMulIntegerToFloat": _integer_to_float,
    f"{_MS}.DynamicQuantizeMatMul": _dynamic_matmul,
    f"{_MS}.DynamicQuantizeLSTM": _dynamic_lstm,
    f"{_MS}.MatMulNBits": _nbits,
}
