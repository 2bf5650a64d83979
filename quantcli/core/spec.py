"""What is wanted of a tensor (QuantSpec) and what was found for it (QuantParams)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantcli.core.dtypes import QType


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantSpec:
    """The wanted form of a quantized tensor.

    Attributes:
        dtype: Type of the codes.
        symmetric: Zero point fixed at the middle of the type's range (0 for signed types, 2^(bits-1) for
            unsigned ones; 0 for unsigned types of tensors that cannot be negative). Float types are always so.
        axis: Channel axis for per-channel granularity; the axis that is cut into blocks where ``block`` is not 0;
            None for per-tensor.
        narrow: Use [-qmax, qmax] of a signed type, so that negation is exact.
        block: Values along ``axis`` that share a scale (per-block granularity); 0 for none. As
            DequantizeLinear's ``block_size`` (ai.onnx 21), the last block may be shorter.
        pow2: Scales are powers of two, so that fixed-point hardware rescales by shifts.
    """

    dtype: QType
    symmetric: bool = False
    axis: int | None = None
    narrow: bool = False
    block: int = 0
    pow2: bool = False

    def __post_init__(self) -> None:
        if self.block and self.axis is None:
            raise ValueError("blocks lie along an axis")
        if self.dtype.floating and not self.symmetric:
            raise ValueError("float types have no zero points")

    @property
    def qmin(self) -> int:
        """Smallest value used."""
        return -self.dtype.qmax if self.narrow and self.dtype.signed else self.dtype.qmin

    @property
    def qmax(self) -> int:
        """Largest value used."""
        return self.dtype.qmax

    @property
    def per_channel(self) -> bool:
        """Whether there is one scale per channel."""
        return self.axis is not None and not self.block

    @property
    def per_block(self) -> bool:
        """Whether there is one scale per block of values along ``axis``, and per value of the other axes."""
        return self.block > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantParams:
    """Scale and zero point: ``x ≈ scale · (q − zero_point)``.

    Attributes:
        spec: The form these parameters belong to.
        scale: float32, shape () per tensor or (channels,); per block, the tensor's shape with ⌈n / block⌉ in place
            of n on ``spec.axis``. Finite and > 0.
        zero_point: ``spec.dtype.storage``, same shape as ``scale``.
    """

    spec: QuantSpec
    scale: np.ndarray
    zero_point: np.ndarray

    def __post_init__(self) -> None:
        scale = np.asarray(self.scale, dtype=np.float32).copy()
        zero_point = np.asarray(self.zero_point, dtype=self.spec.dtype.storage).copy()
        fits = scale.ndim == int(self.spec.per_channel)
        if self.spec.per_block:
            fits = scale.ndim > (self.spec.axis or 0)
        if scale.shape != zero_point.shape or not fits:
            raise ValueError(f"scale {scale.shape} and zero point {zero_point.shape} do not fit {self.spec}")
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError("scales must be finite and positive")
        scale.setflags(write=False)
        zero_point.setflags(write=False)
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "zero_point", zero_point)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, QuantParams)
            and self.spec == other.spec
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    def __hash__(self) -> int:
        return hash((self.spec, self.scale.tobytes(), self.zero_point.tobytes()))
