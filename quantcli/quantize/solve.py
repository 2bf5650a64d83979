"""From a plan, weights and ranges to parameters: everything that the emitters write down.

Ranges of a sharing group are the hull of its members' ranges; those of 16 bits get ``HEADROOM``. A Relu or Clip
behind a kernel is dropped when the quantized range proves that it does nothing: every representable value lies
inside its bounds, to within half a step (saturation to the range is then the clipping).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from quantcli.core.affine import dequantize, params_from_range, quantize, representable_range
from quantcli.core.dtypes import INT32
from quantcli.core.spec import QuantParams, QuantSpec
from quantcli.errors import ModelError
from quantcli.graph.view import GraphView
from quantcli.quantize.plan import FusedActivation, LayerPlan, Plan
from quantcli.quantize.tables import quantize_table
from quantcli.quantize.weights import LayerRules, QuantizedLayer, accumulator_params, quantize_layer

HEADROOM = 2.0
"""What ranges of 16 bits are widened by: unseen samples reach beyond those that were seen, and there are codes
enough. It costs 6 of 80 dB (resnet56, calibrated on 16 samples: 79 dB on them, 41 on others without headroom)."""

RangeOf = Callable[[str, QuantSpec], tuple[float, float]]
"""Gives the range of a value for a form: (low, high), finite, low ≤ high."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedConstant:
    """A constant operand: integers of the operand's shape, and their parameters."""

    values: np.ndarray
    params: QuantParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Parameters of a plan.

    Attributes:
        tensors: Parameters of every quantized activation.
        layers: Integers of every layer, by node name.
        constants: Integers of constant operands, by (node, input index).
        tables: Integers of looked-up tables, by node.
        dropped: Relu and Clip nodes that the range proves to do nothing.
        kept: Relu and Clip nodes behind kernels that must stay.
    """

    tensors: Mapping[str, QuantParams]
    layers: Mapping[str, QuantizedLayer]
    constants: Mapping[tuple[str, int], QuantizedConstant]
    tables: Mapping[str, QuantizedConstant]
    dropped: tuple[str, ...]
    kept: tuple[str, ...]


def solve(plan: Plan, view: GraphView, range_of: RangeOf) -> Solution:
    """Find all parameters.

    Raises:
        ModelError: M301, a weight or bias is not finite.
    """
    tensors = _tensor_params(plan, range_of)
    layers = {}
    for layer in plan.layers:
        bias = np.asarray(view.constant(layer.bias)).reshape(-1) if layer.bias else None
        try:
            layers[layer.node] = quantize_layer(
                view.constant(layer.weight),
                bias,
                tensors[layer.input],
                layer.weight_spec,
                layer_rules(layer),
            )
        except ValueError as error:
            raise ModelError(
                "M301",
                f"the weight '{layer.weight}' or the bias of node '{layer.node}' has NaN or infinite values",
                hint="repair the model, or keep the node in float with --exclude",
            ) from error
    dropped = tuple(a.node for a in plan.activations if does_nothing(a, tensors[a.output]))
    return Solution(
        tensors=tensors,
        layers=layers,
        constants=_constants(plan, view, tensors),
        tables=solve_tables(plan, view),
        dropped=dropped,
        kept=tuple(a.node for a in plan.activations if a.node not in dropped),
    )


def layer_rules(layer: LayerPlan) -> LayerRules:
    """What the plan asks of a layer besides the form of its weight."""
    return LayerRules(float_bias=layer.float_bias, pairs=layer.pairs)


def _tensor_params(plan: Plan, range_of: RangeOf) -> dict[str, QuantParams]:
    hulls: dict[str, tuple[float, float]] = {}
    for tensor in plan.tensors.values():
        if tensor.source == "passthrough":
            continue
        low, high = tensor.fixed_range or range_of(tensor.name, tensor.spec)
        if tensor.spec.dtype.bits == 16 and tensor.fixed_range is None:
            low, high = HEADROOM * low, HEADROOM * high
        known = hulls.get(tensor.group)
        hulls[tensor.group] = (low, high) if known is None else (min(low, known[0]), max(high, known[1]))
    return {name: params_from_range(*hulls[tensor.group], tensor.spec) for name, tensor in plan.tensors.items()}


def _constants(
    plan: Plan, view: GraphView, tensors: Mapping[str, QuantParams]
) -> dict[tuple[str, int], QuantizedConstant]:
    """Integers of constant operands; shifts of normalizations have the scale of input times scale, as a bias."""
    found: dict[tuple[str, int], QuantizedConstant] = {}
    for constant in sorted(plan.constants, key=lambda each: each.spec.dtype is INT32):
        values, place = view.constant(constant.constant), (constant.node, constant.index)
        factor = found.get((constant.node, constant.index - 1))
        if constant.spec.dtype is INT32 and factor is not None:
            source = view.node_by_name[constant.node].inputs[0]
            params = accumulator_params(tensors[source], factor.params)
            found[place] = QuantizedConstant(values=quantize(values, params), params=params)
        else:
            found[place] = _constant(values, constant.spec)
    return found


def _constant(values: np.ndarray, spec: QuantSpec) -> QuantizedConstant:
    params = params_from_range(float(values.min(initial=0.0)), float(values.max(initial=0.0)), spec)
    return QuantizedConstant(values=np.asarray(quantize(values, params)), params=params)  # also of a scalar


def solve_tables(plan: Plan, view: GraphView) -> dict[str, QuantizedConstant]:
    """Integers of every table; nodes that read the same one share them."""
    found: dict[str, QuantizedConstant] = {}
    for table in plan.tables:
        if table.table not in found:
            values, params = quantize_table(view.constant(table.table), table.spec)
            found[table.table] = QuantizedConstant(values=values, params=params)
    return {table.node: found[table.table] for table in plan.tables}


def seen_constants(solution: Solution) -> dict[tuple[str, int], np.ndarray]:
    """Float32 values of constants other than weights and biases as nodes see them, by (node, input index).

    What the emitted graph computes, bit for bit: constant operands dequantized, and the tables whose rows are
    looked up (input 0 of their Gather).
    """
    tables = {(node, 0): found for node, found in solution.tables.items()}
    return {
        place: np.asarray(dequantize(found.values, found.params))
        for place, found in {**solution.constants, **tables}.items()
    }


def does_nothing(activation: FusedActivation, params: QuantParams) -> bool:
    """Whether all representable values lie inside the bounds, to within half a step."""
    low, high = representable_range(params)
    half = float(params.scale) / 2
    return low >= activation.low - half and high <= activation.high + half
