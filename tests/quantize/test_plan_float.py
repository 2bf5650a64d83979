"""Plans of conversions to float16 and bfloat16."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import graph

from quantcli.errors import ConfigError
from quantcli.quantize.form import Form
from quantcli.quantize.narrow_facts import TensorFact
from quantcli.quantize.plan import Action, NarrowConstant, Plan, plan_from_json
from quantcli.quantize.plan_float import Known, make_float_plan
from quantcli.quantize.recipe import Recipe

W = np.random.default_rng(5).normal(0, 1, (32, 32)).astype(np.float32)


def plan(
    text: str,
    *,
    dtype: str = "float16",
    opset: int = 17,
    facts: dict[str, TensorFact] | None = None,
    constants: dict[str, np.ndarray] | None = None,
    **recipe: object,
) -> Plan:
    view = graph(text, opset=opset, **(constants or {})).view()
    wanted = Recipe(form=Form.FLOAT, float_type=dtype, **recipe)  # type: ignore[arg-type]
    return make_float_plan(view, wanted, Known(facts=facts or {}, kept={}))


def codes(found: Plan) -> list[str]:
    """For each node its reason, "" where it is narrow."""
    return [node.reason.code if node.reason is not None else "" for node in found.nodes]


MLP = "g (float[1,32] x) => (float[1,32] y) { a = MatMul (x, w) b = Relu (a) y = MatMul (b, w) }"


def test_nodes_and_constants_become_narrow() -> None:
    found = plan(MLP, constants={"w": W})
    assert found.count(Action.NARROW) == 3
    assert found.narrow is not None
    assert found.narrow.constants == (NarrowConstant(name="w"),)


def test_excluded_layers_keep_their_weights_as_they_are() -> None:
    found = plan(MLP, constants={"w": W}, exclude=("n0",))
    assert codes(found) == ["F101", "", ""]
    assert found.narrow is not None
    assert found.narrow.constants == ()  # the other layer casts the same weight


def test_excluded_tensors_are_neither_made_nor_read_narrow() -> None:
    assert codes(plan(MLP, constants={"w": W}, exclude=("tensor:b",))) == ["", "F102", "F102"]


def test_a_selector_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="matches no node"):
        plan(MLP, constants={"w": W}, exclude=("conv*",))


def test_shapes_and_indices_are_left_alone() -> None:
    text = """g (float[2,3] x) => (int64[2] z, float[2,3] y) {
        s = Shape (x) f = Cast <to = 1> (s) h = Mul (f, two) z = Cast <to = 7> (h) y = Exp (x)
    }"""
    assert codes(plan(text, constants={"two": np.float32(2)})) == ["F901", "F703", "F703", "F901", ""]


def test_what_becomes_an_integer_is_computed_in_float32() -> None:
    text = "g (float[2] x) => (int64[2] z) { a = Exp (x) b = Mul (a, k) c = Floor (b) z = Cast <to = 7> (c) }"
    assert codes(plan(text, constants={"k": np.float32(1000)})) == ["", "F703", "F703", "F901"]


def test_the_specification_is_kept() -> None:
    text = "g (float[1,3,4,4] x) => (float[1,3,2,2] y) { y = MaxPool <kernel_shape = [3,3]> (x) }"
    assert codes(plan(text)) == [""]
    assert codes(plan(text, dtype="bfloat16")) == ["F702"]


def test_bfloat16_stores_the_weights_of_layers_without_a_kernel() -> None:
    found = plan(MLP, dtype="bfloat16", constants={"w": W})
    assert codes(found) == ["F701", "F701", "F701"]
    assert found.narrow is not None
    assert found.narrow.constants == (NarrowConstant(name="w"),)
    assert found.nodes[0].reason is not None
    assert "stored as bfloat16" in found.nodes[0].reason.sentence


def test_a_large_constant_that_is_no_mask_keeps_its_node_in_float32() -> None:
    text = "g (float[2] x) => (float[2] y) { a = Exp (x) b = Mul (a, k) y = Exp (b) }"
    assert codes(plan(text, constants={"k": np.float32(1e5)})) == ["", "F704", ""]


def test_a_mask_is_cut_off_with_room_for_what_is_added_to_it() -> None:
    text = "g (float[2] x) => (float[2] y) { a = Add (x, k) y = Softmax (a) }"
    found = plan(text, constants={"k": np.array([0, -3.4e38], np.float32)})
    assert codes(found) == ["", ""]
    assert found.narrow is not None
    assert found.narrow.constants == (NarrowConstant(name="k", limit=32752.0),)


def test_an_epsilon_that_would_vanish_keeps_its_node_in_float32() -> None:
    text = "g (float[2] x) => (float[2] y) { a = Add (x, e) y = Sqrt (a) }"
    assert codes(plan(text, constants={"e": np.float32(1e-12)})) == ["F704", ""]


@pytest.mark.parametrize("fact", [TensorFact(largest=4e4, sqnr=70), TensorFact(largest=1e-6, sqnr=20)])
def test_tensors_out_of_range_keep_maker_and_readers_in_float32(fact: TensorFact) -> None:
    text = "g (float[2] x) => (float[2] y) { a = Exp (x) b = Exp (a) c = Neg (b) y = Exp (c) }"
    assert codes(plan(text, facts={"b": fact})) == ["", "F705", "F705", ""]


def test_moves_between_float32_nodes_take_no_casts() -> None:
    text = "g (float[2,3] x) => (float[3,2] y) { a = Exp (x) b = Transpose (a) y = Exp (b) }"
    assert codes(plan(text, exclude=("op:Exp",))) == ["F101", "F706", "F101"]


def test_rows_of_a_table_are_moved_narrow() -> None:
    text = "g (int64[2] i) => (float[2,32] y) { r = Gather (w, i) y = Exp (r) }"
    assert codes(plan(text, dtype="bfloat16", constants={"w": W})) == ["", "F701"]


def test_scales_of_quantizers_are_not_touched() -> None:
    text = """g (float[1,32] x) => (float[1,32] y) {
        q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = MatMul (d, w)
    }"""
    found = plan(text, constants={"w": W, "s": np.float32(0.1), "z": np.uint8(128)})
    assert codes(found) == ["F902", "F902", ""]
    assert found.narrow is not None
    assert [constant.name for constant in found.narrow.constants] == ["w"]


def test_a_plan_survives_its_text() -> None:
    found = plan(MLP, constants={"w": W}, keep_io=False)
    assert plan_from_json(found.to_json()) == found
