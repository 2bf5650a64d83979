"""How much work a conversion may take, as data.

SQNR in dB by nearest rounding → fast → balanced: squeezenet 32 → 35 → 37, mobilenetv1 12 → 25 → 26, resnet20
29 → 30 → 30. 32 samples and 4 000 rows are on a flat optimum. docs/benchmarks.md has the present figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """A level of effort.

    Attributes:
        name: As users write it.
        summary: One line for help and docs.
        samples: Calibration samples that the sweep walks with.
        rows: Input rows of a layer from which its rounding is fitted.
        gptq: Whether weights are rounded against the data; otherwise only biases are corrected.
        alphas: Strengths of equalization that are tried; the first is the default, more are compared on samples
            that the sweep did not see.
        placement: Whether placement is measured where the target allows it.
        placement_budgets: How many times the usual time measuring may take.
        rescue_db: SQNR below which tensors are left in float until it is reached; None for never.
    """

    name: str
    summary: str
    samples: int
    rows: int
    gptq: bool
    alphas: tuple[float, ...]
    placement: bool
    placement_budgets: float = 1.0
    rescue_db: float | None = None


_ALL = (
    Effort(
        name="fast",
        summary="equalized channels, nearest rounding, corrected biases (16 samples)",
        samples=16,
        rows=1000,
        gptq=False,
        alphas=(0.4,),
        placement=False,
    ),
    Effort(
        name="balanced",
        summary="equalized channels, weights rounded against the data, corrected biases (32 samples); "
        "placement is measured",
        samples=32,
        rows=4000,
        gptq=True,
        alphas=(0.5, 0.0),
        placement=True,
    ),
    Effort(
        name="max",
        summary="as balanced with 64 samples; the strength of equalization is chosen on samples held out; "
        "below 20 dB the tensors at fault are left in float",
        samples=64,
        rows=8000,
        gptq=True,
        alphas=(0.5, 0.0, 0.3, 0.7),
        placement=True,
        placement_budgets=4.0,
        rescue_db=20.0,
    ),
)

EFFORTS: Mapping[str, Effort] = MappingProxyType({effort.name: effort for effort in _ALL})
"""Levels by name, cheapest first."""

DEFAULT_EFFORT = "balanced"
