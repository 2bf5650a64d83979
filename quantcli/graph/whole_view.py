"""A picture of the whole model, in which the bodies of If, Loop and Scan lie open.

Nodes of a body stand in front of the node that owns it, so that the order stays topological: what a body captures
is made before its owner. Names must be unique over all graphs, which preparation sees to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import onnx_ir as ir

from quantcli.graph.build_view import Constants, node_info, ordered, tensor_info
from quantcli.graph.model import OnnxModel
from quantcli.graph.traverse import body_nodes, captured_values, graph_values, home, open_bodies, open_graphs
from quantcli.graph.view import GraphView, NodeInfo, Yield


def whole_view(model: OnnxModel) -> GraphView:
    """A picture of the main graph and all open bodies as they are now; bodies of other operators stay closed.

    Raises:
        ModelError: As ``OnnxModel.view``.
        ValueError: Two graphs share a name of a node or value.
    """
    main = model.view()
    bodies = {scope: body for scope, (body, _) in open_graphs(model.ir.graph).items()}
    if not bodies:
        return main
    tensors = dict(main.tensors)
    constants = {}
    graphs = {"": model.ir.graph, **bodies}
    for scope, graph in graphs.items():
        for value in graph_values(graph):
            if not value.name:
                continue
            if scope and value.name in tensors:
                raise ValueError(f"two graphs have a value '{value.name}'")
            tensors[value.name] = replace(tensor_info(value, main=not scope), scope=scope)
            if value.is_initializer() and value.const_value is not None:
                constants[value.name] = value.const_value
    nodes = tuple(_nodes(model.ir.graph, "", ""))
    if len({node.name for node in nodes}) != len(nodes):
        raise ValueError("two graphs have nodes of the same name")
    return replace(
        main,
        nodes=nodes,
        tensors=tensors,
        read_constant=Constants(constants),
        received=tuple(value.name for body in bodies.values() for value in body.inputs if value.name),
    )


def _nodes(graph: ir.Graph, scope: str, around: str) -> Iterator[NodeInfo]:
    """Nodes of ``graph`` and of its bodies; paths begin with ``around``."""
    for node in ordered(graph):
        name = str(node.name)
        path = around + name.removeprefix(f"{scope}/")
        opened = list(open_bodies(node))
        for inner, body in opened:
            yield from _nodes(body, inner, f"{path}{inner.removeprefix(name)}/")
        info = node_info(node, _captures(node) if not opened else ())
        yield replace(info, scope=scope, yields=tuple(_yields(node, opened)), path=path if scope else "")


def _captures(node: ir.Node) -> tuple[str, ...]:
    """What closed bodies read of any graph around them."""
    inside = {inner.graph for inner in body_nodes(node)}
    around = {home(value) for inner in body_nodes(node) for value in inner.inputs if value is not None} - inside
    return tuple(
        str(value.name) for graph in around if graph is not None for value in captured_values(node, graph)
    )


def _yields(node: ir.Node, opened: list[tuple[str, ir.Graph]]) -> Iterator[Yield]:
    first = 1 if node.op_type == "Loop" else 0  # before that comes the condition
    for scope, body in opened:
        states = _states(node, body)
        for index, value in enumerate(body.outputs):
            yield Yield(
                value=value.name or "",
                scope=scope,
                output=index - first,
                carried=node.op_type != "If" and 0 <= index - first < states,
            )


def _states(node: ir.Node, body: ir.Graph) -> int:
    """Number of values that iterations hand on."""
    if node.op_type == "Loop":
        return len(body.inputs) - 2
    return len(body.inputs) - node.attributes.get_int("num_scan_inputs", 0)
