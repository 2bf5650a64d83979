import math

import pytest
from full_report import EVIL, bare, full, tensor

from quantcli.report import tables as cell
from quantcli.report.file_tables import file_tables, version_table
from quantcli.report.html.layers import layer_table
from quantcli.report.inside_tables import inside_tables, suspect_table, worst_first
from quantcli.report.output_tables import gate_table, output_tables
from quantcli.report.tables import Column, table


def every_table(report):
    yield gate_table(report)
    yield suspect_table(report)
    yield from output_tables(report)
    yield from inside_tables(report)
    yield from file_tables(report)
    yield version_table(report)
    yield layer_table(report)


@pytest.mark.parametrize("report", [bare(), full(), full(EVIL, many=3)])
def test_rows_have_as_many_cells_as_there_are_columns(report):
    found = list(every_table(report))
    assert len({item.key for item in found}) == len(found)
    for item in found:
        assert all(len(row) == len(item.columns) for row in item.rows), item.key


def test_a_full_report_fills_every_table_but_one():
    """Its runtime has no compute kernels in float."""
    assert [item.key for item in every_table(full()) if not item.rows] == ["float-kernels"]


def test_columns_without_any_measurement_are_left_out():
    made = table("k", "T", ["A|", "B", Column(label="C")], [[cell.text("x"), cell.number(None), cell.count(0)]])
    assert [column.label for column in made.columns] == ["A", "C"]
    assert [[item.text for item in row] for row in made.rows] == [["x", "0"]]
    labels = [column.label for column in layer_table(bare()).columns]
    assert labels == []


def test_tensors_are_ranked_by_their_own_error_then_by_the_accumulated_one():
    found = [
        tensor("fine", 0, local=40.0), tensor("unknown", 1, local=None), tensor("worst", 2, local=-math.inf),
        tensor("exact", 3, local=math.inf), tensor("later", 4, local=None),
    ]  # fmt: skip
    assert [item.name for item in worst_first(found)] == ["worst", "fine", "exact", "later", "unknown"]


def test_layers_join_the_result_with_the_weight():
    report = full("conv")
    made = layer_table(report)
    labels = [column.label for column in made.columns]
    first = dict(zip(labels, (item.text for item in made.rows[0]), strict=True))
    assert (first["Node"], first["Own SQNR"], first["Weight SQNR"]) == ("conv", "38.5 dB", "39.5 dB")
    assert first["Range"] == "-0.282 … 5.71"
    assert made.rows[0][0].tone == "bad"


def test_classes_are_ranked_by_what_they_lost():
    rows = next(item for item in output_tables(full()) if item.key == "classes").rows
    assert [row[0].text for row in rows] == ["logits", "logits", "dog", "unseen"]
    assert [row[5].text for row in rows] == ["-0.2", "-0.18", "0.01", "–"]
