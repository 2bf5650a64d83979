"""Choices: each one moves the nodes that it is about, the plan keeps it, and the result still fuses."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
from small_graphs import actions, graph, plan_of, quantize_graph, reason

from quantcli.errors import ConfigError
from quantcli.graph.model import OnnxModel
from quantcli.quantize.choices import OPTIONS, Choices
from quantcli.quantize.plan import Action, plan_from_json
from quantcli.runtime.kernels import kernel_report

RNG = np.random.default_rng(17)


def weight(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.3, shape).astype(np.float32)


def many_structures() -> OnnxModel:
    """A first convolution, a squeeze-excite block, a gate, a sum, a max-pool, a Concat and two last layers."""
    return graph(
        """g (float[1,6,8,8] x) => (float[1,5] y, float[1,4] z) {
        a = Conv <pads = [1,1,1,1]> (x, w0)
        m = MaxPool <kernel_shape = [2,2]> (a)
        b = Conv (m, w1)
        p = GlobalAveragePool (b)
        q = Conv (p, w2)
        r = Conv (q, w3)
        s = Sigmoid (r)
        e = Mul (b, s)
        c = Conv (e, w4)
        d = Add (b, c)
        j = Concat <axis = 1> (b, d)
        k = Conv (j, w5)
        t = GlobalAveragePool (k)
        f = Flatten (t)
        y = Gemm (f, w6)
        z = Gemm (f, w7)
        }""",
        w0=weight(8, 6, 3, 3),
        w1=weight(8, 8, 1, 1),
        w2=weight(4, 8, 1, 1),
        w3=weight(8, 4, 1, 1),
        w4=weight(8, 8, 1, 1),
        w5=weight(8, 16, 1, 1),
        w6=weight(8, 5),
        w7=weight(8, 4),
    )


MOVED = {
    "stem": {"n0"},
    "concat": {"n10"},
    "pools": {"n1", "n3", "n12"},
    "gates": {"n6", "n7"},
    "squeeze_excite": {"n3", "n4", "n5", "n6", "n7"},
    "residual": {"n9"},
    "last_layer": {"n14", "n15"},
}
"""Choice → the nodes of ``many_structures`` that it leaves in float."""


def test_the_defaults_are_the_first_options() -> None:
    assert {field.name: field.default for field in fields(Choices)} == {
        name: values[0] for name, values in OPTIONS.items()
    }


def test_everything_is_integer_by_the_static_rules() -> None:
    plan = plan_of(many_structures())
    assert plan.count(Action.FLOAT) == 0
    assert plan.choices == Choices()


@pytest.mark.parametrize("name", MOVED)
def test_a_choice_leaves_its_structure_in_float(name: str) -> None:
    plan = plan_of(many_structures(), choices=Choices(**{name: "float"}))
    chosen = {node.name for node in plan.nodes if node.reason is not None and node.reason.code == "F209"}
    assert chosen == MOVED[name]


@pytest.mark.parametrize("name", MOVED)
def test_what_a_choice_leaves_integer_still_fuses(name: str) -> None:
    x = RNG.normal(0, 1, (1, 6, 8, 8)).astype(np.float32)
    found = quantize_graph(many_structures(), {"x": x}, choices=Choices(**{name: "float"}))
    report = kernel_report(found.model.to_bytes(), found.expected_kernels())
    assert not report.unfused
    for output, wanted in found.run_float({"x": x}).items():
        error = found.run({"x": x})[output] - wanted
        assert np.mean(error**2) < 0.01 * np.mean(wanted**2)


def test_a_gate_that_depends_on_more_than_its_pool_is_no_squeeze_excite_branch() -> None:
    model = graph(
        """g (float[1,4,8,8] x, float[1,4,1,1] v) => (float[1,4,1,1] y) {
        a = Conv (x, w0)
        p = GlobalAveragePool (a)
        q = Add (p, v)
        s = Sigmoid (q)
        e = Mul (a, s)
        b = Conv (e, w1)
        y = GlobalAveragePool (b)
        }""",
        w0=weight(4, 4, 1, 1),
        w1=weight(4, 4, 1, 1),
    )
    plan = plan_of(model, choices=Choices(squeeze_excite="float"))
    assert not [node for node in plan.nodes if node.reason is not None and node.reason.code == "F209"]


def test_the_whole_model_in_float_has_no_quantized_node() -> None:
    plan = plan_of(many_structures(), choices=Choices(whole="float"))
    assert plan.count(Action.FLOAT) == len(plan.nodes)
    assert not plan.tensors
    assert not plan.layers


def test_the_stem_of_a_depthwise_network_can_be_integer_or_float_in_its_first_half() -> None:
    model = graph(
        """g (float[1,3,8,8] x) => (float[1,4,1,1] y) {
        a = Conv <pads = [1,1,1,1]> (x, w0)
        c = Conv <pads = [1,1,1,1], group = 8> (a, w1)
        d = Conv (c, w2)
        y = GlobalAveragePool (d)
        }""",
        w0=weight(8, 3, 3, 3),
        w1=weight(8, 1, 3, 3),
        w2=weight(4, 8, 1, 1),
    )
    assert [reason(plan_of(model), node) for node in ("n0", "n1")] == ["F207", "F207"]
    integer = actions(plan_of(model, choices=Choices(stem="integer")))
    assert [integer[node] for node in ("n0", "n1")] == [Action.QUANTIZE, Action.QUANTIZE]
    first = plan_of(model, choices=Choices(stem="float"))
    assert reason(first, "n0") == "F209"
    assert first.node("n1").action is Action.QUANTIZE


def test_grouped_convolutions_can_be_integer() -> None:
    model = graph(
        "g (float[1,8,8,8] x) => (float[1,8,1,1] y) { a = Conv <group = 2> (x, w0) b = Conv (a, w1) "
        "y = GlobalAveragePool (b) }",
        w0=weight(8, 4, 3, 3),
        w1=weight(8, 8, 1, 1),
    )
    assert reason(plan_of(model), "n0") == "F203"
    assert plan_of(model, choices=Choices(grouped="integer")).node("n0").action is Action.QUANTIZE


def test_a_plan_keeps_its_choices_through_a_file() -> None:
    choices = Choices(stem="float", silu="integer", concat="float")
    plan = plan_of(many_structures(), choices=choices)
    assert plan_from_json(plan.to_json()).choices == choices
    assert choices.changed == {"silu": "integer", "stem": "float", "concat": "float"}


@pytest.mark.parametrize("change", [{"stem": "somewhere"}, {"steam": "float"}])
def test_a_plan_with_a_choice_that_does_not_exist_is_refused(change: dict[str, str]) -> None:
    raw = json.loads(plan_of(many_structures()).to_json())
    raw["choices"] |= change
    with pytest.raises(ConfigError, match="no plan of quantcli") as caught:
        plan_from_json(json.dumps(raw))
    assert caught.value.code == "C103"


def test_a_plan_of_version_1_is_refused_with_the_way_out() -> None:
    raw = json.loads(plan_of(many_structures()).to_json())
    del raw["choices"]
    with pytest.raises(ConfigError, match="version 1") as caught:
        plan_from_json(json.dumps({**raw, "version": 1}))
    assert "--plan-out" in (caught.value.hint or "")
