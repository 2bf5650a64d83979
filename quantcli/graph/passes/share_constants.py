"""Equal constants of bodies become one constant that all bodies read.

    w in one body, w' = w in another  →  w in the main graph

Branches that differ in little have the same weights, each its own copy, and so have they after folding. Same
type, shape and bytes; where the main graph has such a constant, that is the one. Constants of less than
``SMALLEST`` bytes stay, and so do copies within the main graph, outputs of bodies, and constants without a copy.
"""

from __future__ import annotations

import hashlib
from typing import Final

import onnx_ir as ir

from quantcli.graph.passes.constants import array_of
from quantcli.graph.traverse import nested_graphs

SMALLEST: Final = 256

_Form = tuple[ir.DataType, tuple[int, ...]]


def share_constants(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; it has nothing to tell."""
    main = model.graph
    forms: dict[_Form, list[ir.Value]] = {}
    for graph in nested_graphs(main):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.nbytes >= SMALLEST and tensor.dtype != ir.DataType.STRING:
                forms.setdefault((tensor.dtype, tuple(tensor.shape.numpy())), []).append(value)
    for values in forms.values():
        if len(values) > 1 and any(value.graph is not main for value in values):
            _share(values, main)
    return ()


def _share(values: list[ir.Value], main: ir.Graph) -> None:
    """Join those of ``values``, all of one form and outer ones first, whose bytes are equal."""
    equal: dict[bytes, list[ir.Value]] = {}
    for value in values:
        array = array_of(value)
        if array is not None and not (value.graph is not main and value.is_graph_output()):
            equal.setdefault(hashlib.sha256(array.tobytes()).digest(), []).append(value)
    for first, *others in equal.values():
        copies = [value for value in others if value.graph is not main]
        if copies:
            _move(first, main)
        for value in copies:
            value.replace_all_uses_with(first)
            _drop(value)


def _move(value: ir.Value, main: ir.Graph) -> None:
    if value.graph is not main:
        _drop(value)
        main.register_initializer(value)


def _drop(value: ir.Value) -> None:
    owner = value.graph
    assert owner is not None
    del owner.initializers[str(value.name)]
