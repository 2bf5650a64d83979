"""What every node's quantization costs, and which nodes to leave in float: predictions from the noise of parts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from quantcli.algorithms.noise_parts import TENSOR, parts_of
from quantcli.algorithms.part_noise import PartNoise, decibels, lost_parts
from quantcli.pipeline.carry_out import Made
from quantcli.pipeline.left_in_float import plan_without
from quantcli.pipeline.types import ConvertRequest
from quantcli.progress import Progress
from quantcli.quantize.body_plans import main_part
from quantcli.quantize.plan import Action, Plan

WORTH_DB = 0.2
"""A line of the exclude block gains at least so much."""

MOST_LINES = 5
"""Lines of the block where no target is set."""

_LOOKED_AT = 12
"""Nodes that are tried for a line: those with the largest gains by themselves, and their neighbours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGain:
    """One node left in float.

    Attributes:
        node: Its name.
        parts: Parts of the quantization that go with it.
        gain: SQNR in dB that the worst output gains.
    """

    node: str
    parts: tuple[str, ...]
    gain: float


class LayerGains:
    """Gains of nodes of one conversion.

    Args:
        made: The conversion.
        noise: Noise of its parts.
        request: How it was made.
        named: Nodes that can be named: those of the graph before equalization.
        progress: Told of every node.
    """

    def __init__(
        self, made: Made, noise: PartNoise, request: ConvertRequest, named: Collection[str], progress: Progress
    ) -> None:
        self._made, self._noise, self._request = made, noise, request
        self._before = self._groups(made.plan)
        self._plans: dict[tuple[str, ...], Plan] = {}
        tables = {table.node for table in made.plan.tables}
        nodes = [
            n.name
            for n in made.plan.nodes
            if (n.action is Action.QUANTIZE or n.name in tables) and n.name in named
        ]
        layers = {layer.node for layer in made.plan.layers}
        progress.start("plan each layer in float", len(nodes))
        found = []
        for node in nodes:
            parts = self.parts((node,))
            if parts or node in layers:
                found.append(NodeGain(node=node, parts=parts, gain=self.gain(parts)))
            progress.advance()
        progress.finish()
        self.ranked = tuple(sorted(found, key=lambda item: (-item.gain, item.node)))
        self.idle = len(nodes) - len(found)

    def parts(self, nodes: Sequence[str]) -> tuple[str, ...]:
        """Parts that go when ``nodes`` are left in float."""
        return lost_parts(self._before, self._groups(self.plan(nodes)))

    def plan(self, nodes: Sequence[str]) -> Plan:
        """The plan with ``nodes`` in float."""
        key = tuple(sorted(nodes))
        if key not in self._plans:
            self._plans[key] = plan_without(self._made, self._request, key)
        return self._plans[key]

    def gain(self, parts: Collection[str]) -> float:
        """SQNR in dB that the output gains without ``parts``."""
        everything = self._noise.left(())
        return decibels(self._noise.left(parts)) - decibels(everything) if everything > 0 else 0.0

    def sqnr(self, nodes: Sequence[str]) -> float:
        """Predicted SQNR with ``nodes`` in float."""
        return decibels(self._noise.left(self.parts(nodes)))

    def block(self, target: float | None) -> tuple[str, ...]:
        """Nodes to leave in float, best first: while they are worth it, or until the target is reached."""
        chosen: list[str] = []
        reached = self.sqnr(())
        while len(chosen) < len(self.ranked):
            if target is None and len(chosen) == MOST_LINES:
                break
            if target is not None and reached >= target:
                break
            tried = [(self.sqnr([*chosen, node]), node) for node in self._candidates(chosen)]
            if not tried:
                break
            best, node = max(tried, key=lambda item: item[0])
            if best - reached < (WORTH_DB if target is None else 0) or best <= reached:
                break
            chosen.append(node)
            reached = best
        return tuple(chosen)

    def _candidates(self, chosen: Sequence[str]) -> tuple[str, ...]:
        """The best of the others, and readers of what a chosen node reads: only all of them free a tensor."""
        rest = [item.node for item in self.ranked if item.node not in chosen]
        view = self._made.bench.view
        read = {value for node in chosen for value in view.node_by_name[node].inputs}
        near = [node for node in rest if read.intersection(view.node_by_name[node].inputs)]
        return tuple(dict.fromkeys((*rest[:_LOOKED_AT], *near[:_LOOKED_AT])))

    def _groups(self, plan: Plan) -> dict[str, str]:
        """Part → its sharing group, "" for constants."""
        known = {**plan.tensors, **self._made.plan.tensors}  # one name of a group for all plans
        return {
            key: known[key.removeprefix(TENSOR)].group if key.startswith(TENSOR) else ""
            for key in parts_of(main_part(plan, self._made.bench.view), self._made.bench.view)
        }
