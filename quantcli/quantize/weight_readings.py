"""Readings of weights, and the one form that all readings of a weight agree on.

A weight is stored once. If a reading needs the float copy anyway, all of them keep to it; if readings want
different forms, one that suits each of them is taken; and where there is none, all of them read the weight made
floats again, for every operator can do that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from quantcli.core.spec import QuantSpec
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.ops.reasons import Reason
from quantcli.quantize.plan import Action, TiedPlan
from quantcli.quantize.weight_forms import is_kernel_block
from quantcli.quantize.weight_ports import Port


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightReading:
    """A reading of a weight.

    Attributes:
        node: Who reads.
        index: Input index.
        action: QUANTIZE for a kernel on integers, STORE for a float one, PASSTHROUGH for a lookup.
        constant: Initializer.
        shape: Its shape.
        spec: Its form, as this reading wants it.
        port: The axes; None for a lookup.
        blocks: Whether a lookup can have blocks along its rows: the rank of its indices must be known.
    """

    node: NodeInfo
    index: int
    action: Action
    constant: str
    shape: tuple[int, ...]
    spec: QuantSpec
    port: Port | None = None
    blocks: bool = False

    def accepts(self, spec: QuantSpec) -> bool:
        """Whether this reading can do what it does with a weight in this form."""
        if spec.axis is None:
            return self.action is not Action.PASSTHROUGH
        even = not spec.block or self.shape[spec.axis] % spec.block == 0
        if self.action is Action.STORE:
            return even
        if self.action is Action.PASSTHROUGH:
            if not spec.block:
                return spec.axis == 0
            return self.blocks and even and spec.axis == 1 and len(self.shape) == 2
        assert self.port is not None
        if spec.block:
            return spec.axis == self.port.contraction and is_kernel_block(spec.block)
        return spec.axis == self.port.channel


def agreed(
    view: GraphView, wanted: Sequence[WeightReading], tied: Mapping[str, TiedPlan]
) -> tuple[list[WeightReading], dict[str, Reason]]:
    """Readings that stay, in the order of ``wanted``, and why the others do not, by node."""
    groups: dict[str, list[WeightReading]] = {}
    for reading in wanted:
        root = tied[reading.constant].source if reading.constant in tied else reading.constant
        groups.setdefault(root, []).append(reading)
    kept: dict[tuple[str, int], WeightReading] = {}
    reasons: dict[str, Reason] = {}
    for readings in groups.values():
        blocker = _blocker(view, readings)
        if blocker is None:
            kept |= {(reading.node.name, reading.index): reading for reading in _alike(readings, tied)}
        else:
            reasons |= {reading.node.name: blocker for reading in readings}
    order = ((reading.node.name, reading.index) for reading in wanted)
    return [kept[place] for place in order if place in kept], reasons


def _blocker(view: GraphView, readings: Sequence[WeightReading]) -> Reason | None:
    """Why a weight stays in float: something else needs the float copy."""
    known = {(reading.node.name, reading.index) for reading in readings}
    for name in dict.fromkeys(reading.constant for reading in readings):
        if view.tensors[name].is_output:
            return Reason(code="F233", sentence=f"'{name}' is an output of the graph as well")
        for use in view.uses(name):
            if (use.node.name, use.index) not in known:
                what = f"'{use.node.name}' reads '{name}' in float, so that it would be stored twice"
                return Reason(code="F233", sentence=what)
    return None


def _alike(readings: Sequence[WeightReading], tied: Mapping[str, TiedPlan]) -> list[WeightReading]:
    """The readings of one weight with one form."""

    def turned(reading: WeightReading, spec: QuantSpec) -> QuantSpec:
        """``spec`` between the axes of a reading and those of the weight that is stored, either way."""
        tie = tied.get(reading.constant)
        if tie is None or not tie.transposed or spec.axis is None:
            return spec
        return replace(spec, axis=1 - spec.axis)

    options = list(dict.fromkeys(_options(readings, turned)))
    for option in options:
        if all(reading.accepts(turned(reading, option)) for reading in readings):
            return [replace(reading, spec=turned(reading, option)) for reading in readings]
    stored = [replace(reading, action=Action.STORE) for reading in readings]
    last = replace(options[0], axis=None, block=0)  # one scale for all of it suits everybody
    for option in (*options, last):
        if all(reading.accepts(turned(reading, option)) for reading in stored):
            return [replace(reading, spec=turned(reading, option)) for reading in stored]
    raise AssertionError("a stored weight takes a single scale")


def _options(
    readings: Sequence[WeightReading], turned: Callable[[WeightReading, QuantSpec], QuantSpec]
) -> Iterator[QuantSpec]:
    """Forms that may suit all, in the axes of the stored weight: those of kernels first.

    Where rows of a table cannot be cut into the blocks of a kernel, smaller blocks may divide them.
    """
    kernels = [reading for reading in readings if reading.action is Action.QUANTIZE]
    for reading in kernels:
        yield turned(reading, reading.spec)
    for reading in kernels:
        if not reading.spec.block or reading.port is None:
            continue
        block = math.gcd(reading.spec.block, reading.shape[reading.port.contraction])
        if is_kernel_block(block):
            yield turned(reading, replace(reading.spec, block=block))
        yield turned(reading, replace(reading.spec, axis=reading.port.channel, block=0))
    for reading in readings:
        yield turned(reading, reading.spec)
