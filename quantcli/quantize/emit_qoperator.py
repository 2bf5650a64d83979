"""QOperator emission: the plan and its parameters as operators on integers.

Decides nothing but spelling: a kernel whose QLinear operator exists on the target (operator table) becomes
that operator; standard ONNX first, com.microsoft only where the target has it. Every other planned kernel is
written in QDQ form, which is the same arithmetic. Values between two QLinear operators exist as integers only.
"""

from __future__ import annotations

from collections.abc import Mapping

from quantcli.graph.edit import GraphEditor
from quantcli.graph.view import AttributeValue, GraphView, NodeInfo
from quantcli.ops.spec import OpSpec, Trait
from quantcli.ops.table import lookup
from quantcli.ops.targets import TARGETS
from quantcli.quantize.emit_qdq import CONTRIB, QdqEmitter
from quantcli.quantize.plan import Action, LayerPlan, Plan, TensorPlan
from quantcli.quantize.solve import Solution

_INTEGER_MATMUL = "MatMulIntegerToFloat"


class QOperatorEmitter(QdqEmitter):
    """Writes QLinear operators through an editor."""

    def __init__(self, editor: GraphEditor, view: GraphView, plan: Plan, solution: Solution) -> None:
        super().__init__(editor, view, plan, solution)
        self._target = TARGETS[plan.target]
        self._layers = {layer.node: layer for layer in plan.layers}
        self._last = {layer.node: layer.output for layer in plan.layers}
        self._behind = {activation.input: activation for activation in plan.activations}
        self._integers: dict[str, str] = {}
        self._spelled = {
            node.name: self.view.node_by_name[node.name]
            for node in plan.nodes
            if node.action in {Action.QUANTIZE, Action.PASSTHROUGH}
            and self._can_spell(self.view.node_by_name[node.name])
        }

    def emit(self) -> None:
        """Write everything."""
        self.lookups()
        self._integer_values = self._find_integer_values()
        for tensor in self.plan.tensors.values():
            self._integers[tensor.name] = self.editor.new_value_name(f"{tensor.name}_quantized")
        for node in self._spelled.values():
            self._spell(node)
        for tensor in self.plan.tensors.values():
            self._connect(tensor)
        for layer in self.plan.layers:
            if layer.node not in self._spelled:
                self.layer(layer)
        for name, index in self.solution.constants:
            if name not in self._spelled:
                self.operand(name, index)
        swallowed = {self._last_value(node.name)[1] for node in self._spelled.values()}
        for name in self.solution.dropped:
            if name not in swallowed:
                self.editor.bypass_node(name)

    # What can be spelled ----------------------------------------------------------------------------

    def _row(self, node: NodeInfo) -> OpSpec:
        row = lookup(node.domain, node.op_type)
        assert row is not None
        return row

    def _last_value(self, node: str) -> tuple[str, str]:
        """Last value of a kernel, and the activation in front of it that the operator swallows ("" if none)."""
        value = self._last.get(node, self.view.node_by_name[node].outputs[0])
        activation = self._behind.get(value)
        if activation is not None and activation.node in self.solution.dropped:
            return activation.output, activation.node
        return value, ""

    def _gives_integers(self, node: str) -> bool:
        """Whether the operator's result is integers; a MatMul with a bias has no such operator."""
        layer = self._layers.get(node)
        if layer is not None and layer.bias_node:
            return False
        tensor = self.plan.tensors.get(self._last_value(node)[0])
        return tensor is not None and tensor.integer_producer

    def _can_spell(self, node: NodeInfo) -> bool:
        row = self._row(node)
        if row.trait is Trait.PASSTHROUGH:
            tensors = [self.plan.tensors.get(name) for name in node.outputs if name]
            integers = all(tensor is not None and tensor.integer_producer for tensor in tensors)
            return integers and self.view.opset >= row.integer_opset
        if row.trait is Trait.SHARED and self._same_group(node) and self._gives_integers(node.name):
            return True
        operator = row.qlinear.get(self._target.table, "")
        if not operator:
            return False
        if node.op_type == "MatMul" and node.name in self._layers and self._target.contrib:
            return True
        if node.op_type == "MatMul" and node.name in self._layers and self._layers[node.name].bias:
            return False
        return self._gives_integers(node.name) or operator.endswith("QGemm")

    def _same_group(self, node: NodeInfo) -> bool:
        tensors = [self.plan.tensors.get(name) for name in (*node.inputs, node.outputs[0])]
        return len({tensor.group if tensor is not None else None for tensor in tensors}) == 1

    # Spelling ---------------------------------------------------------------------------------------

    def _spell(self, node: NodeInfo) -> None:
        row = self._row(node)
        if row.trait is Trait.PASSTHROUGH or (row.trait is Trait.SHARED and self._same_group(node)):
            self._same_operator(node)
        elif node.name in self._layers:
            self._spell_layer(node, self._layers[node.name])
        else:
            self._spell_elementwise(node, row)

    def _replace(
        self,
        node: NodeInfo,
        operator: str,
        inputs: list[str],
        outputs: list[str],
        attributes: Mapping[str, AttributeValue],
    ) -> None:
        """A node of another operator in the place of a kernel; it keeps the kernel's name."""
        layer = self._layers.get(node.name)
        swallowed = self._last_value(node.name)[1]
        for name in (swallowed, layer.bias_node if layer is not None else "", node.name):
            if name:
                self.editor.remove_node(name)
        domain, _, op_type = operator.rpartition(".")
        if domain == CONTRIB:
            self.editor.set_domain_version(CONTRIB, 1)
        self.editor.add_node(
            op_type,
            inputs,
            outputs,
            name=node.name,
            domain=domain,
            attributes=dict(attributes),
            scope=node.scope,
        )

    def _same_operator(self, node: NodeInfo) -> None:
        inputs = [self._integers.get(name, name) for name in node.inputs]
        if node.op_type == "Pad" and node.attributes.get("mode", "constant") == "constant":
            inputs[2:3] = [self.params(self.plan.tensors[node.inputs[0]])[1]]  # the integer that means 0
        outputs = [self._integers[name] if name else "" for name in node.outputs]
        operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        self._replace(node, operator, inputs, outputs, node.attributes)

    def _triple(self, value: str) -> list[str]:
        """Integers, scale and zero point of an activation."""
        return [self._integers[value], *self.params(self.plan.tensors[value])]

    def _operand_triple(self, node: NodeInfo, index: int) -> list[str]:
        constant = self.solution.constants.get((node.name, index))
        if constant is None:
            return self._triple(node.inputs[index])
        return list(self.constant(f"{node.inputs[index]}_{node.name}", constant.values, constant.params))

    def _spell_layer(self, node: NodeInfo, layer: LayerPlan) -> None:
        found = self.solution.layers[node.name]
        x, x_scale, x_zero = self._triple(layer.input)
        w, w_scale, w_zero = self.constant(layer.weight, found.weight, found.weight_params, layer.held)
        bias = ""
        if found.bias is not None:
            bias = self.editor.add_initializer(f"{layer.bias_name}_quantized", found.bias)
        value, _ = self._last_value(node.name)
        integers = self._gives_integers(node.name)
        y = list(self.params(self.plan.tensors[value])) if integers else []
        output = self._integers[value] if integers else value
        operator = self._row(node).qlinear[self._target.table]
        if node.op_type == "Conv":
            inputs = [x, x_scale, x_zero, w, w_scale, w_zero, *y, *([bias] if bias else [])]
            self._replace(node, operator, inputs, [output], node.attributes)
        elif node.op_type == "Gemm":
            attributes = {"transB": node.attributes.get("transB", 0)}
            inputs = [x, x_scale, x_zero, w, w_scale, w_zero, bias, *y]
            self._replace(node, operator, inputs, [output], attributes)
        elif integers and not bias:
            self._replace(node, operator, [x, x_scale, x_zero, w, w_scale, w_zero, *y], [output], {})
        else:
            self._float_product(node, layer, [x, w, x_scale, w_scale, x_zero, w_zero], value)

    def _float_product(self, node: NodeInfo, layer: LayerPlan, inputs: list[str], value: str) -> None:
        """MatMul with a float result, and the quantizer behind it where the plan wants one."""
        found = self.solution.layers[node.name]
        if found.bias_values is not None:
            inputs.append(self.editor.add_initializer(f"{layer.bias_name}_vector", found.bias_values))
        self._replace(node, f"{CONTRIB}.{_INTEGER_MATMUL}", inputs, [value], {})

    def _spell_elementwise(self, node: NodeInfo, row: OpSpec) -> None:
        operator = row.qlinear[self._target.table]
        value, _ = self._last_value(node.name)
        y = list(self.params(self.plan.tensors[value]))
        operands = [item for index in range(len(node.inputs)) for item in self._operand_triple(node, index)]
        attributes = dict(node.attributes)
        inputs = [*y, *operands] if node.op_type == "Concat" else [*operands, *y]
        if node.op_type == "GlobalAveragePool":
            attributes["channels_last"] = 0
        self._replace(node, operator, inputs, [self._integers[value]], attributes)

    # Between kernels --------------------------------------------------------------------------------

    def _find_integer_values(self) -> frozenset[str]:
        """Values that spelled operators give as integers."""
        found: set[str] = set()
        for node in self._spelled.values():
            if self._row(node).trait is Trait.PASSTHROUGH:
                found.update(name for name in node.outputs if name)
            elif self._gives_integers(node.name):
                found.add(self._last_value(node.name)[0])
        return frozenset(found)

    def _connect(self, tensor: TensorPlan) -> None:
        """Quantize a value that no spelled operator made as integers; dequantize it for whom wants floats."""
        integers = self._integers[tensor.name]
        if tensor.name not in self._integer_values:
            self.quantize(tensor, integers)
        self.dequantize(
            tensor, integers, [use for use in self.readers(tensor) if use.node.name not in self._spelled]
        )
        if tensor.output:
            self.output(tensor, integers)
