"""The shape of a row of the table of targets: what executes a quantized model, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from quantcli.ops.spec import Kernel, OpSpec, Support, Trait

ORT_TABLE = "ort-cpu"
"""Column of the operator table with the kernels of onnxruntime's CPU provider."""

GENERIC_TABLE = "generic"
"""Column with what ONNX itself gives a meaning to in integers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An execution target.

    Attributes:
        name: Name on the command line.
        summary: One sentence.
        contrib: Whether operators of com.microsoft exist there.
        fuses_qdq: Whether placement follows the fusion rules of onnxruntime: a Q/DQ pair is put only where a
            fused integer kernel results.
        guards_float: Whether a float layer between DQ and Q must be guarded, because the runtime would
            quantize its weight per tensor by itself.
        opset: Lowest ai.onnx version whose operators the target runs well in integers.
        silu_operator: Fused operator for x·sigmoid(x), "" where there is none.
        residual_sum: Whether the Add in front of a LayerNormalization is better written as Sum.
        facts: What was measured or read, sentence by sentence.
        source: Where the facts come from.
        runtime: What runs the models, where that is not onnxruntime on a CPU; its kernels cannot be seen here.
        measured: Whether models for it were run on such hardware, so that its facts are measurements.
        session: Settings of an onnxruntime session under which the machine that converts fuses as the target does.
        timed: Whether times on the machine that converts are times of the target.
        table: Column of the operator table that it uses.
        overrides: Operator (of ai.onnx) → its answer, where that is another than the column's.
        wraps: Operators without integer arithmetic of ONNX that it computes in integers nevertheless, so that
            they get Q/DQ around them.
        everything: Whether Q/DQ stand around every operator, and in front of the outputs of the graph.
        quantizes_tables: Whether rows of an int8 table may be looked up and scaled.
        one_residual: Whether of a sum behind a convolution only the other operand is quantized, because the sum
            is part of the convolution's kernel.
        float_residuals: Whether sums in front of a normalization (of transformers) stay in float.
        float_outputs: Whether kernels of two activations may give float; elsewhere Q/DQ follow each of them.
        per_channel_ops: Operators with a scale per output channel of the weight; None for all that have channels.
        float_bias: Whether biases stay in float; elsewhere they are int32 with the scale s_x·s_w.
        saturates: Whether sums of two products saturate at 16 bits, so that layers which can reach that get
            weights of 7 bits.
        power_of_two_outputs: Whether 16-bit results of Sigmoid and Tanh have the scales 2^-16 and 2^-15.
        signed_activations: Whether activations are int8 or int16 rather than uint8 or uint16.
        symmetric: Whether activations have a fixed zero point where the user does not say.
        only_symmetric: Whether activations and weights with other zero points are not understood.
        forms: Forms of quantization that it understands.
        formats: Formats of files.
        activation_widths: Bits of activations.
        weight_widths: Bits of weights of the form "static".
        stored_widths: Bits of weights of the form "weight-only".
        float_types: Names of --bits for floats that it computes with.
        contrib_qdq: Whether it understands Q/DQ of com.microsoft.
        smallest_block: Smallest number of weights that may share a scale; it is a power of two then. 0 for any.
    """

    name: str
    summary: str
    contrib: bool
    fuses_qdq: bool
    guards_float: bool
    opset: int
    silu_operator: str = ""
    residual_sum: bool = False
    facts: tuple[str, ...] = ()
    source: str = ""
    runtime: str = ""
    measured: bool = False
    session: Mapping[str, str] = field(default_factory=dict)
    timed: bool = False
    table: str = GENERIC_TABLE
    overrides: Mapping[str, Support] = field(default_factory=dict)
    wraps: frozenset[str] = frozenset()
    everything: bool = False
    quantizes_tables: bool = True
    one_residual: bool = False
    float_residuals: bool = False
    float_outputs: bool = False
    per_channel_ops: frozenset[str] | None = None
    float_bias: bool = False
    saturates: bool = False
    power_of_two_outputs: bool = False
    signed_activations: bool = False
    symmetric: bool = False
    only_symmetric: bool = False
    forms: tuple[str, ...] = ("static", "dynamic", "weight-only", "float")
    formats: tuple[str, ...] = ("qdq", "qoperator")
    activation_widths: tuple[int, ...] = (16, 8, 4, 2)
    weight_widths: tuple[int, ...] = (16, 8, 4, 2)
    stored_widths: tuple[int, ...] = (16, 8, 4, 2)
    float_types: tuple[str, ...] = ("fp16", "bf16", "fp8")
    contrib_qdq: bool = False
    smallest_block: int = 0

    def support(self, row: OpSpec) -> Support:
        """What the target does with the operator of a row."""
        if not row.domain and row.op_type in self.overrides:
            return self.overrides[row.op_type]
        if not row.domain and row.op_type in self.wraps:
            return Support(kernel=Kernel.INTEGER, note=f"{self.runtime} computes it in integers between Q and DQ")
        return row.on(self.table)

    def seen(self, row: OpSpec) -> OpSpec:
        """The row as the target sees it: operators that it wraps have output parameters of their own."""
        if row.trait is Trait.FLOAT and not row.domain and row.op_type in self.wraps:
            return replace(row, trait=Trait.OWN)
        return row

    @property
    def checked(self) -> str:
        """How far its facts were checked."""
        if self.measured:
            return "measured on such a machine"
        if not self.runtime:
            return "not measured: no such machine was at hand"
        return (
            f"not run here: the rules are those of its documentation; results are run as Q/DQ by onnxruntime's "
            f"CPU provider, not by {self.runtime}"
        )
