"""Pairs of Casts of which the first is exact become one Cast, or none.

    x: A → Cast(B) → Cast(C)   →   Cast(C) of x, or x itself where C is A,    for B that holds every value of A

Conversions of equal values are equal, so a widening in front of another conversion changes nothing: float16 and
bfloat16 are subsets of float32, and that of float64. A Cast to the type that its input has goes, too. Casts whose
result is an output of a graph keep their name and stay; a first Cast that nobody reads any more goes. Graphs and
bodies alike; types must be known.
"""

from __future__ import annotations

import onnx_ir as ir

from quantcli.graph.metadata import absorbed_names, add_absorbed
from quantcli.graph.traverse import nested_graphs

_WIDER = {
    ir.DataType.FLOAT16: {ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.BFLOAT16: {ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.FLOAT: {ir.DataType.DOUBLE},
}
"""Type → those that hold all its values."""


def collapse_casts(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; it has nothing to tell."""
    for graph in nested_graphs(model.graph):
        for node in list(graph):
            if node.op_type == "Cast" and not node.domain and node.graph is graph:
                _collapse(node, graph)
    return ()


def _collapse(node: ir.Node, graph: ir.Graph) -> None:
    source, result = node.inputs[0], node.outputs[0]
    first = None if source is None else source.producer()
    if first is not None and first.op_type == "Cast" and not first.domain and first.graph is graph:
        original = first.inputs[0]
        if original is not None and source is not None and source.dtype in _WIDER.get(original.dtype, ()):  # type: ignore[arg-type]
            node.replace_input_with(0, original)
            if not source.uses() and not source.is_graph_output():
                add_absorbed(node.metadata_props, [first.name or "", *absorbed_names(first.metadata_props)])
                graph.remove(first, safe=True)
    value = node.inputs[0]
    if value is None or value.dtype is None or int(value.dtype) != node.attributes.get_int("to", 0):
        return
    if result.is_graph_output():
        return
    result.replace_all_uses_with(value)
    graph.remove(node, safe=True)
