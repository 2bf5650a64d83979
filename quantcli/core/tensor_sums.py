"""What is kept of one activation over the samples: sums by channel, extremes, a sample of its values.

With r of the original, q of the quantized model (already in the original's unit) and l of the original's layer
on the quantized model's inputs: Σr², Σ(r − q)², Σr·q, Σq² and the same of l, for each channel, in float64. Nothing
grows with the samples but two extremes each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from quantcli.core.histogram import EMPTY, Histogram, merge, of
from quantcli.core.metrics import sqnr_db

_KEPT = 4096
"""Values of a sample that go into the histogram, evenly spaced."""


@dataclass(slots=True)
class PairByChannel:
    """Sums of a reference a and something measured b, by channel: float64 (channels,) each.

    Attributes:
        aa: Σ a².
        bb: Σ b².
        ab: Σ a·b.
        ee: Σ (a − b)².
        e: Σ (b − a).
        count: Elements of each channel.
        largest: max |a − b|.
        cosine: Sum of the samples' cosine similarities.
        samples: How many there were.
        nonfinite: Elements that are not finite in exactly one of the two, or not the same.
    """

    aa: np.ndarray
    bb: np.ndarray
    ab: np.ndarray
    ee: np.ndarray
    e: np.ndarray
    count: int = 0
    largest: float = 0.0
    cosine: float = 0.0
    samples: int = 0
    nonfinite: int = 0

    @classmethod
    def empty(cls, channels: int) -> PairByChannel:
        """Of nothing."""
        zeros = [np.zeros(channels) for _ in range(5)]
        return cls(zeros[0], zeros[1], zeros[2], zeros[3], zeros[4])

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Add a sample, both float64 (outer, channels, inner)."""
        finite = np.isfinite(a) & np.isfinite(b)
        if not finite.all():
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            self.nonfinite += int((~finite & ~same).sum())
            a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
        error = b - a
        aa, bb = np.einsum("ncx,ncx->c", a, a), np.einsum("ncx,ncx->c", b, b)
        ab = np.einsum("ncx,ncx->c", a, b)
        self.aa += aa
        self.bb += bb
        self.ab += ab
        self.ee += np.einsum("ncx,ncx->c", error, error)
        self.e += np.einsum("ncx->c", error)
        self.count += a.shape[0] * a.shape[2]
        self.largest = max(self.largest, float(np.max(np.abs(error), initial=0.0)))
        norms = math.sqrt(float(aa.sum())) * math.sqrt(float(bb.sum()))
        self.cosine += float(ab.sum()) / norms if norms > 0 else float(aa.sum() == bb.sum())
        self.samples += 1

    @property
    def sqnr(self) -> float | None:
        """SQNR in dB; None where nothing was added."""
        if self.nonfinite:
            return -math.inf
        return sqnr_db(float(self.aa.sum()), float(self.ee.sum())) if self.samples and self.count else None


@dataclass(slots=True)
class RangeSums:
    """How the values of an activation use the range of its integers.

    Attributes:
        count: Elements.
        clipped: Elements outside the range by more than half a step.
        clip_energy: Σ of squares of what they are outside.
        error_energy: Σ (x − Q(x))².
        lows: Smallest value of each sample.
        highs: Largest value of each sample.
        histogram: Of evenly spaced values.
    """

    count: int = 0
    clipped: int = 0
    clip_energy: float = 0.0
    error_energy: float = 0.0
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    histogram: Histogram = EMPTY

    def add(self, values: np.ndarray, scale: float | None, zero_point: int, levels: tuple[int, int]) -> None:
        """Add a sample: float values in the unit of the integers; ``scale`` None where there are none."""
        flat = values.reshape(-1)
        if flat.size == 0 or not np.isfinite(flat).all():
            return
        self.count += flat.size
        self.lows.append(float(flat.min()))
        self.highs.append(float(flat.max()))
        stride = max(1, flat.size // _KEPT)
        self.histogram = merge(self.histogram, of(np.asarray(flat[::stride], dtype=np.float32), weight=stride))
        if scale is None:
            return
        low, high = scale * (levels[0] - zero_point), scale * (levels[1] - zero_point)
        inside = np.clip(flat, low, high)
        outside = flat - inside
        self.clip_energy += float(np.sum(outside * outside))
        self.clipped += int(np.count_nonzero(np.abs(outside) > scale / 2))
        rounded = inside / scale
        rounded -= np.rint(rounded)
        self.error_energy += float(np.sum((rounded * scale + outside) ** 2))
