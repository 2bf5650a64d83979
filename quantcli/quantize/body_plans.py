"""The part of a plan that is about the main graph, for algorithms that walk over that alone."""

from __future__ import annotations

from dataclasses import replace

from quantcli.graph.view import GraphView
from quantcli.quantize.plan import LayerPlan, Plan


def main_part(plan: Plan, view: GraphView) -> Plan:
    """``plan`` without what it says of bodies; the same plan where it says nothing of them.

    Args:
        plan: Of the whole model.
        view: Of the main graph.
    """
    if not any(node.body for node in plan.nodes):
        return plan
    names = view.node_by_name
    return replace(
        plan,
        nodes=tuple(node for node in plan.nodes if not node.body),
        tensors={name: tensor for name, tensor in plan.tensors.items() if name in view.tensors},
        layers=tuple(layer for layer in plan.layers if layer.node in names),
        activations=tuple(activation for activation in plan.activations if activation.node in names),
        constants=tuple(constant for constant in plan.constants if constant.node in names),
        tables=tuple(table for table in plan.tables if table.node in names),
        recurrent=tuple(item for item in plan.recurrent if item.node in names),
        integer_inputs=tuple(reading for reading in plan.integer_inputs if reading[0] in names),
    )


def layers_in_bodies(plan: Plan) -> tuple[LayerPlan, ...]:
    """The layers that stand in bodies."""
    inside = {node.name for node in plan.nodes if node.body}
    return tuple(layer for layer in plan.layers if layer.node in inside)
