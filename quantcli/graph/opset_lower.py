"""Lowering the ai.onnx opset of a model, where that changes nothing.

A runtime may load a newer opset than it has quantizers for (``runtime.versions``). A node of the newer opset
is the same in the older one if

* its operator did not change in between, or
* the change only added attributes or element types, and the node has none of those.

From opset 25 to 28 no change gave another meaning to what both versions accept, but for BitShift (shifts by more
bits than there are were open) and Mod of floats. ``tests/graph/test_opset_lower.py`` holds the operators that
changed against the schemas.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
from onnx import defs

from quantcli.graph.model import OnnxModel
from quantcli.graph.shapes import ValueTypes, inferred_types
from quantcli.graph.traverse import nested_graphs

OLDEST_LOWERED = 25
"""Down to here the changes were looked through."""


def cannot_be_lowered(model: OnnxModel, target: int) -> str:
    """Why ``model`` has no exact form at the older opset ``target``; "" where it has one."""
    if target < OLDEST_LOWERED:
        return f"opsets are lowered to {OLDEST_LOWERED} at most"
    types = inferred_types(model)
    for graph in _graphs(model):
        for node in graph:
            reason = "" if node.domain else _differs(node, model.opset, target, types)
            if reason:
                return f"{node.op_type} node '{node.name}' {reason}"
    return ""


def lower_opset(model: OnnxModel, target: int) -> None:
    """Write ``model`` for the older opset ``target``, in place.

    Raises:
        ValueError: It has no exact form there (see ``cannot_be_lowered``).
    """
    reason = cannot_be_lowered(model, target)
    if reason:
        raise ValueError(reason)
    for imports in (model.ir.opset_imports, *(f.opset_imports for f in model.ir.functions.values())):
        if imports.get("", 0) > target:
            imports[""] = target


def _differs(node: ir.Node, current: int, target: int, types: ValueTypes) -> str:
    old, new = _schema(node.op_type, target), _schema(node.op_type, current)
    if old is None or new is None:
        return f"does not exist at opset {target}"
    if old.since_version == new.since_version:
        return ""
    added = sorted(set(node.attributes) - set(old.attributes))
    if added:
        return f"has the attribute '{added[0]}', which opset {target} lacks"
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in old.type_constraints}
    formal = [*zip(node.inputs, old.inputs, strict=False), *zip(node.outputs, old.outputs, strict=False)]
    found = [(_type_string(value, types), parameter.type_str) for value, parameter in formal if value is not None]
    for kind, parameter in found:
        if kind not in allowed.get(parameter, [kind]):
            return f"has the type {kind or 'unknown'}, which opset {target} lacks there"
    if node.op_type == "Mod" and not node.attributes.get_int("fmod", 0) and "int" not in found[0][0]:
        return "divides floats by the rule of integers"
    if node.op_type == "BitShift":
        return f"may shift by more bits than there are, which opset {target} leaves open"
    return ""


def _type_string(value: ir.Value, types: ValueTypes) -> str:
    """As schemas write it: "tensor(float)"; "" where it is not known."""
    kind = types.get(value, (None, None))[0] or value.type
    if kind is None:
        return ""
    name = f"tensor({kind.dtype.name.lower()})"
    while isinstance(kind, ir.SequenceType | ir.OptionalType):
        name = f"seq({name})" if isinstance(kind, ir.SequenceType) else f"optional({name})"
        kind = kind.elem_type
    return name


def _schema(op_type: str, opset: int) -> defs.OpSchema | None:
    try:
        return defs.get_schema(op_type, opset, "")
    except defs.SchemaError:
        return None


def _graphs(model: OnnxModel) -> Iterator[ir.Graph]:
    yield from nested_graphs(model.ir.graph)
    for function in model.ir.functions.values():
        yield from nested_graphs(function.graph)
