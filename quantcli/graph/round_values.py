"""A model in float16 that really rounds every value, wherever it runs.

Where a runtime has no float16 kernels it inserts Casts around float32 ones, and then removes those that undo each
other, although the first of them rounds: onnxruntime's CPU provider leaves a chain of such operators in float32
(RemoveDuplicateCastTransformer, also with all optimizations off). Two Identities of float16 between two Casts stop
that (a single one is taken into float32 as well), as long as optimizations, which would remove them, are off. So
the result shows what hardware that stores every value in float16 makes of the model, with sums inside of an
operator in float32.
"""

from __future__ import annotations

import onnx_ir as ir

from quantcli.graph.model import OnnxModel
from quantcli.graph.names import unique_name
from quantcli.graph.traverse import graph_values, home, nested_graphs


def round_values(model: OnnxModel, dtype: ir.DataType = ir.DataType.FLOAT16) -> OnnxModel:
    """A copy of ``model`` with Identities behind every value of ``dtype`` that a node makes.

    Types of values must be known. To be run without optimizations.
    """
    copy = model.clone()
    graph = copy.ir.graph
    taken = {value.name for nested in nested_graphs(graph) for value in graph_values(nested) if value.name}
    for node in [node for nested in nested_graphs(graph) for node in nested]:
        for value in node.outputs:
            readers = list(value.uses())
            if value.dtype != dtype or not readers or node.op_type == "Identity":
                continue
            rounded, last, own = value, node, home(value) or graph
            for _ in range(2):
                name = unique_name(f"{value.name}_rounded", taken)
                step = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
                identity = ir.Node("", "Identity", [rounded], outputs=[step], name=name)
                own.insert_after(last, identity)
                rounded, last = step, identity
            for reader, index in readers:
                reader.replace_input_with(index, rounded)
    return copy
