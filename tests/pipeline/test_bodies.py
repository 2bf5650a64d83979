"""Static conversion of models whose nodes are in bodies.

Oracle: weights are permutations and values the integers 0 … 255, so that ranges by minimum and maximum give the
step 1 and every value lies on its grid. Quantized and float model then agree up to the float32 rounding of the
weight scale 1/127 (relative error 2⁻²⁴ per product and sum; RTOL leaves room for some of them in a row).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from body_models import IF, LOOP, NESTED, SCAN
from onnx_text import proto

from quantcli.errors import ConfigError
from quantcli.pipeline.convert import convert
from quantcli.pipeline.inspect import inspect
from quantcli.pipeline.types import ConvertRequest, ConvertResult, DataOptions
from quantcli.progress import SilentProgress
from quantcli.quantize.form import Form
from quantcli.quantize.plan import Action, Plan
from quantcli.quantize.recipe import Recipe

RTOL = 1e-6
WIDTH = 16  # so that weights are worth more than what describes them
SAMPLES = 8

Feeds = dict[str, np.ndarray]


def permutation(seed: int, size: int = WIDTH) -> np.ndarray:
    return np.eye(size, dtype=np.float32)[np.random.default_rng(seed).permutation(size)]


def integers(seed: int, *shape: int) -> np.ndarray:
    """Integers from 0 to 255 with both ends, float32."""
    values = np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)
    values.reshape(shape[0], -1)[:, :2] = [0, 255]
    return values


def written(folder: Path, text: str, **constants: np.ndarray) -> Path:
    path = folder / "model.onnx"
    wide = text.replace("[1,4]", f"[1,{WIDTH}]").replace("1,4]", f"1,{WIDTH}]")
    onnx.save(proto(wide, opset=17, **({"w": permutation(1)} | constants)), path)
    return path


def converted(model: Path, samples: Mapping[str, np.ndarray], **options: object) -> ConvertResult:
    data = model.with_name("samples.npz")
    np.savez(data, **samples)
    recipe = Recipe(method="minmax", **options.pop("recipe", {}))
    given = {"data": DataOptions(specs=(str(data),)), "overwrite": True, "effort": "fast", **options}
    return convert(ConvertRequest(model=model, recipe=recipe, **given), SilentProgress())


def run(path: Path, feeds: Feeds) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return list(ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, feeds))


def sample(samples: Mapping[str, np.ndarray], index: int) -> Feeds:
    return {name: np.asarray(values[index]) for name, values in samples.items()}


def assert_exact(model: Path, result: ConvertResult, samples: Mapping[str, np.ndarray], least: int = 1) -> None:
    """The result computes what the model does on all samples, with all integer kernels that are planned."""
    assert result.kernels is not None
    assert (result.kernels.fused, result.kernels.unfused) == (result.kernels.expected, {})
    assert sum(result.kernels.integer.values()) >= least
    assert result.output is not None
    onnx.checker.check_model(onnx.load(result.output), full_check=False)
    for index in range(len(next(iter(samples.values())))):
        feeds = sample(samples, index)
        for expected, found in zip(run(model, feeds), run(result.output, feeds), strict=True):
            np.testing.assert_allclose(found, expected, rtol=RTOL, atol=0)


def quantized(plan: Plan) -> set[str]:
    return {node.name for node in plan.nodes if node.action is not Action.FLOAT}


def choices(seed: int = 0) -> dict[str, np.ndarray]:
    return {"c": np.arange(SAMPLES) % 2 == 0, "x": integers(seed, SAMPLES, 1, WIDTH)}


def loops(seed: int = 0) -> dict[str, np.ndarray]:
    return {
        "n": np.arange(SAMPLES, dtype=np.int64) % 4,
        "go": np.ones(SAMPLES, bool),
        "x": integers(seed, SAMPLES, 1, WIDTH),
    }


def scans() -> dict[str, np.ndarray]:
    x = integers(3, SAMPLES, 5, 1, WIDTH)
    return {"first": np.zeros((SAMPLES, 1, WIDTH), np.float32), "x": np.where(x > 127, 51, 0).astype(np.float32)}


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_layers_of_both_branches_are_quantized_and_their_weight_is_stored_once(tmp_path: Path, form: str) -> None:
    model = written(tmp_path, IF)
    result = converted(model, choices(), format=form)
    assert_exact(model, result, choices(1), least=2)
    names = {"choice/then_branch/lin", "choice/else_branch/lin"}
    assert names <= quantized(result.plan)
    assert {node.body for node in result.plan.nodes if node.name in names} == {
        "choice/then_branch", "choice/else_branch",
    }  # fmt: skip
    stored = onnx.load(result.output)
    assert sum(np.prod(tensor.dims) == WIDTH * WIDTH for tensor in stored.graph.initializer) == 1
    bodies = [attribute.g for node in stored.graph.node for attribute in node.attribute if attribute.HasField("g")]
    assert not [tensor for body in bodies for tensor in body.initializer]


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_a_loop_hands_its_state_through_integer_kernels(tmp_path: Path, form: str) -> None:
    model = written(tmp_path, LOOP)
    result = converted(model, loops(), format=form)
    assert_exact(model, result, loops(1))
    assert "lin" in quantized(result.plan)
    assert "state" in result.plan.tensors


def test_a_scan_over_time_is_quantized(tmp_path: Path) -> None:
    model = written(tmp_path, SCAN)
    result = converted(model, scans())
    assert_exact(model, result, scans())
    assert "lin" in quantized(result.plan)


def test_an_if_in_a_loop_is_quantized(tmp_path: Path) -> None:
    samples = loops() | {"x": np.where(loops()["x"] > 0, 51, 0).astype(np.float32)}
    model = written(tmp_path, NESTED)
    result = converted(model, samples)
    assert_exact(model, result, samples, least=2)
    assert {"lin1", "lin2"} <= quantized(result.plan)


CONVOLUTIONS = """g (bool c, float[1,4,6,6] x) => (float[1,4,6,6] y) {
    [stem] s = Conv<pads = [0,0,0,0]>(x, k1)
    [relu] h = Relu(s)
    [choice] r = If (c) <
        then_branch = t () => (float[1,4,6,6] a) {
            [one] q = Conv(h, k2) [one_relu] p = Relu(q) [one_out] a = Conv(p, k3)
        },
        else_branch = e () => (float[1,4,6,6] b) { [two] v = Conv(h, k2) [two_out] b = Neg(v) }
    >
    [last] y = Softsign(r)
}"""


def kernels() -> dict[str, np.ndarray]:
    return {name: permutation(seed, 4).reshape(4, 4, 1, 1) for seed, name in enumerate(("k1", "k2", "k3"))}


def pictures(seed: int) -> dict[str, np.ndarray]:
    return {"c": np.arange(SAMPLES) % 2 == 0, "x": integers(seed, SAMPLES, 1, 4, 6, 6)}


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_convolutions_of_bodies_read_the_integers_of_a_captured_activation(tmp_path: Path, form: str) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(proto(CONVOLUTIONS, **kernels()), model)
    result = converted(model, pictures(0), format=form)
    assert_exact(model, result, pictures(1), least=4)
    assert {"stem", "relu", "one", "one_relu", "one_out", "two"} <= quantized(result.plan)
    stored = onnx.load(result.output)
    assert (
        sum(
            tensor.name.startswith("k2") and tensor.name.endswith("quantized")
            for tensor in stored.graph.initializer
        )
        == 1
    )


FLOAT_READER = """g (bool c, float[1,4,6,6] x) => (float[1,4,6,6] y) {
    [stem] s = Conv(x, k1)
    [relu] h = Relu(s)
    [next] z = Conv(h, k2)
    [choice] r = If (c) <
        then_branch = t () => (float[1,4,6,6] a) { [root] q = Sqrt(h) [sum] a = Add(q, z) },
        else_branch = e () => (float[1,4,6,6] b) { [copy] b = Neg(h) }
    >
    [last] y = Softsign(r)
}"""


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_float_nodes_of_bodies_go_on_reading_a_value_whose_relu_was_dropped(tmp_path: Path, form: str) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(proto(FLOAT_READER, **kernels()), model)
    result = converted(model, pictures(0), format=form)
    assert_exact(model, result, pictures(1), least=2)
    ops = {node.op_type for node in onnx.load(result.output).graph.node}
    assert "Relu" not in ops


def test_a_branch_that_no_sample_takes_stays_in_float_and_says_so(tmp_path: Path) -> None:
    model = written(tmp_path, IF)
    samples = choices() | {"c": np.ones(SAMPLES, bool)}
    result = converted(model, samples)
    assert_exact(model, result, choices(1))
    # What it captures is known, its own values are not: the product gives float, so that x is all that it needs.
    assert result.plan.node("own").reason is not None
    narrow = converted(model, samples, recipe={"exclude": ("stem",)})
    assert narrow.plan.count(Action.QUANTIZE) >= 1


def test_a_layer_whose_input_no_sample_computes_names_the_body(tmp_path: Path) -> None:
    text = IF.replace("[lin] p = MatMul(x, w) [own]", "[pre] u = Sigmoid(x) [lin] p = MatMul(u, w) [own]")
    model = written(tmp_path, text)
    result = converted(model, choices() | {"c": np.ones(SAMPLES, bool)})
    reason = result.plan.node("choice/else_branch/lin").reason
    assert reason is not None
    assert (reason.code, "'choice/else_branch'" in reason.sentence) == ("F501", True)
    assert "choice/then_branch/lin" in quantized(result.plan)


def test_nodes_of_bodies_can_be_excluded_by_globs(tmp_path: Path) -> None:
    model = written(tmp_path, IF)
    result = converted(model, choices(), recipe={"exclude": ("choice/else_branch/*",)})
    assert quantized(result.plan) == {"choice/then_branch/lin"}
    assert_exact(model, result, choices(1))
    with pytest.raises(ConfigError, match="matches no node"):
        converted(model, choices(), recipe={"exclude": ("choice/third/*",)})


@pytest.mark.parametrize(
    ("selector", "left"),
    [("loop/*", set()), ("*/else_branch/*", {"lin1"}), ("lin1", {"lin2"}), ("loop/body/choice/then_*", {"lin2"})],
)
def test_nodes_with_names_of_their_own_are_found_by_their_path(
    tmp_path: Path, selector: str, left: set[str]
) -> None:
    request = ConvertRequest(
        model=written(tmp_path, NESTED), recipe=Recipe(exclude=(selector,)), dry_run=True, overwrite=True
    )
    assert quantized(convert(request, SilentProgress()).plan) == left


def test_a_plan_of_bodies_can_be_saved_and_used_again(tmp_path: Path) -> None:
    model = written(tmp_path, LOOP)
    plan = tmp_path / "plan.json"
    first = converted(model, loops(), plan_out=plan, output=tmp_path / "a.onnx")
    second = converted(model, loops(), plan=plan, output=tmp_path / "b.onnx")
    assert second.plan == first.plan
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_inspect_lists_the_nodes_of_bodies(tmp_path: Path) -> None:
    found = inspect(written(tmp_path, LOOP), target="ort-cpu")
    assert found.plan is not None
    assert [node.name for node in found.plan.nodes] == ["keep", "lin", "act", "neg", "loop"]
    reason = found.plan.node("loop").reason
    assert reason is not None
    assert reason.code == "F901"


def test_rounding_to_nearest_in_bodies_is_told(tmp_path: Path) -> None:
    model = written(tmp_path, LOOP)
    result = converted(model, loops(), effort="balanced")
    assert [note for note in result.notes if note.endswith("rounded to nearest: 1")]


def test_the_error_of_a_layer_in_a_body_is_within_the_bound(tmp_path: Path) -> None:
    """|Δy| ≤ Σ (|w|·s_x/2 + |x|·s_w/2 + s_x·s_w/4) per output, and the float32 rounding of both."""
    rng = np.random.default_rng(7)
    weight = rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)
    model = written(tmp_path, IF, w=weight)
    samples = {"c": np.zeros(SAMPLES, bool), "x": rng.normal(size=(SAMPLES, 1, WIDTH)).astype(np.float32)}
    result = converted(model, samples)
    x = samples["x"][:, 0].astype(np.float64)
    s_x = (max(x.max(), 0) - min(x.min(), 0)) / 255 * 1.01  # the zero point may shift the range by half a step
    s_w = np.abs(weight).max(axis=0) / 127
    bound = np.abs(weight).sum(axis=0) * s_x / 2 + np.abs(x).sum(axis=1)[:, None] * s_w / 2 + WIDTH * s_x * s_w / 4
    for index in range(SAMPLES):
        feeds = sample(samples, index)
        expected, found = run(model, feeds)[0], run(result.output, feeds)[0]
        assert (np.abs(found - expected) <= bound[index] * 1.001).all()
        assert (found != expected).any()


def wrapped(model: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    """``model`` as the branch of an If that is taken, or as the body of a Loop that runs once.

    Every second initializer stays outside and is captured.
    """
    graph = model.graph
    (output,) = graph.output
    result = onnx.helper.make_tensor_value_info("inner", output.type.tensor_type.elem_type, None)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    for node in nodes:
        node.output[:] = ["inner" if name == output.name else name for name in node.output]
    inside, outside = list(graph.initializer)[::2], list(graph.initializer)[1::2]
    make, flag = onnx.helper.make_node, onnx.helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, [])
    if kind == "If":
        other = onnx.helper.make_graph([make("RandomNormal", [], ["noise"], shape=[1, 10])], "e", [], [
            onnx.helper.make_tensor_value_info("noise", onnx.TensorProto.FLOAT, None)
        ])  # fmt: skip
        taken = onnx.helper.make_graph(nodes, "t", [], [result], initializer=inside)
        owner = make("If", ["flag"], [output.name], name="owner", then_branch=taken, else_branch=other)
    else:
        ports = [
            onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            onnx.helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
        ]
        again = onnx.helper.make_tensor_value_info("again", onnx.TensorProto.BOOL, [])
        body = onnx.helper.make_graph(
            [*nodes, make("Identity", ["go"], ["again"])], "b", ports, [again, result], initializer=inside
        )
        once = onnx.numpy_helper.from_array(np.array(1), "once")
        owner = make("Loop", ["once", "flag"], ["stacked"], name="owner", body=body)
        squeeze = make("Reshape", ["stacked", "rows"], [output.name], name="squeeze")
        outside += [once, onnx.numpy_helper.from_array(np.array([-1, 10]), "rows")]
    main = onnx.helper.make_graph(
        [owner] if kind == "If" else [owner, squeeze],
        "g",
        [*graph.input, flag],
        [output],
        initializer=outside,
    )
    return onnx.helper.make_model(main, opset_imports=model.opset_import, ir_version=model.ir_version)


@pytest.mark.parametrize("kind", ["If", "Loop"])
def test_a_network_in_a_body_gets_the_kernels_that_it_gets_in_the_main_graph(tmp_path: Path, kind: str) -> None:
    root = Path(__file__).resolve().parents[2] / "sample_models"
    images = next(iter(np.load(root / "data" / "digits_calib.npz").values()))[:SAMPLES, None]
    model = onnx.load(root / "digits_cnn.onnx")
    (name,) = (value.name for value in model.graph.input)
    plain, inside = tmp_path / "plain.onnx", tmp_path / "inside.onnx"
    onnx.save(model, plain)
    onnx.save(wrapped(model, kind), inside)
    expected = converted(plain, {name: images})
    found = converted(inside, {name: images, "flag": np.ones(SAMPLES, bool)})
    assert found.kernels is not None
    assert expected.kernels is not None
    assert (found.kernels.integer, found.kernels.unfused) == (expected.kernels.integer, {})
    actions = {node.name: node.action for node in found.plan.nodes}
    assert {node.name: actions[node.name] for node in expected.plan.nodes} == {
        node.name: node.action for node in expected.plan.nodes
    }
    assert set(found.plan.tensors) == set(expected.plan.tensors)


def dynamic(model: Path, **recipe: object) -> ConvertResult:
    wanted = Recipe(form=Form.DYNAMIC, **recipe)
    return convert(ConvertRequest(model=model, recipe=wanted, overwrite=True), SilentProgress())


@pytest.mark.parametrize("text", [IF, LOOP])
def test_products_in_bodies_take_the_dynamic_form(tmp_path: Path, text: str) -> None:
    """Permutations of 0 … 255: DynamicQuantizeLinear finds the step 1, so that the result is exact again."""
    size = 64
    model = tmp_path / "model.onnx"
    onnx.save(proto(text.replace("1,4]", f"1,{size}]"), opset=17, w=permutation(1, size)), model)
    result = dynamic(model)
    names = {node.name for node in result.plan.nodes if node.op_type == "MatMul"}
    assert names == quantized(result.plan)
    assert result.kernels is not None
    assert (result.kernels.fused, result.kernels.unfused) == (len(names), {})
    stored = onnx.load(result.output)
    assert sum(np.prod(tensor.dims) == size * size for tensor in stored.graph.initializer) == 1
    x = integers(1, 1, 1, size)[0]
    for feeds in ({"c": True}, {"c": False}) if text is IF else ({"n": np.int64(3), "go": True},):
        given = {"x": x, **{name: np.asarray(value) for name, value in feeds.items()}}
        for expected, found in zip(run(model, given), run(result.output, given), strict=True):
            np.testing.assert_allclose(found, expected, rtol=RTOL, atol=0)


RECURRENT = """g (bool c, float[3,1,64] x) => (float[3,1,1,64] y) {
    [choice] y = If (c) <
        then_branch = t () => (float[3,1,1,64] a) { [one] a = LSTM<hidden_size = 64>(x, w, r) },
        else_branch = e () => (float[3,1,1,64] b) { [n] v = Neg(x) [two] b = LSTM<hidden_size = 64>(v, w, r) }
    >
}"""


def test_recurrent_layers_of_two_branches_share_their_integers(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    weights = {name: rng.normal(0, 0.1, (1, 256, 64)).astype(np.float32) for name in ("w", "r")}
    model = tmp_path / "model.onnx"
    onnx.save(proto(RECURRENT, opset=17, **weights), model)
    result = dynamic(model, dynamic_lstm=True)
    assert quantized(result.plan) == {"one", "two"}
    stored = onnx.load(result.output)
    assert (
        sum(
            tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 3
            for tensor in stored.graph.initializer
        )
        == 2
    )
    alone = tmp_path / "alone.onnx"
    text = "g (float[3,1,64] x) => (float[3,1,1,64] y) { [one] y = LSTM<hidden_size = 64>(x, w, r) }"
    onnx.save(proto(text, opset=17, **weights), alone)
    outside = dynamic(alone, dynamic_lstm=True).output
    x = rng.normal(size=(3, 1, 64)).astype(np.float32)
    for taken, sign in ((True, 1), (False, -1)):
        expected, found = run(outside, {"x": sign * x})[0], run(result.output, {"c": np.array(taken), "x": x})[0]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("text", [IF, LOOP])
def test_weights_of_bodies_take_the_weight_only_form(tmp_path: Path, text: str, form: str) -> None:
    """A permutation is exact in 8 bits, and so are activations of 0 and 127, which the kernel rounds to int8."""
    size = 64
    model = tmp_path / "model.onnx"
    onnx.save(proto(text.replace("1,4]", f"1,{size}]"), opset=17, w=permutation(1, size)), model)
    request = ConvertRequest(model=model, recipe=Recipe(form=Form.WEIGHT_ONLY), format=form, overwrite=True)
    result = convert(request, SilentProgress())
    names = {node.name for node in result.plan.nodes if node.op_type == "MatMul"}
    assert names == quantized(result.plan)
    main = onnx.load(result.output).graph
    graphs = [main, *(item.g for node in main.node for item in node.attribute if item.HasField("g"))]
    assert sum(np.prod(tensor.dims) == size * size for graph in graphs for tensor in graph.initializer) == 1
    x = np.tile(np.array([0, 127], np.float32), size // 2)[None]
    for feeds in ({"c": True}, {"c": False}) if text is IF else ({"n": np.int64(3), "go": True},):
        given = {"x": x, **{name: np.asarray(value) for name, value in feeds.items()}}
        for expected, found in zip(run(model, given), run(result.output, given), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("form", list(Form))
def test_a_plan_of_every_form_says_in_which_body_a_node_is(tmp_path: Path, form: Form) -> None:
    text = IF.replace("1,4]", "1,64]")
    onnx.save(proto(text, opset=17, w=permutation(1, 64)), tmp_path / "model.onnx")
    recipe = Recipe(form=form, float_type="float16" if form is Form.FLOAT else "")
    planned = convert(ConvertRequest(model=tmp_path / "model.onnx", recipe=recipe, dry_run=True), SilentProgress())
    bodies = {node.body for node in planned.plan.nodes if node.op_type == "MatMul"}
    assert bodies == {"choice/then_branch", "choice/else_branch"}
