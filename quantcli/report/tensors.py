"""What a report says of the tensors inside: where the error is, what made it, and what the runtime adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Finding = Literal[
    "scale", "zero_point", "channels", "bias", "clipping", "resolution", "weight", "nonfinite", "other"
]
"""What is wrong with a layer, in one word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of a tensor's values in the original, in bins of equal width.

    Attributes:
        low: Left edge of the first bin.
        high: Right edge of the last.
        counts: Elements in each bin.
    """

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorError:
    """An activation found in both models.

    Attributes:
        name: In the original.
        quantized_name: Where the same value was read in the quantized model, behind its DequantizeLinear.
        node: Node of the original that makes it; "" for an input.
        op: Its operator.
        position: Order in which the original computes it, from 0.
        elements: Elements compared.
        sqnr: Accumulated error in dB: everything up to here is quantized.
        local_sqnr: Own error in dB: the quantized layer against the original's, both on the quantized model's
            inputs; None where it could not be isolated.
        cosine: Mean over samples.
        max_abs: Largest accumulated error, in the tensor's unit.
        bias: Mean of the local error (quantized − original), in steps of ``scale`` where there is one, else in
            standard deviations of the tensor.
        step_rmse: RMS of the error that quantizing this tensor makes, over its scale; 0.289 (1/√12) is that of
            rounding alone.
        dtype: Integer type; None where the quantized model holds it in float.
        scale: Largest scale of the tensor.
        zero_point: Its zero point; None for more than one.
        low: Smallest value that the integers stand for.
        high: Largest.
        observed_low: Smallest value in the original.
        observed_high: Largest.
        clipped: Share of the original's elements outside [low, high].
        range_used: Length of the observed range inside [low, high] over high − low.
        histogram: Of the original's values.
    """

    name: str
    quantized_name: str
    node: str
    op: str
    position: int
    elements: int
    sqnr: float | None
    local_sqnr: float | None = None
    cosine: float | None = None
    max_abs: float | None = None
    bias: float | None = None
    step_rmse: float | None = None
    dtype: str | None = None
    scale: float | None = None
    zero_point: int | None = None
    low: float | None = None
    high: float | None = None
    observed_low: float | None = None
    observed_high: float | None = None
    clipped: float | None = None
    range_used: float | None = None
    histogram: Histogram | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A layer whose own error is more than quantization explains.

    Attributes:
        node: Node of the original.
        op: Its operator.
        tensor: Tensor or weight where it shows, named as in the original.
        finding: What is wrong, in one word.
        severity: How many times larger the deviation is than what quantization explains.
        sentence: What was found, and what to do.
    """

    node: str
    op: str
    tensor: str
    finding: Finding
    severity: float
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorComparison:
    """Tensors of the original matched with those of the quantized model, over the same samples.

    Attributes:
        samples: Samples that were looked at.
        activations: Activations of the original that could be matched in principle: float results of nodes.
        matched: Of these, found.
        notes: How the rest was lost, by count ("12 inside fused operators").
        tensors: The matched ones, in the order in which the original computes them.
        first_divergence: Name of the first tensor whose accumulated error is more than rounding explains; None
            where there is none.
        suspects: Layers whose own error is more than quantization explains, the likeliest first.
    """

    samples: int
    activations: int
    matched: int
    notes: tuple[str, ...] = ()
    tensors: tuple[TensorError, ...] = ()
    first_divergence: str | None = None
    suspects: tuple[Suspect, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Whose error it is: one output with only the weights, only the activations, and both quantized.

    Attributes:
        output: Name in the original.
        weights_only: SQNR in dB with float activations.
        activations_only: SQNR in dB with float weights.
        both: SQNR in dB of the quantized model, without the runtime's fusions.
    """

    output: str
    weights_only: float | None
    activations_only: float | None
    both: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionDifference:
    """One output of the quantized model with and without the runtime's graph optimizations.

    Attributes:
        output: Name in the original.
        steps: Largest difference, in steps of the output's scale where it is quantized, else of 2⁻⁸ of the
            output's range.
        sqnr: Of the optimized against the unoptimized result, in dB.
        sqnr_optimized: Against the original, as the runtime executes it.
        sqnr_plain: Against the original, without optimizations.
        flagged: Whether the difference is above 2 steps.
    """

    output: str
    steps: float
    sqnr: float | None
    sqnr_optimized: float | None
    sqnr_plain: float | None
    flagged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturationRisk:
    """A layer whose 16-bit sums can overflow on a CPU without VNNI.

    Attributes:
        node: Node of the quantized model.
        op: Its operator.
        worst_pair: Largest 255·(w₁ + w₂) of two neighbouring weights; above 32 767 saturates.
        channels: Output channels that can saturate.
        of: All output channels.
    """

    node: str
    op: str
    worst_pair: int
    channels: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedOutput:
    """An output as a CPU without VNNI would compute it.

    Attributes:
        output: Name in the original.
        sqnr: Against the original, in dB.
        sqnr_exact: The same with exact sums, in dB.
        top1: Share of positions with the same argmax as the original; None without a class axis.
    """

    output: str
    sqnr: float | None
    sqnr_exact: float | None
    top1: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """What the weights prove about CPUs without VNNI, and what such a CPU would give.

    Attributes:
        layers: Layers with uint8 activations and int8 weights.
        safe: Of these, proven never to saturate.
        risks: The others, worst first.
        saturated: Share of the pair sums that did saturate in the emulation; None where it was not run.
        samples: Samples of the emulation.
        outputs: Its results; empty where every layer is proven safe, or nothing was run.
    """

    layers: int
    safe: int
    risks: tuple[SaturationRisk, ...] = ()
    saturated: float | None = None
    samples: int = 0
    outputs: tuple[EmulatedOutput, ...] = ()
