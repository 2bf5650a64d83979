"""Embedding tables: constants whose rows a Gather looks up.

The table is stored as int8 (int16 where weights have 16 bits) with one scale per row r, ``s_r = max|W_r| / qmax``,
and only the rows that were looked up become floats again: ``Gather(q, i) → Cast``, times ``Gather(s, i)``. A
DequantizeLinear in front of the Gather would dequantize the whole table at every run.

Measured on onnxruntime 1.32 (x86, one thread; SQNR of the model's output with nothing but its tables quantized,
MiniLM and a character GPT): one scale per table 27.4 and 44.7 dB, one per column 44.1 and 52.3, one per row 43.4
and 52.4. Looking up 128 of 30522 rows of 384 values takes 44 µs in float, 24 with one scale, 100 with one per
column (DequantizeLinear is slow along an axis), 36 with one per row: it costs nothing. A scale per row also bounds
the error of every row by that row, however large the others are, and no pattern of the runtime matches its nodes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from quantcli.core.affine import params_from_range, quantize
from quantcli.core.dtypes import INT8
from quantcli.core.spec import QuantParams, QuantSpec
from quantcli.graph.edit import GraphEditor
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.ops.reasons import Reason
from quantcli.ops.targets import Target
from quantcli.quantize.plan import TablePlan
from quantcli.quantize.rounding_later import Rounding

SMALLEST_TABLE = 4096
"""Values below which a table stays in float: it would save less than 12 kB, and cost three nodes."""

SHORTEST_ROW = 4
"""Values of a row below which its float32 scale takes more than a third of what int8 saves."""

LARGEST_VALUE = 1e38
"""Magnitude of the values of masks (-inf, -3.4e38), which are no numbers to be rounded."""

_BLOCK_VALUES = 2**20
"""Values that are rounded at a time: in float64 on the way, they take eight times what is stored."""

TABLE_SPEC = QuantSpec(dtype=INT8, symmetric=True, axis=0, narrow=True)
"""Form of tables, where nothing else is asked for."""


def find_table(
    view: GraphView, node: NodeInfo, spec: QuantSpec = TABLE_SPEC, target: Target | None = None
) -> TablePlan | Reason:
    """The table that ``node``, which moves values of a float32 constant, looks up; or why it stays in float."""
    if target is not None and not target.quantizes_tables:
        return _left(f"{target.runtime} is not known to look rows up in tables of integers and to scale them")
    if node.op != "Gather":
        return _left("it moves values of a constant")
    table = node.inputs[0]
    info = view.tensors[table]
    shape = tuple(dim for dim in info.shape or () if isinstance(dim, int))
    if len(shape) < 2 or node.attributes.get("axis", 0) not in {0, -len(shape)}:
        return _left(f"it does not look up rows of '{table}'")
    if math.prod(shape) < SMALLEST_TABLE or math.prod(shape[1:]) < SHORTEST_ROW:
        return _left(f"'{table}' is too small to be worth it ({' × '.join(map(str, shape))})")
    if view.tensors[node.outputs[0]].is_output:
        return Reason(code="F401", sentence="its rows are an output of the graph")
    if any(use.node.op == "Cast" for use in view.uses(node.outputs[0])):
        return _left(f"rows of '{table}' are read as another type")
    values = view.constant(table)
    if not max(-values.min(), values.max()) <= LARGEST_VALUE:  # NaN is not
        return _left(f"'{table}' has values that are infinite or nearly so")
    return TablePlan(node=node.name, table=table, spec=spec)


def read_in_float(
    view: GraphView, tables: Mapping[str, TablePlan], weights: Collection[tuple[str, str]]
) -> dict[str, Reason]:
    """Why some of ``tables`` (by node) stay in float after all: something else keeps the float copy.

    Args:
        view: The graph.
        tables: Candidates.
        weights: (node, initializer) of the quantized layers; they do not read floats.
    """
    found = {}
    for name, plan in tables.items():
        readers = [use.node.name for use in view.uses(plan.table)]
        others = [node for node in readers if node not in tables and (node, plan.table) not in weights]
        if view.tensors[plan.table].is_output:
            found[name] = _left(f"'{plan.table}' is an output of the graph as well")
        elif others:
            found[name] = _left(f"'{others[0]}' reads '{plan.table}' in float, so that it would be stored twice")
    return found


def _left(cause: str) -> Reason:
    return Reason(code="F208", sentence=cause)


def quantize_table(values: np.ndarray, spec: QuantSpec) -> tuple[np.ndarray, QuantParams]:
    """Integers (shape of ``values``) and parameters, one scale per row of a float32 table of rank 2 or more."""
    params = table_params(values, spec)
    return round_table(values, params), params


def table_params(values: np.ndarray, spec: QuantSpec) -> QuantParams:
    """Parameters, one scale per row of a float32 table of rank 2 or more."""
    axes = tuple(range(1, values.ndim))
    bound = np.maximum(values.max(axis=axes), -values.min(axis=axes))
    return params_from_range(-bound, bound, spec)


def round_table(values: np.ndarray, params: QuantParams) -> np.ndarray:
    """Integers of a table, by what ``table_params`` gave."""
    spec = params.spec
    integers = np.empty(values.shape, spec.dtype.storage)
    rows = max(1, _BLOCK_VALUES // math.prod(values.shape[1:]))
    for start in range(0, len(values), rows):
        part = slice(start, start + rows)
        block = QuantParams(spec=spec, scale=params.scale[part], zero_point=params.zero_point[part])
        integers[part] = quantize(values[part], block)
    return integers


class TableWriter:
    """Writes lookups of integer tables; a table that several nodes read is stored once."""

    def __init__(self, editor: GraphEditor, view: GraphView) -> None:
        self._editor = editor
        self._view = view
        self._stored: dict[str, tuple[str, str]] = {}

    def write(self, plan: TablePlan, found: Rounding) -> None:
        """Put the lookup of an integer table in the place of ``plan.node``; node and result keep their names."""
        node = self._view.node_by_name[plan.node]
        table, scales = self._store(plan, found)
        name, index, rows = node.name, node.inputs[1], node.outputs[0]
        parts = [self._editor.new_value_name(f"{rows}_{part}") for part in ("integers", "steps", "scale")]
        integers, steps, scale = parts
        self._editor.remove_node(name)
        first, body = {"axis": 0}, node.scope
        self._editor.add_node("Gather", [table, index], [integers], name=name, attributes=first, scope=body)
        self._editor.add_node(
            "Gather", [scales, index], [scale], name=f"{name}_scale", attributes=first, scope=body
        )
        self._editor.add_cast(integers, "float32", steps, name=f"{name}_Cast", scope=body)
        self._editor.add_node("Mul", [steps, scale], [rows], name=f"{name}_Mul", scope=body)

    def integers_of(self, table: str) -> str:
        """Initializer of the integers of ``table``, which was written."""
        return self._stored[table][0]

    def _store(self, plan: TablePlan, found: Rounding) -> tuple[str, str]:
        """Initializers of the integers and of the scales, which get the rank of the table."""
        if plan.table not in self._stored:
            scales = found.params.scale.reshape(-1, *(1,) * (len(found.shape) - 1))
            self._stored[plan.table] = (
                self._editor.add_lazy_initializer(
                    f"{plan.table}_quantized", found.dtype, found.shape, found.integers
                ),
                self._editor.add_initializer(f"{plan.table}_scale", scales),
            )
        return self._stored[plan.table]
