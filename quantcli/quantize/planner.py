"""From a graph, a target and a recipe to a plan. Needs no data.

candidates (kernels.py, tables.py) → placement (which of them are quantized) → tensors that get Q/DQ, with their
sharing groups → Plan
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from quantcli.core.dtypes import INT8, INT32, QType
from quantcli.core.spec import QuantSpec
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.ops.reasons import Reason
from quantcli.ops.spec import Kernel as KernelKind
from quantcli.ops.spec import Trait
from quantcli.ops.table import lookup
from quantcli.ops.targets import TARGETS, Target
from quantcli.quantize.groups import SharingGroups
from quantcli.quantize.kernels import Kernel, find_kernel, fixed_range, has_channels
from quantcli.quantize.placement import Placement
from quantcli.quantize.plan import (
    Action,
    ConstantPlan,
    LayerPlan,
    NodePlan,
    Plan,
    TablePlan,
    TensorPlan,
)
from quantcli.quantize.recipe import Recipe, select, select_tensors
from quantcli.quantize.tables import find_table, read_in_float
from quantcli.quantize.unsaturated import pair_order
from quantcli.quantize.widths import activation_spec, held_as, layer_spec, remarks, table_spec

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm"}
"""Float layers whose weight onnxruntime quantizes by itself between DQ and Q (WeightBiasQuantization)."""

_PASSED_BY_QDQ = {"MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Flatten"}
"""Operators past which onnxruntime moves Q and DQ nodes (QDQPropagationTransformer): a DequantizeLinear in front
of a MaxPool stands in front of the layer behind it when weights are quantized."""

_NORMALIZATIONS = {"LayerNormalization", "InstanceNormalization"}
"""Operators with a scale and a shift, inputs 1 and 2."""

_SHIFT = 2

_SMALLEST_PACKED = 512
"""Weights of a layer below which fewer bits save no more than the Cast behind them takes (100 to 250 bytes)."""


def make_plan(view: GraphView, recipe: Recipe, known: Callable[[str], bool] | None = None) -> Plan:
    """Plan the quantization of a prepared graph.

    Args:
        view: The prepared graph, with open bodies where these are to be quantized; element types of values must be
            known.
        recipe: What is wanted.
        known: Whether calibration has statistics of a value; all are assumed to be known without it.

    Raises:
        ConfigError: C101 or C102, a selector is wrong.
    """
    return _Planner(view, recipe, known or (lambda _: True)).plan()


def observed_tensors(plan: Plan) -> tuple[str, ...]:
    """Values whose ranges the plan needs, in order of production."""
    return tuple(tensor.name for tensor in plan.tensors.values() if tensor.source == "calibrated")


class _Planner:
    def __init__(self, view: GraphView, recipe: Recipe, known: Callable[[str], bool]) -> None:
        self.view = view
        self.recipe = recipe
        self.target: Target = TARGETS[recipe.target]
        self.known = known
        self.reasons: dict[str, Reason] = {}
        self.rules: dict[str, str] = {}
        self.absorbed: dict[str, str] = {}
        self.tables: dict[str, TablePlan] = {}

    def plan(self) -> Plan:
        candidates = self._candidates()
        placement = Placement(self.view, self.target, candidates, self.known, self.recipe.choices)
        groups = SharingGroups(self.view, placement, self.target)
        in_float = self._in_float(groups)
        if in_float:
            placement = Placement(self.view, self.target, candidates, self.known, self.recipe.choices, in_float)
            groups = SharingGroups(self.view, placement, self.target)
        self.reasons.update(placement.reasons)
        self._leave_shared_tables(placement)
        kernels = placement.kernels.values()
        return Plan(
            target=self.target.name,
            nodes=tuple(replace(self._node_plan(node, placement), body=node.scope) for node in self.view.nodes),
            tensors=self._tensors(placement, groups),
            layers=tuple(self._layer(kernel) for kernel in kernels if kernel.weight),
            activations=tuple(
                kernel.activation
                for kernel in kernels
                if kernel.activation is not None and self._activation_joins(placement, kernel)
            ),
            constants=tuple(
                ConstantPlan(
                    node=kernel.node.name, index=index, constant=name, spec=self._constant_spec(kernel, index)
                )
                for kernel in kernels
                for index, name in kernel.constants
            ),
            tables=tuple(self.tables.values()),
            integer_inputs=tuple((kernel.node.name, index) for kernel in kernels for index, _ in kernel.inputs),
            choices=self.recipe.choices,
            contrib_qdq=self.recipe.contrib_qdq,
            remarks=remarks(self.recipe, self.view.opset),
        )

    # Candidates -------------------------------------------------------------------------------------

    def _candidates(self) -> dict[str, Kernel]:
        excluded = select(self.recipe.excluded_nodes, self.view)
        included = select(self.recipe.include, self.view) if self.recipe.include else None
        found: dict[str, Kernel] = {}
        for node in self.view.nodes:
            if node.name in self.absorbed:
                continue
            kernel: Kernel | TablePlan | Reason = find_kernel(self.view, node, self.target, self.recipe.choices)
            if isinstance(kernel, Reason) and kernel.code == "F208":
                kernel = find_table(self.view, node, table_spec(self.recipe), self.target)
            if isinstance(kernel, Reason):
                self.reasons[node.name] = kernel
                continue
            if node.name in excluded:
                self.rules[node.name] = f"--exclude {excluded[node.name]}"
                self.reasons[node.name] = Reason(code="F101", sentence=f"excluded by '{excluded[node.name]}'")
                continue
            alone = isinstance(kernel, TablePlan) or kernel.row.trait is Trait.COMPUTE
            if included is not None and node.name not in included and alone:
                self.rules[node.name] = "--include"
                self.reasons[node.name] = Reason(code="F101", sentence="not named by --include")
                continue
            if included is not None and node.name in included:
                self.rules[node.name] = f"--include {included[node.name]}"
            if isinstance(kernel, TablePlan):
                self.tables[node.name] = kernel
                continue
            kernel = kernel.without(set(excluded))
            found[node.name] = kernel
            for part in (kernel.bias_node, kernel.activation):
                if part is not None:
                    name = part.name if isinstance(part, NodeInfo) else part.node
                    self.absorbed[name] = node.name
        return found

    def _leave_shared_tables(self, placement: Placement) -> None:
        """Tables that something reads in float stay float: a second copy of them would save nothing.

        A layer that is quantized has integers of its own.
        """
        weights = {(kernel.node.name, kernel.weight) for kernel in placement.kernels.values() if kernel.weight}
        left = read_in_float(self.view, self.tables, weights)
        self.reasons.update(left)
        self.tables = {name: table for name, table in self.tables.items() if name not in left}

    def _in_float(self, groups: SharingGroups) -> frozenset[str]:
        """Values that the recipe leaves in float, and all that have their parameters.

        ``groups`` are those without this restriction: a pool in float does not keep what it reads from being
        the same tensor as what it makes.
        """
        roots = {groups.root(value) for value in select_tensors(self.recipe.excluded_tensors, self.view)}
        return frozenset(value for value in self.view.values if groups.root(value) in roots)

    # Nodes ------------------------------------------------------------------------------------------

    def _node_plan(self, node: NodeInfo, placement: Placement) -> NodePlan:
        rule = self.rules.get(node.name, "")
        owner = self.absorbed.get(node.name)
        if owner is not None:
            kernel = placement.kernels.get(owner)
            if kernel is not None and self._part_of(node, kernel, placement):
                return NodePlan(name=node.name, op_type=node.op, action=Action.FUSE, into=owner)
            reason = Reason(code="F406", sentence=f"it computes with '{owner}', which stays in float")
            if kernel is not None:
                reason = Reason(
                    code="F403", sentence=f"nobody reads its result as integers; '{owner}' gives float"
                )
            return NodePlan(name=node.name, op_type=node.op, action=Action.FLOAT, reason=reason)
        if node.name in self.tables:
            return NodePlan(name=node.name, op_type=node.op, action=Action.PASSTHROUGH, rule=rule)
        kernel = placement.kernels.get(node.name)
        if kernel is None:
            return NodePlan(
                name=node.name, op_type=node.op, action=Action.FLOAT, reason=self.reasons[node.name], rule=rule
            )
        moved = kernel.row.trait is Trait.PASSTHROUGH
        action = Action.PASSTHROUGH if moved else Action.QUANTIZE
        return NodePlan(name=node.name, op_type=node.op, action=action, rule=rule)

    def _part_of(self, node: NodeInfo, kernel: Kernel, placement: Placement) -> bool:
        """A bias always joins its kernel; a Relu or Clip only when a quantizer follows."""
        if kernel.bias_node is not None and node.name == kernel.bias_node.name:
            return True
        return self._activation_joins(placement, kernel)

    # Tensors ----------------------------------------------------------------------------------------

    def _constant_spec(self, kernel: Kernel, index: int) -> QuantSpec:
        """Form of a constant operand: that of activations; the shift of a normalization is a bias, int32."""
        if index == _SHIFT and kernel.node.op_type in _NORMALIZATIONS:
            return QuantSpec(dtype=INT32, symmetric=True)
        return activation_spec(self.recipe)

    def _output_quantized(self, placement: Placement, kernel: Kernel) -> bool:
        """Whether Q/DQ follow the kernel."""
        if any(self.view.tensors[value].is_output for value in kernel.outputs):
            return self.target.everything
        if self.target.fuses_qdq and not self.target.support(kernel.row).float_output:
            return True
        if any(placement.wants_integers(value) for value in kernel.outputs):
            return True
        chosen = self.target.float_outputs and self.target.support(kernel.row).float_output
        can_give_float = bool(kernel.weight) or chosen
        return not can_give_float and bool(self.view.uses(kernel.outputs[0]))

    def _activation_joins(self, placement: Placement, kernel: Kernel) -> bool:
        """Whether the Relu or Clip behind the kernel is seen through the quantizer only."""
        return self._output_quantized(placement, kernel) and self._integer_producer(placement, kernel.outputs[0])

    def _integer_producer(self, placement: Placement, value: str) -> bool:
        """Whether float readers of ``value`` must dequantize it, because its maker fuses with the quantizer."""
        kernel = placement.maker(value)
        if kernel is None or (self.view.tensors[value].is_output and not self.target.everything):
            return False
        if any(use.index < 0 for use in self.view.uses(value)):
            return False  # bodies go on reading the float value
        if self.target.support(kernel.row).float_output:
            # This kernel can give float: its float readers get the exact result, but then it does not fuse
            # with the quantizer.
            return all(
                use.index >= 0 and placement.reads_integers(use.node, use.index) for use in self.view.uses(value)
            )
        return True

    def _tensors(self, placement: Placement, groups: SharingGroups) -> dict[str, TensorPlan]:
        spec = activation_spec(self.recipe)
        found: dict[str, TensorPlan] = {}
        for value in self.view.values:
            maker = placement.maker(value)
            quantized = maker is not None and self._output_quantized(placement, maker)
            if not (quantized or placement.wants_integers(value)):
                continue
            moved = maker is not None and maker.row.trait is Trait.PASSTHROUGH
            fixed = fixed_range(maker.row, spec, self.target) if maker is not None else None
            found[value] = TensorPlan(
                name=value,
                spec=spec,
                group=groups.root(value),
                source="passthrough" if moved else "fixed" if fixed else "calibrated",
                fixed_range=fixed,
                integer_producer=self._integer_producer(placement, value),
                output=quantized and self.view.tensors[value].is_output,
            )
        for value in list(found):
            if self._loses_activation(value) or (
                self.target.guards_float and self._needs_guard(value, placement, found)
            ):
                found[value] = replace(found[value], guard=True)
        return found

    def _loses_activation(self, value: str) -> bool:
        """Whether the runtime would leave out, or not load, the Relu or Clip in front of the quantizer."""
        maker = self.view.producer(value)
        return self.recipe.activation_dtype.floating and maker is not None and maker.op in {"Relu", "Clip"}

    def _needs_guard(self, value: str, placement: Placement, found: dict[str, TensorPlan]) -> bool:
        """Whether the runtime would make integers of a float node between dequantized inputs and this value.

        It does so with every operator it has an integer kernel for, slow ones too, and with float weights.
        """
        if placement.maker(value) is not None:
            return False
        node = self.view.producer(value)
        while node is not None and node.op in {"Relu", "Clip", *_PASSED_BY_QDQ}:
            node = self.view.producer(node.inputs[0])
        if node is None or node.domain:
            return False
        dequantized = [self._dequantized(name, placement, found) for name in node.inputs if name]
        if node.op_type in _WEIGHTED:
            return dequantized[0]
        if node.op_type == "Add":
            # The runtime turns a MatMul and its bias into a Gemm first.
            made = (self.view.producer(name) for name in node.inputs)
            product = next((p for p in made if p is not None and p.op == "MatMul"), None)
            if product is not None:
                return self._dequantized(product.inputs[0], placement, found)
        row = lookup(node.domain, node.op_type)
        if row is None or row.trait not in {Trait.OWN, Trait.SHARED, Trait.FIXED}:
            return False
        return self.target.support(row).kernel is not KernelKind.NONE and all(dequantized)

    def _dequantized(self, value: str, placement: Placement, found: dict[str, TensorPlan]) -> bool:
        """Whether the runtime sees a DequantizeLinear in front of a reading of ``value`` by a float node."""
        while value not in found:
            node = self.view.producer(value)
            if node is None or node.op not in _PASSED_BY_QDQ or placement.maker(value) is not None:
                return False
            value = node.inputs[0]
        return found[value].integer_producer

    def _weight_dtype(self, kernel: Kernel) -> QType:
        """The recipe's type; 8 bits where the node that unpacks narrower ones would take what they save."""
        size = math.prod(dim for dim in self.view.tensors[kernel.weight].shape or () if isinstance(dim, int))
        dtype = self.recipe.weight_dtype
        return INT8 if dtype.bits < 8 and size < _SMALLEST_PACKED else dtype

    def _saturates(self, kernel: Kernel) -> bool:
        """Whether the kernel adds up products of 8-bit activations and int8 weights in 16 bits."""
        eight = self.recipe.activation_dtype.bits == 8 and self._weight_dtype(kernel) == INT8
        return self.target.saturates and eight and self.recipe.weight_symmetric

    # Layers -----------------------------------------------------------------------------------------

    def _layer(self, kernel: Kernel) -> LayerPlan:
        dtype = self._weight_dtype(kernel)
        axis = kernel.weight_axis if has_channels(kernel, self.target) else None
        return LayerPlan(
            node=kernel.node.name,
            input=kernel.inputs[0][1],
            weight=kernel.weight,
            weight_spec=layer_spec(self.recipe, dtype, axis),
            bias=kernel.bias,
            bias_node=kernel.bias_node.name if kernel.bias_node is not None else "",
            output=kernel.raw_output,
            may_create_bias=not kernel.bias and kernel.node.op_type in _WEIGHTED,
            held=held_as(self.recipe, self.target, kernel.node.op_type, dtype, self.view.opset),
            float_bias=self.target.float_bias,
            pairs=pair_order(self.view, kernel.node) if self._saturates(kernel) else "",
        )
