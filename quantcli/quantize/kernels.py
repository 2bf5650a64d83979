"""Candidate kernels: what a node computes together with the nodes the runtime fuses into it.

A kernel is an anchor node, the bias Add of a MatMul, and the Relu or Clip behind them. The quantizer sits
after the last of these: between MatMul and its bias, or between Conv and its Relu, it would cost a rounding
and a kernel (runtime facts: MatMul + Add(bias) → Q is one QGemm; Conv → Relu → Q is one QLinearConv).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from quantcli.core.dtypes import QType
from quantcli.core.spec import QuantSpec
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.ops.reasons import Reason
from quantcli.ops.spec import Kernel as KernelKind
from quantcli.ops.spec import OpSpec, Role, Trait
from quantcli.ops.table import BODY_OPS, lookup
from quantcli.ops.targets import Target
from quantcli.quantize.already import already_quantized
from quantcli.quantize.choices import Choices
from quantcli.quantize.normalized import is_normalized_sum
from quantcli.quantize.plan import FusedActivation
from quantcli.quantize.residual import convolution_of

FLOAT32 = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A candidate.

    Attributes:
        node: Anchor.
        row: Its row in the operator table.
        inputs: (index, value) of the activations it reads.
        constants: (index, initializer) of constant operands that are quantized with it.
        weight: Initializer of the weight, "" where there is none.
        weight_axis: Channel axis of the weight, None where the kernel takes one scale only.
        bias: Initializer of the bias, "".
        bias_node: The Add that holds the bias of a MatMul.
        activation: The Relu or Clip behind.
        outputs: Values behind the last fused node.
    """

    node: NodeInfo
    row: OpSpec
    inputs: tuple[tuple[int, str], ...]
    constants: tuple[tuple[int, str], ...] = ()
    weight: str = ""
    weight_axis: int | None = None
    bias: str = ""
    bias_node: NodeInfo | None = None
    activation: FusedActivation | None = None
    outputs: tuple[str, ...] = ()

    def without(self, names: Collection[str]) -> Kernel:
        """The kernel without the fused nodes among ``names``, and what stands behind them."""
        if self.bias_node is not None and self.bias_node.name in names:
            return replace(self, bias="", bias_node=None, activation=None, outputs=(self.node.outputs[0],))
        if self.activation is not None and self.activation.node in names:
            return replace(self, activation=None, outputs=(self.raw_output,))
        return self

    @property
    def raw_output(self) -> str:
        """Value behind the bias, before the activation."""
        return self.bias_node.outputs[0] if self.bias_node is not None else self.node.outputs[0]


def sole_reader(view: GraphView, name: str) -> NodeInfo | None:
    """The only node that reads ``name``; None if there are more, it is elsewhere, or ``name`` is an output.

    A node in another body is elsewhere, and so is the owner of the body that yields ``name``.
    """
    uses = view.uses(name)
    if len(uses) != 1 or uses[0].index < 0 or view.tensors[name].is_output:
        return None
    use = uses[0]
    return use.node if use.yielded is None and use.scope == view.tensors[name].scope else None


def find_kernel(
    view: GraphView, node: NodeInfo, target: Target, choices: Choices | None = None
) -> Kernel | Reason:
    """The candidate anchored at ``node``, or why there is none on ``target``."""
    row = lookup(node.domain, node.op_type)
    row = None if row is None else target.seen(row)
    refusal = _refuse_by_table(view, node, row, target)
    if refusal is not None:
        return refusal
    assert row is not None
    if row.trait is Trait.COMPUTE:
        return _compute(view, node, row, target, choices or Choices())
    refusal = _refuse_by_form(view, node, row, target)
    if refusal is not None:
        return refusal
    return _plain(view, node, row, target)


def _refuse_by_table(view: GraphView, node: NodeInfo, row: OpSpec | None, target: Target) -> Reason | None:
    already = already_quantized(view, node)
    if already:
        return Reason(code="F902", sentence=already)
    if node.yields:
        return Reason(code="F901", sentence=f"{node.op_type} itself computes nothing; the nodes of its bodies do")
    if node.op_type in BODY_OPS:
        return Reason(code="F206", sentence=f"{node.op_type} has a body, which is left in float")
    if row is None:
        return Reason(code="F205", sentence=f"operator {node.op} is not in the table")
    if row.trait is Trait.SHAPE:
        return Reason(code="F901", sentence=f"{node.op_type} does not compute on floats")
    first = row.trait is Trait.FLOAT or node.op_type in target.wraps
    data = _data_inputs(node, row)[: 1 if first else None]
    made = [name for name in node.outputs if name][:1]
    dtypes = [view.tensors[name].dtype for name in (*(name for _, name in data), *made)]
    if all(dtype not in {None, FLOAT32, "float16", "float64", "bfloat16"} for dtype in dtypes):
        return Reason(code="F901", sentence=f"{node.op_type} works on {dtypes[0]}")
    wrong = next((dtype for dtype in dtypes if dtype != FLOAT32), FLOAT32)
    if wrong != FLOAT32:
        return Reason(code="F302", sentence=f"{node.op_type} works on {wrong or 'an unknown type'}, not float32")
    support = target.support(row)
    if support.kernel is KernelKind.NONE:
        return Reason(code="F201", sentence=f"{node.op_type}: {support.note or row.note}")
    if support.kernel is KernelKind.SLOW:
        return Reason(code="F202", sentence=f"{node.op_type}: {support.note}")
    return None


def _data_inputs(node: NodeInfo, row: OpSpec) -> list[tuple[int, str]]:
    return [(i, name) for i, name in enumerate(node.inputs) if name and row.role(i) is Role.ACTIVATION]


def fixed_range(row: OpSpec, spec: QuantSpec, target: Target) -> tuple[float, float] | None:
    """The range of a result that is known by definition; None where it is calibrated.

    With ``power_of_two_outputs`` and 16 bits, the largest code stands for 1 − 2^-16 (Sigmoid: scale 2^-16) or
    1 − 2^-15 (Tanh: scale 2^-15).
    """
    if row.fixed_range is None or target.fuses_qdq:
        return None
    low, high = row.fixed_range
    if target.power_of_two_outputs and spec.dtype.bits == 16:
        high -= (high - low) / 2**16
    return low, high


def _refuse_by_form(view: GraphView, node: NodeInfo, row: OpSpec, target: Target) -> Reason | None:
    """Attributes and operands for which an operator without a weight has no integer form."""
    data = [name for _, name in _data_inputs(node, row)]
    if row.trait is Trait.PASSTHROUGH and any(view.is_constant(name) for name in data):
        return Reason(code="F208", sentence=f"{node.op_type} reads rows of a constant table")
    if all(view.is_constant(name) for name in data):
        return Reason(code="F901", sentence=f"{node.op_type} reads constants only")
    if node.op_type == "Resize" and node.attributes.get("mode", "nearest") != "nearest":
        mode = node.attributes.get("mode")
        return Reason(code="F303", sentence=f"Resize with mode '{mode}' interpolates; only nearest selects")
    if node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return Reason(code="F303", sentence="Resize with tf_crop_and_resize adds a value of its own")
    if node.op_type == "MaxPool" and len([o for o in node.outputs if o]) > 1:
        return Reason(code="F303", sentence="MaxPool with indices has no integer form")
    if (
        node.op_type == "Pad"
        and node.attributes.get("mode", "constant") == "constant"
        and not _pads_zeros(view, node)
    ):
        return Reason(code="F303", sentence="Pad with other values than 0, which the range may not hold")
    if row.trait is Trait.FUSED and clip_bounds(view, node) is None:
        return Reason(code="F303", sentence=f"{node.op_type} has bounds that are not constant")
    if target.one_residual and node.op == "Add" and convolution_of(view, node) is None:
        return Reason(code="F403", sentence="the sum does not stand behind a convolution that it could join")
    if target.float_residuals and is_normalized_sum(view, node):
        return Reason(
            code="F214", sentence="Add in front of a normalization: outliers leave its small channels no bits"
        )
    return None


def _pads_zeros(view: GraphView, node: NodeInfo) -> bool:
    value = node.input(2)
    return not value or (view.is_constant(value) and not np.any(view.constant(value)))


def _plain(view: GraphView, node: NodeInfo, row: OpSpec, target: Target) -> Kernel:
    """OWN, SHARED, FIXED, PASSTHROUGH and FUSED operators."""
    data = [(i, name) for i, name in _data_inputs(node, row) if view.tensors[name].dtype in {None, FLOAT32}]
    joined = convolution_of(view, node) if target.one_residual else None
    if joined is not None:
        data = [(i, name) for i, name in data if name not in joined.outputs]
    inputs = tuple((i, name) for i, name in data if not view.is_constant(name))
    constants = tuple((i, name) for i, name in data if view.is_constant(name))
    activation = None
    outputs = tuple(name for name in node.outputs if name)
    if row.trait not in {Trait.PASSTHROUGH, Trait.FUSED}:
        activation = _activation_behind(view, outputs[0], target)
    if activation is not None:
        outputs = (activation.output,)
    return Kernel(node=node, row=row, inputs=inputs, constants=constants, activation=activation, outputs=outputs)


def _compute(view: GraphView, node: NodeInfo, row: OpSpec, target: Target, choices: Choices) -> Kernel | Reason:
    weight = node.input(1)
    if node.op_type == "MatMul" and not view.is_constant(weight) and not view.is_constant(node.input(0)):
        outputs = (node.outputs[0],)
        return Kernel(node=node, row=row, inputs=((0, node.inputs[0]), (1, node.inputs[1])), outputs=outputs)
    if not view.is_constant(weight):
        where = "its weight is computed by the graph"
        if view.is_constant(node.input(0)):
            where = "its constant is the left operand"
        return Reason(code="F301", sentence=f"{node.op_type}: {where}")
    refusal = _refuse_layer(view, node, target, choices)
    if refusal is not None:
        return refusal
    bias, bias_node = node.input(2) if len(node.inputs) > 2 else "", None
    if bias and not view.is_constant(bias):
        return Reason(code="F301", sentence=f"{node.op_type}: its bias is computed by the graph")
    if node.op_type == "MatMul" and not target.everything:
        bias, bias_node = _bias_behind(view, node)
    raw = bias_node.outputs[0] if bias_node is not None else node.outputs[0]
    activation = _activation_behind(view, raw, target)
    return Kernel(
        node=node,
        row=row,
        inputs=((0, node.inputs[0]),),
        weight=weight,
        weight_axis=weight_axis(view, node),
        bias=bias,
        bias_node=bias_node,
        activation=activation,
        outputs=(activation.output if activation is not None else raw,),
    )


def _refuse_layer(view: GraphView, node: NodeInfo, target: Target, choices: Choices) -> Reason | None:
    shape = view.tensors[node.inputs[1]].shape or ()
    attributes = node.attributes
    if 0 in shape:
        return Reason(code="F304", sentence=f"{node.op_type}: the weight is empty")
    if node.op_type == "Conv" and target.fuses_qdq and choices.grouped == "float":
        group = attributes.get("group", 1)
        if group != 1 and shape[1] != 1:
            return Reason(code="F203", sentence=f"Conv with {group} groups of {shape[1]} channels")
    if node.op_type == "Gemm":
        factors = (attributes.get("alpha", 1.0), attributes.get("beta", 1.0) if len(node.inputs) > 2 else 1.0)
        if factors != (1.0, 1.0) or attributes.get("transA", 0):
            return Reason(code="F303", sentence="Gemm with transA, or alpha or beta other than 1")
        bias = node.input(2)
        if bias and view.is_constant(bias) and not _is_vector(view, bias, weight_columns(view, node)):
            return Reason(code="F304", sentence="Gemm: the bias is not one value per output")
    if node.op_type == "MatMul" and len(shape) < 2:
        return Reason(code="F304", sentence="MatMul by a vector")
    return None


def weight_columns(view: GraphView, node: NodeInfo) -> int:
    """Number of output channels of Gemm or MatMul."""
    shape = view.tensors[node.inputs[1]].shape
    assert shape
    columns = shape[0] if node.op_type == "Gemm" and node.attributes.get("transB", 0) else shape[-1]
    assert isinstance(columns, int)
    return columns


def weight_axis(view: GraphView, node: NodeInfo) -> int | None:
    """Output-channel axis of the weight, None where the kernel takes one scale for the whole weight."""
    rank = view.tensors[node.inputs[1]].rank
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            return 1 if node.attributes.get("group", 1) == 1 else None
        case "Gemm":
            return 0 if node.attributes.get("transB", 0) else 1
        case _:
            return 1 if rank == 2 else None


def _is_vector(view: GraphView, name: str, size: int) -> bool:
    """Whether constant ``name`` is one value per column: (size,) or (1, …, 1, size)."""
    shape = view.tensors[name].shape
    return bool(shape and shape[-1] == size and all(dim == 1 for dim in shape[:-1]))


def _bias_behind(view: GraphView, node: NodeInfo) -> tuple[str, NodeInfo | None]:
    """Constant and Add node of a MatMul's bias."""
    reader = sole_reader(view, node.outputs[0])
    if reader is None or reader.op != "Add":
        return "", None
    other = reader.inputs[1] if reader.inputs[0] == node.outputs[0] else reader.inputs[0]
    if not view.is_constant(other) or not _is_vector(view, other, weight_columns(view, node)):
        return "", None
    # A constant of higher rank than the product would raise the rank of the sum.
    if (view.tensors[other].rank or 0) > (view.tensors[node.outputs[0]].rank or 1):
        return "", None
    return other, reader


def clip_bounds(view: GraphView, node: NodeInfo) -> tuple[float, float] | None:
    """Bounds of a Relu or Clip; None if a bound is computed by the graph."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    bounds = []
    for index, key, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        name = node.input(index)
        if not name:
            value = node.attributes.get(key, default)
            bounds.append(float(value) if isinstance(value, int | float) else default)
        elif view.is_constant(name):
            bounds.append(float(np.asarray(view.constant(name)).reshape(())))
        else:
            return None
    return bounds[0], bounds[1]


def _activation_behind(view: GraphView, name: str, target: Target) -> FusedActivation | None:
    """The Relu or Clip that alone reads ``name``.

    Where kernels fuse with the quantizer, only one that a range can make redundant: ranges contain 0.
    """
    reader = sole_reader(view, name)
    if reader is None or reader.domain or reader.op_type not in {"Relu", "Clip"} or reader.inputs[0] != name:
        return None
    bounds = clip_bounds(view, reader)
    if bounds is None or (target.fuses_qdq and not bounds[0] <= 0 <= bounds[1]):
        return None
    return FusedActivation(node=reader.name, input=name, output=reader.outputs[0], low=bounds[0], high=bounds[1])


def has_channels(kernel: Kernel, target: Target) -> bool:
    """Whether the target takes a scale per output channel of the kernel's weight."""
    return target.per_channel_ops is None or kernel.node.op_type in target.per_channel_ops


def weight_spec(kernel: Kernel, dtype: QType, *, per_channel: bool) -> QuantSpec:
    """Form of the kernel's weight: symmetric, narrow, per channel where wanted and possible."""
    axis = kernel.weight_axis if per_channel else None
    return QuantSpec(dtype=dtype, symmetric=True, axis=axis, narrow=True)
