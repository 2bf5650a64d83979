"""Putting new nodes in front of a node, with names that nothing else has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from quantcli.graph.metadata import absorbed_names, add_absorbed
from quantcli.graph.traverse import graph_values, nested_graphs

Attribute = int | float | str | Sequence[int]


class NodeWriter:
    """Writes nodes into the main graph of a model; names are looked up once."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.graph = model.graph
        self._values = {value.name for nested in nested_graphs(model.graph) for value in graph_values(nested)}
        self._nodes = {node.name for node in model.graph.all_nodes()}

    def before(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        *,
        part: str,
        attributes: Mapping[str, Attribute] | None = None,
        outputs: int = 1,
        like: ir.Value | None = None,
    ) -> tuple[ir.Value, ...]:
        """A node of ai.onnx in front of ``node``, called after it and ``part``; it answers to either name.

        Args:
            node: The node that is taken apart.
            op_type: Operator of the new node.
            inputs: Its inputs.
            part: What it does of the work of ``node``.
            attributes: Its attributes.
            outputs: Number of outputs.
            like: A value whose type (and shape, where there is one output) the outputs have.
        """
        name = self._free(f"{node.name}/{part}", self._nodes)
        new = ir.node(op_type, list(inputs), dict(attributes or {}), num_outputs=outputs, name=name)
        for index, value in enumerate(new.outputs):
            suffix = f"_{index}" if outputs > 1 else ""
            value.name = self._free(f"{node.outputs[0].name}_{part}{suffix}", self._values)
            if like is not None:
                value.type = like.type
                value.shape = like.shape.copy() if outputs == 1 and like.shape is not None else None
        add_absorbed(new.metadata_props, [str(node.name), *absorbed_names(node.metadata_props)])
        self.graph.insert_before(node, new)
        return tuple(new.outputs)

    def rewrite(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        *,
        domain: str = "",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> None:
        """Let ``node`` be another operator with other inputs; its name and outputs stay.

        Attributes that are not named go; those of which only the name is to stay are kept by naming them.
        """
        node.op_type, node.domain = op_type, domain
        node.version = None
        node.resize_inputs(len(inputs))
        for index, value in enumerate(inputs):
            node.replace_input_with(index, value)
        node.attributes.clear()
        for key, found in (attributes or {}).items():
            node.attributes.add(ir.convenience.convert_attribute(key, found))

    @staticmethod
    def _free(base: str, taken: set[str | None]) -> str:
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        return name
