"""Constant nodes become initializers.

    y = Constant()  →  initializer y

Same value under the same name. Not touched: Constants that are graph outputs (an output must have a
producer), strings (nothing here reads them). In bodies it is the same.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantcli.graph.passes.constants import replace_by_constant
from quantcli.graph.traverse import nested_graphs

_KINDS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def lift_constants(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; it has nothing to tell."""
    for graph in nested_graphs(model.graph):
        for node in list(graph):
            if node.op_type != "Constant" or node.domain or node.outputs[0].is_graph_output():
                continue
            array = _value(node)
            if array is not None:
                replace_by_constant(node, graph, [array])
    return ()


def _value(node: ir.Node) -> np.ndarray | ir.LazyTensor | None:
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value":
            tensor = attribute.as_tensor()
            if isinstance(tensor, ir.LazyTensor):
                return tensor  # of external data, which stay on disk
            return None if tensor.dtype == ir.DataType.STRING else tensor.numpy()
        if name in _KINDS:
            return np.asarray(attribute.value, dtype=_KINDS[name])
    return None
