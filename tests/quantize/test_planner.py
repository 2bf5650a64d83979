"""Placement of Q/DQ: which nodes become integer kernels on which target, and why the others do not."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from small_graphs import actions, graph, plan_of, quantize_graph, reason

from quantcli.errors import ConfigError
from quantcli.quantize.plan import Action, plan_from_json
from quantcli.runtime.kernels import kernel_report

RNG = np.random.default_rng(3)


def weight(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.2, shape).astype(np.float32)


def chain(middle: str = "b = Relu(a)", **constants: np.ndarray):
    """Conv → middle → Conv → Relu → ReduceMean."""
    text = f"""g (float[N,4,8,8] x) => (float[N,4,1,1] y) {{
        a = Conv <pads = [1,1,1,1]> (x, w0)
        {middle}
        c = Conv <pads = [1,1,1,1]> (b, w1)
        r = Relu(c)
        y = ReduceMean <axes = [2,3]> (r)
    }}"""
    return graph(text, w0=weight(4, 4, 3, 3), w1=weight(4, 4, 3, 3), **constants)


IMAGE = {"x": RNG.normal(0, 1, (1, 4, 8, 8)).astype(np.float32)}


def test_the_quantizer_sits_behind_the_fused_activation() -> None:
    plan = plan_of(chain())
    assert set(plan.tensors) == {"x", "b", "r"}
    assert actions(plan)["n1"] is Action.FUSE


def test_the_quantizer_sits_behind_matmul_and_bias() -> None:
    model = graph(
        "g (float[M,4] x) => (float[M,2] y) { a = MatMul(x, w0) b = Add(b0, a) y = MatMul(b, w1) }",
        w0=weight(4, 3),
        b0=weight(3),
        w1=weight(3, 2),
    )
    plan = plan_of(model)
    assert set(plan.tensors) == {"x", "b"}
    assert actions(plan) == {"n0": Action.QUANTIZE, "n1": Action.FUSE, "n2": Action.QUANTIZE}


def test_a_bias_that_widens_the_product_is_no_bias() -> None:
    model = graph(
        "g (float[M,4] x) => (float[1,M,3] y) { a = MatMul(x, w0) y = Add(a, b0) }",
        w0=weight(4, 3),
        b0=weight(1, 1, 3),
    )
    assert plan_of(model).layers[0].bias == ""


@pytest.mark.parametrize("target", ["ort-cpu", "generic"])
def test_graph_outputs_carry_no_quantizer(target: str) -> None:
    model = graph(
        "g (float[1,4,8,8] x) => (float[1,4,8,8] y, float[1,4,8,8] a) "
        "{ a = Conv <pads = [1,1,1,1]> (x, w0) y = Conv <pads = [1,1,1,1]> (a, w1) }",
        w0=weight(4, 4, 3, 3),
        w1=weight(4, 4, 3, 3),
    )
    plan = plan_of(model, target=target)
    assert not {"y"} & set(plan.tensors)
    assert not plan.tensors.get("a") or not plan.tensors["a"].integer_producer


def test_a_convolution_whose_result_only_moves_to_the_output_stays_float() -> None:
    model = graph(
        "g (float[1,4,8,8] x) => (float[1,256] y) { a = Conv <pads = [1,1,1,1]> (x, w0) y = Flatten(a) }",
        w0=weight(4, 4, 3, 3),
    )
    assert reason(plan_of(model), "n0") == "F401"


def test_grouped_convolutions_stay_float_and_depthwise_ones_do_not() -> None:
    grouped = chain("b = Conv <pads = [1,1,1,1], group = 2> (a, wg)", wg=weight(4, 2, 3, 3))
    depthwise = chain(
        "d = Conv (a, w2) b = Conv <pads = [1,1,1,1], group = 4> (d, wg)",
        w2=weight(4, 4, 1, 1),
        wg=weight(4, 1, 3, 3),
    )
    assert reason(plan_of(grouped), "n1") == "F203"
    assert actions(plan_of(depthwise))["n2"] is Action.QUANTIZE
    assert actions(plan_of(grouped, target="generic"))["n1"] is Action.QUANTIZE


def test_the_stem_of_a_depthwise_network_stays_float() -> None:
    model = graph(
        """g (float[1,3,8,8] x) => (float[1,4,1,1] y) {
        a = Conv <pads = [1,1,1,1]> (x, w0)
        b = Relu(a)
        c = Conv <pads = [1,1,1,1], group = 8> (b, w1)
        d = Conv (c, w2)
        y = GlobalAveragePool(d)
        }""",
        w0=weight(8, 3, 3, 3),
        w1=weight(8, 1, 3, 3),
        w2=weight(4, 8, 1, 1),
    )
    plan = plan_of(model)
    assert [reason(plan, "n0"), reason(plan, "n2")] == ["F207", "F207"]
    assert actions(plan)["n3"] is Action.QUANTIZE


def test_a_max_pool_outside_of_convolutions_stays_float() -> None:
    model = graph(
        "g (float[1,4,8,8] x) => (float[1,4,1,1] y) { p = MaxPool <kernel_shape = [2,2]> (x) "
        "a = Conv (p, w0) y = GlobalAveragePool(a) }",
        w0=weight(4, 4, 3, 3),
    )
    assert reason(plan_of(model), "n0") == "F404"


def test_products_of_activations_stay_float_where_nothing_else_is_integer() -> None:
    model = graph("g (float[2,4,4] x) => (float[2,4,4] y) { t = Tanh(x) y = MatMul(x, t) }")
    assert reason(plan_of(model), "n1") == "F204"


def test_a_captured_value_keeps_its_kernel_in_float() -> None:
    model = graph(
        """g (float[1,4,8,8] x, bool c) => (float[1,4,1,1] y, float[1,4,8,8] z) {
        a = Conv <pads = [1,1,1,1]> (x, w0)
        b = Conv <pads = [1,1,1,1]> (a, w1)
        y = GlobalAveragePool(b)
        z = If (c) <
            then_branch = t () => (float[1,4,8,8] p) { p = Neg(a) },
            else_branch = e () => (float[1,4,8,8] q) { q = Abs(a) }
        >
        }""",
        w0=weight(4, 4, 3, 3),
        w1=weight(4, 4, 3, 3),
    )
    plan = plan_of(model)
    assert reason(plan, "n0") == "F405"
    feeds = {**IMAGE, "c": np.array(True)}
    quantized = quantize_graph(model, feeds)
    found, expected = quantized.run(feeds), quantized.run_float(feeds)
    np.testing.assert_allclose(found["z"], expected["z"], atol=1e-5)


@pytest.mark.parametrize(
    ("middle", "code"),
    [
        ("s = Cast <to = 10> (a) t = Relu(s) b = Cast <to = 1> (t)", "F302"),
        ("b = LayerNormalizationX(a)", "F205"),
    ],
)
def test_types_and_operators_that_are_not_known_stay_float(middle: str, code: str) -> None:
    model = chain(middle)
    found = {node.reason.code for node in plan_of(model).nodes if node.reason}
    assert code in found


def test_gemm_with_a_scaled_bias_stays_float() -> None:
    model = graph(
        "g (float[2,4] x) => (float[2,3] y) { y = Gemm <beta = 0.5> (x, w0, b0) }", w0=weight(4, 3), b0=weight(3)
    )
    assert reason(plan_of(model), "n0") == "F303"


def test_an_unknown_range_keeps_the_node_in_float() -> None:
    from quantcli.quantize.planner import make_plan
    from quantcli.quantize.recipe import Recipe

    plan = make_plan(chain().view(), Recipe(), known=lambda name: name != "b")
    assert {reason(plan, "n0"), reason(plan, "n2")} == {"F501"}


def test_moved_values_share_their_parameters() -> None:
    quantized = quantize_graph(chain("p = MaxPool <kernel_shape = [2,2]> (a) b = Relu(p)"), IMAGE)
    shared = quantize_graph(chain("b = MaxPool <kernel_shape = [2,2]> (a)"), IMAGE)
    assert shared.solution.tensors["a"] == shared.solution.tensors["b"]
    assert shared.plan.tensors["b"].group == "a"
    assert quantized.plan.tensors["b"].group == "b"


def test_concat_shares_parameters_unless_a_relu_would_be_kept() -> None:
    linear = "d = Conv <pads = [1,1,1,1]> (a, w2) e = Conv <pads = [1,1,1,1]> (a, w2) f = Concat <axis = 1> (d, e)"
    mixed = (
        "d0 = Conv <pads = [1,1,1,1]> (a, w2) d = Relu(d0) e = Conv <pads = [1,1,1,1]> (a, w2) "
        "f = Concat <axis = 1> (d, e)"
    )
    tail = " b = Conv <pads = [1,1,1,1]> (f, w3)"
    constants = {"w2": weight(4, 4, 3, 3), "w3": weight(4, 8, 3, 3)}
    plan = plan_of(chain(linear + tail, **constants))
    assert plan.tensors["d"].group == plan.tensors["e"].group == plan.tensors["f"].group
    plan = plan_of(chain(mixed + tail, **constants))
    assert len({plan.tensors[name].group for name in "def"}) == 3


def test_selectors_exclude_by_name_glob_expression_and_operator() -> None:
    model = chain()
    for selector in ("n0", "n[01]", "re:n0|n1", "op:Conv"):
        plan = plan_of(model, exclude=(selector,))
        assert reason(plan, "n0") == "F101"
        assert plan.node("n0").rule == f"--exclude {selector}"


def test_include_quantizes_nothing_else() -> None:
    plan = plan_of(chain(), include=("n2",))
    assert reason(plan, "n0") == "F101"
    assert actions(plan)["n2"] is Action.QUANTIZE


def test_a_selector_that_matches_nothing_is_an_error_with_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match="'op:Convv' matches no node") as caught:
        plan_of(chain(), exclude=("op:Convv",))
    assert "op:Conv" in str(caught.value.hint)


def test_an_invalid_expression_is_an_error() -> None:
    with pytest.raises(ConfigError, match="not a valid regular expression"):
        plan_of(chain(), exclude=("re:(",))


@pytest.mark.parametrize(
    ("middle", "layer"),
    [
        ("b = Conv <pads = [1,1,1,1]> (a, wm)", "n1"),
        ("p = MaxPool <kernel_shape = [2,2]> (a) b = Conv <pads = [1,1,1,1]> (p, wm)", "n2"),
        ("p = Conv <pads = [1,1,1,1]> (a, wm) b = MaxPool <kernel_shape = [2,2]> (p)", "n1"),
        ("s = Transpose <perm = [0,1,3,2]> (a) p = Conv <pads = [1,1,1,1]> (s, wm) b = Relu (p)", "n2"),
    ],
)
def test_an_excluded_layer_between_integers_is_guarded_and_exact(middle: str, layer: str) -> None:
    """onnxruntime would quantize its float weight per tensor; channels of very different size show it.

    It moves Q and DQ past MaxPool and Transpose first.
    """
    model = chain(middle, wm=weight(4, 4, 3, 3) * np.logspace(0, 3, 4, dtype=np.float32).reshape(4, 1, 1, 1))
    quantized = quantize_graph(model, IMAGE, exclude=(layer,))
    assert quantized.plan.tensors["b"].guard
    report = kernel_report(quantized.model.to_bytes(), {layer: "Conv"})
    assert set(report.unfused) == {layer}
    plain = quantized.run(IMAGE, optimization="disabled")["y"]
    np.testing.assert_allclose(quantized.run(IMAGE)["y"], plain, rtol=0, atol=0.02 * np.abs(plain).max())


def test_plans_survive_their_text_form() -> None:
    model = chain("d = Clip(a, lo, hi) b = Mul(d, k)", lo=np.float32(0), hi=np.float32(6), k=weight(1, 4, 1, 1))
    plan = plan_of(model, exclude=("n1",))
    assert plan_from_json(plan.to_json()) == plan


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1}', '{"version": 99}'])
def test_a_file_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        plan_from_json(text)


def test_missing_statistics_do_not_hide_the_real_reason() -> None:
    from quantcli.quantize.planner import make_plan
    from quantcli.quantize.recipe import Recipe

    model = graph("g (float[2,4] x) => (float[2,4] y) { a = Tanh (x) y = Add (a, x) }")
    plan = make_plan(model.view(), Recipe(), known=lambda _: False)
    assert reason(plan, "n1") == "F402"


def test_a_node_without_its_first_output_is_judged_by_the_next() -> None:
    model = graph(
        "g (float[3,1,2] x) => (float[1,1,4] y) { , y = GRU <hidden_size = 4> (x, w, r) }",
        w=weight(1, 12, 2),
        r=weight(1, 12, 4),
    )
    assert reason(plan_of(model), "n0") == "F201"


@pytest.mark.parametrize(("mode", "code"), [("nearest", "F401"), ("linear", "")])
def test_interpolation_is_no_data_movement(mode: str, code: str) -> None:
    model = graph(
        "g (float[1,4,8,8] x) => (float[1,4,16,16] y) { a = Conv <pads = [1,1,1,1]> (x, w0) "
        f'y = Resize <mode = "{mode}"> (a, , k) }}',
        w0=weight(4, 4, 3, 3),
        k=np.array([1, 1, 2, 2], np.float32),
    )
    found = plan_of(model).node("n0").reason
    assert (found.code if found is not None else "") == code


def test_long_chains_of_moves_are_no_problem() -> None:
    names = ["a", *(f"t{number}" for number in range(1500)), "y"]
    moves = "\n".join(f"{after} = Flatten ({before})" for before, after in pairwise(names))
    model = graph(
        f"g (float[1,4,8,8] x) => (float[1,256] y) {{ a = Conv <pads = [1,1,1,1]> (x, w0)\n{moves} }}",
        w0=weight(4, 4, 3, 3),
    )
    assert reason(plan_of(model), "n0") == "F401"


@pytest.mark.parametrize("move", ["f = Reshape (h, s)", "f, other = Split <axis = 1> (h, two)"])
def test_a_value_that_others_read_does_not_join_a_concat_behind_a_move(move: str) -> None:
    model = graph(
        f"""g (float[1,4,8,8] x) => (float[1,4,1,1] y, float[1,4,1,1] z) {{
        h = Conv (x, w) {move} u = Conv (x, wu) c = Concat <axis = 1> (f, u) k = Conv (c, v)
        y = GlobalAveragePool (k) d = Conv (h, w) z = GlobalAveragePool (d) }}""",
        w=weight(4, 4, 1, 1),
        wu=weight(4, 4, 1, 1) * 100,
        v=weight(4, 8 if "Reshape" in move else 6, 1, 1),
        s=np.array([1, 4, 8, 8], np.int64),
        two=np.array([2, 2], np.int64),
    )
    plan = plan_of(model)
    assert plan.tensors["f"].group == "h"
    assert plan.tensors["c"].group != "h"


def test_nodes_that_would_be_fused_can_be_excluded() -> None:
    plan = plan_of(chain("b = Relu(a)"), exclude=("op:Relu",))
    assert reason(plan, "n1") == "F101"
    assert plan.tensors["a"].integer_producer
    product = graph(
        "g (float[M,4] x) => (float[M,3] y) { a = MatMul (x, w0) y = Add (a, b0) }", w0=weight(4, 3), b0=weight(3)
    )
    plan = plan_of(product, exclude=("op:Add",))
    assert reason(plan, "n1") == "F101"
    assert plan.layers[0].bias == ""


def test_a_resize_with_a_value_of_its_own_stays_float() -> None:
    model = chain(
        'b = Resize <mode = "nearest", coordinate_transformation_mode = "tf_crop_and_resize", '
        "extrapolation_value = 0.7> (a, roi, , sizes)",
        roi=np.array([0, 0, -0.3, -0.3, 1, 1, 1.4, 1.4], np.float32),
        sizes=np.array([1, 4, 8, 8], np.int64),
    )
    assert reason(plan_of(model), "n1") == "F303"
