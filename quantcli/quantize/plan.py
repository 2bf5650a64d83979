"""The plan: every decision about a model, as a value.

Emitters read nothing else; it can be printed, compared, saved and used again. Made without data; ranges and
parameters are joined to it later (``solve``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from quantcli.core.dtypes import QTYPES, QType
from quantcli.core.spec import QuantSpec
from quantcli.errors import ConfigError
from quantcli.ops.reasons import Reason
from quantcli.quantize.choices import Choices
from quantcli.quantize.form import Form

PLAN_VERSION = 3


class Action(StrEnum):
    """What becomes of a node.

    A kernel of its own on integers, a float kernel whose weight is stored as integers, moved integers, part of
    another node's kernel, a narrower float type, or float as it was.
    """

    QUANTIZE = "quantize"
    STORE = "store"
    PASSTHROUGH = "passthrough"
    FUSE = "fuse"
    NARROW = "narrow"
    FLOAT = "float"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """A node and its fate.

    Attributes:
        name: Node name.
        op_type: Operator, with its domain where that is not ai.onnx.
        action: What becomes of it.
        into: The node whose kernel it is part of (FUSE).
        reason: Why it stays in float (FLOAT).
        rule: The selector that decided, "" where none did.
        body: Body of an If, Loop or Scan that it is in, "OWNER/ATTRIBUTE"; "" for the main graph.
    """

    name: str
    op_type: str
    action: Action
    into: str = ""
    reason: Reason | None = None
    rule: str = ""
    body: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPlan:
    """An activation that is quantized.

    Attributes:
        name: Value name.
        spec: Its form.
        group: Name of the sharing group; all members have the same parameters.
        source: "calibrated" (its range enters its group's range), "passthrough" (it takes what its source
            has), "fixed" (``fixed_range``) or "dynamic" (its parameters are computed while the model runs).
        fixed_range: Range known from the operator's definition.
        integer_producer: Whether it exists as integers only, so that float readers dequantize it, too.
        guard: Whether the float layer before it must be kept from being quantized by the runtime.
        output: Whether it is an output of the graph, which then gives the dequantized value.
    """

    name: str
    spec: QuantSpec
    group: str
    source: str = "calibrated"
    fixed_range: tuple[float, float] | None = None
    integer_producer: bool = False
    guard: bool = False
    output: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    """A kernel with a constant weight: Conv, ConvTranspose, Gemm, MatMul.

    Attributes:
        node: The node that computes.
        input: Activation it reads.
        weight: Initializer.
        weight_spec: Form of the weight.
        bias: Initializer, "" where there is none.
        bias_node: The Add whose constant is the bias of a MatMul, "" elsewhere.
        output: Value after the bias.
        may_create_bias: Whether a layer without a bias may get one, because the operator has an input for it.
        held: Type that DequantizeLinear of the weight reads, behind a Cast; None for the stored one.
        float_bias: Whether the bias stays in float; elsewhere it is int32 with the scale s_x·s_w.
        pairs: Order in which the kernel adds products up in pairs that saturate (``core.saturation``): the
            integers must be such that none can. "" where nothing saturates.
        note: What became of the weight because of ``pairs``, "" for nothing.
    """

    node: str
    input: str
    weight: str
    weight_spec: QuantSpec
    bias: str = ""
    bias_node: str = ""
    output: str = ""
    may_create_bias: bool = False
    held: QType | None = None
    float_bias: bool = False
    pairs: str = ""
    note: str = ""

    @property
    def bias_name(self) -> str:
        """What the integers of the bias are named after."""
        return f"{self.bias}_{self.node}" if self.bias else f"{self.node}_bias"


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedActivation:
    """A Relu or Clip behind a quantized kernel.

    Attributes:
        node: Its name.
        input: Value before it.
        output: Value after it, which is quantized.
        low: Lower bound.
        high: Upper bound.
    """

    node: str
    input: str
    output: str
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantPlan:
    """A constant operand of an elementwise operator that is quantized with it.

    Attributes:
        node: The operator.
        index: Input index.
        constant: Initializer.
        spec: Its form.
    """

    node: str
    index: int
    constant: str
    spec: QuantSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlan:
    """A table of constants whose rows are looked up, stored as integers.

    Attributes:
        node: The Gather.
        table: Initializer, float32, rank 2 or more.
        spec: Form of the table: one scale per row.
    """

    node: str
    table: str
    spec: QuantSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentPlan:
    """An LSTM whose weights are integers, and whose inputs and states become integers while it runs.

    Attributes:
        node: Its name.
        weight: Initializer W, float32 (directions, 4·hidden, inputs).
        recurrence: Initializer R, float32 (directions, 4·hidden, hidden).
        spec: Form of both; axis 1 stands for one scale per direction and row, None for one per direction.
        pairs: As of ``LayerPlan``.
    """

    node: str
    weight: str
    recurrence: str
    spec: QuantSpec
    pairs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TiedPlan:
    """A constant that has no integers of its own, because another one has the same values.

    Attributes:
        constant: Initializer.
        source: The initializer whose integers its readers read.
        transposed: Whether it is the transpose of its source (rank 2).
    """

    constant: str
    source: str
    transposed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowConstant:
    """A constant that is stored in a narrower float type.

    Attributes:
        name: Initializer.
        limit: Largest magnitude that it may have; what is beyond is set to it. None for no limit.
        copied: Whether it stays in float32 as well, for nodes that must not read it rounded.
    """

    name: str
    limit: float | None = None
    copied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowPlan:
    """Of the form "float": the narrower type, and what besides nodes (``Action.NARROW``) takes it.

    Attributes:
        dtype: "float16" or "bfloat16".
        constants: Constants that are stored in it.
        convert_io: Whether inputs and outputs become narrow, too.
    """

    dtype: str
    constants: tuple[NarrowConstant, ...] = ()
    convert_io: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All decisions about a model.

    Attributes:
        target: Name of the target.
        form: What is quantized when.
        nodes: Every node of the main graph, in its order; those of bodies in front of the owners of these.
        tensors: Quantized activations by name, in order of production.
        layers: Kernels with weights.
        activations: Relu and Clip behind quantized kernels.
        constants: Constant operands that are quantized.
        tables: Tables that are quantized, one entry for each node that looks rows up.
        recurrent: LSTM nodes with integer weights.
        integer_inputs: (node, input index) of the readings that are to see integers.
        equalization: Strength α with which the channels of the graph were balanced before, 0 for none.
        nearest: Whether weights are rounded to nearest, even where there are samples to round them against.
        choices: Which way was taken where there are several; those about preparation must be applied to the
            model before the plan is.
        contrib_qdq: Whether QuantizeLinear and DequantizeLinear are those of com.microsoft.
        remarks: What the target does with the plan, where that is not what one may expect.
        form: What is quantized when.
        tied: Constants that are stored once, together with another one (weight-only).
        accuracy_level: Of MatMulNBits nodes, where any are written (weight-only).
        narrow: Of the form "float" only.
    """

    target: str
    nodes: tuple[NodePlan, ...]
    tensors: Mapping[str, TensorPlan]
    layers: tuple[LayerPlan, ...] = ()
    activations: tuple[FusedActivation, ...] = ()
    constants: tuple[ConstantPlan, ...] = ()
    tables: tuple[TablePlan, ...] = ()
    recurrent: tuple[RecurrentPlan, ...] = ()
    integer_inputs: tuple[tuple[str, int], ...] = ()
    equalization: float = 0.0
    nearest: bool = False
    choices: Choices = field(default_factory=Choices)
    form: Form = Form.STATIC
    contrib_qdq: bool = False
    remarks: tuple[str, ...] = ()
    tied: tuple[TiedPlan, ...] = ()
    accuracy_level: int = 0
    narrow: NarrowPlan | None = None
    version: int = field(default=PLAN_VERSION)

    def node(self, name: str) -> NodePlan:
        """The plan of node ``name``."""
        return next(node for node in self.nodes if node.name == name)

    def count(self, action: Action) -> int:
        """Number of nodes with ``action``."""
        return sum(node.action is action for node in self.nodes)

    @property
    def quantized(self) -> int:
        """Number of nodes that leave float arithmetic: kernels, moves and what is part of them."""
        return len(self.nodes) - self.count(Action.FLOAT)

    def to_json(self) -> str:
        """Text form, the same from run to run."""
        return json.dumps(_plain(asdict(self)), indent=1, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """Types of this module as JSON types; a type of codes is written by its name."""
    if isinstance(value, dict):
        if set(value) == {"name", "bits", "signed", "format"}:
            return value["name"]
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    return value


def plan_from_json(text: str) -> Plan:
    """The plan that ``to_json`` wrote.

    Raises:
        ConfigError: C103, the text is no plan or one of another version.
    """
    try:
        raw = json.loads(text)
        if raw["version"] != PLAN_VERSION:
            raise ConfigError(
                "C103",
                f"the plan has version {raw['version']}, this quantcli reads version {PLAN_VERSION}",
                hint="make it again with: quantcli convert MODEL --dry-run --plan-out FILE",
            )
        return Plan(
            target=raw["target"],
            form=Form(raw["form"]),
            nodes=tuple(_node(item) for item in raw["nodes"]),
            tensors={name: _tensor(item) for name, item in raw["tensors"].items()},
            layers=tuple(_layer(item) for item in raw["layers"]),
            activations=tuple(
                FusedActivation(**{**item, "low": float(item["low"]), "high": float(item["high"])})
                for item in raw["activations"]
            ),
            constants=tuple(ConstantPlan(**{**item, "spec": _spec(item["spec"])}) for item in raw["constants"]),
            tables=tuple(TablePlan(**{**item, "spec": _spec(item["spec"])}) for item in raw["tables"]),
            recurrent=tuple(RecurrentPlan(**{**item, "spec": _spec(item["spec"])}) for item in raw["recurrent"]),
            integer_inputs=tuple((name, index) for name, index in raw["integer_inputs"]),
            equalization=float(raw["equalization"]),
            nearest=bool(raw["nearest"]),
            choices=Choices(**raw["choices"]),
            contrib_qdq=bool(raw["contrib_qdq"]),
            remarks=tuple(str(remark) for remark in raw["remarks"]),
            tied=tuple(TiedPlan(**item) for item in raw["tied"]),
            accuracy_level=int(raw["accuracy_level"]),
            narrow=_narrow(raw.get("narrow")),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            "C103",
            f"the file is no plan of quantcli, or was damaged: {error}",
            hint="make one with: quantcli convert MODEL --dry-run --plan-out FILE",
        ) from error


def _spec(raw: Mapping[str, Any]) -> QuantSpec:
    return QuantSpec(**{**raw, "dtype": QTYPES[raw["dtype"]]})


def _layer(raw: Mapping[str, Any]) -> LayerPlan:
    held = raw["held"]
    return LayerPlan(
        **{**raw, "weight_spec": _spec(raw["weight_spec"]), "held": None if held is None else QTYPES[held]}
    )


def _node(raw: Mapping[str, Any]) -> NodePlan:
    if not all(isinstance(raw[key], str) for key in ("name", "op_type", "into", "rule")):
        raise TypeError(f"a node's names must be texts: {dict(raw)}")
    reason = None if raw["reason"] is None else Reason(**raw["reason"])
    return NodePlan(**{**raw, "action": Action(raw["action"]), "reason": reason})


def _narrow(raw: Mapping[str, Any] | None) -> NarrowPlan | None:
    if raw is None:
        return None
    if raw["dtype"] not in ("float16", "bfloat16"):
        raise ValueError(f"'{raw['dtype']}' is no narrower float type")
    return NarrowPlan(**{**raw, "constants": tuple(NarrowConstant(**item) for item in raw["constants"])})


def _tensor(raw: Mapping[str, Any]) -> TensorPlan:
    fixed = raw["fixed_range"]
    return TensorPlan(
        **{**raw, "spec": _spec(raw["spec"]), "fixed_range": None if fixed is None else (fixed[0], fixed[1])}
    )
