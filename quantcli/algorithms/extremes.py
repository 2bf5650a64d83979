"""What equalization works on: extremes of channels, and how much is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelExtremes:
    """Extremes of a tensor's channels.

    Attributes:
        low: Minimum of each channel, float64 (C,).
        high: Maximum of each channel, float64 (C,).
    """

    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualizationOptions:
    """How much is equalized.

    Attributes:
        alpha: Exponent of ρ, 0 (nothing) to 1 (all channels use the whole range on the calibration data).
        floor: Smallest ρ that counts.
        smoothing: Whether explicit multiplications may be added.
        smoothing_alpha: Exponent for these, and for scales that a normalization absorbs.
        smoothing_floor: Smallest ρ for the same.
        conv_smoothing: Whether multiplications may be added in front of convolutions, which costs time.
    """

    alpha: float = 0.6
    floor: float = 0.1
    smoothing: bool = True
    smoothing_alpha: float = 0.6
    smoothing_floor: float = 0.02
    conv_smoothing: bool = False
