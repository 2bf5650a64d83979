"""Identity, and Dropout at inference, disappear.

    y = Identity(x)  →  readers of y read x          y = Dropout(x)  →  the same, where training_mode is false

Legal where no other output (Dropout's mask) is read or is an output of the graph. An output of the graph
keeps its name and needs a producer of its own: if y is one, x takes its name where a node of this graph makes
x and x is no output itself; otherwise the node stays. In bodies it is the same.

The names of removed nodes go to the producer of x, or to those who read y where x is an input or a constant.
"""

from __future__ import annotations

import onnx_ir as ir

from quantcli.graph.metadata import absorbed_names, add_absorbed
from quantcli.graph.passes.constants import array_of
from quantcli.graph.traverse import nested_graphs


def remove_identities(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; it has nothing to tell."""
    for graph in nested_graphs(model.graph):
        _clear(graph)
    return ()


def _clear(graph: ir.Graph) -> None:
    for node in list(graph):
        source = node.inputs[0] if node.inputs else None
        if source is None or node.domain or not _does_nothing(node):
            continue
        output, *others = node.outputs
        if any(other.uses() or other.is_graph_output() for other in others):
            continue
        maker = source.producer()
        here = maker is not None and maker.graph is node.graph
        if output.is_graph_output() and (not here or source.is_graph_output()):
            continue
        _record(node, source)
        _bypass(node, source, graph)


def _record(node: ir.Node, source: ir.Value) -> None:
    producer = source.producer()
    heirs = [reader for reader in node.outputs[0].consumers() if reader.graph is node.graph]
    for heir in heirs if producer is None or producer.graph is not node.graph else [producer]:
        add_absorbed(heir.metadata_props, [node.name or "", *absorbed_names(node.metadata_props)])


def _bypass(node: ir.Node, source: ir.Value, graph: ir.Graph) -> None:
    output = node.outputs[0]
    name, is_output = output.name, output.is_graph_output()
    kind, shape = output.type, output.shape
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    output.name = None
    if is_output:  # what the graph states of its outputs stays stated
        source.name, source.type, source.shape = name, kind or source.type, shape or source.shape


def _does_nothing(node: ir.Node) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout":
        return False
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is None:
        return True
    mode = array_of(training)
    return mode is not None and not bool(mode.reshape(()))
