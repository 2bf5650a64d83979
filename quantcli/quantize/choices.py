"""What may be done in more than one way, and which way is taken.

Rules in tables say what is fast in general; whole graphs on a given machine decide otherwise often enough. Each
field of ``Choices`` is one such decision for the whole model. The first value of each is what the static rules
do; the others are candidates that ``pipeline.placement`` times. The plan holds the choices, so that a recorded
plan gives the same bytes on every machine.

Some choices are about how the float graph is written (``preparation``); the others are about which of its nodes
become integer kernels, and are carried out in one place: ``choice_rules`` for what goes to float, ``kernels``
for grouped convolutions, ``placement`` for the stem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "silu": ("fused", "integer"),
        "residual_norm": ("sum", "add"),
        "average_pool": ("float", "convolution"),
        "stem": ("rule", "integer", "float"),
        "grouped": ("float", "integer"),
        "concat": ("integer", "float"),
        "pools": ("integer", "float"),
        "gates": ("integer", "float"),
        "squeeze_excite": ("integer", "float"),
        "residual": ("integer", "float"),
        "last_layer": ("integer", "float"),
        "whole": ("integer", "float"),
    }
)
"""Field → its values; the static one first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """One way for everything that has several. The defaults are the static rules.

    Attributes:
        silu: x·sigmoid(x): "fused" is one float operator where the target has one, "integer" its two integer
            kernels.
        residual_norm: The Add in front of a LayerNormalization: written as "sum", or left as "add".
        average_pool: AveragePool in "float", or as a depthwise "convolution" where that is exact.
        stem: The first convolution: by the "rule" for depthwise networks, always "integer", or the first
            convolution alone in "float".
        grouped: Grouped convolutions of more than one channel per group in "float" or "integer".
        concat: Concat in "integer" or "float".
        pools: GlobalAveragePool and MaxPool in "integer" or "float".
        gates: Sigmoid, and the Mul that reads it, in "integer" or "float".
        squeeze_excite: The branch of a squeeze-excite block from its pool to its Mul in "integer" or "float".
        residual: Add of two activations in "integer" or "float".
        last_layer: Layers behind which there are no others in "integer" or "float".
        whole: "float" leaves every node in float.
    """

    silu: str = "fused"
    residual_norm: str = "sum"
    average_pool: str = "float"
    stem: str = "rule"
    grouped: str = "float"
    concat: str = "integer"
    pools: str = "integer"
    gates: str = "integer"
    squeeze_excite: str = "integer"
    residual: str = "integer"
    last_layer: str = "integer"
    whole: str = "integer"

    def __post_init__(self) -> None:
        for name, allowed in OPTIONS.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"choice '{name}' is one of {', '.join(allowed)}, not '{value}'")

    @property
    def preparation(self) -> tuple[str, str, str]:
        """The choices that shape the prepared graph: models that differ in them are prepared apart."""
        return self.silu, self.residual_norm, self.average_pool

    @property
    def changed(self) -> dict[str, str]:
        """Field → value of what differs from the static rules."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
