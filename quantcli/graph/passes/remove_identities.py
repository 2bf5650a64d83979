"""Identity, and Dropout at inference, disappear.

    y = Identity(x)  →  readers of y read x          y = Dropout(x)  →  the same, where training_mode is false

Legal where y is no graph output (an output keeps its name and needs a producer) and, for Dropout, the mask is
not read.
"""

from __future__ import annotations

import onnx_ir as ir

from quantcli.graph.passes.constants import array_of


def remove_identities(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; it has nothing to tell."""
    graph = model.graph
    for node in list(graph):
        source = node.inputs[0] if node.inputs else None
        if source is None or node.domain or not _does_nothing(node):
            continue
        output, *others = node.outputs
        if output.is_graph_output() or any(other.uses() or other.is_graph_output() for other in others):
            continue
        output.replace_all_uses_with(source)
        graph.remove(node, safe=True)
    return ()


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
