"""What was found for a model, and what must hold of it.

Of quantcli's default, for every model: top-1 drop at most 1 percentage point; SQNR not below that of any model of
another tool that is as fast (takes at most 1.02 times as long); time at most 1.02 times that of onnxruntime's best
static model; and, where convolutions and matrix products take at least half of the float model's time, not slower
than float. Besides, what conditions.toml says of the model; where it is strict there, every onnxruntime form is a
rival, however slow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from makers import ONNXRUNTIME, QUANTCLI, Made, Maker
from measure import Latency, Quality
from models import Case

MOST_DROP = 1.0  # percentage points of top-1
MOST_SLOWER = 1.02  # times theirs
SQNR_SLACK = 0.005  # dB: what the table shows as equal is equal
DOMINATED = 0.5  # share of float time in convolutions and matrix products
UNCHANGED = 100.0  # dB; above it, nothing was quantized


@dataclass(kw_only=True)
class Result:
    """What was found for one model.

    Attributes:
        case: The model.
        makers: Who was asked, in the order of the table.
        share: Part of the float model's time in convolutions and matrix products.
        made: What came of it, by maker.
        quality: By maker, where there is a model that runs.
        sizes: Size relative to float, by maker.
        latency: All in turn.
    """

    case: Case
    makers: list[Maker]
    share: float = 0.0
    made: dict[str, Made] = field(default_factory=dict)
    quality: dict[str, Quality] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    latency: Latency | None = None

    @property
    def ours(self) -> str:
        """The maker that is judged."""
        return next(maker.name for maker in self.makers if maker.judged)

    @property
    def refused(self) -> str | None:
        """The code with which quantcli says that it cannot quantize this model; None where it did, or crashed."""
        found = re.search(r"error\[(M\d+)\]", self.made[self.ours].error or "")
        return found and found[1]

    def best(self, *tools: str) -> str | None:
        """The most accurate int8 model of these tools; None where they made none."""
        return self._most_accurate([maker.name for maker in self.makers if maker.tool in tools])

    def _most_accurate(self, names: list[str]) -> str | None:
        quantized = [n for n in names if n in self.quality and self.quality[n].judged < UNCHANGED]
        return max(quantized, key=lambda name: self.quality[name].judged, default=None)

    @property
    def others(self) -> list[str]:
        """Tools besides quantcli and onnxruntime."""
        return sorted({maker.tool for maker in self.makers} - {QUANTCLI, ONNXRUNTIME})

    @property
    def rival(self) -> str | None:
        """The most accurate int8 model of other tools that ours is compared with."""
        names = [
            maker.name
            for maker in self.makers
            if maker.tool != QUANTCLI
            and (
                (self.case.strict and maker.tool == ONNXRUNTIME) or self.time(maker.name, self.ours) <= MOST_SLOWER
            )
        ]
        return self._most_accurate(names)

    def time(self, name: str, base: str = "float") -> float:
        """Latency of one model relative to another's; not a number where it was not measured."""
        return math.nan if self.latency is None else self.latency.ratios.get((name, base), math.nan)

    @property
    def failures(self) -> list[str]:
        """Conditions that do not hold."""
        if self.refused:
            return []
        failures = [
            f"no model: {maker.name}"
            for maker in self.makers
            if maker.tool == QUANTCLI and maker.name not in self.quality
        ]
        if self.ours in self.quality:
            failures += [*self._general(), *self._limits()]
        return failures

    @property
    def verdict(self) -> str:
        """PASS, FAIL and why, or refused."""
        if self.refused:
            return f"refused ({self.refused})"
        return "FAIL: " + "; ".join(self.failures) if self.failures else "PASS"

    def _general(self) -> Iterator[str]:
        ours = self.quality[self.ours]
        if ours.drop is not None and ours.drop > MOST_DROP:
            yield f"top-1 drop {ours.drop:.2f} pp > {MOST_DROP:.0f}"
        best = self.rival
        if best is not None and ours.judged < self.quality[best].judged - SQNR_SLACK:
            yield f"SQNR {ours.judged:.2f} < {self.quality[best].judged:.2f} dB of {best}"
        static = self.time(self.ours, "onnxruntime static")
        if static > MOST_SLOWER:
            yield f"time {static:.3f} × onnxruntime static > {MOST_SLOWER}"
        if self.share >= DOMINATED and self.time(self.ours) > 1:
            yield f"time {self.time(self.ours):.3f} × float > 1"

    def _limits(self) -> Iterator[str]:
        ours, limits = self.quality[self.ours], self.case.limits
        lower = {"sqnr": ours.judged, "cosine": ours.cosine, "agreement": ours.agreement}
        upper = {
            "time": self.time(self.ours),
            "size": self.sizes[self.ours],
            "seconds": self.made[self.ours].processor_seconds,
        }
        for name in limits:
            value = {**lower, **upper}[name]
            if value is None or math.isnan(value):
                yield f"{name} not measured"
            elif value < limits[name] if name in lower else value > limits[name]:
                yield f"{name} {value:.4g}, must be {'≥' if name in lower else '≤'} {limits[name]:g}"
