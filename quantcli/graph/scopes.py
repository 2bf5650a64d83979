"""Names across nested graphs.

onnxruntime accepts bodies (If, Loop, Scan) whose values have the name of a value outside, which they then
hide. Edits outside could make such a body read the wrong value, so hidden names are resolved at load time:
names inside a body bind nothing outside, so the meaning stays.
"""

from __future__ import annotations

import onnx_ir as ir

from quantcli.graph.traverse import bodies, graph_values, nested_graphs


def rename_hiding_values(graph: ir.Graph) -> None:
    """Give each value of a body that hides one of an enclosing graph a name that no graph has."""
    graphs = list(nested_graphs(graph))
    if len(graphs) > 1:
        taken: set[str | None] = {value.name for nested in graphs for value in graph_values(nested)}
        _rename(graph, frozenset(), taken)


def separate_values(graph: ir.Graph) -> None:
    """Give each value of a body a name that no other graph has, so that names alone tell values apart."""
    graphs = list(nested_graphs(graph))
    taken: set[str | None] = {value.name for nested in graphs for value in graph_values(nested)}
    seen: set[str] = set()
    for nested in graphs:
        for value in list(graph_values(nested)):
            if not value.name:
                continue
            if value.name in seen:
                _rename_value(value, taken)
            seen.add(str(value.name))


def _rename(graph: ir.Graph, outer: frozenset[str], taken: set[str | None]) -> None:
    values = [value for value in graph_values(graph) if value.name]
    for value in values:
        if value.name in outer:
            _rename_value(value, taken)
    visible = outer | {value.name for value in values if value.name}
    for node in graph:
        for body in bodies(node):
            _rename(body, visible, taken)


def _rename_value(value: ir.Value, taken: set[str | None]) -> None:
    number = 1
    while f"{value.name}_{number}" in taken:
        number += 1
    value.name = f"{value.name}_{number}"
    taken.add(value.name)
