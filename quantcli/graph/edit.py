"""Edits of a model by names: of its main graph, or of the bodies in it as well.

An editor works in place on a model that its caller owns (``OnnxModel.clone`` first). Nodes may be added in
any order, before the nodes that feed them too; ``finish`` checks the graph, clears what the edits left
without a reader, and sorts. Names given by the user are never changed; names that are made here differ
from every name in the main graph and in all bodies, so that no body's name is shadowed.

With ``bodies`` the names are those of ``graph.whole_view``, and a node behaves as it does there: behind its own
inputs it reads what its bodies yield. New constants belong to the main graph, where every body can read them.

Mistakes of the caller (unknown names, values produced twice) raise ``ValueError``: they are bugs of
quantcli, not of the model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from quantcli.graph.computed import Compute, computed_tensor
from quantcli.graph.edit_scopes import Scopes
from quantcli.graph.ir_types import dtype_from_name, ir_attributes
from quantcli.graph.model import OnnxModel
from quantcli.graph.names import unique_name
from quantcli.graph.quantization_types import infer_quantization_types
from quantcli.graph.traverse import body_nodes, captured_values, graph_values, home, nested_graphs
from quantcli.graph.view import AttributeValue, Dim


class GraphEditor:
    """Edits one model in place; call ``finish`` once at the end.

    Args:
        model: To be edited.
        bodies: Whether names of nodes and values in open bodies can be used; they must be unique then.
    """

    def __init__(self, model: OnnxModel, *, bodies: bool = False) -> None:
        self._model = model.ir
        self._graph = model.ir.graph
        self._scopes = Scopes(self._graph, with_bodies=bodies)
        self._values: dict[str, ir.Value] = {}
        self._nodes: dict[str, ir.Node] = {}
        for graph in self._scopes.graphs.values():
            self._values.update((value.name, value) for value in graph_values(graph) if value.name)
            for node in graph:
                if not node.name or node.name in self._nodes:
                    raise ValueError(f"node name '{node.name}' is missing or not unique")
                self._nodes[node.name] = node
        self._taken_values: set[str] = set()
        self._taken_nodes: set[str] = set()
        for graph in nested_graphs(self._graph):
            self._taken_values.update(value.name for value in graph_values(graph) if value.name)
            self._taken_nodes.update(node.name for node in graph if node.name)
        self._added: list[ir.Node] = []
        self._touched: dict[ir.Value, None] = {}  # values that lost a reader, in order

    # Adding ---------------------------------------------------------------------------------------

    def new_value_name(self, base: str) -> str:
        """Reserve a value name: ``base``, or ``base`` with a number where that is taken.

        The name may be read by nodes at once; a node that produces it must come before ``finish``.
        """
        name = unique_name(base, self._taken_values)
        self._values[name] = ir.Value(name=name)
        return name

    def add_initializer(self, name: str, array: np.ndarray, *, dtype: str = "") -> str:
        """Add a constant and give the name that it got.

        Args:
            name: Wanted name; a number is appended where it is taken.
            array: Any dtype of ONNX, any shape. It must not be changed afterwards: it is kept, not copied.
            dtype: numpy's name of a type narrower than ``array``'s ("int4" for int8 values), in which it is
                stored packed, or of a float type whose numbers float32 values are; "" for the array's own.
        """
        wanted = dtype_from_name(dtype) if dtype else None
        if wanted is not None and wanted.is_floating_point():
            array = array.astype(wanted.numpy())
        return self._register(ir.tensor(array, dtype=wanted, name=unique_name(name, self._taken_values)))

    def add_lazy_initializer(self, name: str, dtype: str, shape: Sequence[int], compute: Compute) -> str:
        """Add a constant that is computed whenever it is read, and give the name that it got.

        Args:
            name: Wanted name; a number is appended where it is taken.
            dtype: numpy's name of its type; less than 8 bits are computed as int8 or uint8, and stored packed.
            shape: Its dimensions.
            compute: Gives its array, the same at each call. It is called at the earliest when the model is saved.
        """
        unique = unique_name(name, self._taken_values)
        return self._register(computed_tensor(unique, dtype, shape, compute))

    def _register(self, tensor: ir.TensorProtocol) -> str:
        """Make ``tensor``, which has a free name, an initializer."""
        name = str(tensor.name)
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
        )
        self._graph.register_initializer(value)
        self._values[name] = value
        self._touched[value] = None
        return name

    def set_initializer(self, name: str, array: np.ndarray) -> None:
        """Give the initializer ``name`` another array, of any type and shape, for everybody who reads it.

        The array must not be changed afterwards: it is kept, not copied.

        Raises:
            ValueError: There is no initializer of that name, or it is listed as a graph input.
        """
        self._replace(name, ir.tensor(array, name=name))

    def set_lazy_initializer(self, name: str, dtype: str, shape: Sequence[int], compute: Compute) -> None:
        """As ``set_initializer``, computed whenever it is read; arguments as of ``add_lazy_initializer``.

        ``compute`` may read the values that the initializer had before.
        """
        self._replace(name, computed_tensor(name, dtype, shape, compute))

    def _replace(self, name: str, tensor: ir.TensorProtocol) -> None:
        value = self._value(name)
        if value is None or not value.is_initializer() or value.is_graph_input():
            raise ValueError(f"'{name}' is no initializer")
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        value.const_value = tensor

    def add_node(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        name: str,
        domain: str = "",
        attributes: Mapping[str, AttributeValue] | None = None,
        scope: str | None = None,
    ) -> str:
        """Add a node and give the name that it got.

        Args:
            op_type: Operator.
            inputs: Names of values; "" where an optional input is absent.
            outputs: Names that ``new_value_name`` gave or that ``remove_node`` left without a producer;
                "" where an optional output is absent.
            name: Wanted name; a number is appended where it is taken.
            domain: "" for ai.onnx.
            attributes: Plain values.
            scope: Body that gets it, "" for the main graph; None for the outermost that has all inputs, as far as
                these have producers by now.

        Raises:
            ValueError: An input does not exist, or an output has a producer already.
        """
        produced = [self._free_value(output) if output else ir.Value(name="") for output in outputs]
        read = [self._value(value) for value in inputs]
        unique = unique_name(name, self._taken_nodes)
        node = ir.Node(domain, op_type, read, ir_attributes(attributes), outputs=produced, name=unique)
        (self._scopes.place_for(read) if scope is None else self._scopes.graphs[scope]).append(node)
        self._nodes[unique] = node
        self._added.append(node)
        return unique

    def add_cast(self, value: str, dtype: str, output: str, *, name: str, scope: str | None = None) -> str:
        """Add a Cast of ``value`` to ``dtype`` (numpy's name) that gives ``output``; the result is its name."""
        to = int(dtype_from_name(dtype))
        return self.add_node("Cast", [value], [output], name=name, attributes={"to": to}, scope=scope)

    # Rewiring -------------------------------------------------------------------------------------

    def set_input(self, node: str, index: int, value: str) -> None:
        """Make input ``index`` of ``node`` read ``value`` ("" for absent); gaps become absent inputs."""
        target = self._node(node)
        if index >= len(target.inputs):
            target.resize_inputs(index + 1)
        self._touch(target.inputs[index])
        target.replace_input_with(index, self._value(value))

    def replace_uses(self, old: str, new: str, *, uses: Collection[tuple[str, int]]) -> None:
        """Make exactly these readers of ``old`` read ``new``.

        Args:
            old: Value that is read now.
            new: Value to be read.
            uses: Pairs of node name and input index, all of them readings of ``old``.

        Raises:
            ValueError: One of the pairs does not read ``old``.
        """
        value = self._value(old)
        for node, index in sorted(uses):
            inputs = self._node(node).inputs
            if value is not None and index >= len(inputs):
                self._set_yield(self._node(node), index - len(inputs), value, new)
                continue
            if value is None or not 0 <= index < len(inputs) or inputs[index] is not value:
                raise ValueError(f"input {index} of node '{node}' does not read '{old}'")
            self.set_input(node, index, new)

    def give_output(self, old: str, new: str) -> None:
        """Make ``new`` the graph output ``old``, under that name; what was ``old`` gets the name of ``new``."""
        former, value = self._values[old], self._values[new]
        self._graph.outputs[self._graph.outputs.index(former)] = value
        value.type, value.shape, former.name = former.type, former.shape, None
        value.name, former.name = old, new
        self._values |= {old: value, new: former}

    def bypass_node(self, node: str) -> None:
        """Remove ``node`` and let the readers of its first output, bodies included, read its first input.

        A node that gives an output of a body becomes an Identity where its input is not made in that body.

        Raises:
            ValueError: The output is an output of the main graph, another output is used, or a body that reads
                the output has a value of its own with the input's name.
        """
        target = self._node(node)
        source = target.inputs[0] if target.inputs else None
        if source is None:
            raise ValueError(f"node '{node}' has no input to replace it")
        output, *others = target.outputs
        for value in target.outputs:
            if self._scopes.is_result(value) or (value in others and (value.uses() or value.is_graph_output())):
                raise ValueError(f"output '{value.name}' of node '{node}' is needed")
        self._check_not_shadowed(output, source)
        maker = source.producer()
        if output.is_graph_output() and (maker is None or maker.graph is not target.graph):
            self.replace_node(node, "Identity", [str(source.name)])
            return
        output.replace_all_uses_with(source, replace_graph_outputs=True)
        self.remove_node(node)

    def replace_node(
        self,
        node: str,
        op_type: str,
        inputs: Sequence[str],
        *,
        domain: str = "",
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> None:
        """Make ``node`` another operator with other inputs; its name and its output values stay."""
        target = self._node(node)
        wanted = [self._value(value) for value in inputs]
        self._detach_bodies(target)
        for value in target.inputs:
            self._touch(value)
        target.op_type, target.domain, target.overload = op_type, domain, ""
        target.resize_inputs(len(wanted))
        for index, value in enumerate(wanted):
            target.replace_input_with(index, value)
        target.attributes.clear()
        for attribute in ir_attributes(attributes):
            target.attributes.add(attribute)
        self._added.append(target)

    def remove_node(self, node: str) -> None:
        """Remove ``node``; outputs of it that are still read must get another producer before ``finish``."""
        target = self._nodes.pop(node, None)
        if target is None:
            raise ValueError(f"there is no node '{node}'")
        self._taken_nodes.discard(node)  # a node that takes its place may take its name
        for value in target.inputs:
            self._touch(value)
        for value in target.outputs:
            self._release(value)
        self._detach_bodies(target)
        graph = target.graph
        assert graph is not None
        graph.remove(target, safe=True)

    # Types and versions ---------------------------------------------------------------------------

    def set_value_type(self, value: str, dtype: str, shape: Sequence[Dim] | None = None) -> None:
        """State the element type (numpy name) of a value, and its shape where one is given."""
        target = self._value(value)
        if target is None:
            raise ValueError("an absent value has no type")
        target.type = ir.TensorType(dtype_from_name(dtype))
        if shape is not None:
            target.shape = ir.Shape(shape)

    def set_domain_version(self, domain: str, version: int) -> None:
        """Import ``domain`` ("" for ai.onnx) at ``version``, in place of another version of it."""
        self._model.opset_imports[domain] = version

    # Closing --------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Check, clean and sort the graph.

        Dropped are nodes and initializers that these edits left without a reader, and what only those
        read; graph inputs and outputs, initializers listed as inputs, and whatever the model itself never
        used stay. Added QuantizeLinear and DequantizeLinear nodes pass on the types and shapes of their
        inputs. Nodes are sorted stably, bodies' captures included.

        Raises:
            ValueError: A value that is read or is a graph output has no producer, or there is a cycle, or a node
                reads what is in a body that it is not in.
        """
        self._drop_unused()
        for name, value in sorted(self._values.items()):
            known = value.producer() is not None or value.is_graph_input() or value.is_initializer()
            if not known and (value.uses() or value.is_graph_output()):
                raise ValueError(f"value '{name}' is read but nothing produces it")
        self._scopes.check_visible()
        self._graph.sort()
        added = set(self._added)
        for graph in self._scopes.graphs.values():
            for node in graph:
                if node in added:
                    infer_quantization_types(node)

    # Inside ---------------------------------------------------------------------------------------

    def _node(self, name: str) -> ir.Node:
        if name not in self._nodes:
            raise ValueError(f"there is no node '{name}'")
        return self._nodes[name]

    def _value(self, name: str) -> ir.Value | None:
        if not name:
            return None
        if name not in self._values:
            raise ValueError(f"there is no value '{name}'")
        return self._values[name]

    def _set_yield(self, owner: ir.Node, position: int, old: ir.Value, new: str) -> None:
        value = self._value(new)
        if value is None:
            raise ValueError("a body cannot yield an absent value")
        self._touch(old)
        self._scopes.set_yield(owner, position, old, value)

    def _free_value(self, name: str) -> ir.Value:
        value = self._value(name)
        if value is None or value.producer() or value.is_initializer() or value.is_graph_input():
            raise ValueError(f"value '{name}' has a producer already")
        return value

    def _touch(self, value: ir.Value | None) -> None:
        if value is not None:
            self._touched[value] = None

    def _release(self, value: ir.Value) -> None:
        """Put a value without a producer in the place of ``value``, for readers and graph outputs."""
        if not value.name:
            return
        free = ir.Value(name=value.name, type=value.type, shape=value.shape, doc_string=value.doc_string)
        free.metadata_props.update(value.metadata_props)
        value.replace_all_uses_with(free, replace_graph_outputs=True)
        self._values[value.name] = free

    def _detach_bodies(self, node: ir.Node) -> None:
        """Unregister the readings of the bodies of ``node``, which is about to lose them."""
        for inner in list(body_nodes(node)):
            for index in range(len(inner.inputs)):
                self._touch(inner.inputs[index])
                inner.replace_input_with(index, None)
            if inner.graph in self._scopes:
                del self._nodes[str(inner.name)]

    def _check_not_shadowed(self, value: ir.Value, replacement: ir.Value) -> None:
        if all(use.node.graph is self._graph for use in value.uses()):
            return
        for owner in self._graph:
            if value not in captured_values(owner, self._graph):
                continue
            for node in body_nodes(owner):
                names = [out.name for out in node.outputs]
                if node.graph is not None:
                    names += [inner.name for inner in (*node.graph.inputs, *node.graph.initializers.values())]
                if replacement.name in names:
                    raise ValueError(f"a body of node '{owner.name}' has a '{replacement.name}' of its own")

    def _drop_unused(self) -> None:
        """Remove what lost its last reader, following chains of producers upwards."""
        while self._touched:
            value = next(iter(self._touched))
            del self._touched[value]
            if value.uses() or value.is_graph_output() or value.is_graph_input() or not value.name:
                continue
            producer, graph = value.producer(), home(value)
            if graph is None or graph not in self._scopes:
                continue
            if value.is_initializer():
                del graph.initializers[value.name]
                del self._values[value.name]
            elif producer is not None and str(producer.name) in self._nodes and not _needed(producer):
                self.remove_node(str(producer.name))


def _needed(node: ir.Node) -> bool:
    """Whether an output of ``node`` is read or is a graph output."""
    return any(output.uses() or output.is_graph_output() for output in node.outputs)
