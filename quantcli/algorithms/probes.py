"""Graphs in which only a part of a plan is carried out, so that its noise can be seen alone.

A probe of tensors has Q/DQ on exactly these, seen by exactly the readers that would see them in the whole
plan, and float weights; a probe of constants has integer weights, biases and operands of exactly the given
nodes. The runtime must not fuse or repair anything in them: run them with ``PROBE_CONFIG``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel
from quantcli.graph.view import GraphView
from quantcli.quantize.emit_qdq import QdqEmitter
from quantcli.quantize.plan import Plan
from quantcli.quantize.solve import Solution

PROBE_CONFIG: Mapping[str, str] = MappingProxyType({"session.disable_quant_qdq": "1"})
"""Session configuration for probes.

Without it onnxruntime quantizes the float weight of a layer between DequantizeLinear and QuantizeLinear, and
the noise of its weight would pass for that of the tensor.
"""


def tensor_groups(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Sharing group → its quantized members, both in order of production."""
    found: dict[str, list[str]] = {}
    for tensor in plan.tensors.values():
        found.setdefault(tensor.group, []).append(tensor.name)
    return {group: tuple(names) for group, names in found.items()}


def nodes_with_constants(plan: Plan) -> tuple[str, ...]:
    """Nodes that get integer weights, operands or tables."""
    return (
        *(layer.node for layer in plan.layers),
        *dict.fromkeys(item.node for item in plan.constants),
        *dict.fromkeys(table.node for table in plan.tables),
    )


def probe(
    source: OnnxModel,
    view: GraphView,
    plan: Plan,
    solution: Solution,
    *,
    tensors: Collection[str] = (),
    constants: Collection[str] = (),
) -> OnnxModel:
    """A copy of ``source`` with a part of the plan.

    Args:
        source: The prepared graph.
        view: Picture of it, with open bodies where the plan is of these as well.
        plan: The whole plan.
        solution: Its parameters.
        tensors: Names of the activations that get Q/DQ.
        constants: Names of the nodes that get their integer weights, biases, constant operands and tables.
    """
    part = replace(
        plan,
        tensors={name: tensor for name, tensor in plan.tensors.items() if name in tensors},
        layers=tuple(layer for layer in plan.layers if layer.node in constants),
        tables=tuple(table for table in plan.tables if table.node in constants),
        activations=(),
    )
    model = source.clone()
    editor = GraphEditor(model, bodies=True)
    operands = {key: value for key, value in solution.constants.items() if key[0] in constants}
    QdqEmitter(editor, view, part, replace(solution, constants=operands, dropped=(), kept=())).emit()
    editor.finish()
    return model
