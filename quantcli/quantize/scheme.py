"""What a conversion is asked for, as far as combinations of it may make no sense."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quantcli.ops.target_spec import Target
from quantcli.ops.targets import DEFAULT_TARGET, TARGETS
from quantcli.quantize.form import Form

INTEGER_OPSETS = {16: 21, 8: 0, 4: 21, 2: 25}
"""Bits → first ai.onnx version with integers of so many (8: every one that quantization works with).

Activations of less than 8 bits are 8-bit integers that are clipped, so they need no newer one.
"""

FP8_OPSET = 19

BLOCK_OPSET = 21
"""First ai.onnx version whose DequantizeLinear has blocks."""

FP8 = "fp8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """What is asked for. None stands for what is left to the target.

    Attributes:
        target: Name of the target.
        form: What is quantized when.
        narrow: Name of a float type that is asked for by --bits ("fp16", "bf16", "fp8"), "" for integers.
        weight_bits: Bits of weights.
        activation_bits: Bits of activations.
        signed: Whether activations are signed integers.
        per_channel: Whether weights have a scale per output channel.
        block: Weights that share a scale; 0 for no blocks.
        symmetric: Whether zero points of activations are fixed.
        weight_symmetric: The same of weights.
        pow2_scales: Whether scales are powers of two.
        contrib_qdq: Whether Q/DQ of com.microsoft are written.
        accuracy_level: Of MatMulNBits.
        dynamic_lstm: Whether LSTM becomes DynamicQuantizeLSTM.
        keep_io: Whether inputs and outputs keep their types.
        format: "qdq" or "qoperator".
        placement: "measured", "static" or "".
        opset: ai.onnx version that is asked for.
        calibration: Whether a file of statistics is given.
        typed: Names of options that stand on the command line.
    """

    target: str = DEFAULT_TARGET
    form: Form = Form.STATIC
    narrow: str = ""
    weight_bits: int | None = None
    activation_bits: int | None = None
    signed: bool | None = None
    per_channel: bool = True
    block: int = 0
    symmetric: bool | None = None
    weight_symmetric: bool | None = None
    pow2_scales: bool = False
    contrib_qdq: bool = False
    accuracy_level: int | None = None
    dynamic_lstm: bool = False
    keep_io: bool | None = None
    format: str = "qdq"
    placement: str = ""
    opset: int | None = None
    calibration: bool = False
    typed: frozenset[str] = frozenset()

    @property
    def row(self) -> Target:
        """The target."""
        return TARGETS[self.target]

    @property
    def asked(self) -> str:
        """How the form is asked for."""
        return {
            Form.STATIC: "static quantization",
            Form.DYNAMIC: "--dynamic",
            Form.WEIGHT_ONLY: "--weight-only",
            Form.FLOAT: f"--bits {self.narrow}",
        }[self.form]

    @property
    def widths(self) -> tuple[int, ...]:
        """Bits of all integers that the model gets."""
        if self.narrow:
            return ()
        weights = self.weight_bits or 8
        return (weights, self.activation_bits or 8) if self.form is Form.STATIC else (weights,)

    @property
    def lowest_opset(self) -> int:
        """First ai.onnx version that has all integers; 0 where every one does."""
        if self.narrow == FP8:
            return FP8_OPSET
        if self.contrib_qdq or (self.form is Form.WEIGHT_ONLY and self.format == "qoperator"):
            return 0
        weights, *activations = self.widths or (8,)
        needed = [INTEGER_OPSETS[bits] for bits in activations if bits == 16]
        return max(INTEGER_OPSETS[weights], BLOCK_OPSET if self.block else 0, *needed)

    def filled(self) -> Scheme:
        """The scheme with the target's answers to what was left open."""
        row = self.row
        # MiniLM, 4 bits in blocks of 32: cosine 0.9871 with zero points, 0.9807 without
        zeros = self.form is Form.WEIGHT_ONLY and (self.weight_bits or 8) < 8 and not row.only_symmetric
        return replace(
            self,
            weight_bits=self.weight_bits or 8,
            activation_bits=self.activation_bits or 8,
            signed=(row.signed_activations and self.form is Form.STATIC) if self.signed is None else self.signed,
            symmetric=(row.symmetric or self.narrow == FP8) if self.symmetric is None else self.symmetric,
            weight_symmetric=not zeros if self.weight_symmetric is None else self.weight_symmetric,
            accuracy_level=4 if self.accuracy_level is None else self.accuracy_level,
        )
