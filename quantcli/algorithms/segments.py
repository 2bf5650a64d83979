"""The graph in segments: as many nodes in one run as the sweep allows.

The sweep has to stop where it rounds an activation and where a layer's weight is decided from the layer's input.
So a node begins a new segment when it reads, as integers or as the input of a layer, a value made in the current
one; everything else joins, so that the runtime fuses what it can and short-lived values never leave it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from quantcli.graph.extract import Reading
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.quantize.plan import LayerPlan, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Consecutive nodes.

    Attributes:
        nodes: Their names in topological order.
        layers: Layers among them whose weights are decided before they run.
        outputs: Values that later segments read, or that are outputs of the graph.
        redirect: Readings that are fed apart: rounded activations, weights, biases, constants.
    """

    nodes: tuple[str, ...]
    layers: tuple[LayerPlan, ...]
    outputs: tuple[str, ...]
    redirect: tuple[Reading, ...]


def integer_readings(view: GraphView, plan: Plan) -> Mapping[Reading, str]:
    """Readings that see a rounded value in the quantized model, with the value."""
    chosen = set(plan.integer_inputs)
    found: dict[Reading, str] = {}
    for tensor in plan.tensors.values():
        for use in view.uses(tensor.name):
            reading = (use.node.name, use.index)
            if use.index >= 0 and (tensor.integer_producer or reading in chosen):
                found[reading] = tensor.name
    return found


def constant_readings(plan: Plan, view: GraphView, others: Collection[Reading] = ()) -> tuple[Reading, ...]:
    """Readings of constants that are integers in the quantized model: weights, biases, operands."""
    found: list[Reading] = [(constant.node, constant.index) for constant in plan.constants]
    for layer in plan.layers:
        found.append((layer.node, 1))
        reading = bias_reading(view, layer)
        if reading is not None:
            found.append(reading)
    return (*found, *others)


def bias_reading(view: GraphView, layer: LayerPlan) -> Reading | None:
    """Where a layer reads its bias; None where it has none."""
    if not layer.bias:
        return None
    if layer.bias_node:
        return layer.bias_node, view.node_by_name[layer.bias_node].inputs.index(layer.bias)
    return layer.node, 2


def segments(view: GraphView, plan: Plan, constants: Collection[Reading]) -> tuple[Segment, ...]:
    """Cut the graph of ``view`` for a sweep over ``plan``.

    Args:
        view: The graph that is quantized.
        plan: What becomes of it.
        constants: Readings of constants that are fed apart.
    """
    rounded = integer_readings(view, plan)
    layers = {layer.node: layer for layer in plan.layers}
    parts: list[list[NodeInfo]] = []
    made: set[str] = set()
    for node in view.nodes:
        stops = {name for index, name in enumerate(node.inputs) if (node.name, index) in rounded}
        if node.name in layers:
            stops.add(layers[node.name].input)
        if not parts or stops & made:
            parts.append([])
            made = set()
        parts[-1].append(node)
        made.update(name for name in node.outputs if name)
    apart = {*rounded, *constants}
    return tuple(_segment(view, part, layers, apart) for part in parts)


def _segment(
    view: GraphView, nodes: list[NodeInfo], layers: Mapping[str, LayerPlan], apart: Collection[Reading]
) -> Segment:
    names = {node.name for node in nodes}
    outputs = tuple(
        value
        for node in nodes
        for value in node.outputs
        if value and (view.tensors[value].is_output or any(use.node.name not in names for use in view.uses(value)))
    )
    return Segment(
        nodes=tuple(node.name for node in nodes),
        layers=tuple(layers[node.name] for node in nodes if node.name in layers),
        outputs=outputs,
        redirect=tuple(
            (node.name, index)
            for node in nodes
            for index, name in enumerate(node.inputs)
            if name and (node.name, index) in apart
        ),
    )
