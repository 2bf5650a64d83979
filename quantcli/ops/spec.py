"""The shape of a row of the operator table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Trait(StrEnum):
    """How an operator takes part in quantization (constraints have the field's names).

    COMPUTE has a constant weight and accumulates in int32; OWN has its own output parameters; SHARED gives
    its output the parameters of its inputs where that is legal (Concat); PASSTHROUGH moves or selects values,
    so input and output have the same parameters; FIXED has an output range known from its definition; FUSED
    is absorbed by the quantizer after its producer (Relu, Clip); FLOAT has no useful integer form; SHAPE does
    not compute on floats.
    """

    COMPUTE = "compute"
    OWN = "own"
    SHARED = "shared"
    PASSTHROUGH = "passthrough"
    FIXED = "fixed"
    FUSED = "fused"
    FLOAT = "float"
    SHAPE = "shape"


class Role(StrEnum):
    """What an input of an operator is."""

    ACTIVATION = "activation"
    WEIGHT = "weight"
    BIAS = "bias"
    INDEX = "index"


class Kernel(StrEnum):
    """What a target does with the quantized operator."""

    INTEGER = "integer"
    SLOW = "slow"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """One target's answer for one operator.

    Attributes:
        kernel: Whether there is an integer kernel worth having.
        float_output: Whether the kernel can give its result in float (no Q behind it).
        direct: Whether the operator is written on the integers themselves: the target runs it on them, but makes
            nothing of Q/DQ around it.
        note: The cause, with the measured figure where there is one.
    """

    kernel: Kernel
    float_output: bool = False
    direct: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpSpec:
    """One row of the operator table: all that quantcli knows of an operator.

    Attributes:
        op_type: Operator.
        domain: "" for ai.onnx.
        trait: How it takes part.
        ports: Role of each input; inputs past the end have the role of ``rest``.
        rest: Role of further inputs.
        support: Answer of each target by name.
        fixed_range: Output range of FIXED operators.
        qlinear: QLinear operator as "domain.Name" by target (QOperator format); "" where there is none.
        integer_opset: First opset at which a PASSTHROUGH operator takes uint8 by itself.
        note: Anything else a reader of ``quantcli explain`` should know.
    """

    op_type: str
    trait: Trait
    domain: str = ""
    ports: tuple[Role, ...] = (Role.ACTIVATION,)
    rest: Role = Role.INDEX
    support: Mapping[str, Support] = field(default_factory=dict)
    fixed_range: tuple[float, float] | None = None
    qlinear: Mapping[str, str] = field(default_factory=dict)
    integer_opset: int = 7
    note: str = ""

    def role(self, index: int) -> Role:
        """Role of input ``index``."""
        return self.ports[index] if index < len(self.ports) else self.rest

    def on(self, target: str) -> Support:
        """The answer of ``target``; none where the row is silent."""
        return self.support.get(target, Support(kernel=Kernel.NONE))
