"""What the weight-only plan decides: which weights, in which form, and why others stay."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import graph

from quantcli.core.dtypes import INT4, INT8
from quantcli.core.spec import QuantSpec
from quantcli.errors import ConfigError
from quantcli.graph.model import OnnxModel
from quantcli.ops.reasons import REASONS
from quantcli.quantize.form import Form
from quantcli.quantize.plan import Action, Plan, TiedPlan, plan_from_json
from quantcli.quantize.plan_weight_only import make_weight_only_plan
from quantcli.quantize.recipe import Recipe

RNG = np.random.default_rng(3)
WEIGHT = RNG.normal(0, 1, (64, 64)).astype(np.float32)

TWO = "g (float[M,64] x) => (float[M,64] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"


def planned(model: OnnxModel, **recipe: object) -> Plan:
    return make_weight_only_plan(model.view(), Recipe(**recipe))


def reason(plan: Plan, node: str) -> str:
    found = plan.node(node).reason
    assert found is not None
    assert found.code in REASONS
    return found.code


def test_every_node_is_listed_with_what_becomes_of_it() -> None:
    plan = planned(graph(TWO, w=WEIGHT, v=WEIGHT[::-1].copy()), weight_dtype=INT4, block=32)
    assert plan.form is Form.WEIGHT_ONLY
    assert [node.action for node in plan.nodes] == [Action.QUANTIZE, Action.FLOAT, Action.QUANTIZE]
    assert reason(plan, "n1") == "F231"
    spec = QuantSpec(dtype=INT4, symmetric=True, axis=0, block=32)
    assert [layer.weight_spec for layer in plan.layers] == [spec, spec]


def test_a_plan_survives_its_file() -> None:
    plan = planned(graph(TWO, w=WEIGHT, v=WEIGHT.T.copy()), weight_dtype=INT4, block=32, accuracy_level=1)
    assert plan_from_json(plan.to_json()) == plan


def test_excluded_nodes_keep_their_weights() -> None:
    plan = planned(graph(TWO, w=WEIGHT, v=WEIGHT[::-1].copy()), exclude=("n0",))
    assert [node.action for node in plan.nodes] == [Action.FLOAT, Action.FLOAT, Action.QUANTIZE]
    assert reason(plan, "n0") == "F101"


def test_only_included_nodes_are_stored() -> None:
    plan = planned(graph(TWO, w=WEIGHT, v=WEIGHT[::-1].copy()), include=("n2",))
    assert [node.action for node in plan.nodes] == [Action.FLOAT, Action.FLOAT, Action.QUANTIZE]


def test_a_selector_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="matches no node"):
        planned(graph(TWO, w=WEIGHT, v=WEIGHT), exclude=("nowhere",))


def test_a_weight_that_something_reads_in_float_stays_float_for_all() -> None:
    text = "g (float[M,64] x) => (float[M,64] y, float[64,64] z) { y = MatMul(x, w) z = Neg(w) }"
    assert reason(planned(graph(text, w=WEIGHT)), "n0") == "F233"


def test_a_weight_of_an_excluded_node_too_stays_float() -> None:
    text = TWO.replace("(r, v)", "(r, w)")
    assert reason(planned(graph(text, w=WEIGHT), exclude=("n0",)), "n2") == "F233"


def test_a_weight_that_is_an_output_stays_float() -> None:
    text = "g (float[M,64] x) => (float[M,64] y, float[64,64] w) { y = MatMul(x, w) }"
    assert reason(planned(graph(text, w=WEIGHT)), "n0") == "F233"


def test_small_and_computed_weights_stay_float() -> None:
    text = "g (float[M,8] x) => (float[M,8] z) { y = MatMul(x, w) t = Transpose(y) z = MatMul(y, t) }"
    plan = planned(graph(text, w=WEIGHT[:8, :8].copy()))
    assert (reason(plan, "n0"), reason(plan, "n2")) == ("F232", "F301")


def test_equal_constants_are_tied_and_transposes_too() -> None:
    plan = planned(graph(TWO, w=WEIGHT, v=WEIGHT.copy()))
    assert plan.tied == (TiedPlan(constant="v", source="w", transposed=False),)
    text = "g (int64[T] i) => (float[T,64] y) { g = Gather(w, i) e = Relu(g) y = MatMul(e, v) }"
    table = RNG.normal(0, 1, (96, 64)).astype(np.float32)
    plan = planned(graph(text.replace("[T,64] y", "[T,96] y"), w=table, v=table.T.copy()))
    assert plan.tied == (TiedPlan(constant="v", source="w", transposed=True),)


def test_constants_that_differ_in_one_value_are_not_tied() -> None:
    other = WEIGHT.copy()
    other[30, 30] += 1
    assert planned(graph(TWO, w=WEIGHT, v=other)).tied == ()


def test_tables_have_a_scale_per_row_and_eight_bits_at_least() -> None:
    text = "g (int64[T] i) => (float[T,64] y) { g = Gather(w, i) y = Relu(g) }"
    plan = planned(graph(text, w=RNG.normal(0, 1, (96, 64)).astype(np.float32)), weight_dtype=INT4, block=32)
    (table,) = plan.tables
    assert (table.spec.dtype, table.spec.axis, table.spec.block) == (INT8, 0, 0)
    assert plan.node("n0").action is Action.PASSTHROUGH


@pytest.mark.parametrize(
    ("channels", "block", "expected"),
    [(64, 32, (1, 32)), (48, 32, (1, 24)), (24, 32, (1, 24)), (3, 32, (0, 0)), (37, 32, (0, 0)), (64, 0, (0, 0))],
)
def test_blocks_of_convolutions_divide_their_input_channels(channels, block, expected) -> None:
    weight = RNG.normal(0, 1, (64, channels, 3, 3)).astype(np.float32)
    text = f"g (float[1,{channels},8,8] x) => (float[1,64,6,6] y) {{ y = Conv(x, w) }}"
    (layer,) = planned(graph(text, w=weight), block=block).layers
    assert (layer.weight_spec.axis, layer.weight_spec.block) == expected


def test_weights_of_other_types_are_told() -> None:
    text = "g (float16[M,64] x) => (float16[M,64] y) { y = MatMul(x, w) }"
    assert reason(planned(graph(text, w=WEIGHT.astype(np.float16))), "n0") == "F302"


def test_blocks_that_the_kernel_lacks_are_stored() -> None:
    plan = planned(graph(TWO, w=WEIGHT, v=WEIGHT[::-1].copy()), block=48)
    assert plan.node("n0").action is Action.STORE
    assert plan.layers[0].weight_spec.block == 32
