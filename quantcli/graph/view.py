"""A read-only picture of a graph, free of onnx types: what planners, reports and tests look at.

A view is of the main graph alone, where a node with bodies (If, Loop, Scan) *captures* what these read; or of the
*whole* model (``graph.whole_view``), where the bodies lie open: their nodes stand in front of the node that owns
them, read values of outer graphs by name, and the owner reads what they *yield*, behind its own inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | np.ndarray

Dim = int | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """A value.

    Attributes:
        name: Unique in the view.
        dtype: numpy name ("float32", "int64", "bfloat16", …), None where it is not known.
        shape: Dimensions: int, symbolic name, or None where unknown; None for unknown rank.
        is_input: Graph input (initializers listed as inputs are not).
        is_output: Graph output.
        is_constant: Initializer.
        nbytes: Bytes of a constant, 0 otherwise.
        scope: Body that defines it, as of ``NodeInfo``.
    """

    name: str
    dtype: str | None
    shape: tuple[Dim, ...] | None
    is_input: bool = False
    is_output: bool = False
    is_constant: bool = False
    nbytes: int = 0
    scope: str = ""

    @property
    def rank(self) -> int | None:
        """Number of axes, None where unknown."""
        return None if self.shape is None else len(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Yield:
    """An output of a body, as its owner reads it.

    Attributes:
        value: The value.
        scope: The body.
        output: Which output of the owner it becomes (the last of them, or one after the other); −1 for none (the
            condition of a Loop).
        carried: Whether the next iteration gets it as well (Loop, Scan).
    """

    value: str
    scope: str
    output: int
    carried: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """A node.

    Attributes:
        name: The user's name, or one made from the operator and its first output; unique.
        op_type: Operator.
        domain: "" for ai.onnx.
        inputs: Value names in order; "" where an optional input is absent.
        outputs: Value names in order; "" where an optional output is absent.
        attributes: Plain values; graph attributes are left out (see ``captures``).
        captures: Names of outer values that closed bodies (If, Loop, Scan) of this node read.
        absorbed: Names of user nodes that preparation folded into this one.
        scope: Body that it is in, "OWNER/ATTRIBUTE" ("if_1/then_branch"); "" for the main graph.
        yields: What its open bodies give back; it reads ``yields[k]`` at index ``len(inputs) + k``.
        path: Its name behind those of all bodies around it ("loop_1/body/if_1/then_branch/conv"); "" in the main
            graph.
    """

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    captures: tuple[str, ...] = ()
    absorbed: tuple[str, ...] = ()
    scope: str = ""
    yields: tuple[Yield, ...] = ()
    path: str = ""

    @property
    def op(self) -> str:
        """Operator with its domain where that is not ai.onnx: "Conv", "com.microsoft.QGemm"."""
        return f"{self.domain}.{self.op_type}" if self.domain else self.op_type

    def input(self, index: int) -> str:
        """Name of input ``index``, "" where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One reading of a value: by ``node``, at input ``index`` (-1 for a capture by a closed body)."""

    node: NodeInfo
    index: int

    @property
    def yielded(self) -> Yield | None:
        """What a body gives to its owner by this reading; None for any other reading."""
        at = self.index - len(self.node.inputs)
        return self.node.yields[at] if at >= 0 else None

    @property
    def scope(self) -> str:
        """The body in which the value is read."""
        return self.node.scope if self.yielded is None else self.yielded.scope


@dataclass(frozen=True, kw_only=True)
class GraphView:
    """The main graph, or the whole model: nodes in topological order, values by name.

    Attributes:
        nodes: Topological order; nodes of open bodies stand in front of their owner.
        tensors: Every value.
        inputs: Names of the graph inputs (without initializers).
        outputs: Names of the graph outputs.
        opset: Version of ai.onnx.
        opsets: All imported domains.
        ir_version: IR version of the file.
        read_constant: Gives the array of an initializer by name (loads it at each call).
        received: Names of the inputs of open bodies.
    """

    nodes: tuple[NodeInfo, ...]
    tensors: Mapping[str, TensorInfo]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    opsets: Mapping[str, int]
    ir_version: int
    read_constant: Callable[[str], np.ndarray]
    received: tuple[str, ...] = ()

    @cached_property
    def node_by_name(self) -> Mapping[str, NodeInfo]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def _producers(self) -> Mapping[str, NodeInfo]:
        return {out: node for node in self.nodes for out in node.outputs if out}

    @cached_property
    def _uses(self) -> Mapping[str, tuple[Use, ...]]:
        uses: dict[str, list[Use]] = {}
        for node in self.nodes:
            for index, name in enumerate(node.inputs):
                if name:
                    uses.setdefault(name, []).append(Use(node=node, index=index))
            for index, found in enumerate(node.yields, start=len(node.inputs)):
                uses.setdefault(found.value, []).append(Use(node=node, index=index))
            for name in node.captures:
                uses.setdefault(name, []).append(Use(node=node, index=-1))
        return {name: tuple(readings) for name, readings in uses.items()}

    @cached_property
    def values(self) -> tuple[str, ...]:
        """Everything that is no constant: graph inputs, inputs of bodies, and what nodes make, in this order."""
        made = (value for node in self.nodes for value in node.outputs if value)
        return (*self.inputs, *self.received, *made)

    def producer(self, name: str) -> NodeInfo | None:
        """The node that makes ``name``; None for inputs, also those of bodies, and for initializers."""
        return self._producers.get(name)

    def uses(self, name: str) -> tuple[Use, ...]:
        """All readings of ``name`` inside the graph, captures by bodies included; not graph outputs."""
        return self._uses.get(name, ())

    def is_constant(self, name: str) -> bool:
        """Whether ``name`` is an initializer."""
        info = self.tensors.get(name)
        return info is not None and info.is_constant

    def constant(self, name: str) -> np.ndarray:
        """The array of initializer ``name``.

        Raises:
            KeyError: ``name`` is not an initializer.
        """
        if not self.is_constant(name):
            raise KeyError(name)
        return self.read_constant(name)
