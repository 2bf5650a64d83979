"""What a runtime made of a quantized model, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelReport:
    """What the runtime made of the quantized model.

    Attributes:
        integer: Integer kernels by operator name, as found in the optimized graph.
        expected: Number of nodes planned as kernels of their own.
        fused: How many of them run as integer kernels.
        unfused: Node name → why the runtime did not fuse it.
    """

    integer: Mapping[str, int]
    expected: int
    fused: int
    unfused: Mapping[str, str]
