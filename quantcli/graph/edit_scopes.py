"""The graphs that an editor reaches, what can be seen in each, and what bodies yield."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from quantcli.graph.traverse import bodies, home, open_graphs


class Scopes:
    """The main graph of a model and, where wanted, its open bodies.

    Attributes:
        main: The main graph.
        graphs: Scope ("" for the main graph) → graph, outer ones first.
    """

    def __init__(self, graph: ir.Graph, *, with_bodies: bool) -> None:
        found = open_graphs(graph) if with_bodies else {}
        self.main = graph
        self.graphs = {"": graph, **{scope: body for scope, (body, _) in found.items()}}
        self._around: dict[ir.Graph, tuple[ir.Graph, ...]] = {graph: ()}  # enclosing graphs, the main one first
        for body, outer in found.values():
            self._around[body] = (*self._around[outer], outer)

    def __contains__(self, graph: ir.Graph | ir.Function | None) -> bool:
        return graph in self._around

    def place_for(self, values: Sequence[ir.Value | None]) -> ir.Graph:
        """The outermost graph in which all ``values`` can be read, as far as they belong to a graph by now."""
        graphs = [graph for value in values if value is not None and (graph := home(value)) in self._around]
        return max(graphs, key=lambda graph: len(self._around[graph]), default=self.main)

    def is_result(self, value: ir.Value) -> bool:
        """Whether ``value`` is an output of the main graph, or of a body that is not edited."""
        graph = home(value)
        return value.is_graph_output() and (graph is self.main or graph not in self._around)

    def check_visible(self) -> None:
        """Refuse nodes that read what is in a body that they are not in.

        Raises:
            ValueError: There is such a node.
        """
        for scope, graph in self.graphs.items():
            visible = {graph, *self._around[graph]}
            for node in graph:
                hidden = [v.name for v in node.inputs if v is not None and (home(v) or graph) not in visible]
                if hidden:
                    raise ValueError(f"node '{node.name}' of graph '{scope}' cannot see '{hidden[0]}'")

    def set_yield(self, owner: ir.Node, position: int, old: ir.Value, new: ir.Value) -> None:
        """Let a body of ``owner`` yield ``new``, of the same type, in the place of ``old``.

        Raises:
            ValueError: It does not yield ``old`` there (outputs are counted over all bodies).
        """
        slots = [(body, index) for body in bodies(owner) for index in range(len(body.outputs))]
        body, index = slots[position] if position < len(slots) else (self.main, -1)
        if body is self.main or body not in self._around or body.outputs[index] is not old:
            raise ValueError(f"no body of node '{owner.name}' gives '{old.name}' at this place")
        new.type, new.shape = old.type, old.shape
        body.outputs[index] = new
