"""The dynamic form as nodes: exact integers, the pattern that onnxruntime fuses, LSTM."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from small_graphs import graph

from quantcli.core.affine import dequantize, quantize
from quantcli.core.spec import QuantParams
from quantcli.errors import ModelError
from quantcli.evaluate.integer_layers import integer_layers
from quantcli.evaluate.saturation import prove_saturation
from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel
from quantcli.quantize import plan_dynamic
from quantcli.quantize import solve_dynamic as solving
from quantcli.quantize.emit_dynamic import DynamicEmitter
from quantcli.quantize.plan_dynamic import make_dynamic_plan
from quantcli.quantize.recipe import Recipe
from quantcli.quantize.recurrent import quantize_gates
from quantcli.quantize.solve_dynamic import fake_quantize_dynamically, solve_dynamic, solve_recurrent
from quantcli.quantize.spared import spared_notes, with_spared
from quantcli.runtime.kernels import kernel_report, optimized_view
from quantcli.runtime.session import Session, SessionSettings

RNG = np.random.default_rng(8)
SIDE = 64
WEIGHT = RNG.normal(0, 0.1, (SIDE, SIDE)).astype(np.float32)
BIAS = RNG.normal(0, 1, SIDE).astype(np.float32)
X = RNG.normal(0.3, 1, (5, SIDE)).astype(np.float32)

LAYER = "g (float[N,64] x) => (float[N,64] y) { p = MatMul(x, w) y = Add(p, b) }"
GEMM = "g (float[N,64] x) => (float[N,64] y) { y = Gemm <transB = 1> (x, w, b) }"
SHARED = "g (float[N,64] x) => (float[N,64] y, float[N,64] z) { y = MatMul(x, w) z = MatMul(x, v) }"


@pytest.fixture(autouse=True)
def _small_lstm(monkeypatch: pytest.MonkeyPatch) -> None:
    """LSTM are converted however small they are."""
    monkeypatch.setattr(plan_dynamic, "SMALLEST_LSTM", 0)


def emitted(model: OnnxModel, **recipe: object) -> OnnxModel:
    view = model.view()
    plan = make_dynamic_plan(view, Recipe(**recipe))
    copy = model.clone()
    editor = GraphEditor(copy)
    DynamicEmitter(editor, view, plan, solve_dynamic(plan, view), solve_recurrent(plan, view)).emit()
    editor.finish()
    return copy


def run(model: OnnxModel, feeds: dict[str, np.ndarray], optimization: str = "disabled") -> dict[str, np.ndarray]:
    return Session(model.to_bytes(), SessionSettings(optimization=optimization)).run(feeds)


def kernels(model: OnnxModel) -> Counter[str]:
    return Counter(node.op_type for node in optimized_view(model.to_bytes(), SessionSettings()).nodes)


def by_hand(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x·W by DynamicQuantizeLinear and MatMulInteger as ONNX defines them; weight (K, N), a scale per column."""
    low, high = min(0, x.min()), max(0, x.max())
    scale = np.float32((high - low) / np.float32(255))
    zero = np.rint(-low / scale)
    codes = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.int32) - int(zero)
    steps = (np.abs(weight).max(axis=0).astype(np.float64) / 127).astype(np.float32)
    integers = np.clip(np.rint(weight / steps), -127, 127).astype(np.int32)
    return (codes @ integers).astype(np.float32) * (scale * steps)


@pytest.mark.parametrize(("text", "transposed"), [(LAYER, False), (GEMM, True)])
def test_the_graph_computes_what_the_formulas_say_bit_for_bit(text, transposed) -> None:
    model = emitted(graph(text, w=WEIGHT, b=BIAS))
    expected = by_hand(X, WEIGHT.T if transposed else WEIGHT) + BIAS
    assert np.array_equal(run(model, {"x": X})["y"], expected)


@pytest.mark.parametrize("text", [LAYER, GEMM])
@pytest.mark.parametrize("shape", [(SIDE,), (1, SIDE)])
def test_the_bias_becomes_part_of_one_kernel(text, shape) -> None:
    model = emitted(graph(text, w=WEIGHT, b=BIAS.reshape(shape)))
    assert kernels(model) == {"DynamicQuantizeMatMul": 1}
    # the fused kernel multiplies and adds in one step, which may round once less
    exact = run(model, {"x": X})["y"]
    assert np.allclose(run(model, {"x": X}, "all")["y"], exact, rtol=0, atol=4 * np.spacing(np.abs(exact).max()))


def test_readers_of_one_activation_share_its_rounding() -> None:
    model = emitted(graph(SHARED, w=WEIGHT, v=WEIGHT[::-1].copy()))
    assert kernels(model) == {"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 2}
    found = run(model, {"x": X}, "all")
    assert np.allclose(found["y"], by_hand(X, WEIGHT), rtol=1e-6, atol=1e-6)
    assert np.allclose(found["z"], by_hand(X, WEIGHT[::-1]), rtol=1e-6, atol=1e-6)


def test_a_weight_of_two_layers_is_stored_once() -> None:
    model = emitted(graph(SHARED.replace(", v)", ", w)"), w=WEIGHT))
    assert sum(tensor.is_constant for tensor in model.view().tensors.values()) == 2


def test_names_of_nodes_and_results_stay_and_kernels_are_counted_by_them() -> None:
    model = emitted(graph(LAYER, w=WEIGHT, b=BIAS))
    assert model.view().node_by_name["n0"].op == "MatMulInteger"
    assert model.view().node_by_name["n1"].outputs == ("y",)
    found = kernel_report(model.to_bytes(), {"n0": "MatMul"})
    assert (found.integer, found.fused, found.unfused) == ({"DynamicQuantizeMatMul": 1}, 1, {})


def test_a_product_that_is_not_fused_is_told() -> None:
    text = """g (float[N,64] x) => (float[N,64] y, int32[N,64] a) {
        q, s, z = DynamicQuantizeLinear(x) a = MatMulInteger(q, w, z) c = Cast <to = 1> (a) y = Mul(c, s) }"""
    model = graph(text, w=RNG.integers(-127, 128, (SIDE, SIDE)).astype(np.int8))
    found = kernel_report(model.to_bytes(), {"n1": "MatMul"})
    assert found.fused == 0
    assert "Cast and Mul" in found.unfused["n1"]


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_batches_of_matrices_are_multiplied_with_one_scale(rows) -> None:
    weight = RNG.normal(0, 1, (3, SIDE, SIDE)).astype(np.float32)
    text = "g (float[3,N,64] x) => (float[3,N,64] y) { y = MatMul(x, w) }"
    model = emitted(graph(text, w=weight))
    x = RNG.normal(0, 1, (3, rows, SIDE)).astype(np.float32)
    found = run(model, {"x": x}, "all")["y"]
    step_x, step_w = (x.max(initial=0) - x.min(initial=0)) / 255, np.abs(weight).max() / 127
    limit = SIDE * (np.abs(weight).max() * step_x / 2 + (np.abs(x).max(initial=0) + step_x) * step_w / 2)
    assert found.shape == (3, rows, SIDE)
    assert (np.abs(found - x @ weight) <= limit + 1e-5).all()


def test_rounding_by_numpy_is_that_of_the_runtime() -> None:
    text = "g (float[N] x) => (uint8[N] q, float s, uint8 z) { q, s, z = DynamicQuantizeLinear(x) }"
    session = Session(graph(text).to_bytes(), SessionSettings())
    for number in range(200):
        x = RNG.normal(0, 10.0 ** RNG.uniform(-20, 20), RNG.integers(1, 40)).astype(np.float32)
        x = (np.zeros_like(x), np.abs(x), -np.abs(x), x)[number % 4]
        found = session.run({"x": x})
        seen = (found["q"].astype(np.float32) - np.float32(found["z"])) * found["s"]
        assert np.array_equal(fake_quantize_dynamically(x), seen)


def test_weights_that_are_not_finite_are_refused() -> None:
    broken = WEIGHT.copy()
    broken[3, 4] = np.nan
    with pytest.raises(ModelError, match="'w' of node 'n0' has NaN"):
        emitted(graph(LAYER, w=broken, b=BIAS))


# LSTM ---------------------------------------------------------------------------------------------------

INPUTS, HIDDEN, STEP = 12, 8, 2.0**-7


def grid(shape: tuple[int, int, int]) -> np.ndarray:
    """Values that rounding to uint8 does not change: −100 to 155 steps, both ends in every direction."""
    codes = RNG.integers(-100, 156, shape)
    codes[:, 0, :2] = -100, 155
    return (codes * STEP).astype(np.float32)


def lstm(direction: str, per_channel: bool, attributes: str = "", **inputs: np.ndarray) -> tuple[OnnxModel, dict]:
    """A graph with weights that integers hold exactly, and a feed of one time step."""
    directions = 2 if direction == "bidirectional" else 1
    weights = {}
    for name, size in (("w", INPUTS), ("r", HIDDEN)):
        integers = RNG.integers(-127, 128, (directions, 4 * HIDDEN, size))
        integers[..., 0] = 127
        rows = 2.0 ** -RNG.integers(9, 12, (directions, 4 * HIDDEN, 1)) if per_channel else 2.0**-10
        weights[name] = (integers * rows).astype(np.float32)
    feeds = {"x": grid((1, 3, INPUTS)), "h": grid((directions, 3, HIDDEN)), "c": grid((directions, 3, HIDDEN))}
    names = ["x", "w", "r", "b", "", "h", "c", *(["p"] if "p" in inputs else [])]
    text = f"""g (float[T,N,{INPUTS}] x, float[{directions},N,{HIDDEN}] h, float[{directions},N,{HIDDEN}] c)
        => (float[T,D,N,H] y, float[D,N,H] yh, float[D,N,H] yc) {{
        y, yh, yc = LSTM <hidden_size = {HIDDEN}, direction = "{direction}"{attributes}> ({", ".join(names)}) }}"""
    bias = RNG.normal(0, 1, (directions, 8 * HIDDEN)).astype(np.float32)
    return graph(text, opset=14, **weights, b=bias, **inputs), feeds


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_an_lstm_of_exact_integers_computes_what_the_float_one_does(direction, per_channel) -> None:
    model, feeds = lstm(direction, per_channel)
    quantized = emitted(model, dynamic_lstm=True, per_channel=per_channel)
    assert [node.op for node in quantized.view().nodes] == ["com.microsoft.DynamicQuantizeLSTM"]
    expected, found = run(model, feeds), run(quantized, feeds)
    for name, values in expected.items():
        assert np.allclose(found[name], values, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "attributes", [", clip = 0.5", ', activations = ["Sigmoid", "Relu", "Tanh"]', ", input_forget = 1"]
)
def test_attributes_and_peepholes_of_an_lstm_stay(attributes) -> None:
    model, feeds = lstm("forward", True, attributes, p=RNG.normal(0, 1, (1, 3 * HIDDEN)).astype(np.float32))
    expected, found = run(model, feeds), run(emitted(model, dynamic_lstm=True), feeds)
    for name, values in expected.items():
        assert np.allclose(found[name], values, rtol=0, atol=1e-5)


def test_gates_are_stored_transposed_with_a_scale_per_direction_and_row() -> None:
    weight = RNG.normal(0, 1, (2, 32, 5)).astype(np.float32)
    plan = make_dynamic_plan(lstm("forward", True)[0].view(), Recipe(dynamic_lstm=True))
    integers, scale = quantize_gates(weight, plan.recurrent[0].spec)
    assert (integers.shape, scale.shape, integers.dtype) == ((2, 5, 32), (2, 32), np.int8)
    assert np.array_equal(scale, (np.abs(weight).max(axis=2).astype(np.float64) / 127).astype(np.float32))
    error = np.abs(integers.transpose(0, 2, 1) * scale[..., None] - weight)
    assert (error <= scale[..., None] * (0.5 + 128 * 2.0**-23)).all()


@pytest.mark.parametrize("transposed", ["matmul", "gemm"])
def test_a_table_that_is_a_weight_as_well_is_stored_once(transposed) -> None:
    table = RNG.normal(0, 1, (100, SIDE)).astype(np.float32)
    product = {"matmul": "y = MatMul(e, w)", "gemm": "y = Gemm <transB = 1> (e, table)"}[transposed]
    text = f"g (int64[N] i) => (float[N,100] y) {{ e = Gather(table, i) {product} }}"
    constants = {"table": table, **({"w": table.T.copy()} if transposed == "matmul" else {})}
    model = emitted(graph(text, **constants))
    kept = [info for info in model.view().tensors.values() if info.is_constant and info.rank == 2]
    assert [(info.dtype, info.shape) for info in kept if 1 not in info.shape] == [("int8", (100, SIDE))]
    found = kernels(model)  # the transpose is gone: it is folded when the model is loaded
    assert found["DynamicQuantizeMatMul"] == 1
    assert "Transpose" not in found
    steps = np.abs(table).max(axis=1, keepdims=True) / 127
    seen = (np.rint(table / steps) * steps).astype(np.float32)
    i = np.array([5, 9])
    expected = fake_quantize_dynamically(seen[i]) @ seen.T
    assert np.allclose(run(model, {"i": i})["y"], expected, rtol=1e-4, atol=1e-4)


def test_the_table_and_the_layer_that_read_one_constant_have_integers_each() -> None:
    table = RNG.normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    text = "g (int64[N] i) => (float[N,64] y) { e = Gather(table, i) y = MatMul(e, table) }"
    model = graph(text, table=table)
    quantized = emitted(model)
    plan = make_dynamic_plan(model.view(), Recipe())
    solution = solve_dynamic(plan, model.view())
    kept = {info.dtype for info in quantized.view().tensors.values() if info.is_constant and info.rank == 2}
    assert "float32" not in {info.dtype for info in quantized.view().tensors.values() if info.nbytes > SIDE * 4}
    assert "int8" in kept
    rows = dequantize(solution.tables["n0"].values, solution.tables["n0"].params)
    i = np.array([5, 9])
    columns = dequantize(solution.layers["n1"].weight, solution.layers["n1"].weight_params)
    seen = run(quantized, {"i": i})["y"]
    assert np.allclose(seen, fake_quantize_dynamically(rows[i]) @ columns, rtol=1e-4, atol=1e-4)


def saturating(model: OnnxModel, **options: object) -> tuple[str, ...]:
    """Nodes of the dynamic form with products that saturate on CPUs without VNNI for some activations."""
    return tuple(risk.node for risk in prove_saturation(integer_layers(emitted(model, **options).view())).risks)


@pytest.mark.parametrize("per_channel", [True, False])
def test_no_product_and_no_lstm_saturates_on_cpus_without_vnni(per_channel) -> None:
    weight = RNG.normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    product = graph("g (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", w=weight)
    for model in (product, lstm("bidirectional", True)[0]):
        options = {"dynamic_lstm": True, "per_channel": per_channel}
        assert saturating(model, **options)
        assert not saturating(model, target="cpu-avx2", **options)


def test_the_plan_says_which_products_have_wider_scales() -> None:
    weight = RNG.normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    view = graph("g (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", w=weight).view()
    plan = make_dynamic_plan(view, Recipe(target="cpu-avx2"))
    noted = with_spared(plan, view, solve_dynamic(plan, view))
    assert "scales are wider" in noted.layers[0].note
    assert "0 of 1 layers keep 8 bits" in spared_notes(noted)[0]


TIED = (
    "g (int64[N] i, float[N,64] x) => (float[N,100] y, float[N,64] z, float[N,64] u)"
    "{ e = Gather(table, i) y = MatMul(e, turned) z = MatMul(x, w) u = Gemm <transB = 1> (x, w) }"
)
"""A table that is a weight as well, and a weight that is read both ways."""


def tied() -> OnnxModel:
    table = np.random.default_rng(4).normal(0, 1, (100, SIDE)).astype(np.float32)
    return graph(TIED, table=table, turned=table.T.copy(), w=WEIGHT)


@pytest.mark.parametrize("per_channel", [True, False])
def test_integers_that_come_later_are_those_that_are_at_hand(per_channel: bool) -> None:
    model = tied()
    view = model.view()
    plan = make_dynamic_plan(view, Recipe(per_channel=per_channel))
    later = solve_dynamic(plan, view)
    at_hand = replace(later, layers=dict(later.layers), tables=dict(later.tables))
    files = []
    for solution in (later, at_hand):
        copy = model.clone()
        editor = GraphEditor(copy)
        DynamicEmitter(editor, view, plan, solution, {}).emit()
        editor.finish()
        files.append(copy.to_bytes())
    assert files[0] == files[1]


def test_integers_are_made_when_the_model_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    rounded: list[tuple[int, ...]] = []

    def counted(values: np.ndarray, params: QuantParams) -> np.ndarray:
        rounded.append(values.shape)
        return quantize(values, params)

    monkeypatch.setattr(solving, "quantize", counted)
    model = emitted(graph(SHARED, w=WEIGHT, v=WEIGHT + 1))
    assert rounded == []
    model.to_bytes()
    assert rounded == [WEIGHT.shape] * 2


def test_forms_that_a_weight_does_not_take_are_found_out_before_it_is_rounded() -> None:
    view = tied().view()
    plan = make_dynamic_plan(view, Recipe())
    layer, table = plan.layers[-1], plan.tables[0]
    blocks = replace(layer, weight_spec=replace(layer.weight_spec, block=16))
    columns = replace(table, spec=replace(table.spec, axis=1))
    for wrong in (replace(plan, layers=(blocks,)), replace(plan, tables=(columns,))):
        with pytest.raises(ValueError, match="have shape"):
            solve_dynamic(wrong, view)
