"""The table of layers: what is known of each node's result and weight, in one row."""

from __future__ import annotations

from collections.abc import Sequence

from quantcli.report import tables as cell
from quantcli.report.inside_tables import CLIPPED_MUCH
from quantcli.report.schema import LayerWeightError, Report, TensorError
from quantcli.report.tables import Cell, Column, Head, Table, table

_HEAD: Sequence[Head] = (
    "Node|",
    "Operator|",
    Column(label="#", hint="position in the graph"),
    Column(label="Own SQNR", hint="error of this layer alone"),
    Column(label="SQNR", hint="accumulated: everything up to here is quantized"),
    Column(label="Weight SQNR", hint="of the quantized weight"),
    Column(label="RMSE/scale", hint="of the tensor; 0.289 is rounding alone"),
    Column(label="Clipped", hint="share of elements outside the range"),
    Column(label="Range used", hint="share of the range that values reach"),
    Column(label="Bias", hint="mean error in steps of the scale"),
    Column(label="Cosine", hint="mean over samples"),
    "Max abs",
    Column(label="Type", number=False, hint="of the tensor"),
    "Scale",
    Column(label="Zero point"),
    Column(label="Range", hint="that the integers stand for"),
    Column(label="Observed", hint="in the original"),
    "Elements",
    Column(label="Weight", number=False, hint="type and granularity"),
    Column(label="Tensor", number=False),
)


def layer_table(report: Report) -> Table:
    """Every matched tensor and weight, in the order of computation; weights without a tensor come last."""
    tensors = () if report.tensors is None else report.tensors.tensors
    weights = {} if report.weights is None else {item.node: item for item in report.weights.layers}
    guilty = set() if report.tensors is None else {item.node for item in report.tensors.suspects}
    rows = [_row(item, weights.get(item.node), guilty) for item in sorted(tensors, key=lambda t: t.position)]
    made = {item.node for item in tensors}
    rows += [_row(None, item, guilty) for node, item in weights.items() if node not in made]
    return table("layers", "Layers", _HEAD, rows)


def _row(item: TensorError | None, weight: LayerWeightError | None, guilty: set[str]) -> list[Cell]:
    node = item.node if item is not None else weight.node if weight is not None else ""
    op = item.op if item is not None else weight.op if weight is not None else ""
    name = cell.name(node or (item.name if item is not None else ""), 120)
    much = item is not None and item.clipped is not None and item.clipped > CLIPPED_MUCH
    form = "" if weight is None else f"{weight.dtype} {weight.granularity}"
    return [
        Cell(text=name.text, tone="bad" if node in guilty else ""),
        cell.name(op),
        cell.count(item and item.position),
        cell.decibel(item and item.local_sqnr),
        cell.decibel(item and item.sqnr),
        cell.decibel(weight and weight.sqnr),
        cell.number(item and item.step_rmse, 3),
        cell.percent(item and item.clipped, "warn" if much else ""),
        cell.percent(item and item.range_used),
        cell.number(item and item.bias, 3),
        cell.cosine(item and item.cosine),
        cell.number(item and item.max_abs, 3),
        cell.name((item and item.dtype) or "–"),
        cell.number(item and item.scale, 3),
        cell.count(item and item.zero_point),
        cell.interval(item and item.low, item and item.high),
        cell.interval(item and item.observed_low, item and item.observed_high),
        cell.count(item.elements if item is not None else weight and weight.elements),
        cell.name(form or "–"),
        cell.name((item and item.name) or "–", 120),
    ]
