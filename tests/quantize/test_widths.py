"""Widths other than 8 bits: what is written, and what the runtime makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_graphs import Quantized, graph, plan_of, quantize_graph

from quantcli.core.affine import dequantize
from quantcli.core.dtypes import (
    FLOAT8E4M3FN,
    INT2,
    INT4,
    INT8,
    INT16,
    QTYPES,
    UINT2,
    UINT4,
    UINT8,
    UINT16,
    QType,
)
from quantcli.quantize.plan import plan_from_json
from quantcli.quantize.recipe import Recipe
from quantcli.quantize.solve import HEADROOM
from quantcli.quantize.widths import OpsetNeed, integer_kernels, opset_need, possible_recipe
from quantcli.runtime.kernels import kernel_report, optimized_view
from quantcli.runtime.session import Session, SessionSettings

OPSETS = {2: 25, 4: 21, 8: 13, 16: 21}
WEIGHTS = (INT16, INT8, INT4, INT2)
ACTIVATIONS = (UINT16, UINT8, UINT4, UINT2, INT16, INT8)

NETWORK = """g (float[1,8,8,8] x) => (float[1,16] y) {
    a = Conv <pads = [1,1,1,1]> (x, w, b)
    c = Clip(a, zero, six)
    d = Conv <pads = [1,1,1,1]> (c, v)
    e = Add(d, c)
    r = Relu(e)
    p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r)
    f = Conv <kernel_shape = [4,4]> (p, u)
    h = Reshape(f, shape)
    y = MatMul(h, m)
}"""
"""Fused activations, an Add, a pool, a move and a product: all that the runtime treats in its own way."""


def network(weights: QType, activations: QType, **recipe: object) -> tuple[Quantized, dict[str, np.ndarray]]:
    rng = np.random.default_rng(8)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.2, shape).astype(np.float32)

    opset = max(OPSETS[weights.bits], OPSETS[activations.bits] if activations.bits > 8 else 13)
    if weights.floating or activations.floating:
        opset = 21
    if recipe.get("contrib_qdq"):
        opset = 13
    model = graph(
        NETWORK,
        opset=opset,
        w=normal(8, 8, 3, 3),
        b=normal(8),
        v=normal(8, 8, 3, 3),
        u=normal(32, 8, 4, 4),
        m=normal(32, 16) + np.float32(0.1),
        zero=np.float32(0),
        six=np.float32(6),
        shape=np.array([1, 32], np.int64),
    )
    feeds = {"x": rng.normal(0, 1, (1, 8, 8, 8)).astype(np.float32)}
    fields = {"weight_dtype": weights, "activation_dtype": activations, **recipe}
    return quantize_graph(model, feeds, **fields), feeds


def scales_of(model: onnx.ModelProto) -> list[np.ndarray]:
    """Scales of all QuantizeLinear and DequantizeLinear nodes."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [constants[node.input[1]] for node in model.graph.node if node.op_type.endswith("quantizeLinear")
            or node.op_type.endswith("QuantizeLinear")]  # fmt: skip


def proto(found: Quantized) -> onnx.ModelProto:
    return onnx.load_from_string(found.model.to_bytes())


def sqnr(reference: np.ndarray, found: np.ndarray) -> float:
    reference, found = reference.astype(np.float64), found.astype(np.float64)
    return float(10 * np.log10((reference**2).sum() / ((found - reference) ** 2).sum()))


CASES = [*((w, a) for w in WEIGHTS for a in ACTIVATIONS), (FLOAT8E4M3FN, FLOAT8E4M3FN), (INT8, FLOAT8E4M3FN)]


@pytest.mark.parametrize("pair", CASES, ids=lambda pair: f"{pair[0].name}-{pair[1].name}")
def test_the_runtimes_optimizations_change_nothing_but_ties(pair: tuple[QType, QType]) -> None:
    """Its plain kernels are the oracle: a lost Relu, a wrong fusion and a saturated bias all show."""
    weights, activations = pair
    found, feeds = network(weights, activations, symmetric=activations.floating)
    plain, fused = (found.run(feeds, level)["y"] for level in ("disabled", "all"))
    steps = [float(found.solution.tensors[layer.input].scale) for layer in found.plan.layers]
    assert np.abs(fused - plain).max() <= 2 * max(steps) * (1.0 if activations.bits <= 8 else 2**-7)


@pytest.mark.parametrize("pair", CASES, ids=lambda pair: f"{pair[0].name}-{pair[1].name}")
def test_what_has_integer_kernels_by_its_types_runs_in_them(pair: tuple[QType, QType]) -> None:
    if pair[1] is INT8:
        pytest.skip("onnxruntime makes uint8 of int8 activations of one reader only, and does not fuse the others")
    found, _ = network(*pair, symmetric=pair[1].floating)
    expected = integer_kernels(found.plan)
    assert kernel_report(found.model.to_bytes(), expected).unfused == {}
    assert ("n0" in expected) == all(dtype.bits <= 8 and not dtype.floating for dtype in pair)


def test_more_bits_are_more_accurate() -> None:
    reached = []
    for bits in (2, 4, 8, 16):
        found, feeds = network(QTYPES[f"int{bits}"], QTYPES[f"uint{bits}"])
        reached.append(sqnr(found.run_float(feeds)["y"], found.run(feeds)["y"]))
    assert reached == sorted(reached)
    assert reached[-1] > 60


@pytest.mark.parametrize("activations", [UINT4, UINT2])
def test_narrow_activations_have_as_many_values_as_bits_say(activations: QType) -> None:
    found, feeds = network(INT8, activations)
    model = proto(found)
    clipped = [node.output[0] for node in model.graph.node if node.op_type == "Clip" and "wide" in node.input[0]]
    assert clipped
    for name in clipped:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    values = Session(model.SerializeToString()).run(feeds)
    assert all(values[name].min() >= 0 and values[name].max() <= activations.qmax for name in clipped)
    assert any(values[name].max() == activations.qmax for name in clipped)


@pytest.mark.parametrize("weights", [INT8, INT4, INT2])
def test_a_product_of_16_bit_activations_stays_in_float(weights: QType) -> None:
    """As MatMulNBits it would round them to 8 bits."""
    found, _ = network(weights, UINT16)
    kinds = {node.op_type for node in optimized_view(found.model.to_bytes(), SessionSettings()).nodes}
    assert "MatMulNBits" not in kinds
    assert "Cast" not in kinds


def test_a_bias_of_16_bits_is_int32_and_never_saturates() -> None:
    rng = np.random.default_rng(6)
    text = "g (float[1,4] x) => (float[1,3] y) { a = Gemm(x, w, b) r = Relu(a) y = Gemm(r, v) }"
    w, v = (rng.normal(0, 0.01, shape).astype(np.float32) for shape in ((4, 3), (3, 3)))
    model = graph(text, opset=21, w=w, v=v, b=np.array([900.0, 2.0, 0.5], np.float32))
    feeds = {"x": rng.normal(0, 1, (1, 4)).astype(np.float32)}
    found = quantize_graph(model, feeds, weight_dtype=INT16, activation_dtype=UINT16)
    layer = found.solution.layers["n0"]
    assert layer.bias is not None
    assert layer.bias.dtype == np.int32
    assert layer.bias_values == pytest.approx([900.0, 2.0, 0.5], rel=1e-6)
    assert sqnr(found.run_float(feeds)["y"], found.run(feeds)["y"]) > 60


def test_float8_keeps_a_relu_and_its_biases_in_float() -> None:
    found, _ = network(FLOAT8E4M3FN, FLOAT8E4M3FN, symmetric=True)
    assert found.plan.tensors["r"].guard
    model = proto(found)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds["w_quantized"] == onnx.TensorProto.FLOAT8E4M3FN
    assert kinds["x_zero_point"] == onnx.TensorProto.FLOAT8E4M3FN
    assert found.solution.layers["n0"].bias is not None
    assert found.solution.layers["n0"].bias.dtype == np.float32


@pytest.mark.parametrize("activations", [UINT8, UINT16, FLOAT8E4M3FN])
def test_all_scales_are_powers_of_two_where_they_must_be(activations: QType) -> None:
    found, feeds = network(INT8, activations, pow2_scales=True, symmetric=activations.floating)
    scales = scales_of(proto(found))
    assert len(scales) > 10
    assert all((np.frexp(scale)[0] == 0.5).all() for scale in scales)
    assert sqnr(found.run_float(feeds)["y"], found.run(feeds)["y"]) > 20


@pytest.mark.parametrize(("weights", "activations"), [(INT8, UINT8), (INT16, UINT16), (INT4, UINT8)])
def test_quantizers_of_com_microsoft_do_without_a_new_opset(weights: QType, activations: QType) -> None:
    found, feeds = network(weights, activations, contrib_qdq=True)
    model = proto(found)
    quantizers = [node for node in model.graph.node if "uantizeLinear" in node.op_type]
    assert {node.domain for node in quantizers} == {"com.microsoft"}
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 13
    plain, fused = (found.run(feeds, level)["y"] for level in ("disabled", "all"))
    assert np.abs(plain - fused).max() <= 1e-2 * np.abs(plain).max()
    if weights is INT8:
        assert kernel_report(found.model.to_bytes(), integer_kernels(found.plan)).unfused == {}


@pytest.mark.parametrize("weights", [INT16, INT8, INT4, INT2])
def test_asymmetric_weights_are_off_by_half_a_step_and_use_all_codes(weights: QType) -> None:
    found, _ = network(weights, UINT8, weight_symmetric=False)
    layer = found.solution.layers["n8"]
    params = layer.weight_params
    assert params.zero_point.any()
    m = next(numpy_helper.to_array(t) for t in onnx.load_from_string(found.source.to_bytes()).graph.initializer
             if t.name == "m")  # fmt: skip
    # The zero point is an integer, so that an end of the range may be half a step further out.
    assert (np.abs(dequantize(layer.weight, params) - m) <= params.scale * (1.0 + 1e-4)).all()
    assert layer.weight.min() == weights.qmin or layer.weight.max() == weights.qmax


@pytest.mark.parametrize("weights", [INT8, INT4])
def test_asymmetric_weights_run_on_integers_and_right(weights: QType) -> None:
    found, feeds = network(weights, UINT8, weight_symmetric=False)
    assert kernel_report(found.model.to_bytes(), integer_kernels(found.plan)).unfused == {}
    plain, fused = (found.run(feeds, level)["y"] for level in ("disabled", "all"))
    assert np.abs(plain - fused).max() <= 1e-4 * np.abs(plain).max() + 0.02


def test_a_relu_joins_signed_activations_whose_zero_point_is_the_smallest_code() -> None:
    found, _ = network(INT8, INT8)
    assert found.solution.tensors["r"].zero_point == -128
    assert not found.solution.kept


def test_ranges_of_16_bits_have_headroom_and_others_have_none() -> None:
    narrow, _ = network(INT8, UINT8)
    wide, _ = network(INT8, UINT16)
    ratio = wide.solution.tensors["x"].scale * 65535 / (narrow.solution.tensors["x"].scale * 255)
    assert ratio == pytest.approx(HEADROOM, rel=1e-6)


@pytest.mark.parametrize(
    ("weights", "activations", "contrib", "need"),
    [
        (INT8, UINT8, False, OpsetNeed(opset=13)),
        (INT4, UINT8, False, OpsetNeed(opset=21, cause="weights of 4 bits")),
        (INT2, UINT8, False, OpsetNeed(opset=25, cause="weights of 2 bits")),
        (INT8, UINT16, False, OpsetNeed(opset=21, cause="activations of 16 bits")),
        (INT8, UINT4, False, OpsetNeed(opset=13)),
        (FLOAT8E4M3FN, FLOAT8E4M3FN, False, OpsetNeed(opset=19, cause="weights of float8")),
        (INT4, UINT16, True, OpsetNeed(opset=10)),
        (INT2, UINT16, True, OpsetNeed(opset=25, cause="weights of 2 bits")),
    ],
)
def test_a_recipe_needs_the_opset_of_its_newest_type(
    weights: QType, activations: QType, contrib: bool, need: OpsetNeed
) -> None:
    assert opset_need(Recipe(weight_dtype=weights, activation_dtype=activations, contrib_qdq=contrib)) == need


def test_an_old_opset_has_scales_per_tensor_only_unless_they_are_those_of_com_microsoft() -> None:
    recipe = Recipe()
    assert not possible_recipe(recipe, 12).per_channel
    assert possible_recipe(recipe, 13).per_channel
    assert possible_recipe(replace(recipe, contrib_qdq=True), 12).per_channel


def test_a_plan_of_any_width_survives_its_file() -> None:
    for weights, activations in ((INT4, UINT16), (FLOAT8E4M3FN, FLOAT8E4M3FN), (INT2, UINT4)):
        plan = network(weights, activations, symmetric=activations.floating)[0].plan
        assert plan_from_json(plan.to_json()) == plan


def test_a_plan_says_what_the_target_computes_in_float() -> None:
    text = "g (float[2,32] x) => (float[2,32] y) { y = MatMul(x, w) }"
    model = graph(text, opset=21, w=np.ones((32, 32), np.float32))
    assert plan_of(model).remarks == ()
    (remark,) = plan_of(model, activation_dtype=UINT16).remarks
    assert remark.startswith("16-bit activations run as float on ort-cpu")
    (remark,) = plan_of(model, weight_dtype=INT16).remarks
    assert remark.startswith("16-bit weights run as float on ort-cpu")
    (remark,) = plan_of(model, activation_dtype=UINT4).remarks
    assert "clipped to 16 values" in remark


def test_tables_have_16_bits_where_weights_have_them() -> None:
    text = "g (int64[3] i) => (float[3,8] y) { r = Gather(t, i) y = MatMul(r, w) }"
    rng = np.random.default_rng(2)
    t, w = (rng.normal(0, 1, shape).astype(np.float32) for shape in ((1024, 8), (8, 8)))
    model = graph(text, opset=21, t=t, w=w)
    feeds = {"i": np.array([0, 7, 1023], np.int64)}
    found = quantize_graph(model, feeds, weight_dtype=INT16, activation_dtype=UINT16)
    assert found.solution.tables["n0"].values.dtype == np.int16
    assert sqnr(found.run_float(feeds)["y"], found.run(feeds)["y"]) > 70
