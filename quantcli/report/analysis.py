"""What ``quantcli analyze`` has to say: a versioned value, as the report of ``compare`` is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from quantcli.report.facts import ModelFacts
from quantcli.report.schema import DataFacts

ANALYSIS_VERSION = 1

Cause = Literal["outlier channels", "clipping", "rounding", "weights", "bias"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """One layer, with everything that it makes quantized.

    Attributes:
        node: Node of the model.
        op: Its operator.
        position: Order of computation, from 0.
        noise: Noise to signal at the worst output that goes away when the layer is left in float.
        share: Of the whole noise, 0 to 1.
        gain: Predicted gain of the model's SQNR in dB when only this layer is left in float.
        sqnr: SQNR in dB of the worst output with only this layer quantized.
        activation_noise: Part of ``noise`` that its activations make.
        weight_noise: Part that its weight and bias make.
        cause: What makes the error.
        evidence: The figures that say so, in words.
        remedy: What to do about it, as something that can be typed where that is possible.
        cost_ms: Milliseconds that one run takes longer with the layer in float; None where that was not timed.
        cost_bytes: Bytes that the file grows.
    """

    node: str
    op: str
    position: int
    noise: float
    share: float
    gain: float
    sqnr: float | None
    activation_noise: float
    weight_noise: float
    cause: Cause
    evidence: str
    remedy: str
    cost_ms: float | None = None
    cost_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExcludeStep:
    """One line of the exclude block; steps add up, in order.

    Attributes:
        selector: What to give to --exclude.
        predicted: SQNR in dB of the worst output with this and all lines above.
        measured: The same measured by a real run; None where that was not run.
        cost_ms: Milliseconds that one run takes longer, with this line alone added; None where not timed.
        cost_bytes: Bytes that the file grows by it.
    """

    selector: str
    predicted: float
    measured: float | None = None
    cost_ms: float | None = None
    cost_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Sensitivity of every layer.

    Attributes:
        analysis_version: Of this format.
        tools: Versions by name.
        command: How to reproduce it, as typed; None where it was called as a library.
        model: The float model.
        data: The samples.
        threads: Intra-op threads.
        outputs: Names of the outputs that were looked at.
        sqnr: Measured SQNR in dB of the worst output with everything quantized.
        sqnr_predicted: The same as the sum of the parts predicts it.
        checks: Largest difference in dB between prediction and real runs, over those that were made; None
            where there were none.
        layers: Most sensitive first.
        exclude: Exclude block: what to leave in float, best first.
        notes: What else the reader must know.
    """

    analysis_version: int = ANALYSIS_VERSION
    tools: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    model: ModelFacts
    data: DataFacts
    threads: int
    outputs: tuple[str, ...]
    sqnr: float
    sqnr_predicted: float
    checks: float | None = None
    layers: tuple[LayerSensitivity, ...]
    exclude: tuple[ExcludeStep, ...] = ()
    notes: tuple[str, ...] = ()
