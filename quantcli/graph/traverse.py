"""Walks over graphs and the bodies nested in them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import onnx_ir as ir


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that are attributes of ``node`` (If, Loop, Scan), not those nested deeper."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def body_nodes(node: ir.Node) -> Iterator[ir.Node]:
    """All nodes in the bodies of ``node``, however deep."""
    for body in bodies(node):
        yield from body.all_nodes()


def nested_graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    """``graph`` and every body in it, however deep; outer ones first."""
    yield graph
    for node in graph:
        for body in bodies(node):
            yield from nested_graphs(body)


def graph_values(graph: ir.Graph) -> Iterator[ir.Value]:
    """The values that ``graph`` defines: inputs, initializers, outputs of nodes. Bodies are left out."""
    yield from graph.inputs
    for value in graph.initializers.values():
        if not value.is_graph_input():
            yield value
    for node in graph:
        yield from node.outputs


OPEN_OPS = frozenset({"If", "Loop", "Scan"})
"""Operators whose bodies lie open in a view of the whole model."""


def open_bodies(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """Scope ("OWNER/ATTRIBUTE") and graph of each body of an If, Loop or Scan, not of those nested deeper."""
    if node.domain or node.op_type not in OPEN_OPS:
        return
    for name, attribute in node.attributes.items():
        if not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPH:
            yield f"{node.name}/{name}", attribute.as_graph()


def open_graphs(graph: ir.Graph) -> dict[str, tuple[ir.Graph, ir.Graph]]:
    """All open bodies in ``graph`` that lie in open bodies themselves: scope → body and the graph around it."""
    found = {}
    for node in graph:
        for scope, body in open_bodies(node):
            found[scope] = (body, graph)
            found.update(open_graphs(body))
    return found


def home(value: ir.Value) -> ir.Graph | None:
    """The graph that makes ``value``, or has it as input or initializer; None where nothing does yet."""
    producer = value.producer()
    owner = value.graph if producer is None else producer.graph
    return owner.graph if isinstance(owner, ir.Function) else owner


def captured_values(node: ir.Node, graph: ir.Graph) -> list[ir.Value]:
    """Values of ``graph`` that the bodies of ``node`` read, in order of first reading, each once."""
    found: dict[ir.Value, None] = {}
    for inner in body_nodes(node):
        for value in inner.inputs:
            if value is not None and value.graph is graph:
                found[value] = None
    return list(found)


def topological_order(graph: ir.Graph) -> list[ir.Node]:
    """Nodes of ``graph`` with producers before readers; ``graph`` is left as it is.

    Kahn's algorithm with the earliest ready node first, so that a sorted graph keeps its order. What a
    body captures counts as read by the node that owns the body.

    Raises:
        ValueError: The graph has a cycle.
    """
    nodes = list(graph)
    index = {node: position for position, node in enumerate(nodes)}
    readers: list[list[int]] = [[] for _ in nodes]
    waiting = [0] * len(nodes)
    for position, node in enumerate(nodes):
        read = [value for value in node.inputs if value is not None] + captured_values(node, graph)
        producers = {index[p] for value in read if (p := value.producer()) is not None and p in index}
        waiting[position] = len(producers)
        for producer in producers:
            readers[producer].append(position)
    ready = [position for position, count in enumerate(waiting) if count == 0]
    order: list[ir.Node] = []
    while ready:
        position = heapq.heappop(ready)
        order.append(nodes[position])
        for reader in readers[position]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) != len(nodes):
        raise ValueError("the graph has a cycle")
    return order
