"""A model in parts that follow each other, none of which has many weights.

Nodes are taken in topological order. A part ends where the next node would bring its constants over a limit,
unless a value would have to pass from part to part that cannot be handed over as an array. A node whose own
constants are larger than the limit is a part by itself; small constants (bias, scale) do not begin a part. What
is computed from constants alone (the DequantizeLinear of a weight), and what makes floats of integers or integers
of floats in front of a kernel, belongs to every part that reads it, and does not pass from part to part: runtimes
fuse it with its reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from quantcli.graph.extract import Extractor, Piece
from quantcli.graph.ir_types import tensor_dtype
from quantcli.graph.model import OnnxModel
from quantcli.graph.traverse import captured_values

_SEQUENCES = frozenset({
    "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceMap", "SplitToSequence",
    "Optional",
})  # fmt: skip

_JOINED = frozenset({"DequantizeLinear", "DynamicQuantizeLinear"})
"""Operators that stay with their readers."""

_SMALL_SHARE = 64
"""Constants of less than this part of the limit begin no part."""

_RANDOM = frozenset({
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli",
})  # fmt: skip

_NO_NUMPY = frozenset({
    "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    "float4_e2m1fn", "int4", "uint4", "int2", "uint2",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """One part.

    Attributes:
        piece: Its nodes as a model.
        needed: Names of values that later parts read, or that are outputs of the whole model.
    """

    piece: Piece
    needed: frozenset[str]


class Parts:
    """The parts of one model, which is left as it is.

    Args:
        model: Every node of its main graph has a name of its own.
        limit_bytes: Of the constants of a part.

    Raises:
        ModelError: The graph has a cycle (M102).
    """

    def __init__(self, model: OnnxModel, limit_bytes: int) -> None:
        model.sort()
        self._graph = model.ir.graph
        self._extractor = Extractor(model)
        self._reads = {node: self._read_by(node) for node in self._graph}
        self._feeders = self._find_feeders()
        self._own = [node for node in self._graph if node not in self._feeders]
        self._last_read = self._last_reads()
        self._groups = list(self._grouped(limit_bytes))

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Part]:
        """One part after the other; it reads inputs of the model and outputs of earlier parts."""
        end = 0
        for group in self._groups:
            end += len(group)
            needed = frozenset(str(value.name) for value, last in self._last_read.items() if last >= end)
            outputs = [str(out.name) for node in group for out in node.outputs if out.name and out.name in needed]
            if outputs:
                members = {*group, *(feeder for node in group for feeder in self._fed_by(node))}
                names = [str(node.name) for node in self._graph if node in members]
                yield Part(self._extractor.piece(names, outputs), needed)

    def _read_by(self, node: ir.Node) -> list[ir.Value]:
        return [value for value in (*node.inputs, *captured_values(node, self._graph)) if value is not None]

    def _find_feeders(self) -> dict[ir.Node, set[ir.Node]]:
        """Nodes that stay with their readers, each with all those that it needs itself."""
        found: dict[ir.Node, set[ir.Node]] = {}
        fixed: set[ir.Node | None] = set()
        for node in self._graph:
            if node.op_type in _RANDOM or any(value.is_graph_output() for value in node.outputs):
                continue
            read = self._reads[node]
            if all(_is_constant(value) or value.producer() in fixed for value in read):
                fixed.add(node)
            if node in fixed or node.op_type in _JOINED:
                found[node] = {node, *self._needed(read, found)}
        return found

    def _fed_by(self, node: ir.Node) -> set[ir.Node]:
        return self._needed(self._reads[node], self._feeders)

    @staticmethod
    def _needed(read: Iterable[ir.Value], feeders: Mapping[ir.Node, set[ir.Node]]) -> set[ir.Node]:
        """Those of ``feeders`` that make the values ``read``, and what they need themselves."""
        producers = {node for value in read if (node := value.producer()) is not None}
        return set().union(*(feeders[node] for node in producers if node in feeders))

    def _last_reads(self) -> dict[ir.Value, int]:
        """For each value the position of the last node that reads it, past the last one for outputs."""
        last = {
            value: position
            for position, node in enumerate(self._own)
            for one in (node, *self._fed_by(node))
            for value in self._reads[one]
        }
        return last | dict.fromkeys(self._graph.outputs, len(self._graph))

    def _grouped(self, limit_bytes: int) -> Iterator[list[ir.Node]]:
        group: list[ir.Node] = []
        constants: set[ir.Value] = set()
        held: dict[ir.Value, int] = {}  # values that cannot be handed over → where they are last read
        for position, node in enumerate(self._own):
            read = {
                value for one in (node, *self._fed_by(node)) for value in self._reads[one] if _is_constant(value)
            }
            held = {value: last for value, last in held.items() if last >= position}
            begins = _bytes(read - constants) * _SMALL_SHARE >= limit_bytes
            if group and not held and begins and _bytes(constants | read) > limit_bytes:
                yield group
                group, constants = [], set()
            group.append(node)
            constants |= read
            for value in node.outputs:
                if not _can_be_handed_over(node, value):
                    held[value] = self._last_read.get(value, -1)
        if group:
            yield group


def _is_constant(value: ir.Value) -> bool:
    return value.is_initializer() and not value.is_graph_input()


def _bytes(constants: set[ir.Value]) -> int:
    return sum(int(value.const_value.nbytes) for value in constants if value.const_value is not None)


def _can_be_handed_over(node: ir.Node, value: ir.Value) -> bool:
    """Whether a run gives ``value`` as an array that another run takes."""
    if node.op_type in _SEQUENCES or isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
        return False
    return tensor_dtype(value) not in _NO_NUMPY
