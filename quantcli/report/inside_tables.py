"""Tables of a report about what is inside: suspects, tensors, attribution, fusion and saturation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from quantcli.report import tables as cell
from quantcli.report.schema import Report, TensorError
from quantcli.report.tables import Cell, Column, Head, Table, table

CLIPPED_MUCH = 0.01
"""Share of clipped elements from which a cell is marked."""


def suspect_table(report: Report) -> Table:
    """Layers whose own error is more than quantization explains: where to look first."""
    suspects = () if report.tensors is None else report.tensors.suspects
    rows = [
        [
            cell.name(item.node),
            cell.name(item.op),
            cell.text(item.finding.replace("_", " "), "bad"),
            Cell(text=f"{item.severity:.3g} ×", value=item.severity),
            cell.name(item.tensor),
            cell.name(item.sentence, 400),
        ]
        for item in suspects
    ]
    head: list[Head] = [
        "Node|",
        "Operator|",
        "Finding|",
        Column(label="Deviation", hint="times what quantization explains"),
        "Tensor|",
        "In words|",
    ]
    return table("suspects", "Look here first", head, rows)


def worst_first(tensors: Sequence[TensorError]) -> list[TensorError]:
    """Tensors by their own error, those without one behind, by their accumulated error."""

    def rank(item: TensorError) -> tuple[bool, float, float, int]:
        own, total = item.local_sqnr, item.sqnr
        return (
            own is None,
            math.inf if own is None else own,
            math.inf if total is None else total,
            item.position,
        )

    return sorted(tensors, key=rank)


def inside_tables(report: Report) -> Iterator[Table]:
    """What is known of tensors, and of what the runtime and other CPUs add."""
    yield _attribution(report)
    yield _fusion(report)
    yield _saturation(report)
    yield _emulated(report)
    yield _tensors(report)


def _attribution(report: Report) -> Table:
    return table(
        "attribution",
        "Whose error it is",
        ["Output|", "Weights only", "Activations only", "Both"],
        [
            [
                cell.name(item.output),
                cell.decibel(item.weights_only),
                cell.decibel(item.activations_only),
                cell.decibel(item.both),
            ]
            for item in report.attribution
        ],
        "SQNR of the output with only one of them quantized: the smaller figure is the greater culprit.",
    )


def _fusion(report: Report) -> Table:
    return table(
        "fusion",
        "With and without the runtime's optimizations",
        ["Output|", "Difference", "SQNR of it", "As executed", "Unoptimized", "|"],
        [
            [
                cell.name(item.output),
                Cell(text=f"{item.steps:.3g} steps", value=item.steps, tone="warn" if item.flagged else ""),
                cell.decibel(item.sqnr),
                cell.decibel(item.sqnr_optimized),
                cell.decibel(item.sqnr_plain),
                cell.text("more than 2 steps" if item.flagged else "", "warn" if item.flagged else ""),
            ]
            for item in report.fusion
        ],
        "Largest difference in steps of the output's scale; the other two are SQNR against the original.",
    )


def _saturation(report: Report) -> Table:
    facts = report.saturation
    rows = []
    note = ""
    if facts is not None:
        rows = [
            [
                cell.name(item.node),
                cell.name(item.op),
                cell.count(item.worst_pair),
                Cell(text=f"{item.channels} of {item.of}", value=item.channels / item.of if item.of else 0.0),
            ]
            for item in facts.risks
        ]
        note = f"{facts.safe} of {facts.layers} layers are proven never to saturate."
        if facts.saturated is not None:
            note += f" {100 * facts.saturated:.3g} % of the pair sums did, in the emulation."
    head: list[Head] = ["Node|", "Operator|", Column(label="Worst pair", hint="above 32767 saturates"), "Channels"]
    return table("saturation", "Layers that can saturate on CPUs without VNNI", head, rows, note)


def _emulated(report: Report) -> Table:
    facts = report.saturation
    rows = [
        [cell.name(item.output), cell.decibel(item.sqnr), cell.decibel(item.sqnr_exact), cell.percent(item.top1)]
        for item in (() if facts is None else facts.outputs)
    ]
    note = "" if facts is None else f"Emulated on {facts.samples} samples."
    head = ["Output|", "SQNR there", "With exact sums", "Top-1 agreement"]
    return table("emulated", "Outputs on a CPU without VNNI", head, rows, note)


def _tensors(report: Report) -> Table:
    found = report.tensors
    rows = [_tensor(item) for item in worst_first(() if found is None else found.tensors)]
    note = ""
    if found is not None:
        note = f"{found.matched} of {found.activations} activations matched, on {found.samples} samples"
        note += "".join(f"; {item}" for item in found.notes) + "."
    head: list[Head] = [
        "Tensor|",
        "Operator|",
        "Position",
        Column(label="SQNR", hint="everything up to here is quantized"),
        Column(label="Own SQNR", hint="of this layer alone"),
        Column(label="RMSE/scale", hint="0.289 is rounding alone"),
        "Clipped",
        "Range used",
        Column(label="Bias", hint="in steps of the scale"),
        "Max abs",
    ]
    return table("tensors", "Tensors, worst first", head, rows, note)


def _tensor(item: TensorError) -> list[Cell]:
    much = item.clipped is not None and item.clipped > CLIPPED_MUCH
    return [
        cell.name(item.name),
        cell.name(item.op),
        cell.count(item.position),
        cell.decibel(item.sqnr),
        cell.decibel(item.local_sqnr),
        cell.number(item.step_rmse, 3),
        cell.percent(item.clipped, "warn" if much else ""),
        cell.percent(item.range_used),
        cell.number(item.bias, 3),
        cell.number(item.max_abs),
    ]
