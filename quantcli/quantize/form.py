"""Forms of quantization: what is quantized when.

STATIC quantizes weights ahead of time and activations with parameters from calibration. DYNAMIC computes the
parameters of activations while the model runs. WEIGHT_ONLY stores weights as integers and computes in float.
FLOAT stores and computes in a narrower float type.
"""

from __future__ import annotations

from enum import StrEnum


class Form(StrEnum):
    """How a model is quantized."""

    STATIC = "static"
    DYNAMIC = "dynamic"
    WEIGHT_ONLY = "weight-only"
    FLOAT = "float"
