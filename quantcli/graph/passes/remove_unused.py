"""What contributes to no output of the graph disappears: nodes, then initializers that nobody reads.

    y = f(x), y neither read nor an output  →  ∅

What a body reads counts as read as long as the node with that body stays. Inputs and outputs of graphs and bodies
stay, and so do all attributes. Optional outputs that nobody reads stay listed: below opset 14 they
tell a BatchNormalization in training from one at inference.
"""

from __future__ import annotations

import onnx_ir as ir

from quantcli.graph.traverse import body_nodes, nested_graphs


def remove_unused(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place, on nodes in topological order; tells of nodes that were removed."""
    removed = [name for graph in reversed(list(nested_graphs(model.graph))) for name in _clear(graph)]
    if not removed:
        return ()
    return (f"{len(removed)} nodes contribute to no output and were removed (first: '{removed[-1]}')",)


def _clear(graph: ir.Graph) -> list[str]:
    removed = []
    for node in reversed(list(graph)):
        if any(output.uses() or output.is_graph_output() for output in node.outputs):
            continue
        for inner in body_nodes(node):  # or the body would go on reading what it captures
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
        graph.remove(node, safe=True)
        removed.append(node.name or node.op_type)
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            del graph.initializers[name]
    return removed
