"""onnx-ir models as ``GraphView``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from quantcli.errors import ModelError
from quantcli.graph.ir_types import dtype_name, plain_attribute, read_only, tensor_dtype, tensor_shape
from quantcli.graph.metadata import absorbed_names
from quantcli.graph.traverse import captured_values, graph_values, topological_order
from quantcli.graph.view import GraphView, NodeInfo, TensorInfo


def view(model: ir.Model) -> GraphView:
    """A picture of the main graph of ``model`` as it is now; later edits do not show in it.

    Raises:
        ModelError: A node has no name, two nodes share one (M107; preparation gives names), or the graph
            has a cycle (M102).
    """
    graph = model.graph
    order = ordered(graph)
    tensors = {
        value.name: tensor_info(value)
        for values in (graph_values(graph), graph.outputs)
        for value in values
        if value.name
    }
    constants = {
        name: value.const_value for name, value in graph.initializers.items() if value.const_value is not None
    }
    return GraphView(
        nodes=tuple(
            node_info(node, tuple(value.name or "" for value in captured_values(node, graph))) for node in order
        ),
        tensors=tensors,
        inputs=tuple(name for value in graph.inputs if (name := value.name) and tensors[name].is_input),
        outputs=tuple(value.name for value in graph.outputs if value.name),
        opset=model.opset_imports.get("", 0),
        opsets=dict(sorted(model.opset_imports.items())),
        ir_version=model.ir_version,
        read_constant=Constants(constants),
    )


def ordered(graph: ir.Graph) -> list[ir.Node]:
    """The nodes of ``graph`` in topological order.

    Raises:
        ModelError: As ``view``.
    """
    try:
        order = topological_order(graph)
    except ValueError as error:
        raise ModelError("M102", f"the model is not valid: {error}") from error
    _check_names(order)
    return order


class Constants:
    """Reads initializers by name, one array at a time."""

    __slots__ = ("_tensors",)

    def __init__(self, tensors: Mapping[str, ir.TensorProtocol]) -> None:
        self._tensors = tensors

    def __call__(self, name: str) -> np.ndarray:
        """The array of initializer ``name``."""
        return read_only(self._tensors[name].numpy())


def _check_names(nodes: list[ir.Node]) -> None:
    counts = Counter(node.name or "" for node in nodes)
    wrong = sorted(name for name, count in counts.items() if not name or count > 1)
    if wrong:
        what = f"the name '{wrong[-1]}' is used twice" if wrong[-1] else "there are nodes without a name"
        raise ModelError(
            "M107",
            f"nodes cannot be told apart: {what}",
            hint="prepare the model first; preparation gives every node a name of its own",
        )


def node_info(node: ir.Node, captures: tuple[str, ...]) -> NodeInfo:
    """Picture of a node whose bodies read the outer values ``captures``."""
    attributes = {name: plain_attribute(node.attributes[name]) for name in sorted(node.attributes)}
    outputs = [value.name or "" for value in node.outputs]
    return NodeInfo(
        name=node.name or "",
        op_type=node.op_type,
        domain=node.domain,
        inputs=tuple((value.name or "") if value is not None else "" for value in node.inputs),
        outputs=tuple(outputs),
        attributes={name: value for name, value in attributes.items() if value is not None},
        captures=captures,
        absorbed=absorbed_names(node.metadata_props),
    )


def tensor_info(value: ir.Value, *, main: bool = True) -> TensorInfo:
    """Picture of a value; inputs and outputs count as such in the ``main`` graph only."""
    constant = value.const_value if value.is_initializer() else None
    if constant is not None:
        return TensorInfo(
            name=value.name or "",
            dtype=dtype_name(constant.dtype),
            shape=tuple(int(dim) for dim in constant.shape.numpy()),
            is_output=main and value.is_graph_output(),
            is_constant=True,
            nbytes=int(constant.nbytes),
        )
    return TensorInfo(
        name=value.name or "",
        dtype=tensor_dtype(value),
        shape=tensor_shape(value),
        is_input=main and value.is_graph_input(),
        is_output=main and value.is_graph_output(),
    )
