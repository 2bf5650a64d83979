"""The original cut at every value that was matched, so that each layer runs on what the quantized model computed.

For a matched value t its *piece* is what lies between t and the matched values (and inputs) before it. Fed with
the quantized model's values, a piece gives what the original's layer would have made of them: the difference to
the quantized model's own t is that layer's local error, free of what came before. Pieces of many values are one
model: each reads fed values only, never another piece's result.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from quantcli.graph.extract import Extractor, Reading
from quantcli.graph.view import GraphView, NodeInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Pieces, before they are made.

    Attributes:
        nodes: Nodes, in order.
        outputs: Values wanted.
        readings: Reading → matched value, for those that are made inside as well.
        sources: Matched values that must be fed.
    """

    nodes: tuple[str, ...]
    outputs: tuple[str, ...]
    readings: dict[Reading, str]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """Pieces as a model.

    Attributes:
        model: Serialized.
        feeds: Input of the model → value that is fed there: a matched one, or an input of the original.
        outputs: Values that it gives.
    """

    model: bytes
    feeds: dict[str, str]
    outputs: tuple[str, ...]


def cut_at(view: GraphView, wanted: Sequence[str], matched: Collection[str]) -> Cut:
    """The pieces that make ``wanted``, cut at ``matched`` values."""
    nodes: set[str] = set()
    sources: set[str] = set()
    for value in wanted:
        pending: list[NodeInfo] = [node for node in [view.producer(value)] if node is not None]
        while pending:
            node = pending.pop()
            if node.name in nodes:
                continue
            nodes.add(node.name)
            for name in (*node.inputs, *node.captures):
                if name in matched:
                    sources.add(name)
                    continue
                maker = view.producer(name) if name else None
                if maker is not None:
                    pending.append(maker)
    order = [node for node in view.nodes if node.name in nodes]
    made = {name for node in order for name in node.outputs}
    readings = {
        (node.name, index): name
        for node in order
        for index, name in enumerate(node.inputs)
        if name in matched and name in made
    }
    return Cut(
        nodes=tuple(node.name for node in order),
        outputs=tuple(wanted),
        readings=readings,
        sources=tuple(sorted(sources)),
    )


def local_model(extractor: Extractor, cut: Cut) -> LocalModel:
    """The pieces of ``cut`` as one model.

    Raises:
        ModelError: They do not fit into one message (M106).
    """
    piece = extractor.piece(cut.nodes, cut.outputs, tuple(cut.readings))
    feeds = {name: name for name in piece.inputs}
    feeds |= {name: cut.readings[reading] for reading, name in piece.redirected.items()}
    return LocalModel(model=piece.model.to_bytes(), feeds=feeds, outputs=piece.outputs)
