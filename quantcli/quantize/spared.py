"""What became of the layers whose products could saturate: told in the plan, and in a sentence for the user."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quantcli.core.affine import params_from_range
from quantcli.graph.view import GraphView
from quantcli.quantize.plan import LayerPlan, Plan
from quantcli.quantize.solve import Solution, layer_rules
from quantcli.quantize.unsaturated import describe_spared
from quantcli.quantize.weights import weight_params, weight_range


def with_spared(plan: Plan, view: GraphView, solution: Solution) -> Plan:
    """The plan with a note at every layer whose scales are wider, so that no pair of products saturates."""
    if not any(layer.pairs for layer in plan.layers):
        return plan
    return replace(plan, layers=tuple(_noted(layer, view, solution) for layer in plan.layers))


def _noted(layer: LayerPlan, view: GraphView, solution: Solution) -> LayerPlan:
    if not layer.pairs:
        return layer
    weight = view.constant(layer.weight)
    given = solution.tensors.get(layer.input)
    if given is None:  # the dynamic form, whose biases stay in float
        bound = weight_range(weight, layer.weight_spec)
        plain = params_from_range(-bound, bound, layer.weight_spec)
    else:
        bias = np.asarray(view.constant(layer.bias)).reshape(-1) if layer.bias else None
        plain, _ = weight_params(weight, bias, given, layer.weight_spec, replace(layer_rules(layer), pairs=""))
    found = solution.layers[layer.node].weight_params
    return replace(layer, note=describe_spared(weight, found, plain, layer.pairs))


def spared_notes(plan: Plan) -> tuple[str, ...]:
    """How many layers that concerns; nothing on a target whose sums do not saturate."""
    proved = [layer for layer in plan.layers if layer.pairs]
    spared = [layer for layer in proved if layer.note]
    if not proved:
        return ()
    kept = f"{len(proved) - len(spared)} of {len(proved)} layers keep 8 bits: no pair of their products saturates"
    if not spared:
        return (kept,)
    first = spared[0]
    return (f"{kept}; the others have wider scales where one would (first: '{first.node}': {first.note})",)
