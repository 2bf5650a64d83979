"""Weight-only emission in standard ONNX. Decides nothing.

* A kernel on integers is ``DequantizeLinear → MatMul`` (or Gemm with transB 0), which onnxruntime fuses into
  MatMulNBits.
* A stored weight is ``Cast → Mul`` with the scale, and a Sub of the zero point between them where there is one;
  blocks lie on an axis of their own and are joined by a Reshape at the end. All of it reads constants only, so it
  is computed once, when the model is loaded. Targets without MatMulNBits get DequantizeLinear, the form that
  other runtimes know.
* A lookup gathers integers and scales of rows, and multiplies those.

A weight is written once; whoever needs it transposed reads it through a Transpose of the integers.
"""

from __future__ import annotations

from collections.abc import Mapping

from quantcli.graph.edit import GraphEditor
from quantcli.graph.view import AttributeValue, GraphView
from quantcli.ops.targets import TARGETS
from quantcli.quantize.plan import Action, LayerPlan, Plan, TablePlan
from quantcli.quantize.solve_weight_only import StoredWeight, roots
from quantcli.quantize.stored_constant import Layout, StoredConstant
from quantcli.quantize.weight_opset import dequantize_opset, type_opset

_TRANSPOSE: Mapping[str, AttributeValue] = {"perm": (1, 0)}


class WeightOnlyEmitter:
    """Writes a weight-only plan into a graph through an editor."""

    def __init__(
        self, editor: GraphEditor, view: GraphView, plan: Plan, weights: Mapping[str, StoredWeight]
    ) -> None:
        self.editor = editor
        self.view = view
        self.plan = plan
        self.weights = weights
        self.roots = roots(plan)
        self._folds = TARGETS[plan.target].contrib
        self._kernels = {node.name for node in plan.nodes if node.action is Action.QUANTIZE}
        self._stored: dict[str, StoredConstant] = {}
        self._values: dict[tuple[str, bool], str] = {}
        self._made: dict[tuple[str, bool], str] = {}

    def lowest_opset(self) -> int:
        """The ai.onnx version that what ``emit`` writes needs."""
        found = [type_opset(table.spec) for table in self.plan.tables]
        found += [self.kernel_opset(layer) for layer in self.plan.layers if layer.node in self._kernels]
        stored = [layer.weight_spec for layer in self.plan.layers if layer.node not in self._kernels]
        stored += [constant.spec for constant in self.plan.constants]
        found += [type_opset(spec) if self._folds else dequantize_opset(spec) for spec in stored]
        return max(found, default=0)

    def kernel_opset(self, layer: LayerPlan) -> int:
        """The ai.onnx version that a kernel needs."""
        return dequantize_opset(layer.weight_spec)

    def emit(self) -> None:
        """Write everything."""
        for table in self.plan.tables:
            self.lookup(table)
        for layer in self.plan.layers:
            if layer.node in self._kernels:
                self.kernel(layer)
            else:
                self.store(layer.node, 1, layer.weight)
        for constant in self.plan.constants:
            self.store(constant.node, constant.index, constant.constant)

    # Kernels ----------------------------------------------------------------------------------------

    def kernel(self, layer: LayerPlan) -> None:
        """``DequantizeLinear`` in front of a product that reads (K, N)."""
        node = self.view.node_by_name[layer.node]
        value = self.dequantized(self.roots[layer.weight][0], turned=self._wants_turned(layer))
        if node.attributes.get("transB", 0):
            attributes = {key: item for key, item in node.attributes.items() if key != "transB"}
            inputs = [node.inputs[0], value, *node.inputs[2:]]
            self.editor.replace_node(node.name, node.op_type, inputs, attributes=attributes)
        else:
            self.editor.set_input(node.name, 1, value)

    def dequantized(self, root: str, *, turned: bool) -> str:
        """DequantizeLinear of a weight, or of its transpose."""
        key = (root, turned)
        if key not in self._values:
            self._values[key] = self.stored(root).dequantize_linear(turned=turned)
        return self._values[key]

    def stored(self, root: str) -> StoredConstant:
        """The integers of a weight in the graph."""
        if root not in self._stored:
            shape = tuple(dim for dim in self.view.tensors[root].shape or () if isinstance(dim, int))
            self._stored[root] = StoredConstant(self.editor, self.weights[root], shape, self._layout(root))
        return self._stored[root]

    def _layout(self, root: str) -> Layout:
        """The layout in which a weight is written: the one that most of its readers want."""
        layers = [layer for layer in self.plan.layers if self.roots[layer.weight][0] == root]
        kernels = [layer for layer in layers if layer.node in self._kernels]
        constants = any(self.roots[entry.constant][0] == root for entry in self.plan.constants)
        tables = any(self.roots[table.table][0] == root for table in self.plan.tables)
        if kernels and len(kernels) == len(layers) and not constants and not tables:
            return Layout.TURNED if all(self._wants_turned(layer) for layer in kernels) else Layout.PLAIN
        stored = len(layers) > len(kernels) or constants
        return Layout.PLAIN if kernels or (stored and not self._folds) else Layout.SPLIT

    def _wants_turned(self, layer: LayerPlan) -> bool:
        """Whether the kernel, which reads (K, N), reads the transpose of the weight whose integers it has."""
        swapped = bool(self.view.node_by_name[layer.node].attributes.get("transB", 0))
        return swapped != self.roots[layer.weight][1]

    # Stored weights ---------------------------------------------------------------------------------

    def store(self, node: str, index: int, constant: str) -> None:
        """Make input ``index`` of ``node`` read a weight that is made of integers."""
        self.editor.set_input(node, index, self._floats(*self.roots[constant]))

    def _floats(self, root: str, turned: bool) -> str:
        if not self._folds:
            return self.dequantized(root, turned=turned)
        if (root, turned) not in self._made:
            made = self._transposed(self._floats(root, False), root) if turned else self.stored(root).folded()
            self._made[root, turned] = made
        return self._made[root, turned]

    def _transposed(self, value: str, name: str) -> str:
        output = self.editor.new_value_name(f"{name}_transposed")
        self.editor.add_node("Transpose", [value], [output], name=f"{name}_Transpose", attributes=_TRANSPOSE)
        return output

    # Lookups ----------------------------------------------------------------------------------------

    def lookup(self, table: TablePlan) -> None:
        """Rows of integers, made floats by their scales."""
        root, _ = self.roots[table.table]
        node = self.view.node_by_name[table.node]
        self.editor.remove_node(node.name)
        rank = self.view.tensors[node.inputs[1]].rank
        self.stored(root).lookup(node.name, node.inputs[1], rank, node.outputs[0])
