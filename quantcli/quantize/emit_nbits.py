"""Weight-only emission in operators of com.microsoft, whose accuracy level is stated. Decides nothing.

A kernel on integers is MatMulNBits, a lookup GatherBlockQuantized; both read codes in the layout of
``graph.nbits``, so that a table that is the weight of a product as well is stored once. Both know blocks only: a
scale per result is written once for each block, of the largest size up to ``LARGEST_BLOCK`` that divides K. What
has no such form is written as by ``WeightOnlyEmitter``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quantcli.graph.edit import GraphEditor
from quantcli.graph.nbits import pack_codes, pack_zeros
from quantcli.graph.view import AttributeValue, GraphView, NodeInfo
from quantcli.quantize.emit_weight_only import WeightOnlyEmitter
from quantcli.quantize.plan import LayerPlan, Plan, TablePlan
from quantcli.quantize.solve_weight_only import StoredWeight, planned_specs
from quantcli.quantize.weight_forms import KERNEL_BITS, SMALLEST_BLOCK

CONTRIB = "com.microsoft"

LARGEST_BLOCK = 128
"""Block of weights without blocks: larger ones are no faster."""

_PADDED_BLOCK = 32
"""Block where none divides K: the last one is filled up."""

_MATRIX = 2


@dataclass(frozen=True, slots=True)
class _Packing:
    """How a weight is packed: ``columns`` results of ``rows`` values, from the weight or its transpose."""

    rows: int
    columns: int
    block: int
    turned: bool

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.block)


class NBitsEmitter(WeightOnlyEmitter):
    """Writes MatMulNBits and GatherBlockQuantized through an editor."""

    def __init__(
        self, editor: GraphEditor, view: GraphView, plan: Plan, weights: Mapping[str, StoredWeight]
    ) -> None:
        super().__init__(editor, view, plan, weights)
        self._bits = {name: spec.dtype.bits for name, (_, spec) in planned_specs(plan).items()}
        self._packings = {name: self._packing(name) for name in self._bits}
        self._packed: dict[str, tuple[str, ...]] = {}
        self._rows: dict[str, str] = {}

    def emit(self) -> None:
        """Write everything."""
        if any(packing is not None for packing in self._packings.values()):
            self.editor.set_domain_version(CONTRIB, 1)
        super().emit()

    def kernel_opset(self, layer: LayerPlan) -> int:
        """The ai.onnx version that a kernel needs; packed codes are uint8."""
        packed = self._packings[self.roots[layer.weight][0]] is not None
        return 0 if packed else super().kernel_opset(layer)

    def kernel(self, layer: LayerPlan) -> None:
        """MatMulNBits, with the bias of a Gemm."""
        root, _ = self.roots[layer.weight]
        packing = self._packings[root]
        if packing is None:
            super().kernel(layer)
            return
        node = self.view.node_by_name[layer.node]
        inputs = [node.inputs[0], *self._codes(root, packing)]
        if node.input(2):
            inputs = [*inputs, *[""] * (5 - len(inputs)), node.inputs[2]]
        attributes: Mapping[str, AttributeValue] = {
            "K": packing.rows,
            "N": packing.columns,
            "bits": self._bits[root],
            "block_size": packing.block,
            "accuracy_level": self.plan.accuracy_level,
        }
        self.editor.replace_node(node.name, "MatMulNBits", inputs, domain=CONTRIB, attributes=attributes)

    def lookup(self, table: TablePlan) -> None:
        """GatherBlockQuantized of a table of rank 2."""
        root, _ = self.roots[table.table]
        packing = self._packings[root]
        if packing is None:
            super().lookup(table)
            return
        node = self.view.node_by_name[table.node]
        codes, scales, *zeros = self._codes(root, packing)
        attributes: Mapping[str, AttributeValue] = {
            "bits": self._bits[root],
            "block_size": packing.block,
            "gather_axis": 0,
            "quantize_axis": 1,
        }
        inputs = [self._flat(root, codes, packing), node.inputs[1], scales, *zeros]
        self.editor.replace_node(node.name, "GatherBlockQuantized", inputs, domain=CONTRIB, attributes=attributes)

    # Codes ------------------------------------------------------------------------------------------

    def _packing(self, root: str) -> _Packing | None:
        """How a weight is packed; None where not all of its readers can read that."""
        shape = tuple(dim for dim in self.view.tensors[root].shape or () if isinstance(dim, int))
        layers = [layer for layer in self.plan.layers if self.roots[layer.weight][0] == root]
        tables = [table for table in self.plan.tables if self.roots[table.table][0] == root]
        constants = any(self.roots[entry.constant][0] == root for entry in self.plan.constants)
        if constants or len(shape) != _MATRIX or self._bits[root] not in KERNEL_BITS:
            return None
        if not all(layer.node in self._kernels and self._bias_fits(layer) for layer in layers):
            return None
        turned = {not self._wants_turned(layer) for layer in layers} | ({False} if tables else set())
        if len(turned) != 1:
            return None
        rows, columns = shape if True in turned else shape[::-1]
        spec = planned_specs(self.plan)[root][1]
        block = spec.block or _dividing_block(rows)
        if tables and (not block or rows % block or block & (block - 1)):
            return None
        return _Packing(rows, columns, block or _PADDED_BLOCK, True in turned)

    def _bias_fits(self, layer: LayerPlan) -> bool:
        """Whether the bias of a Gemm, if there is one, has one value per column."""
        node: NodeInfo = self.view.node_by_name[layer.node]
        if not node.input(2):
            return True
        weight = self.view.tensors[layer.weight].shape or ()
        columns = weight[0] if node.attributes.get("transB", 0) else weight[-1]
        return self.view.tensors[node.inputs[2]].shape == (columns,)

    def _codes(self, root: str, packing: _Packing) -> tuple[str, ...]:
        """Initializers of codes, scales, and zero points where there are any."""
        if root in self._packed:
            return self._packed[root]
        weight, bits = self.weights[root], self._bits[root]
        params, shape = weight.params, (packing.columns, packing.blocks)
        offset = 1 << (bits - 1) if params.spec.dtype.signed else 0

        def compute() -> np.ndarray:
            integers = weight.integers()
            own = integers.T if packing.turned else integers
            return pack_codes((own.astype(np.int16) + offset).astype(np.uint8), bits, packing.block)

        def per_block(values: np.ndarray) -> np.ndarray:
            own = values.T if packing.turned and values.ndim == _MATRIX else values
            if params.spec.block:
                return np.ascontiguousarray(own)
            return np.repeat(np.broadcast_to(own.reshape(-1, 1), (packing.columns, 1)), packing.blocks, axis=1)

        size = (*shape, packing.block * bits // 8)
        found = [self.editor.add_lazy_initializer(f"{root}_packed", "uint8", size, compute)]
        found.append(self.editor.add_initializer(f"{root}_scale", per_block(params.scale)))
        zeros = per_block(params.zero_point).astype(np.int16) + offset
        if (zeros != 1 << (bits - 1)).any():
            name = f"{root}_zero_point"
            found.append(self.editor.add_initializer(name, pack_zeros(zeros.astype(np.uint8), bits)))
        self._packed[root] = tuple(found)
        return self._packed[root]

    def _flat(self, root: str, codes: str, packing: _Packing) -> str:
        """Codes of rank 2, as GatherBlockQuantized takes them."""
        if root not in self._rows:
            dims = np.array([packing.columns, packing.rows * self._bits[root] // 8], np.int64)
            shape = self.editor.add_initializer(f"{root}_shape", dims)
            self._rows[root] = self.editor.new_value_name(f"{root}_rows")
            self.editor.add_node("Reshape", [codes, shape], [self._rows[root]], name=f"{root}_Reshape")
        return self._rows[root]


def _dividing_block(rows: int) -> int:
    """The largest block that divides ``rows``; 0 for none."""
    block = LARGEST_BLOCK
    while block >= SMALLEST_BLOCK and rows % block:
        block //= 2
    return block if block >= SMALLEST_BLOCK else 0
