"""Emission of the dynamic form: DynamicQuantizeLinear and MatMulInteger, in the pattern that onnxruntime fuses.

    x → DynamicQuantizeLinear → x_q, s_x, z_x        once per activation, for all its readers
    MatMulInteger(x_q, w_q, z_x) → Cast to float → · (s_x·s_w) [→ + bias]

is one DynamicQuantizeMatMul where x has one such reader, else a MatMulIntegerToFloat for each. Where the operands
of the sum are one value per column (rank 1), the bias is part of the kernel. In bodies it is the same, with
constants in the main graph; each body rounds what it captures itself. Decides nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from quantcli.graph.edit import GraphEditor
from quantcli.graph.view import GraphView
from quantcli.quantize.plan import LayerPlan, Plan, RecurrentPlan
from quantcli.quantize.recurrent import LSTM_INPUTS
from quantcli.quantize.rounding_later import Integers
from quantcli.quantize.solve import Solution
from quantcli.quantize.solve_dynamic import (
    QuantizedGates,
    layer_rounding,
    product_form,
    product_shape,
    table_rounding,
    tied_tables,
)
from quantcli.quantize.tables import TableWriter

CONTRIB = "com.microsoft"


class DynamicEmitter:
    """Writes the dynamic form of a plan into a graph through an editor."""

    def __init__(
        self,
        editor: GraphEditor,
        view: GraphView,
        plan: Plan,
        solution: Solution,
        gates: Mapping[str, QuantizedGates],
    ) -> None:
        self._editor = editor
        self._view = view
        self._plan = plan
        self._solution = solution
        self._gates = gates
        self._rounded: dict[tuple[str, str], tuple[str, str, str]] = {}
        self._stored: dict[tuple[str, str, str], tuple[str, str]] = {}
        self._zeros: dict[tuple[int, ...], str] = {}
        self._writer = TableWriter(editor, view)
        self._tied = tied_tables(plan, view, solution)
        self._turned: dict[str, str] = {}

    def emit(self) -> None:
        """Write everything."""
        for table in self._plan.tables:
            self._writer.write(table, table_rounding(self._solution, table.node))
        for layer in self._plan.layers:
            self._layer(layer)
        for item in self._plan.recurrent:
            self._lstm(item)
        if self._plan.recurrent:
            self._editor.set_domain_version(CONTRIB, 1)

    # Products ---------------------------------------------------------------------------------------

    def _layer(self, layer: LayerPlan) -> None:
        """The product, under the name of its node; its result keeps its name, too."""
        node, editor = self._view.node_by_name[layer.node], self._editor
        name, result = node.name, node.outputs[0]
        scope = node.scope
        activation, scale, zero = self._round(layer.input, scope)
        weight, weight_scale = self._weight(layer)
        bias = self._bias(layer)
        editor.remove_node(name)
        parts = ("accumulator", "steps", "scale")
        accumulator, steps, factor = (editor.new_value_name(f"{result}_{part}") for part in parts)
        product = result
        if bias and not layer.bias_node:
            product = editor.new_value_name(f"{result}_product")
        editor.add_node("MatMulInteger", [activation, weight, zero], [accumulator], name=name, scope=scope)
        editor.add_cast(accumulator, "float32", steps, name=f"{name}_Cast", scope=scope)
        editor.add_node("Mul", [scale, weight_scale], [factor], name=f"{name}_scale", scope=scope)
        editor.add_node("Mul", [steps, factor], [product], name=f"{name}_Mul", scope=scope)
        if product != result:
            editor.add_node("Add", [product, bias], [result], name=f"{name}_bias", scope=scope)

    def _round(self, name: str, scope: str) -> tuple[str, str, str]:
        """Integers, scale and zero point of an activation, made in the body ``scope``."""
        if (name, scope) not in self._rounded:
            parts = ("quantized", "scale", "zero_point")
            made = [self._editor.new_value_name(f"{name}_{part}") for part in parts]
            node = f"{name}_DynamicQuantizeLinear"
            self._editor.add_node("DynamicQuantizeLinear", [name], made, name=node, scope=scope)
            self._rounded[name, scope] = made[0], made[1], made[2]
        return self._rounded[name, scope]

    def _weight(self, layer: LayerPlan) -> tuple[str, str]:
        """Integers, (…, inputs, outputs), and scales."""
        found, node = layer_rounding(self._solution, layer.node), self._view.node_by_name[layer.node]
        turned = replace(
            found,
            shape=product_shape(found.shape, node),
            integers=lambda: np.ascontiguousarray(product_form(found.integers(), node)),
            rule=found.rule and f"{found.rule} of {'columns' if node.attributes.get('transB', 0) else 'rows'}",
        )
        return self._store(layer.weight, turned, found.params.scale, self._tied.get(layer.node, ""))

    def _store(self, name: str, found: Integers, scale: np.ndarray, table: str = "") -> tuple[str, str]:
        """Integers and scales; equal ones of one name are stored once, and a transposed ``table`` with it."""
        key = (name, found.rule or _digest(found.integers()), _digest(scale))
        if key not in self._stored:
            if table:
                stored = self._transposed(table)
            else:
                stored = self._editor.add_lazy_initializer(
                    f"{name}_quantized", found.dtype, found.shape, found.integers
                )
            self._stored[key] = stored, self._editor.add_initializer(f"{name}_scale", scale)
        return self._stored[key]

    def _transposed(self, table: str) -> str:
        """The transpose of a table's integers, which the runtime computes once, when it loads the model."""
        if table not in self._turned:
            source = self._writer.integers_of(table)
            self._turned[table] = self._editor.new_value_name(f"{table}_transposed")
            self._editor.add_node(
                "Transpose",
                [source],
                [self._turned[table]],
                name=f"{table}_Transpose",
                attributes={"perm": (1, 0)},
                scope="",
            )
        return self._turned[table]

    def _bias(self, layer: LayerPlan) -> str:
        """Initializer of the bias with one axis; that of an Add behind the product is put there."""
        if not layer.bias:
            return ""
        values = self._view.constant(layer.bias)
        name = layer.bias
        if values.ndim != 1:
            name = self._editor.add_initializer(f"{layer.bias}_{layer.node}", values.reshape(-1))
        if layer.bias_node:
            inputs = self._view.node_by_name[layer.bias_node].inputs
            self._editor.set_input(layer.bias_node, inputs.index(layer.bias), name)
        return name

    # LSTM -------------------------------------------------------------------------------------------

    def _lstm(self, item: RecurrentPlan) -> None:
        """DynamicQuantizeLSTM in the place of LSTM; name, results and attributes stay."""
        node, found = self._view.node_by_name[item.node], self._gates[item.node]
        inputs = [node.input(index) for index in range(LSTM_INPUTS)]
        for index, base, rounding, scale in (
            (1, item.weight, found.weight, found.weight_scale),
            (2, item.recurrence, found.recurrence, found.recurrence_scale),
        ):
            inputs[index], stored_scale = self._store(base, rounding, scale)
            inputs += [stored_scale, self._zero_points(scale.shape)]
        attributes = {key: value for key, value in node.attributes.items() if key != "layout"}
        attributes["hidden_size"] = found.recurrence.shape[1]
        self._editor.replace_node(item.node, "DynamicQuantizeLSTM", inputs, domain=CONTRIB, attributes=attributes)

    def _zero_points(self, shape: tuple[int, ...]) -> str:
        """Initializer of zeros, stored once per shape."""
        if shape not in self._zeros:
            size = "x".join(map(str, shape))
            self._zeros[shape] = self._editor.add_initializer(f"zeros_int8_{size}", np.zeros(shape, np.int8))
        return self._zeros[shape]


def _digest(array: np.ndarray) -> str:
    """What tells arrays apart, in 64 letters: there may be gigabytes of them."""
    return hashlib.sha256(array.tobytes()).hexdigest()
