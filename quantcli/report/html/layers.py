"""The table of layers: what is known of each node's result and weight, in one row."""

from __future__ import annotations

from collections.abc import Sequence

from quantcli.report import format as fmt
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

_NOWHERE = -1


def layer_table(report: Report) -> Table:
    """Every matched tensor and weight, in the order of computation; weights without a tensor come last."""
    tensors = () if report.tensors is None else report.tensors.tensors
    weights = {} if report.weights is None else {item.node: item for item in report.weights.layers}
    guilty = set() if report.tensors is None else {item.node for item in report.tensors.suspects}
    ordered = sorted(tensors, key=lambda item: item.position)
    rows = [_row(item, weights.get(item.node), guilty) for item in ordered]
    made = {item.node for item in tensors}
    rows += [_row(_unknown(item), item, guilty) for node, item in weights.items() if node not in made]
    return table("layers", "Layers", _HEAD, rows)


def _unknown(weight: LayerWeightError) -> TensorError:
    """The result of a layer of which only the weight was found."""
    return TensorError(
        name=fmt.MISSING,
        quantized_name=fmt.MISSING,
        node=weight.node,
        op=weight.op,
        position=_NOWHERE,
        elements=weight.elements,
        sqnr=None,
    )


def _row(item: TensorError, weight: LayerWeightError | None, guilty: set[str]) -> list[Cell]:
    name = cell.name(item.node or item.name, 120)
    much = item.clipped is not None and item.clipped > CLIPPED_MUCH
    return [
        Cell(text=name.text, tone="bad" if item.node in guilty else ""),
        cell.name(item.op),
        cell.count(None if item.position == _NOWHERE else item.position),
        cell.decibel(item.local_sqnr),
        cell.decibel(item.sqnr),
        cell.decibel(None if weight is None else weight.sqnr),
        cell.number(item.step_rmse, 3),
        cell.percent(item.clipped, "warn" if much else ""),
        cell.percent(item.range_used),
        cell.number(item.bias, 3),
        cell.cosine(item.cosine),
        cell.number(item.max_abs, 3),
        cell.name(item.dtype or fmt.MISSING),
        cell.number(item.scale, 3),
        cell.count(item.zero_point),
        cell.interval(item.low, item.high),
        cell.interval(item.observed_low, item.observed_high),
        cell.count(item.elements),
        cell.name(fmt.MISSING if weight is None else f"{weight.dtype} {weight.granularity}"),
        cell.name(item.name, 120),
    ]
