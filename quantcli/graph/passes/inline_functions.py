"""Calls of the model's local functions become the functions' nodes.

    y = f(a, b) with f(u, v) = g(u, h(v))  →  t = h(b); y = g(a, t)

An inlined node is called ``call/node`` after the call and the function's own node; the call's name is
recorded as absorbed by each of its nodes, so that selectors that name the call go on to match.

Versions: a function states the opsets that it was written for. onnxruntime (1.31.1) reads its nodes with the
opsets of the model all the same, so that is what they mean here; where the two differ, it is told.

onnx-ir's inliner is used on functions that are brought into a form that it handles: an output that is an
input or is given twice would rename the caller's values, and a call that takes fewer outputs than there are
would fail. Values of inlined nodes get names that no graph of the model has.

Not inlined, and told: functions that take a graph as attribute.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes import PreconditionError
from onnx_ir.passes.common import InlinePass

from quantcli.errors import ModelError
from quantcli.graph.metadata import PREFIX, add_absorbed
from quantcli.graph.scopes import rename_hiding_values
from quantcli.graph.traverse import bodies, graph_values, nested_graphs

_CALL = PREFIX + "call"
"""Node property during the pass: name of the call in a graph; the inliner copies it to inlined nodes."""

_OWN = PREFIX + "own_name"
"""Node property during the pass: the node's name in the function."""


def inline_functions(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; tells which functions were inlined, left, or read with other versions.

    Raises:
        ModelError: A function calls itself (M102).
    """
    if not model.functions:
        return ()
    notes = []
    left = _with_graph_parameters(model)
    inlined = [function for key, function in sorted(model.functions.items()) if key not in left]
    for function in inlined:
        _normalise(function)
        notes += _adopt_versions(function, model)
    _mark(model, inlined)
    try:
        InlinePass(lambda function: function.identifier() not in left)(model)
    except PreconditionError as error:
        raise ModelError("M102", f"the model is not valid: {error}") from error
    _drop_uncalled(model)
    _name_nodes(model)
    rename_hiding_values(model.graph)
    if inlined:
        notes.insert(0, f"{len(inlined)} local functions were inlined (first: '{inlined[0].name}')")
    notes += [f"function '{name}' takes a graph and was not inlined" for _, name, _ in sorted(left)]
    return tuple(notes)


def _calls(model: ir.Model) -> Iterator[ir.Node]:
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        yield from (node for node in graph.all_nodes() if node.op_identifier() in model.functions)


def _with_graph_parameters(model: ir.Model) -> set[ir.OperatorIdentifier]:
    return {call.op_identifier() for call in _calls(model) if any(True for _ in bodies(call))}


def _normalise(function: ir.Function) -> None:
    """Let every output of ``function`` be a value of its own that a node makes."""
    seen: set[ir.Value] = set()
    for index, value in enumerate(list(function.outputs)):
        if value.producer() is None or value in seen:
            copy = ir.Node("", "Identity", [value], num_outputs=1)
            copy.outputs[0].name = f"{value.name}_output{index}"
            function.append(copy)
            function.outputs[index] = copy.outputs[0]
        seen.add(value)


def _adopt_versions(function: ir.Function, model: ir.Model) -> list[str]:
    notes = []
    for domain, version in sorted(function.opset_imports.items()):
        known = model.opset_imports.get(domain)
        if known is not None and known != version:
            function.opset_imports[domain] = known
            notes.append(
                f"function '{function.name}' is written for version {version} of '{domain or 'ai.onnx'}'; its "
                f"nodes are read with the model's version {known}, as onnxruntime does"
            )
    return notes


def _mark(model: ir.Model, inlined: list[ir.Function]) -> None:
    """Record names before the inliner changes them, and let every call state all outputs."""
    for function in inlined:
        for node in function.all_nodes():
            node.metadata_props[_OWN] = node.name or node.op_type
    values = {value.name for graph in nested_graphs(model.graph) for value in graph_values(graph) if value.name}
    for node in model.graph.all_nodes():
        if node.op_identifier() in model.functions:
            first = next((output.name for output in node.outputs if output.name), "")
            node.metadata_props[_CALL] = node.name or f"{node.op_type}_{first}"
    for call in _calls(model):
        function = model.functions[call.op_identifier()]
        if len(call.outputs) < len(function.outputs):
            call.resize_outputs(len(function.outputs))
        for output, inner in zip(call.outputs, function.outputs, strict=False):
            if not output.name:
                output.name = _first_free(f"{call.op_type}_{inner.name}", values)
                values.add(output.name)


def _drop_uncalled(model: ir.Model) -> None:
    waiting, reached = [model.graph], set()
    while waiting:
        for node in waiting.pop().all_nodes():
            key = node.op_identifier()
            if key in model.functions and key not in reached:
                reached.add(key)
                waiting.append(model.functions[key].graph)
    for key in [key for key in model.functions if key not in reached]:
        del model.functions[key]


def _name_nodes(model: ir.Model) -> None:
    taken = {node.name for node in model.graph.all_nodes() if node.name and _OWN not in node.metadata_props}
    for node in model.graph.all_nodes():
        own = node.metadata_props.pop(_OWN, "")
        call = node.metadata_props.pop(_CALL, "")
        if own and call:
            node.name = _first_free(f"{call}/{own}", taken)
            taken.add(node.name)
            add_absorbed(node.metadata_props, [call])


def _first_free(base: str, taken: set[str]) -> str:
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name
