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
        taken = {value.name for nested in graphs for value in graph_values(nested) if value.name}
        _rename(graph, frozenset(), taken)


def _rename(graph: ir.Graph, outer: frozenset[str], taken: set[str]) -> None:
    values = [value for value in graph_values(graph) if value.name]
    for value in values:
        if value.name in outer:
            number = 1
            while f"{value.name}_{number}" in taken:
                number += 1
            value.name = f"{value.name}_{number}"
            taken.add(value.name)
    visible = outer | {value.name for value in values if value.name}
    for node in graph:
        for body in bodies(node):
            _rename(body, visible, taken)
