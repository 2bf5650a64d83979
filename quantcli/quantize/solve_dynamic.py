"""Integer weights of a plan of the dynamic form.

Parameters of activations are computed while the model runs, as DynamicQuantizeLinear (ai.onnx 11) defines it:

    lo = min(0, min x),   hi = max(0, max x),   s = (hi − lo)/255,   z = round_half_even(clip(−lo/s, 0, 255)),
    q = clip(round_half_even(x/s) + z, 0, 255)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantcli.core.affine import params_from_range, quantize
from quantcli.errors import ModelError
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.quantize.plan import Plan
from quantcli.quantize.recurrent import quantize_gates
from quantcli.quantize.solve import Solution, solve_tables
from quantcli.quantize.unsaturated import keep_apart
from quantcli.quantize.weights import QuantizedLayer, weight_range


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedGates:
    """Integers of an LSTM.

    Attributes:
        weight: int8 (directions, inputs, 4·hidden).
        weight_scale: float32 (directions, 4·hidden) or (directions).
        recurrence: int8 (directions, hidden, 4·hidden).
        recurrence_scale: As ``weight_scale``.
    """

    weight: np.ndarray
    weight_scale: np.ndarray
    recurrence: np.ndarray
    recurrence_scale: np.ndarray


def solve_dynamic(plan: Plan, view: GraphView) -> Solution:
    """Round the weights of products and the tables to nearest; activations have no parameters.

    Raises:
        ModelError: M301, a weight is not finite.
    """
    layers = {}
    for layer in plan.layers:
        values = view.constant(layer.weight)
        _require_finite(values, layer.weight, layer.node)
        bound = weight_range(values, layer.weight_spec)
        params = keep_apart(values, params_from_range(-bound, bound, layer.weight_spec), layer.pairs)
        layers[layer.node] = QuantizedLayer(weight=quantize(values, params), weight_params=params)
    return Solution(tensors={}, layers=layers, constants={}, tables=solve_tables(plan, view), dropped=(), kept=())


def tied_tables(plan: Plan, view: GraphView, solution: Solution) -> dict[str, str]:
    """Layers whose weight is the transpose of a table that is looked up, integers and scales alike.

    A language model reads its embedding row by row, and transposed as the weight of its last product. Rows of the
    one and columns of the other have the same largest value, so that rounding to nearest gives the same integers.

    Returns:
        Node of the layer → table.
    """
    found = {}
    tables = {table.table: solution.tables[table.node] for table in plan.tables}
    for node, layer in solution.layers.items():
        integers = product_form(layer.weight, view.node_by_name[node])
        for name, table in tables.items():
            alike = table.values.T.shape == integers.shape and np.array_equal(
                table.params.scale, layer.weight_params.scale
            )
            if alike and np.array_equal(table.values.T, integers):
                found[node] = name
                break
    return found


def tied_layers(plan: Plan, view: GraphView) -> frozenset[str]:
    """Nodes of the layers whose float weight is the transpose of a table that is looked up.

    As long as they stay so, ``tied_tables`` finds them again among the integers.
    """
    found = set()
    tables = sorted({table.table for table in plan.tables})
    for layer in plan.layers:
        node = view.node_by_name[layer.node]
        shape = view.tensors[layer.weight].shape or ()
        wanted = shape if node.attributes.get("transB", 0) else shape[::-1]
        for table in tables:
            if view.tensors[table].shape == wanted and np.array_equal(
                product_form(view.constant(layer.weight), node), view.constant(table).T
            ):
                found.add(layer.node)
    return frozenset(found)


def product_form(weight: np.ndarray, node: NodeInfo) -> np.ndarray:
    """The weight of MatMul or Gemm as (…, inputs, outputs)."""
    return weight.T if node.attributes.get("transB", 0) else weight


def solve_recurrent(plan: Plan, view: GraphView) -> dict[str, QuantizedGates]:
    """Round the weights of every LSTM to nearest, by node.

    Raises:
        ModelError: M301, a weight is not finite.
    """
    found = {}
    for item in plan.recurrent:
        rounded = []
        for name in (item.weight, item.recurrence):
            values = view.constant(name)
            _require_finite(values, name, item.node)
            rounded.append(quantize_gates(values, item.spec, item.pairs))
        (weight, weight_scale), (recurrence, recurrence_scale) = rounded
        found[item.node] = QuantizedGates(
            weight=weight, weight_scale=weight_scale, recurrence=recurrence, recurrence_scale=recurrence_scale
        )
    return found


def _require_finite(values: np.ndarray, name: str, node: str) -> None:
    if not np.isfinite(values).all():
        raise ModelError(
            "M301",
            f"the weight '{name}' of node '{node}' has NaN or infinite values",
            hint="repair the model, or keep the node in float with --exclude",
        )


def fake_quantize_dynamically(x: np.ndarray) -> np.ndarray:
    """What DynamicQuantizeLinear makes of ``x``, as floats again; float32, bit for bit as onnxruntime's kernel."""
    low, high = np.float32(x.min(initial=0.0)), np.float32(x.max(initial=0.0))
    scale = np.float32(1.0) if high == low else np.float32((high - low) / np.float32(255.0))
    zero = np.rint(np.clip(-low / scale, np.float32(0), np.float32(255)))
    q = np.clip(np.rint(x / scale) + zero, 0, 255)
    return np.asarray((q - zero) * scale, dtype=np.float32)
