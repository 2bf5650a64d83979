"""An If whose condition is constant becomes the nodes of the branch that is taken.

    y = If(true, then: y' = f(x), else: …)  →  y = f(x)

Same value under the same name. What the branch gives may be a value from outside or a constant: an Identity makes
the output then, where that is an output of its graph. Names are unique over all graphs, so that nodes and values
keep theirs; the If's own name is recorded as absorbed by the nodes of the branch. In bodies it is the same.
"""

from __future__ import annotations

import onnx_ir as ir

from quantcli.graph.metadata import absorbed_names, add_absorbed
from quantcli.graph.passes.constants import array_of
from quantcli.graph.traverse import body_nodes, home, nested_graphs


def choose_branches(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; it has nothing to tell."""
    for graph in nested_graphs(model.graph):
        waiting = list(graph)
        while waiting:
            node = waiting.pop(0)
            condition = array_of(node.inputs[0]) if node.op_type == "If" and not node.domain else None
            if condition is not None and condition.size == 1:
                waiting = [*_open(node, graph, bool(condition.reshape(()))), *waiting]
    return ()


def _open(node: ir.Node, graph: ir.Graph, taken: bool) -> list[ir.Node]:
    """Put the nodes of a branch in the place of ``node``; the same nodes."""
    branch = node.attributes["then_branch" if taken else "else_branch"].as_graph()
    results = list(branch.outputs)
    branch.outputs.clear()
    moved = list(branch)
    for value in list(branch.initializers.values()):
        del branch.initializers[str(value.name)]
        graph.register_initializer(value)
    for inner in moved:
        branch.remove(inner)
        add_absorbed(inner.metadata_props, [node.name or "", *absorbed_names(node.metadata_props)])
    graph.insert_before(node, moved)
    for output, result in zip(list(node.outputs), results, strict=True):
        moved += _hand_on(output, result, node, graph)
    for inner in list(body_nodes(node)):  # the other branch lets go of what it reads
        for index in range(len(inner.inputs)):
            inner.replace_input_with(index, None)
    graph.remove(node, safe=True)
    return moved


def _hand_on(output: ir.Value, result: ir.Value, node: ir.Node, graph: ir.Graph) -> list[ir.Node]:
    """Let the readers of ``output`` read ``result``; nodes that were needed for it."""
    maker = result.producer()
    if not output.is_graph_output():
        output.replace_all_uses_with(result)
        return []
    name = output.name
    output.name = None
    if maker is not None and home(result) is graph and not result.is_graph_output():
        result.name, result.type, result.shape = name, output.type or result.type, output.shape or result.shape
        output.replace_all_uses_with(result, replace_graph_outputs=True)
        return []
    made = ir.Node("", "Identity", [result], num_outputs=1, name=f"{node.name}_Identity_{name}")
    made.outputs[0].name, made.outputs[0].type, made.outputs[0].shape = name, output.type, output.shape
    graph.insert_before(node, made)
    output.replace_all_uses_with(made.outputs[0], replace_graph_outputs=True)
    return [made]
