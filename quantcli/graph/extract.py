"""Pieces of a graph as models of their own.

A piece is some nodes of the main graph. What they read and do not make becomes an input of the piece, constants
stay constants, and single readings can be redirected to inputs of their own: one value may then be fed as it is to
one node and rounded to another, and a weight may be fed in place of the constant.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from quantcli.graph.model import OnnxModel
from quantcli.graph.names import unique_name
from quantcli.graph.traverse import captured_values, graph_values

Reading = tuple[str, int]
"""Node and input index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Nodes as a model.

    Attributes:
        model: The model; shapes of its inputs and outputs are left open.
        inputs: Values of the graph that must be fed under their own names.
        redirected: Reading → name of the input that stands for it.
        outputs: Values that it gives.
    """

    model: OnnxModel
    inputs: tuple[str, ...]
    redirected: Mapping[Reading, str]
    outputs: tuple[str, ...]


class Extractor:
    """Cuts pieces out of one model, which is left as it is."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._graph = model.ir.graph
        self._nodes = {node.name: node for node in self._graph if node.name}
        self._names = {value.name for value in graph_values(self._graph) if value.name}

    def piece(self, nodes: Sequence[str], outputs: Sequence[str], redirect: Collection[Reading] = ()) -> Piece:
        """The model of ``nodes``.

        Args:
            nodes: Names of nodes of the main graph, in topological order.
            outputs: Values that they make and that are wanted; at least one.
            redirect: Readings of these nodes that get inputs of their own; an input that is absent is added.

        Raises:
            KeyError: There is no such node.
            ValueError: A wanted output is made by none of the nodes.
        """
        members = [self._nodes[name] for name in nodes]
        made = {value.name: value for node in members for value in node.outputs if value.name}
        missing = [name for name in outputs if name not in made]
        if missing:
            raise ValueError(f"none of the nodes makes '{missing[0]}'")
        values, constants = self._read(members)
        cut = ir.GraphView(
            inputs=values,
            outputs=[made[name] for name in outputs],
            nodes=members,
            initializers=constants,
            name=self._graph.name,
            opset_imports=self._model.ir.opset_imports,
        ).clone()
        redirected = self._redirect(cut, members, redirect)
        _drop_unread(cut)
        for value in (*cut.inputs, *cut.outputs):
            value.shape = None
        piece = ir.Model(cut, ir_version=self._model.ir_version, functions=list(self._model.ir.functions.values()))
        return Piece(
            model=OnnxModel(piece, sources=self._model.sources),
            inputs=tuple(value.name or "" for value in cut.inputs if value.name not in redirected.values()),
            redirected=redirected,
            outputs=tuple(outputs),
        )

    def _read(self, members: Sequence[ir.Node]) -> tuple[list[ir.Value], list[ir.Value]]:
        """Values that the nodes read and do not make, and constants among what they read."""
        inside = {value for node in members for value in node.outputs}
        values: dict[ir.Value, None] = {}
        constants: dict[ir.Value, None] = {}
        for node in members:
            for value in (*node.inputs, *captured_values(node, self._graph)):
                if value is None or value in inside:
                    continue
                kind = constants if value.is_initializer() and not value.is_graph_input() else values
                kind[value] = None
        return list(values), list(constants)

    def _redirect(
        self, cut: ir.Graph, members: Sequence[ir.Node], redirect: Collection[Reading]
    ) -> dict[Reading, str]:
        """Give ``redirect`` inputs of their own; types are those of what was read before."""
        copies = {node.name: node for node in cut}
        found: dict[Reading, str] = {}
        taken = set(self._names)
        for node in members:
            for index in sorted(index for name, index in redirect if name == node.name):
                name = unique_name(f"{node.name}:{index}", taken)
                fresh = ir.Value(name=name, type=_type_of(node, index))
                cut.inputs.append(fresh)
                copy = copies[node.name]
                if index >= len(copy.inputs):
                    copy.resize_inputs(index + 1)
                copy.replace_input_with(index, fresh)
                found[str(node.name), index] = name
        return found


def _drop_unread(graph: ir.Graph) -> None:
    """Remove inputs and constants that lost their readers."""
    for value in list(graph.initializers.values()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[str(value.name)]
    for value in [value for value in graph.inputs if not value.uses() and not value.is_graph_output()]:
        graph.inputs.remove(value)


def _type_of(node: ir.Node, index: int) -> ir.TypeProtocol | None:
    """Type of what ``node`` reads at ``index``; an absent input has the type of the first one."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        value = node.inputs[0]
    if value is None:
        return None
    if value.const_value is not None:
        return ir.TensorType(value.const_value.dtype)
    return value.type
