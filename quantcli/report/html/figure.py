"""What charts share: the figure that they are part of, and their colours by model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from quantcli.report.html import svg

MODELS = ("original", "quantized")
"""The two models, in this order in every chart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart with what is said about it.

    Attributes:
        title: Heading.
        caption: How to read it.
        markup: SVG, safe.
        size: How much room it takes: the width of the page, half of it, or a tile among others.
    """

    title: str
    caption: str
    markup: str
    size: Literal["wide", "half", "tile"] = "half"


def finite(value: float | None) -> float | None:
    """The value where it can be drawn."""
    return value if value is not None and math.isfinite(value) else None


def colours(domain: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
    """A colour scale with a legend."""
    return {"scale": {"domain": list(domain), "range": list(values)}}


def by_model() -> dict[str, Any]:
    """The colour of each model."""
    return colours(MODELS, (svg.ORIGINAL, svg.QUANTIZED))
