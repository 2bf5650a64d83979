"""A read-only picture of a graph, free of onnx types: what planners, reports and tests look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | np.ndarray

Dim = int | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """A value of the main graph.

    Attributes:
        name: Unique in the graph.
        dtype: numpy name ("float32", "int64", "bfloat16", …), None where it is not known.
        shape: Dimensions: int, symbolic name, or None where unknown; None for unknown rank.
        is_input: Graph input (initializers listed as inputs are not).
        is_output: Graph output.
        is_constant: Initializer.
        nbytes: Bytes of a constant, 0 otherwise.
    """

    name: str
    dtype: str | None
    shape: tuple[Dim, ...] | None
    is_input: bool = False
    is_output: bool = False
    is_constant: bool = False
    nbytes: int = 0

    @property
    def rank(self) -> int | None:
        """Number of axes, None where unknown."""
        return None if self.shape is None else len(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """A node of the main graph.

    Attributes:
        name: The user's name, or one made from the operator and its first output; unique.
        op_type: Operator.
        domain: "" for ai.onnx.
        inputs: Value names in order; "" where an optional input is absent.
        outputs: Value names in order; "" where an optional output is absent.
        attributes: Plain values; graph attributes are left out (see ``captures``).
        captures: Names of this graph that bodies (If, Loop, Scan) of this node read.
        absorbed: Names of user nodes that preparation folded into this one.
    """

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    captures: tuple[str, ...] = ()
    absorbed: tuple[str, ...] = ()

    @property
    def op(self) -> str:
        """Operator with its domain where that is not ai.onnx: "Conv", "com.microsoft.QGemm"."""
        return f"{self.domain}.{self.op_type}" if self.domain else self.op_type

    def input(self, index: int) -> str:
        """Name of input ``index``, "" where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One reading of a value: by ``node``, at input ``index`` (-1 for a capture by a body)."""

    node: NodeInfo
    index: int


@dataclass(frozen=True, kw_only=True)
class GraphView:
    """The main graph: nodes in topological order, values by name.

    Attributes:
        nodes: Topological order.
        tensors: Every value of the main graph.
        inputs: Names of the graph inputs (without initializers).
        outputs: Names of the graph outputs.
        opset: Version of ai.onnx.
        opsets: All imported domains.
        ir_version: IR version of the file.
        read_constant: Gives the array of an initializer by name (loads it at each call).
    """

    nodes: tuple[NodeInfo, ...]
    tensors: Mapping[str, TensorInfo]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    opsets: Mapping[str, int]
    ir_version: int
    read_constant: Callable[[str], np.ndarray]

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
            for name in node.captures:
                uses.setdefault(name, []).append(Use(node=node, index=-1))
        return {name: tuple(found) for name, found in uses.items()}

    def producer(self, name: str) -> NodeInfo | None:
        """The node that makes ``name``; None for inputs and initializers."""
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
