"""Integer weights of a plan of the dynamic form: scales at once, integers when they are asked for.

Parameters of activations are computed while the model runs, as DynamicQuantizeLinear (ai.onnx 11) defines it:

    lo = min(0, min x),   hi = max(0, max x),   s = (hi − lo)/255,   z = round_half_even(clip(−lo/s, 0, 255)),
    q = clip(round_half_even(x/s) + z, 0, 255)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantcli.core.affine import params_from_range, quantize
from quantcli.core.spec import QuantParams
from quantcli.errors import ModelError
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.quantize.plan import LayerPlan, Plan, RecurrentPlan, TablePlan
from quantcli.quantize.recurrent import quantize_gates
from quantcli.quantize.rounding_later import Deferred, Integers, Rounding, later, made
from quantcli.quantize.solve import QuantizedConstant, Solution
from quantcli.quantize.tables import round_table, table_params
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

    weight: Integers
    weight_scale: np.ndarray
    recurrence: Integers
    recurrence_scale: np.ndarray


def solve_dynamic(plan: Plan, view: GraphView) -> Solution:
    """Round the weights of products and the tables to nearest; activations have no parameters.

    Layers and tables are computed whenever they are read.

    Raises:
        ModelError: M301, a weight is not finite.
    """
    layers = {layer.node: _layer(layer, view) for layer in plan.layers}
    tables: dict[str, Rounding] = {}
    for table in plan.tables:
        if table.table not in tables:
            tables[table.table] = _table(table, view)
    return Solution(
        tensors={},
        layers=Deferred(layers, _quantized_layer),
        constants={},
        tables=Deferred({table.node: tables[table.table] for table in plan.tables}, _quantized_table),
        dropped=(),
        kept=(),
    )


def _layer(layer: LayerPlan, view: GraphView) -> Rounding:
    values, name = view.constant(layer.weight), layer.weight
    _require_finite(values, name, layer.node)
    bound = weight_range(values, layer.weight_spec)
    params = keep_apart(values, params_from_range(-bound, bound, layer.weight_spec), layer.pairs)
    rule = f"nearest, axis {layer.weight_spec.axis}"
    return later(params, values, name, lambda: quantize(view.constant(name), params), rule)


def _table(table: TablePlan, view: GraphView) -> Rounding:
    values, name = view.constant(table.table), table.table
    params = table_params(values, table.spec)
    return later(params, values, name, lambda: round_table(view.constant(name), params), "nearest")


def _quantized_layer(integers: np.ndarray, params: QuantParams) -> QuantizedLayer:
    return QuantizedLayer(weight=integers, weight_params=params)


def _quantized_table(integers: np.ndarray, params: QuantParams) -> QuantizedConstant:
    return QuantizedConstant(values=integers, params=params)


def layer_rounding(solution: Solution, node: str) -> Rounding:
    """The integers of the weight of layer ``node``, which need not be in memory."""
    if isinstance(solution.layers, Deferred):
        return solution.layers.roundings[node]
    found = solution.layers[node]
    return made(found.weight, found.weight_params)


def table_rounding(solution: Solution, node: str) -> Rounding:
    """The integers of the table that ``node`` looks up, which need not be in memory."""
    if isinstance(solution.tables, Deferred):
        return solution.tables.roundings[node]
    found = solution.tables[node]
    return made(found.values, found.params)


def tied_tables(plan: Plan, view: GraphView, solution: Solution) -> dict[str, str]:
    """Layers whose weight is the transpose of a table that is looked up, integers and scales alike.

    A language model reads its embedding row by row, and transposed as the weight of its last product. Rows of the
    one and columns of the other have the same largest value, so that rounding to nearest gives the same integers.

    Returns:
        Node of the layer → table.
    """
    found = {}
    tables = {table.table: table_rounding(solution, table.node) for table in plan.tables}
    for node in solution.layers:
        layer, info = layer_rounding(solution, node), view.node_by_name[node]
        for name, table in tables.items():
            alike = table.shape[::-1] == product_shape(layer.shape, info) and np.array_equal(
                table.params.scale, layer.params.scale
            )
            if alike and np.array_equal(table.integers().T, product_form(layer.integers(), info)):
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


def product_shape(shape: tuple[int, ...], node: NodeInfo) -> tuple[int, ...]:
    """The shape of ``product_form`` of a weight of ``shape``."""
    return shape[::-1] if node.attributes.get("transB", 0) else shape


def solve_recurrent(plan: Plan, view: GraphView) -> dict[str, QuantizedGates]:
    """Round the weights of every LSTM to nearest, by node.

    Raises:
        ModelError: M301, a weight is not finite.
    """
    found = {}
    for item in plan.recurrent:
        weight, weight_scale = _gates(item, item.weight, view)
        recurrence, recurrence_scale = _gates(item, item.recurrence, view)
        found[item.node] = QuantizedGates(
            weight=weight, weight_scale=weight_scale, recurrence=recurrence, recurrence_scale=recurrence_scale
        )
    return found


def _gates(item: RecurrentPlan, name: str, view: GraphView) -> tuple[Integers, np.ndarray]:
    """Integers and scales of one weight of an LSTM."""
    values = view.constant(name)
    _require_finite(values, name, item.node)
    found, scale = quantize_gates(values, item.spec, item.pairs)

    def integers() -> np.ndarray:
        return quantize_gates(view.constant(name), item.spec, item.pairs)[0]

    rule = f"nearest gates, axis {item.spec.axis}"
    return Integers(dtype=found.dtype.name, shape=found.shape, integers=integers, rule=rule), scale


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
