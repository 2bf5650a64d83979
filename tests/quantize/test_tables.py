"""Embedding tables: stored as int8 with a scale per row, float only after the lookup."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from small_graphs import actions, graph, plan_of, quantize_graph, reason

from quantcli.quantize import tables
from quantcli.quantize.plan import Action, plan_from_json
from quantcli.quantize.solve import seen_constants
from quantcli.quantize.tables import TABLE_SPEC, quantize_table
from quantcli.runtime.kernels import kernel_report, optimized_view
from quantcli.runtime.session import SessionSettings

RNG = np.random.default_rng(5)
ROWS, WIDTH = 300, 16
TABLE = (RNG.normal(0, 1, (ROWS, WIDTH)) * RNG.uniform(0.01, 10, (ROWS, 1))).astype(np.float32)
WEIGHT = RNG.normal(0, 0.3, (WIDTH, 8)).astype(np.float32)
FEEDS = {"i": np.array([[0, 299, 7, -1]], np.int64)}

LOOKUP = """g (int64[N,S] i) => (float[N,S,8] y) {
    e = Gather <axis = 0> (table, i)
    f = Erf(e)
    y = MatMul(f, w)
}"""
"""A lookup, something that stays in float, and a layer."""


def lookup(table: np.ndarray = TABLE, text: str = LOOKUP, **constants: np.ndarray):
    return graph(text, table=table, w=WEIGHT, **constants)


@pytest.mark.parametrize("target", ["ort-cpu", "generic"])
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("optimization", ["disabled", "all"])
def test_the_graph_computes_exactly_the_table_that_the_solution_tells(target, form, optimization) -> None:
    model = graph(
        "g (int64[N,S] i, float[N,S,16] x) => (float[N,S,16] r, float[N,S,8] y) "
        "{ e = Gather(table, i) r = Neg(e) y = MatMul(x, w) }",
        table=TABLE,
        w=WEIGHT,
    )
    feeds = {**FEEDS, "x": RNG.normal(0, 1, (1, 4, WIDTH)).astype(np.float32)}
    quantized = quantize_graph(model, feeds, form, target=target)
    seen = seen_constants(quantized.solution)["n0", 0]
    assert np.array_equal(quantized.run(feeds, optimization)["r"], -seen[FEEDS["i"]])


def test_every_row_is_within_half_a_step_of_its_own_scale() -> None:
    quantized = quantize_graph(lookup(), FEEDS)
    step = np.abs(TABLE).max(axis=1, keepdims=True) / 127
    # The scale is rounded to float32, up to 127 of which make a value, and so is the product.
    limit = step * (0.5 + 128 * 2.0**-23)
    assert (np.abs(seen_constants(quantized.solution)["n0", 0] - TABLE) <= limit).all()


def test_the_file_holds_the_table_as_integers_only() -> None:
    quantized = quantize_graph(lookup(), FEEDS)
    stored = {name: value.const_value for name, value in quantized.model.ir.graph.initializers.items()}
    assert "table" not in stored
    assert stored["table_quantized"].dtype == ir.DataType.INT8
    assert stored["table_scale"].shape.numpy() == (ROWS, 1)


def test_the_runtime_looks_up_integers_and_never_makes_floats_of_the_table() -> None:
    quantized = quantize_graph(lookup(), FEEDS)
    view = optimized_view(quantized.model.to_bytes(), SessionSettings())
    (node,) = [node for node in view.nodes if node.name == "n0"]
    assert view.tensors[node.inputs[0]].dtype == "int8"
    assert not [t for t in view.tensors.values() if t.is_constant and t.dtype == "float32" and t.nbytes > 4 * ROWS]


def test_the_onnx_reference_computes_the_same() -> None:
    quantized = quantize_graph(
        lookup(text=LOOKUP.replace("Erf", "Neg").replace("MatMul(f, w)", "Neg(f)").replace("S,8", "S,16")), FEEDS
    )
    (expected,) = ReferenceEvaluator(ir.to_proto(quantized.model.ir)).run(None, FEEDS)
    assert np.array_equal(quantized.run(FEEDS)["y"], expected)


def test_a_quantizer_may_follow_the_rows_directly() -> None:
    model = lookup(text="g (int64[N,S] i) => (float[N,S,8] y) { e = Gather(table, i) y = MatMul(e, w) }")
    quantized = quantize_graph(model, FEEDS)
    assert set(quantized.plan.tensors) == {"e"}
    report = kernel_report(quantized.model.to_bytes(), quantized.expected_kernels())
    assert (report.expected, report.fused) == (1, 1)
    rows = seen_constants(quantized.solution)["n0", 0][FEEDS["i"]].astype(np.float64)
    step = float(quantized.solution.tensors["e"].scale)
    # Half a step of the rows and of the weights (1/127 of the largest of a column), over 16 products.
    limit = WIDTH * (step / 2 * np.abs(WEIGHT).max() + np.abs(rows).max() * np.abs(WEIGHT).max() / 254)
    np.testing.assert_allclose(quantized.run(FEEDS)["y"], rows @ WEIGHT, atol=limit)


def test_a_table_of_higher_rank_has_one_scale_per_row() -> None:
    table = RNG.normal(0, 1, (40, 8, 16)).astype(np.float32)
    quantized = quantize_graph(
        lookup(table, LOOKUP.replace("N,S,8", "N,S,8,8")), FEEDS | {"i": np.array([[39, 0]])}
    )
    assert quantized.solution.tables["n0"].params.scale.shape == (40,)
    assert actions(quantized.plan)["n0"] is Action.PASSTHROUGH


def test_a_large_table_is_rounded_in_parts_like_a_small_one(monkeypatch) -> None:
    whole, params = quantize_table(TABLE, TABLE_SPEC)
    monkeypatch.setattr(tables, "_BLOCK_VALUES", 7 * WIDTH)
    parts, same = quantize_table(TABLE, TABLE_SPEC)
    assert np.array_equal(whole, parts)
    assert params == same


def test_one_row_may_be_looked_up_without_an_axis() -> None:
    model = graph(
        """g (int64 i, float[2,16] x) => (float[16] r, float[2,8] y) {
            e = Gather(table, i) r = Neg(e) y = MatMul(x, w) }""",
        table=TABLE,
        w=WEIGHT,
    )
    feeds = {"i": np.array(7), "x": np.ones((2, WIDTH), np.float32)}
    quantized = quantize_graph(model, feeds)
    assert np.array_equal(quantized.run(feeds)["r"], -seen_constants(quantized.solution)["n0", 0][7])


def test_a_body_reads_the_rows_as_floats() -> None:
    model = graph(
        """g (int64[N,S] i, bool c) => (float[N,S,8] y) {
            e = Gather(table, i)
            f = If (c) <then_branch = t () => (float[N,S,16] o) { o = Neg(e) },
                        else_branch = u () => (float[N,S,16] o) { o = Identity(e) }>
            y = MatMul(f, w) }""",
        table=TABLE,
        w=WEIGHT,
    )
    feeds = FEEDS | {"c": np.array(True)}
    quantized = quantize_graph(model, feeds)
    assert [plan.node for plan in quantized.plan.tables] == ["n0"]
    # Two roundings of 8 bits, rows and product, against 16 products of values up to the largest.
    limit = WIDTH * 3 / 254 * np.abs(TABLE).max() * np.abs(WEIGHT).max()
    np.testing.assert_allclose(quantized.run(feeds)["y"], quantized.run_float(feeds)["y"], atol=limit)


def test_a_row_of_zeros_stays_zero() -> None:
    table = TABLE.copy()
    table[7] = 0
    quantized = quantize_graph(lookup(table), FEEDS)
    assert not seen_constants(quantized.solution)["n0", 0][7].any()


def test_a_table_with_two_lookups_is_stored_once() -> None:
    text = """g (int64[N,S] i, int64[N,S] k) => (float[N,S,8] y) {
        e = Gather(table, i) d = Gather(table, k) s = Sub(e, d) y = MatMul(s, w) }"""
    quantized = quantize_graph(lookup(text=text), FEEDS | {"k": FEEDS["i"][:, ::-1]})
    assert [plan.node for plan in quantized.plan.tables] == ["n0", "n1"]
    stored = [v.const_value.nbytes for v in quantized.model.ir.graph.initializers.values()]
    assert sum(size >= TABLE.size for size in stored) == 1


TIED = """g (int64[N,S] i) => (float[N,S,300] z) {
    e = Gather(table, i) t = Transpose <perm = [1,0]> (table) f = MatMul(e, w) z = MatMul(f, t) }"""


@pytest.mark.parametrize(
    ("why", "text", "table", "code"),
    [
        ("small", LOOKUP, TABLE[:100], "F208"),
        ("infinite", LOOKUP, np.where(TABLE > 20, -np.inf, TABLE), "F208"),
        ("a mask", LOOKUP, np.where(TABLE > 20, np.finfo(np.float32).min, TABLE), "F208"),
        ("NaN", LOOKUP, np.where(TABLE > 20, np.nan, TABLE), "F208"),
        ("along columns", LOOKUP.replace("axis = 0", "axis = 1").replace("[N,S,8]", ""), TABLE, "F208"),
        ("short rows", LOOKUP, RNG.normal(0, 1, (3000, 2)).astype(np.float32), "F208"),
        ("an output", LOOKUP.replace("y) {", "y, float[N,S,16] e) {"), TABLE, "F401"),
        ("integers", "g (int64[N,S] i) => (int64[N,S,16] y) { e = Gather(table, i) y = Cast <to = 7> (e) }", TABLE,
         "F208"),
        ("of integers", LOOKUP.replace("Erf(e)", "Cast <to = 1> (e)"), TABLE.astype(np.int32), "F901"),
    ],
)  # fmt: skip
def test_some_tables_stay_in_float(why, text, table, code) -> None:
    plan = plan_of(lookup(np.asarray(table, None if table.dtype == np.int32 else np.float32), text))
    assert not plan.tables
    assert reason(plan, "n0") == code


def test_tied_weights_stay_in_float_and_the_reader_is_named() -> None:
    model = graph(TIED, table=TABLE, w=RNG.normal(0, 1, (16, 16)).astype(np.float32))
    plan = plan_of(model)
    assert not plan.tables
    assert "'n1' reads 'table' in float" in plan.node("n0").reason.sentence


def test_a_table_that_is_a_layer_as_well_is_quantized_for_both() -> None:
    text = """g (int64[N,4] i) => (float[M,300] z) {
        e = Gather(table, i) f = Reshape(e, s) z = Gemm <transB = 1> (f, table) }"""
    quantized = quantize_graph(graph(text, table=TABLE, s=np.array([-1, WIDTH])), FEEDS)
    assert [plan.table for plan in quantized.plan.tables] == ["table"]
    assert "table" not in quantized.model.ir.graph.initializers


def test_an_excluded_lookup_keeps_the_table_of_the_other_in_float() -> None:
    text = """g (int64[N,S] i) => (float[N,S,8] y) {
        e = Gather(table, i) d = Gather(table, i) s = Sub(e, d) y = MatMul(s, w) }"""
    plan = plan_of(lookup(text=text), exclude=("n1",))
    assert (reason(plan, "n0"), reason(plan, "n1")) == ("F208", "F101")


def test_include_names_tables_like_layers() -> None:
    assert not plan_of(lookup(), include=("op:MatMul",)).tables
    assert plan_of(lookup(), include=("op:Gather",)).tables


def test_a_plan_with_tables_reads_back_as_it_was() -> None:
    plan = plan_of(lookup())
    assert plan_from_json(plan.to_json()) == plan
