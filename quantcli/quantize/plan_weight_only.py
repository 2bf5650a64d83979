"""From a graph and a recipe to a weight-only plan. Needs no data.

Every constant weight is either read by a *kernel* that computes from its integers (MatMulNBits, on targets that
have it), *looked up* (tables: the rows that are read become floats), or *stored*: integers in the file, which are
made floats again in front of an operator that computes in float. A weight is stored once, whoever reads it
(``weight_readings``).

Pure in one view: of the main graph, or of a body.
"""

from __future__ import annotations

from quantcli.graph.view import GraphView, NodeInfo
from quantcli.ops.reasons import Reason
from quantcli.ops.table import BODY_OPS, QUANTIZED_OPS
from quantcli.ops.targets import TARGETS
from quantcli.quantize.already import already_quantized
from quantcli.quantize.form import Form
from quantcli.quantize.kernels import FLOAT32
from quantcli.quantize.plan import Action, ConstantPlan, LayerPlan, NodePlan, Plan, TablePlan
from quantcli.quantize.recipe import Recipe, select
from quantcli.quantize.tables import find_table
from quantcli.quantize.tied import find_tied
from quantcli.quantize.weight_forms import fits_kernel, kernel_spec, saved_bytes, stored_spec, table_spec
from quantcli.quantize.weight_ports import WEIGHTED, Port, ports
from quantcli.quantize.weight_readings import WeightReading, agreed

LEAST_SAVED = 1024
"""Bytes that a weight must save: the nodes and names that go with its integers take a few hundred."""

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose weight, at input 1, can be rounded against the data."""


def make_weight_only_plan(view: GraphView, recipe: Recipe) -> Plan:
    """Plan the storage of a prepared graph's weights.

    Args:
        view: The prepared graph; element types of values must be known.
        recipe: What is wanted.

    Raises:
        ConfigError: C101 or C102, a selector is wrong.
    """
    found = _Candidates(view, recipe)
    tables = [reading.constant for reading in found.readings if reading.action is Action.PASSTHROUGH]
    weights = [reading.constant for reading in found.readings]
    tied = find_tied(view, tuple(dict.fromkeys((*tables, *weights))), upright=frozenset(tables))
    readings, reasons = agreed(view, found.readings, tied)
    actions = {reading.node.name: reading.action for reading in readings}
    kept = {reading.constant for reading in readings}
    target = TARGETS[recipe.target]
    return Plan(
        target=target.name,
        form=Form.WEIGHT_ONLY,
        nodes=tuple(_node_plan(node, actions, found.reasons | reasons, found.rules) for node in view.nodes),
        tensors={},
        layers=tuple(_layer(reading) for reading in readings if _is_layer(reading)),
        constants=tuple(
            ConstantPlan(node=reading.node.name, index=reading.index, constant=reading.constant, spec=reading.spec)
            for reading in readings
            if reading.action is not Action.PASSTHROUGH and not _is_layer(reading)
        ),
        tables=tuple(
            TablePlan(node=reading.node.name, table=reading.constant, spec=reading.spec)
            for reading in readings
            if reading.action is Action.PASSTHROUGH
        ),
        tied=tuple(tie for tie in tied.values() if tie.constant in kept),
        accuracy_level=recipe.accuracy_level if target.contrib else 0,
        choices=recipe.choices,
    )


class _Candidates:
    """Readings of weights that may become integers, in order of the nodes, and why the other nodes have none."""

    def __init__(self, view: GraphView, recipe: Recipe) -> None:
        self._view = view
        self._recipe = recipe
        self._contrib = TARGETS[recipe.target].contrib
        self.readings: list[WeightReading] = []
        self.reasons: dict[str, Reason] = {}
        self.rules: dict[str, str] = {}
        excluded = select(recipe.excluded_nodes, view)
        included = select(recipe.include, view) if recipe.include else None
        for node in view.nodes:
            own = self._of_node(node)
            if isinstance(own, Reason):
                self.reasons[node.name] = own
            elif node.name in excluded:
                self.rules[node.name] = f"--exclude {excluded[node.name]}"
                self.reasons[node.name] = Reason(code="F101", sentence=f"excluded by '{excluded[node.name]}'")
            elif included is not None and node.name not in included:
                self.rules[node.name] = "--include"
                self.reasons[node.name] = Reason(code="F101", sentence="not named by --include")
            else:
                if included is not None:
                    self.rules[node.name] = f"--include {included[node.name]}"
                self.readings += own

    def _of_node(self, node: NodeInfo) -> list[WeightReading] | Reason:
        """The readings of a node, or why it stays as it is."""
        if node.op_type in QUANTIZED_OPS or (node.domain == "com.microsoft" and "Quantize" in node.op_type):
            return Reason(code="F902", sentence=f"{node.op} is a quantized form already")
        if node.op == "Gather" and self._view.is_constant(node.inputs[0]):
            return self._lookup(node)
        if node.op in WEIGHTED:
            return self._weights(node)
        if node.yields:
            return Reason(code="F901", sentence=f"{node.op_type} itself computes nothing; its bodies do")
        if node.op_type in BODY_OPS:
            return Reason(code="F206", sentence=f"{node.op_type} has a body, which is left in float")
        made = [self._view.tensors[name].dtype for name in node.outputs if name]
        if made and all(dtype is not None and "float" not in dtype for dtype in made):
            return Reason(code="F901", sentence=f"{node.op_type} makes {made[0]}")
        return Reason(code="F231", sentence=f"{node.op_type} has no weight")

    def _lookup(self, node: NodeInfo) -> list[WeightReading] | Reason:
        info = self._view.tensors[node.inputs[0]]
        if info.dtype != FLOAT32:
            is_float = info.dtype is not None and "float" in info.dtype
            return Reason(code="F302" if is_float else "F901", sentence=f"the table '{info.name}' is {info.dtype}")
        table = find_table(self._view, node)
        if isinstance(table, Reason):
            return table
        reading = WeightReading(
            node=node,
            index=0,
            action=Action.PASSTHROUGH,
            constant=table.table,
            shape=self._shape(table.table),
            spec=table_spec(self._recipe),
            blocks=self._view.tensors[node.inputs[1]].rank is not None,
        )
        return [reading]

    def _weights(self, node: NodeInfo) -> list[WeightReading] | Reason:
        already = already_quantized(self._view, node)
        if already:
            return Reason(code="F902", sentence=already)
        ranks = tuple(self._view.tensors[name].rank if name else None for name in node.inputs)
        constant = [port for port in ports(node, ranks) if self._view.is_constant(node.input(port.index))]
        if not constant:
            return Reason(code="F301", sentence=f"{node.op_type}: its weight is computed by the graph")
        types = [self._view.tensors[node.inputs[port.index]].dtype for port in constant]
        plain = [port for port, dtype in zip(constant, types, strict=True) if dtype == FLOAT32]
        if not plain:
            return Reason(code="F302", sentence=f"the weight of {node.op_type} is {types[0]}, not float32")
        found = [self._reading(node, port) for port in plain]
        worth = [reading for reading in found if saved_bytes(reading.shape, reading.spec) >= LEAST_SAVED]
        if not worth:
            shape = " × ".join(map(str, found[0].shape))
            return Reason(code="F232", sentence=f"'{found[0].constant}' is too small to be worth it ({shape})")
        return worth

    def _reading(self, node: NodeInfo, port: Port) -> WeightReading:
        name = node.inputs[port.index]
        shape = self._shape(name)
        kernel = self._contrib and fits_kernel(node, port, shape, self._recipe)
        make = kernel_spec if kernel else stored_spec
        return WeightReading(
            node=node,
            index=port.index,
            action=Action.QUANTIZE if kernel else Action.STORE,
            constant=name,
            shape=shape,
            spec=make(node, port, shape, self._recipe),
            port=port,
        )

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(dim for dim in self._view.tensors[name].shape or () if isinstance(dim, int))


def _is_layer(reading: WeightReading) -> bool:
    return reading.index == 1 and reading.node.op in LAYERS


def _layer(reading: WeightReading) -> LayerPlan:
    return LayerPlan(
        node=reading.node.name,
        input=reading.node.inputs[0],
        weight=reading.constant,
        weight_spec=reading.spec,
        output=reading.node.outputs[0],
    )


def _node_plan(
    node: NodeInfo, actions: dict[str, Action], reasons: dict[str, Reason], rules: dict[str, str]
) -> NodePlan:
    action = actions.get(node.name, Action.FLOAT)
    return NodePlan(
        name=node.name,
        op_type=node.op,
        action=action,
        reason=None if node.name in actions else reasons[node.name],
        rule=rules.get(node.name, ""),
        body=node.scope,
    )
