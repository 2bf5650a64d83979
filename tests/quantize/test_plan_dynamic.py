"""Plans of the dynamic form: what is quantized, and the reason for everything else."""

from __future__ import annotations

import re

import numpy as np
import pytest
from small_graphs import actions, graph, reason

from quantcli.errors import ConfigError
from quantcli.quantize import plan_dynamic
from quantcli.quantize.plan import Action, Plan, plan_from_json
from quantcli.quantize.plan_dynamic import SMALLEST_WEIGHT, make_dynamic_plan
from quantcli.quantize.recipe import Recipe

RNG = np.random.default_rng(3)
SIDE = 64
WEIGHT = RNG.normal(0, 0.1, (SIDE, SIDE)).astype(np.float32)
BIAS = RNG.normal(0, 1, SIDE).astype(np.float32)

LSTM = "g (float[T,B,8] x, float[1,B,4] h) => (float[T,1,B,4] y) { y = LSTM <hidden_size = 4> (x, w, r, , , h) }"
GATES = {
    "w": RNG.normal(0, 1, (1, 16, 8)).astype(np.float32),
    "r": RNG.normal(0, 1, (1, 16, 4)).astype(np.float32),
}


@pytest.fixture(autouse=True)
def _small_lstm(monkeypatch: pytest.MonkeyPatch) -> None:
    """LSTM are converted however small they are."""
    monkeypatch.setattr(plan_dynamic, "SMALLEST_LSTM", 0)


def plan(text: str, recipe: Recipe | None = None, **constants: np.ndarray) -> Plan:
    return make_dynamic_plan(graph(text, **constants).view(), recipe or Recipe())


def test_a_product_with_its_bias_is_one_kernel() -> None:
    found = plan("g (float[N,64] x) => (float[N,64] y) { p = MatMul(x, w) y = Add(b, p) }", w=WEIGHT, b=BIAS)
    assert actions(found) == {"n0": Action.QUANTIZE, "n1": Action.FUSE}
    assert found.node("n1").into == "n0"
    assert [(layer.input, layer.bias_node, layer.weight_spec.axis) for layer in found.layers] == [("x", "n1", 1)]
    assert {name: tensor.source for name, tensor in found.tensors.items()} == {"x": "dynamic"}


def test_one_activation_is_rounded_once_for_all_its_readers() -> None:
    found = plan(
        "g (float[N,64] x) => (float[N,64] y, float[N,64] z) { y = MatMul(x, w) z = MatMul(x, w) }", w=WEIGHT
    )
    assert list(found.tensors) == ["x"]
    assert found.integer_inputs == (("n0", 0), ("n1", 0))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("g (float[N,64] x) => (float[N,64] y) { y = Gemm <alpha = 2.0> (x, w) }", "F303"),
        ("g (float[N,64] x) => (float[N,64] y) { y = Gemm <beta = 2.0> (x, w, b) }", "F303"),
        ("g (float[64,N] x) => (float[N,64] y) { y = Gemm <transA = 1> (x, w) }", "F303"),
        ("g (float[N,64] x, float[64] c) => (float[N,64] y) { y = Gemm(x, w, c) }", "F301"),
        ("g (float[N,64] x, float[64,64] c) => (float[N,64] y) { y = MatMul(x, c) }", "F301"),
        ("g (float[64,N] x) => (float[64,N] y) { y = MatMul(w, x) }", "F301"),
        ("g (float[N,64] x) => (float[N] y) { y = MatMul(x, b) }", "F304"),
        ("g (float[N,64] x) => (float[N,64] y) { y = Erf(x) }", "F221"),
        ("g (float[N,64,8,8] x) => (float[N,64,8,8] y) { y = Conv(x, k) }", "F222"),
        ("g (float[T,B,8] x) => (float[T,1,B,4] y) { y = GRU <hidden_size = 4> (x, gw, gr) }", "F224"),
        ("g (float[N,64] x) => (int64[2] y) { y = Shape(x) }", "F901"),
    ],
)
def test_everything_else_stays_in_float_and_says_why(text, code) -> None:
    constants = {
        "w": WEIGHT,
        "b": BIAS,
        "k": RNG.normal(0, 1, (64, 64, 1, 1)).astype(np.float32),
        "gw": RNG.normal(0, 1, (1, 12, 8)).astype(np.float32),
        "gr": RNG.normal(0, 1, (1, 12, 4)).astype(np.float32),
    }
    read = {name: value for name, value in constants.items() if re.search(rf"[( ]{name}[,)]", text)}
    found = plan(text, **read)
    assert found.node("n0").action is Action.FLOAT
    assert reason(found, "n0") == code


def test_a_product_of_few_weights_stays_in_float() -> None:
    text = "g (float[N,64] x) => (float[N,M] y) { y = MatMul(x, w) }"
    small, large = (np.ones((64, columns), np.float32) for columns in (63, 64))
    assert SMALLEST_WEIGHT == 64 * 64
    assert reason(plan(text, w=small), "n0") == "F225"
    assert plan(text, w=large).node("n0").action is Action.QUANTIZE


def test_a_weight_with_more_axes_has_one_scale() -> None:
    weight = RNG.normal(0, 1, (3, 64, 64)).astype(np.float32)
    found = plan("g (float[3,N,64] x) => (float[3,N,64] y) { y = MatMul(x, w) }", w=weight)
    assert found.layers[0].weight_spec.axis is None


def test_an_lstm_is_offered_and_taken_only_on_request() -> None:
    found = plan(LSTM, **GATES)
    assert reason(found, "n0") == "F223"
    assert "--dynamic-lstm" in found.node("n0").reason.sentence
    assert found.recurrent == ()
    asked = plan(LSTM, Recipe(dynamic_lstm=True), **GATES)
    assert asked.node("n0").action is Action.QUANTIZE
    assert [(item.weight, item.recurrence, item.spec.axis) for item in asked.recurrent] == [("w", "r", 1)]


def test_a_small_lstm_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_dynamic, "SMALLEST_LSTM", 16 * 12 + 1)
    assert reason(plan(LSTM, Recipe(dynamic_lstm=True), **GATES), "n0") == "F225"


def test_an_lstm_stays_in_float_where_operators_of_onnxruntime_are_not() -> None:
    assert reason(plan(LSTM, Recipe(dynamic_lstm=True, target="generic"), **GATES), "n0") == "F201"


def test_selectors_leave_nodes_and_tensors_in_float() -> None:
    text = "g (float[N,64] x) => (float[N,64] y) { a = MatMul(x, w) b = Erf(a) y = MatMul(b, w) }"
    excluded = plan(text, Recipe(exclude=("n0",)), w=WEIGHT)
    assert (reason(excluded, "n0"), excluded.node("n0").rule) == ("F101", "--exclude n0")
    assert [layer.node for layer in excluded.layers] == ["n2"]
    assert [layer.node for layer in plan(text, Recipe(include=("n0",)), w=WEIGHT).layers] == ["n0"]
    tensor = plan(text, Recipe(exclude=("tensor:b",)), w=WEIGHT)
    assert reason(tensor, "n2") == "F102"
    with pytest.raises(ConfigError, match="matches no node"):
        plan(text, Recipe(exclude=("nothing",)), w=WEIGHT)


def test_an_excluded_bias_is_added_in_float() -> None:
    text = "g (float[N,64] x) => (float[N,64] y) { p = MatMul(x, w) y = Add(p, b) }"
    found = plan(text, Recipe(exclude=("n1",)), w=WEIGHT, b=BIAS)
    assert found.layers[0].bias == ""
    assert found.node("n1").action is Action.FLOAT


def test_tables_are_stored_as_integers_as_in_the_static_form() -> None:
    table = RNG.normal(0, 1, (300, 64)).astype(np.float32)
    text = "g (int64[N] i) => (float[N,64] y) { e = Gather(table, i) y = MatMul(e, w) }"
    found = plan(text, table=table, w=WEIGHT)
    assert actions(found) == {"n0": Action.PASSTHROUGH, "n1": Action.QUANTIZE}


def test_a_plan_comes_back_from_its_text() -> None:
    found = plan(LSTM, Recipe(dynamic_lstm=True), **GATES)
    assert plan_from_json(found.to_json()) == found
    other = plan("g (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", w=WEIGHT)
    assert plan_from_json(other.to_json()) == other
