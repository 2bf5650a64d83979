"""The parts of a quantization that make errors of their own, and which of them a plan has.

A part is the rounding of one activation, or all constants of one node. Of activations only those count that are
rounded anew: what a pool, a Concat or a Reshape makes of integers lies on the same grid already.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from quantcli.algorithms.segments import bias_reading, integer_readings
from quantcli.core.affine import dequantize
from quantcli.graph.extract import Reading
from quantcli.graph.noise_probe import Change, Part, Rounding
from quantcli.graph.view import GraphView
from quantcli.ops.spec import Trait
from quantcli.ops.table import lookup
from quantcli.quantize.plan import Action, Plan
from quantcli.quantize.solve import Solution, seen_constants

TENSOR, WEIGHT = "tensor:", "weight:"
"""What stands before a value's or a node's name in the key of a part."""


def parts_of(plan: Plan, view: GraphView) -> tuple[str, ...]:
    """Keys of the parts of a plan, in order of production."""
    return (
        *(TENSOR + name for name in rounded_anew(plan, view)),
        *dict.fromkeys(WEIGHT + layer.node for layer in plan.layers),
        *dict.fromkeys(WEIGHT + item.node for item in plan.constants),
        *dict.fromkeys(WEIGHT + item.node for item in plan.tables),
    )


def rounded_anew(plan: Plan, view: GraphView) -> tuple[str, ...]:
    """Activations that do not lie on their grid before they are rounded."""
    quantized = {node.name for node in plan.nodes if node.action in (Action.QUANTIZE, Action.PASSTHROUGH)}
    tables = {table.node for table in plan.tables}

    def on_grid(name: str) -> bool:
        maker = view.producer(name)
        if maker is None or maker.name not in quantized or maker.name in tables:
            return False
        row = lookup(maker.domain, maker.op_type)
        if row is None or row.trait not in (Trait.PASSTHROUGH, Trait.SHARED):
            return False
        group = plan.tensors[name].group
        read = [value for value in maker.inputs if value in plan.tensors]
        moved = read[:1] if row.trait is Trait.PASSTHROUGH else read
        return bool(moved) and all(plan.tensors[value].group == group for value in moved)

    return tuple(name for name in plan.tensors if not on_grid(name))


def make_parts(plan: Plan, view: GraphView, solution: Solution) -> dict[str, Part]:
    """The parts of a plan with their figures, by key."""
    readings: dict[str, list[Reading]] = {}
    for reading, name in integer_readings(view, plan).items():
        readings.setdefault(name, []).append(reading)
    parts: dict[str, Part] = {}
    for name in rounded_anew(plan, view):
        params = solution.tensors[name]
        parts[TENSOR + name] = Rounding(
            value=name,
            readings=tuple(sorted(readings.get(name, ()))),
            scale=params.scale,
            zero_point=params.zero_point,
        )
    for layer in plan.layers:
        found = solution.layers[layer.node]
        weight = dequantize(found.weight, found.weight_params) - view.constant(layer.weight)
        differences = {(layer.node, 1): weight.astype(np.float32)}
        bias = found.bias_values
        if bias is not None:
            if layer.bias:
                old = view.constant(layer.bias)
                bias = (bias.reshape(old.shape) - old).astype(np.float32)
            differences[bias_reading(view, layer) or (layer.node, 2)] = bias
        parts[WEIGHT + layer.node] = Change(differences=differences)
    for node, some in _operands(view, solution).items():
        parts[WEIGHT + node] = Change(differences=some)
    return parts


def _operands(view: GraphView, solution: Solution) -> Mapping[str, dict[Reading, np.ndarray]]:
    """Differences of constants other than weights and biases, by node."""
    found: dict[str, dict[Reading, np.ndarray]] = {}
    for (node, index), seen in seen_constants(solution).items():
        if node not in view.node_by_name:
            continue  # it is in a body
        old = view.constant(view.node_by_name[node].inputs[index])
        found.setdefault(node, {})[node, index] = (seen.reshape(old.shape) - old).astype(np.float32)
    return found
