"""Tables of a report about files and graphs: sizes, operators, coverage, kernels, weights, versions."""

from __future__ import annotations

from collections.abc import Iterator

from quantcli.report import format as fmt
from quantcli.report import tables as cell
from quantcli.report.schema import Report
from quantcli.report.tables import Cell, Column, Table, table


def file_tables(report: Report) -> Iterator[Table]:
    """What is known without running a model."""
    yield from _coverage(report)
    yield from _kernels(report)
    yield from _structure(report)
    yield _weights(report)


def version_table(report: Report) -> Table:
    """Versions of the tools."""
    rows = [[cell.name(tool), cell.name(version)] for tool, version in sorted(report.tools.items())]
    return table("versions", "Versions", ["Tool|", "Version|"], rows)


def _coverage(report: Report) -> Iterator[Table]:
    if report.coverage is None:
        return
    rows = report.coverage.rows
    narrow = ["Narrow float"] if report.coverage.narrow else []
    yield table(
        "coverage",
        "Coverage",
        ["Operator|", "Quantized", "Passed through", *narrow, "Float"],
        [
            [
                cell.name(row.op),
                cell.count(row.quantized),
                cell.count(row.passthrough),
                *([cell.count(row.narrow)] if narrow else []),
                cell.count(row.float),
            ]
            for row in rows
        ],
    )
    yield table(
        "reasons",
        "Why nodes are in float",
        ["Code|", "Nodes", "Reason|", "Examples|"],
        [
            [
                cell.name(reason.code),
                cell.count(reason.nodes),
                cell.name(reason.sentence, 300),
                cell.text(", ".join(fmt.name(item) for item in reason.examples)),
            ]
            for reason in report.coverage.reasons
        ],
    )


def _kernels(report: Report) -> Iterator[Table]:
    if report.kernels is None:
        return
    yield table(
        "kernels",
        f"Integer kernels (onnxruntime {fmt.name(report.kernels.runtime)})",
        ["Kernel|", "Nodes"],
        [[cell.name(item.op), cell.count(item.count)] for item in report.kernels.integer],
    )
    yield table(
        "float-kernels",
        "Compute kernels in float",
        ["Kernel|", "Nodes"],
        [[cell.name(item.op), cell.count(item.count)] for item in report.kernels.float_compute],
        note=fmt.name(report.kernels.note, 300),
    )
    yield table(
        "unfused",
        "Quantized, but not fused",
        ["Node|", "Operator|", "Code|", "Reason|"],
        [
            [cell.name(node.name), cell.name(node.op), cell.name(node.code), cell.name(node.sentence, 300)]
            for node in report.kernels.unfused
        ],
    )


def _structure(report: Report) -> Iterator[Table]:
    if report.structure is None:
        return
    first, second = report.structure.original, report.structure.quantized
    before = {item.op: item.count for item in first.ops}
    after = {item.op: item.count for item in second.ops}
    yield table(
        "operators",
        "Operators",
        ["Operator|", "Original", "Quantized"],
        [
            [cell.name(op), cell.count(before.get(op, 0)), cell.count(after.get(op, 0))]
            for op in sorted(before | after)
        ],
    )
    old = {item.dtype: item for item in first.initializers}
    new = {item.dtype: item for item in second.initializers}
    yield table(
        "initializers",
        "Stored values by type",
        ["Type|", "Original", "Quantized"],
        [
            [
                cell.name(dtype),
                *(
                    Cell(text=fmt.size(side[dtype].bytes), value=side[dtype].bytes)
                    if dtype in side
                    else cell.text(fmt.MISSING)
                    for side in (old, new)
                ),
            ]
            for dtype in sorted(old | new)
        ],
    )
    yield table(
        "left-in-float",
        "Compute nodes left in float",
        ["Node|", "Operator|"],
        [[cell.name(node.name), cell.name(node.op)] for node in second.float_compute],
    )


def _weights(report: Report) -> Table:
    found = report.weights
    note = ""
    if found is not None:
        note = f"{found.matched} of {found.weights} matched, {found.kept_float} kept in float"
        note += f", {found.not_found} not found." if found.not_found else "."
    return table(
        "weights",
        "Weights, worst first",
        [
            "Node|",
            "Operator|",
            "Type|",
            "SQNR",
            Column(label="RMSE/scale", hint="0.289 is rounding alone"),
            "Elements",
        ],
        [
            [
                cell.name(layer.node),
                cell.name(layer.op),
                cell.name(f"{layer.dtype} {layer.granularity}"),
                cell.decibel(layer.sqnr),
                cell.number(layer.step_rmse, 3),
                cell.count(layer.elements),
            ]
            for layer in (() if found is None else found.layers)
        ],
        note,
    )
