"""From a graph and a recipe to a plan of the dynamic form. Needs no data.

Products with a constant weight compute on integers: their input is rounded to uint8 while the model runs, with the
range that it has in that run, and the result is float again. One rounding serves all readers of an activation.
Tables of constants are stored as in the static form.

What pays was measured on onnxruntime 1.32 (x86 with VNNI, one thread), as the time of DynamicQuantizeMatMul with
its bias over that of the float product, for weights of K × N and M rows:

    K × N          M = 1    4     16    32    128
    32 × 32         1.16  1.08  0.96  0.86  0.63
    64 × 64         1.11  1.00  0.78  0.65  0.52
    64 × 128        1.05  0.95  0.67  0.57  0.46
    128 × 128       0.91  0.78  0.54  0.47  0.40
    384 × 384       0.53  0.48  0.32  0.33  0.31
    384 × 1536      0.31  0.24  0.31  0.20  0.29
    1024 × 1024     0.17  0.22  0.30  0.27  0.25
"""

from __future__ import annotations

import math
from dataclasses import replace

from quantcli.core.spec import QuantSpec
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.ops.reasons import Reason
from quantcli.ops.targets import TARGETS
from quantcli.quantize.form import Form
from quantcli.quantize.kernels import FLOAT32, Kernel, find_kernel, weight_spec
from quantcli.quantize.plan import Action, LayerPlan, NodePlan, Plan, RecurrentPlan, TablePlan, TensorPlan
from quantcli.quantize.recipe import Recipe, select, select_tensors
from quantcli.quantize.recurrent import SMALLEST_LSTM, find_lstm
from quantcli.quantize.tables import find_table, read_in_float
from quantcli.quantize.unsaturated import pair_order

SMALLEST_WEIGHT = 4096
"""Values of a weight below which a product stays in float: with few rows it would be slower, and 12 kB are saved
at most."""

LSTM_OFFERED = "F223"
"""Reason code of an LSTM that stays in float only because nobody asked for integers."""

_PRODUCTS = frozenset({"MatMul", "Gemm"})
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_WITHOUT_KERNEL = frozenset({"GRU", "RNN"})

_KEPT = frozenset({"F206", "F302", "F901", "F902"})
"""Reasons of the static form that hold here, too: bodies, other types, nothing to quantize, quantized already."""

_Found = Kernel | TablePlan | RecurrentPlan


def make_dynamic_plan(view: GraphView, recipe: Recipe) -> Plan:
    """Plan the dynamic quantization of a prepared graph.

    Args:
        view: The prepared graph; element types of values must be known.
        recipe: What is wanted.

    Raises:
        ConfigError: C101 or C102, a selector is wrong.
    """
    return _DynamicPlanner(view, recipe).plan()


class _DynamicPlanner:
    def __init__(self, view: GraphView, recipe: Recipe) -> None:
        self.view = view
        self.recipe = recipe
        self.target = TARGETS[recipe.target]
        self.reasons: dict[str, Reason] = {}
        self.rules: dict[str, str] = {}
        self.layers: dict[str, LayerPlan] = {}
        self.tables: dict[str, TablePlan] = {}
        self.recurrent: dict[str, RecurrentPlan] = {}
        self.parts: dict[str, str] = {}

    def plan(self) -> Plan:
        excluded = select(self.recipe.excluded_nodes, self.view)
        included = select(self.recipe.include, self.view) if self.recipe.include else None
        in_float = select_tensors(self.recipe.excluded_tensors, self.view)
        for node in self.view.nodes:
            found = self._candidate(node, in_float)
            if not isinstance(found, Reason):
                found = self._wanted(node, found, excluded, included)
            self._take(node, found, excluded)
        weights = {(layer.node, layer.weight) for layer in self.layers.values()}
        left = read_in_float(self.view, self.tables, weights)
        self.reasons.update(left)
        self.tables = {name: table for name, table in self.tables.items() if name not in left}
        return Plan(
            target=self.target.name,
            form=Form.DYNAMIC,
            nodes=tuple(replace(self._node_plan(node), body=node.scope) for node in self.view.nodes),
            tensors=self._tensors(),
            layers=tuple(self.layers.values()),
            tables=tuple(self.tables.values()),
            recurrent=tuple(self.recurrent.values()),
            integer_inputs=tuple((layer.node, 0) for layer in self.layers.values()),
            choices=self.recipe.choices,
        )

    # Candidates -------------------------------------------------------------------------------------

    def _candidate(self, node: NodeInfo, in_float: dict[str, str]) -> _Found | Reason:
        """What ``node`` can become, or why it stays in float."""
        if node.op == "LSTM":
            return self._lstm(node)
        found = find_kernel(self.view, node, self.target, self.recipe.choices)
        if isinstance(found, Reason) and found.code == "F208":
            return find_table(self.view, node)
        if isinstance(found, Reason) and (found.code in _KEPT or node.op in _PRODUCTS):
            return found
        if node.op not in _PRODUCTS or isinstance(found, Reason):
            return self._other(node)
        if not found.weight:
            return Reason(code="F301", sentence=f"{node.op_type}: both operands are computed by the graph")
        size = self._size(found.weight)
        if size < SMALLEST_WEIGHT:
            return Reason(
                code="F225",
                sentence=f"{node.op_type} with a weight of {size} values, fewer than {SMALLEST_WEIGHT}",
            )
        kept = next((value for _, value in found.inputs if value in in_float), None)
        if kept is not None:
            return Reason(code="F102", sentence=f"'{kept}' is left in float by '{in_float[kept]}'")
        return found

    def _size(self, name: str) -> int:
        return math.prod(dim for dim in self.view.tensors[name].shape or () if isinstance(dim, int))

    def _lstm(self, node: NodeInfo) -> RecurrentPlan | Reason:
        if self.view.tensors[node.inputs[0]].dtype != FLOAT32:
            dtype = self.view.tensors[node.inputs[0]].dtype or "an unknown type"
            return Reason(code="F302", sentence=f"LSTM works on {dtype}, not float32")
        if not self.target.contrib:
            return Reason(
                code="F201", sentence=f"LSTM: no integer form in standard ONNX (target {self.target.name})"
            )
        found = find_lstm(
            self.view,
            node,
            self.recipe.weight_dtype,
            per_channel=self.recipe.per_channel,
            saturates=self.target.saturates,
        )
        if isinstance(found, Reason):
            return found
        values = self._size(found.weight) + self._size(found.recurrence)
        if values < SMALLEST_LSTM:
            sentence = f"LSTM of {values} weights, fewer than {SMALLEST_LSTM}"
            return Reason(code="F225", sentence=sentence)
        if not self.recipe.dynamic_lstm:
            sentence = f"--dynamic-lstm makes integers of its {values} weights"
            return Reason(code=LSTM_OFFERED, sentence=sentence)
        return found

    def _other(self, node: NodeInfo) -> Reason:
        """Why an operator that is no product stays in float."""
        if node.op in _CONVOLUTIONS:
            return Reason(code="F222", sentence="ConvInteger takes 6.3 times as long as the float convolution")
        if node.op in _WITHOUT_KERNEL:
            return Reason(
                code="F224",
                sentence=f"onnxruntime has no integer {node.op_type}; --weight-only makes its weights smaller",
            )
        return Reason(code="F221", sentence=f"{node.op_type} is no product with a constant weight")

    def _wanted(
        self, node: NodeInfo, found: _Found, excluded: dict[str, str], included: dict[str, str] | None
    ) -> _Found | Reason:
        """``found``, unless the recipe says otherwise."""
        if node.name in excluded:
            self.rules[node.name] = f"--exclude {excluded[node.name]}"
            return Reason(code="F101", sentence=f"excluded by '{excluded[node.name]}'")
        if included is not None and node.name not in included:
            self.rules[node.name] = "--include"
            return Reason(code="F101", sentence="not named by --include")
        if included is not None:
            self.rules[node.name] = f"--include {included[node.name]}"
        return found

    def _take(self, node: NodeInfo, found: _Found | Reason, excluded: dict[str, str]) -> None:
        if isinstance(found, Reason):
            self.reasons[node.name] = found
        elif isinstance(found, TablePlan):
            self.tables[node.name] = found
        elif isinstance(found, RecurrentPlan):
            self.recurrent[node.name] = found
        else:
            kernel = found.without(set(excluded))
            if kernel.bias_node is not None:
                self.parts[kernel.bias_node.name] = node.name
            self.layers[node.name] = self._layer(kernel)

    def _layer(self, kernel: Kernel) -> LayerPlan:
        return LayerPlan(
            node=kernel.node.name,
            input=kernel.inputs[0][1],
            weight=kernel.weight,
            weight_spec=weight_spec(kernel, self.recipe.weight_dtype, per_channel=self.recipe.per_channel),
            bias=kernel.bias,
            bias_node=kernel.bias_node.name if kernel.bias_node is not None else "",
            output=kernel.raw_output,
            pairs=pair_order(self.view, kernel.node) if self.target.saturates else "",
        )

    # Results ----------------------------------------------------------------------------------------

    def _tensors(self) -> dict[str, TensorPlan]:
        """Activations that are rounded while the model runs, in order of production."""
        spec = QuantSpec(dtype=self.recipe.activation_dtype)
        read = {layer.input for layer in self.layers.values()}
        return {
            name: TensorPlan(name=name, spec=spec, group=name, source="dynamic")
            for name in self.view.values
            if name in read
        }

    def _node_plan(self, node: NodeInfo) -> NodePlan:
        rule = self.rules.get(node.name, "")
        if node.name in self.parts:
            into = self.parts[node.name]
            return NodePlan(name=node.name, op_type=node.op, action=Action.FUSE, into=into)
        if node.name in self.tables:
            return NodePlan(name=node.name, op_type=node.op, action=Action.PASSTHROUGH, rule=rule)
        if node.name in self.layers or node.name in self.recurrent:
            return NodePlan(name=node.name, op_type=node.op, action=Action.QUANTIZE, rule=rule)
        return NodePlan(
            name=node.name, op_type=node.op, action=Action.FLOAT, reason=self.reasons[node.name], rule=rule
        )
