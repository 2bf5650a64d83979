"""Tensors left in float: no Q/DQ on them, and exactly the arithmetic that the graph states."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from small_graphs import actions, graph, plan_of, quantize_graph, reason

from quantcli.errors import ConfigError
from quantcli.graph.model import OnnxModel
from quantcli.quantize.plan import Action
from quantcli.quantize.recipe import Recipe, select_tensors, tensor_selector
from quantcli.runtime.kernels import kernel_report, optimized_view
from quantcli.runtime.session import Session, SessionSettings

IMAGE = {"x": np.random.default_rng(10).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)}


def weight(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.2, shape).astype(np.float32)


def uneven(*shape: int) -> np.ndarray:
    """Channels of very different size: one scale for the whole tensor would lose the small ones."""
    return weight(*shape) * np.logspace(0, 3, shape[0], dtype=np.float32).reshape(-1, *[1] * (len(shape) - 1))


def residual_net():
    """Conv → Relu → pool → Conv → Clip → Conv, a residual Add, Conv, mean; n5 has an uneven weight."""
    return graph(
        """g (float[1,4,8,8] x) => (float[1,4,1,1] y) {
        a = Conv <pads = [1,1,1,1]> (x, w0, b0)
        b = Relu(a)
        p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (b)
        c = Conv <pads = [1,1,1,1]> (p, w1)
        d = Clip(c, lo, hi)
        e = Conv <pads = [1,1,1,1]> (d, w2)
        f = Relu(e)
        s = Add(p, f)
        h = Conv(s, w3)
        y = GlobalAveragePool(h)
        }""",
        w0=weight(4, 4, 3, 3),
        b0=weight(4),
        w1=weight(4, 4, 3, 3, seed=1),
        w2=uneven(4, 4, 3, 3),
        w3=weight(4, 4, 1, 1, seed=2),
        lo=np.float32(0),
        hi=np.float32(6),
    )


def without_fusion(quantized, feeds):
    """The graph as it is written: every Q and DQ on its own, floats between."""
    settings = SessionSettings(optimization="disabled", config={"session.disable_quant_qdq": "1"})
    return Session(quantized.model.to_bytes(), settings).run(feeds)


def test_a_float_tensor_has_no_quantizer_and_its_neighbours_say_why() -> None:
    plan = plan_of(residual_net(), float_tensors=("tensor:d",))
    assert "d" not in plan.tensors
    assert [reason(plan, name) for name in ("n3", "n5")] == ["F102", "F102"]
    assert plan.node("n3").reason.sentence == "tensor 'd' is left in float, and it makes that"
    assert plan.node("n5").reason.sentence == "tensor 'd' is left in float, and it reads that"
    assert set(plan.tensors) == {"x", "b", "s", "h"}


def test_exclude_takes_selectors_of_tensors_too() -> None:
    model = residual_net()
    wanted = plan_of(model, float_tensors=("tensor:d",))
    for exclude in (("tensor:d",), ("tensor:re:d",), ("tensor:[d]",)):
        assert plan_of(model, exclude=exclude) == wanted
    both = plan_of(model, exclude=("n8", "tensor:d"))
    assert [reason(both, name) for name in ("n8", "n3")] == ["F101", "F102"]


def test_all_members_of_a_sharing_group_are_left_in_float() -> None:
    model = residual_net()
    for name in ("b", "p"):
        plan = plan_of(model, float_tensors=(name,))
        assert not {"b", "p"} & set(plan.tensors)
        assert reason(plan, "n0") == "F102"
        assert reason(plan, "n3") == "F102"


def test_a_concat_and_what_joined_it_are_left_in_float_together() -> None:
    model = graph(
        """g (float[1,4,8,8] x) => (float[1,4,1,1] y) {
        a = Conv(x, w0) d = Conv(a, w1) e = Conv(a, w2) f = Concat <axis = 1> (d, e) h = Conv(f, w3)
        y = GlobalAveragePool(h) }""",
        w0=weight(4, 4, 1, 1),
        w1=weight(4, 4, 1, 1),
        w2=weight(4, 4, 1, 1),
        w3=weight(4, 8, 1, 1),
    )
    assert {"d", "e", "f"} <= set(plan_of(model).tensors)
    plan = plan_of(model, float_tensors=("d",))
    assert set(plan.tensors) == {"x", "a"}


@pytest.mark.parametrize("target", ["ort-cpu", "generic"])
def test_a_gemm_may_give_its_result_in_float(target: str) -> None:
    model = graph(
        "g (float[2,4] x) => (float[2,3] y) { a = Gemm(x, w0) y = Gemm(a, w1) }", w0=weight(4, 3), w1=weight(3, 3)
    )
    plan = plan_of(model, target=target, float_tensors=("a",))
    assert set(plan.tensors) == {"x"}
    assert actions(plan) == {"n0": Action.QUANTIZE, "n1": Action.FLOAT}


def test_operators_with_a_fixed_range_are_left_in_float_too() -> None:
    model = graph(
        "g (float[1,4,2,2] x) => (float[1,4,2,2] y) "
        "{ a = Conv(x, w0) s = Sigmoid(a) t = Tanh(s) y = Conv(t, w0) }",
        w0=weight(4, 4, 1, 1),
    )
    assert set(plan_of(model, target="generic").tensors) == {"x", "a", "s", "t"}
    plan = plan_of(model, target="generic", float_tensors=("s",))
    assert set(plan.tensors) == {"x", "t"}
    assert "F102" in {node.reason.code for node in plan.nodes if node.reason}


def test_a_tensor_that_does_not_exist_is_an_error_with_the_nearest_names() -> None:
    model = graph(
        "g (float[2,4] x) => (float[2,3] y) { hidden = Gemm(x, w0) y = Gemm(hidden, w0) }", w0=weight(4, 4)
    )
    with pytest.raises(ConfigError, match="'tensor:hiden' matches no tensor") as caught:
        plan_of(model, exclude=("tensor:hiden",))
    assert caught.value.code == "C101"
    assert "'hidden'" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="not a valid regular expression"):
        plan_of(model, float_tensors=("tensor:re:(",))


@pytest.mark.parametrize(
    ("names", "layers"),
    [
        (("x",), {"n0"}),
        (("d",), {"n3", "n5"}),
        (("f",), {"n5"}),
        (("b",), {"n0", "n3"}),
        (("d", "f"), {"n3", "n5"}),
        (("s",), {"n8"}),
    ],
)
def test_the_runtime_computes_what_the_graph_says(names: tuple[str, ...], layers: set[str]) -> None:
    """Next to Q/DQ onnxruntime would quantize the float weights by itself, per tensor."""
    quantized = quantize_graph(residual_net(), IMAGE, float_tensors=names)
    assert not set(names) & set(quantized.plan.tensors)
    floats = dict.fromkeys(layers, "Conv")
    assert set(kernel_report(quantized.model.to_bytes(), floats).unfused) == layers
    expected = quantized.expected_kernels()
    assert not kernel_report(quantized.model.to_bytes(), expected).unfused
    found, stated = quantized.run(IMAGE)["y"], without_fusion(quantized, IMAGE)["y"]
    # Integer kernels add exactly and float ones with 24 bits, so sums between two steps may round differently;
    # with these seeds none does.
    np.testing.assert_allclose(found, stated, rtol=2**-20)


def test_an_uneven_layer_in_float_keeps_its_weight() -> None:
    """The error of a per-tensor weight, which the guard prevents, is many times the one that is left."""
    model = residual_net()
    quantized = quantize_graph(model, IMAGE, float_tensors=("f",))
    view = optimized_view(quantized.model.to_bytes(), SessionSettings())
    (layer,) = [node for node in view.nodes if node.op_type in {"Conv", "FusedConv"}]
    assert view.tensors[layer.inputs[1]].dtype == "float32"


def test_a_layer_between_quantized_tensors_is_guarded() -> None:
    model = residual_net()
    for names in (("x",), ("d",), ("f",), ("b",), ("s",)):
        plan = plan_of(model, float_tensors=names)
        view = model.view()
        for tensor in plan.tensors.values():
            maker = view.producer(tensor.name)
            while maker is not None and maker.op_type in {"Relu", "Clip"}:
                maker = view.producer(maker.inputs[0])
            if maker is None or maker.op_type != "Conv" or actions(plan)[maker.name] is not Action.FLOAT:
                continue
            source = plan.tensors.get(maker.inputs[0])
            assert tensor.guard == (source is not None and source.integer_producer)


@pytest.mark.parametrize("name", ["a", "a[0]", "a*b?", "re:x", "tensor:y"])
def test_a_tensor_can_be_named_exactly(name: str) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> '
        "g (float[1] x) => (float[1] y) { a = Neg(x) b = Neg(a) y = Neg(b) }"
    )
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = name
    proto.graph.node[1].output[0] = proto.graph.node[2].input[0] = "a0"
    for number, node in enumerate(proto.graph.node):
        node.name = f"n{number}"
    view = OnnxModel(ir.from_proto(proto)).view()
    assert set(select_tensors([tensor_selector(name)], view)) == {name}
    assert Recipe(exclude=(tensor_selector(name),)).excluded_tensors == (tensor_selector(name),)
