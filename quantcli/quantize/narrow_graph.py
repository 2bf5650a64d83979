"""Structure of a graph that decides where a narrower float type makes sense."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from quantcli.graph.view import GraphView, NodeInfo

MOVES = frozenset({
    "Cast", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity",
    "Pad", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that move values and compute nothing."""

SMALLEST_STORED = 512
"""Elements of a float32 constant below which a Cast takes about as many bytes as it saves."""

_SHAPES = frozenset({"Shape", "Size"})

_INDEX_MATHS = frozenset({
    "Abs", "Add", "Ceil", "Clip", "Div", "Floor", "Max", "Min", "Mod", "Mul", "Neg", "Round", "Sqrt", "Sub",
})  # fmt: skip
"""Operators by which indices and lengths are computed in float."""

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def shape_values(view: GraphView) -> frozenset[str]:
    """Values that follow from shapes and constants alone."""
    found: set[str] = set()
    for node in view.nodes:
        given = (*node.inputs, *node.captures, *(entry.value for entry in node.yields))
        read = [name for name in given if name and not view.is_constant(name)]
        if node.op_type in _SHAPES or (read and all(name in found for name in read)):
            found.update(name for name in node.outputs if name)
    return frozenset(found)


def index_nodes(view: GraphView) -> frozenset[str]:
    """Nodes of simple arithmetic whose results do nothing but become integers."""
    found: set[str] = set()
    for node in reversed(view.nodes):
        if node.op_type not in _INDEX_MATHS or node.domain:
            continue
        uses = [use for name in node.outputs for use in view.uses(name)]
        kept = any(view.tensors[name].is_output for name in node.outputs if name)
        if uses and not kept and all(use.node.name in found or _makes_integers(view, use.node) for use in uses):
            found.add(node.name)
    return frozenset(found)


def _makes_integers(view: GraphView, node: NodeInfo) -> bool:
    return node.op_type == "Cast" and view.tensors[node.outputs[0]].dtype in _INTEGERS


def _is_large_constant(view: GraphView, name: str) -> bool:
    return view.is_constant(name) and view.tensors[name].nbytes >= SMALLEST_STORED * 4


def islands(
    view: GraphView, narrow: Collection[str], ports: Callable[[NodeInfo], list[tuple[int, str]]]
) -> Iterator[str]:
    """Nodes of ``narrow`` that hang together with no node that computes, and with no large constant.

    Args:
        view: The graph.
        narrow: Names of nodes.
        ports: Gives the (index, value) of the inputs of a node that would be narrow.
    """
    group: dict[str, str] = {name: name for name in narrow}

    def root(name: str) -> str:
        while group[name] != name:
            group[name] = name = group[group[name]]
        return name

    worth: set[str] = set()
    for node in view.nodes:
        if node.name not in group:
            continue
        read = ports(node)
        for _, value in read:
            maker = view.producer(value)
            if maker is not None and maker.name in group:
                group[root(maker.name)] = root(node.name)
        if node.op_type not in MOVES or any(_is_large_constant(view, value) for _, value in read):
            worth.add(node.name)
    roots = {root(name) for name in worth}
    yield from (node.name for node in view.nodes if node.name in group and root(node.name) not in roots)
