"""A conversion with some nodes left in float, everything else as it was.

Ranges and plan are those of the new recipe; weights and biases stay as they were found, so that what changes is
what the nodes themselves did. ``convert --exclude`` finds them anew, which may move the result either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from quantcli.calibration.estimators import parse_method
from quantcli.graph.model import OnnxModel
from quantcli.pipeline.carry_out import Made, emit
from quantcli.pipeline.types import ConvertRequest
from quantcli.quantize.plan import Plan
from quantcli.quantize.recipe import Recipe, node_selector
from quantcli.quantize.solve import layer_rules, solve
from quantcli.quantize.weights import QuantizedLayer, assemble


def without(recipe: Recipe, nodes: Sequence[str]) -> Recipe:
    """The recipe with further nodes in float, named exactly."""
    return replace(recipe, exclude=(*recipe.exclude, *map(node_selector, nodes)))


def plan_without(made: Made, request: ConvertRequest, nodes: Sequence[str]) -> Plan:
    """The plan with further nodes in float."""
    plan = made.bench.plan(without(request.recipe, nodes))
    return replace(plan, equalization=made.plan.equalization, nearest=made.plan.nearest)


def model_without(made: Made, request: ConvertRequest, nodes: Sequence[str]) -> OnnxModel:
    """The model with further nodes in float."""
    plan = plan_without(made, request, nodes)
    solved = solve(plan, made.bench.source.whole, made.bench.ranges(parse_method(request.recipe.method)))
    layers = {}
    for layer in plan.layers:
        old = made.solution.layers.get(layer.node)
        if old is None:
            continue
        before, now = made.solution.tensors[layer.input], solved.tensors[layer.input]
        same = before.scale == now.scale and before.zero_point == now.zero_point
        bias, rules = _flat(old.bias_values), layer_rules(layer)
        layers[layer.node] = old if same else assemble(old.weight, old.weight_params, bias, now, rules=rules)
    return emit(made.bench.source, plan, replace(solved, layers={**solved.layers, **layers}), request.format)


def _flat(bias: np.ndarray | None) -> np.ndarray | None:
    return None if bias is None else bias.reshape(-1)


def float_bytes(made: Made, nodes: Sequence[str], layers: dict[str, QuantizedLayer] | None = None) -> int:
    """Bytes that the file grows when the weights of ``nodes`` are float32."""
    kept = made.solution.layers if layers is None else layers
    bits = {layer.node: layer.weight_spec.dtype.bits for layer in made.plan.layers}
    return sum((32 - bits[node]) * kept[node].weight.size // 8 for node in nodes if node in kept and node in bits)
