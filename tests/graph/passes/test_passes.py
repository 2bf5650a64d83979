"""Every pass: what it changes, what it must leave alone, and that the graph computes the same afterwards."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from quantcli.graph.model import OnnxModel
from quantcli.graph.passes.drop_inputs import drop_initializers_from_inputs
from quantcli.graph.passes.fold_batchnorm import fold_batchnorm
from quantcli.graph.passes.fold_constants import fold_constants
from quantcli.graph.passes.fuse_silu import fuse_silu
from quantcli.graph.passes.global_average_pool import use_global_average_pool
from quantcli.graph.passes.lift_constants import lift_constants
from quantcli.graph.passes.name_nodes import name_nodes
from quantcli.graph.passes.remove_identities import remove_identities
from quantcli.graph.passes.residual_sum import write_residuals_as_sum
from quantcli.runtime.session import Session, SessionSettings

RNG = np.random.default_rng(5)


def load(text: str, *, opset: int = 13, named: bool = True, **constants: np.ndarray) -> OnnxModel:
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'
    proto = onnx.parser.parse_model(header + text)
    for name, array in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    if named:
        for number, node in enumerate(proto.graph.node):
            node.name = f"n{number}"
    return OnnxModel(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))


def run(model: OnnxModel, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    return Session(model.to_bytes(), SessionSettings(optimization="disabled")).run(feeds)


def operators(model: OnnxModel) -> list[str]:
    return [node.op_type for node in model.ir.graph]


def evaluate(model: bytes, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return Session(model, SessionSettings(optimization="disabled")).run(feeds)


def weight(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def batchnorm(channels: int) -> dict[str, np.ndarray]:
    return {
        "g": RNG.uniform(0.5, 2, channels).astype(np.float32),
        "be": weight(channels),
        "mu": weight(channels),
        "va": RNG.uniform(0.1, 2, channels).astype(np.float32),
    }


IMAGE = RNG.normal(0, 1, (2, 4, 6, 6)).astype(np.float32)


def assert_same(before: OnnxModel, after: OnnxModel, **feeds: np.ndarray) -> None:
    """Equal up to the rounding of weights to float32 and of float sums (about 100 products)."""
    expected, found = run(before, **feeds), run(after, **feeds)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5 * max(1.0, float(np.abs(values).max())))


LAYERS = {
    "Conv": ("Conv (x, w, b)", {"w": weight(6, 4, 3, 3), "b": weight(6)}, 6),
    "Conv without bias": ("Conv (x, w)", {"w": weight(6, 4, 3, 3)}, 6),
    "grouped Conv": ("Conv <group = 2> (x, w)", {"w": weight(6, 2, 3, 3)}, 6),
    "ConvTranspose": ("ConvTranspose (x, w)", {"w": weight(4, 6, 3, 3)}, 6),
    "grouped ConvTranspose": ("ConvTranspose <group = 2> (x, w, b)", {"w": weight(4, 3, 3, 3), "b": weight(6)}, 6),
}

BEHIND = {
    "BatchNormalization": "BatchNormalization (c, g, be, mu, va)",
    "Mul": "Mul (c, k)",
    "Mul from the right": "Mul (k, c)",
    "Add": "Add (c, k)",
    "Sub": "Sub (c, k)",
    "Sub from": "Sub (k, c)",
    "Div": "Div (c, k)",
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("behind", BEHIND)
def test_affine_maps_behind_a_layer_are_folded(layer: str, behind: str) -> None:
    call, constants, channels = LAYERS[layer]
    k = RNG.uniform(0.5, 2, (channels, 1, 1)).astype(np.float32)
    text = f"g (float[2,4,6,6] x) => (float[2,C,H,W] y) {{ c = {call} y = {BEHIND[behind]} }}"
    before = load(text, **constants, **batchnorm(channels), k=k)
    after = before.clone()
    fold_batchnorm(after.ir)
    assert len(operators(after)) == 1
    assert after.view().nodes[0].name == "n0"
    assert after.view().nodes[0].absorbed == ("n1",)
    assert_same(before, after, x=IMAGE)


@pytest.mark.parametrize("bias", [True, False])
def test_gemm_with_alpha_and_beta_takes_in_a_batchnorm(bias: bool) -> None:
    call = "Gemm <alpha = 0.5, beta = 3.0> (x, w, b)" if bias else "Gemm <alpha = 0.5, beta = 3.0> (x, w)"
    before = load(
        f"g (float[3,4] x) => (float[3,5] y) {{ c = {call} y = BatchNormalization (c, g, be, mu, va) }}",
        w=weight(4, 5),
        b=weight(5),
        **batchnorm(5),
    )
    after = before.clone()
    fold_batchnorm(after.ir)
    assert operators(after) == ["Gemm"]
    assert_same(before, after, x=weight(3, 4))


def test_a_batchnorm_in_training_is_not_folded_though_nobody_reads_its_statistics() -> None:
    model = load(
        "g (float[2,4,6,6] x) => (float[2,6,4,4] y) "
        "{ c = Conv (x, w) y, m, v, sm, sv = BatchNormalization (c, g, be, mu, va) }",
        opset=9,
        w=weight(6, 4, 3, 3),
        **batchnorm(6),
    )
    fold_batchnorm(model.ir)
    assert operators(model) == ["Conv", "BatchNormalization"]


@pytest.mark.parametrize("variance", [-1.0, -1e-5])
def test_a_batchnorm_without_finite_factors_is_not_folded(variance: float) -> None:
    constants = batchnorm(6) | {"va": np.full(6, variance, np.float32)}
    model = load(
        "g (float[2,4,6,6] x) => (float[2,6,4,4] y) { c = Conv (x, w) "
        "y = BatchNormalization <epsilon = 0.00001> (c, g, be, mu, va) }",
        w=weight(6, 4, 3, 3),
        **constants,
    )
    fold_batchnorm(model.ir)
    assert operators(model) == ["Conv", "BatchNormalization"]


def test_weights_that_would_overflow_are_not_folded() -> None:
    model = load(
        "g (float[2,4,6,6] x) => (float[2,6,4,4] y) { c = Conv (x, w) y = Mul (c, k) }",
        w=100 * weight(6, 4, 3, 3),
        k=np.float32(3e38),
    )
    fold_batchnorm(model.ir)
    assert operators(model) == ["Conv", "Mul"]


def test_a_layer_that_a_body_reads_is_not_folded() -> None:
    model = load(
        """g (float[2,4,6,6] x, bool q) => (float[2,6,4,4] y, float[2,6,4,4] z) {
        c = Conv (x, w) y = Mul (c, k)
        z = If (q) < then_branch = t () => (float[2,6,4,4] p) { p = Abs(c) },
                     else_branch = e () => (float[2,6,4,4] r) { r = Neg(c) } >
        }""",
        w=weight(6, 4, 3, 3),
        k=weight(6, 1, 1),
    )
    fold_batchnorm(model.ir)
    assert operators(model) == ["Conv", "Mul", "If"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_takes_in_what_follows(transposed: int) -> None:
    w = weight(5, 4) if transposed else weight(4, 5)
    before = load(
        f"g (float[3,4] x) => (float[3,5] y) {{ c = Gemm <transB = {transposed}> (x, w, b) d = Mul (c, k) "
        "y = Add (d, k) }",
        w=w,
        b=weight(5),
        k=weight(5),
    )
    after = before.clone()
    fold_batchnorm(after.ir)
    assert operators(after) == ["Gemm"]
    assert_same(before, after, x=weight(3, 4))


@pytest.mark.parametrize(
    "text",
    [
        "c = Conv (x, w) d = Mul (c, k) y = Add (d, c)",  # read twice
        "c = Conv (x, w) y = Mul (c, c)",  # no constant
        "c = Conv (x, w) s = Sigmoid (c) y = Mul (s, k)",  # something between
        "c = Conv (x, w) y = Mul (c, full)",  # one value per position
    ],
)
def test_other_maps_are_left_alone(text: str) -> None:
    model = load(
        f"g (float[2,4,6,6] x) => (float[2,6,4,4] y) {{ {text} }}",
        w=weight(6, 4, 3, 3),
        k=weight(6, 1, 1),
        full=weight(1, 6, 4, 4),
    )
    before = operators(model)
    fold_batchnorm(model.ir)
    assert operators(model) == before


def test_a_layer_whose_result_is_an_output_keeps_it() -> None:
    model = load(
        "g (float[2,4,6,6] x) => (float[2,6,4,4] c, float[2,6,4,4] y) { c = Conv (x, w) y = Mul (c, k) }",
        w=weight(6, 4, 3, 3),
        k=weight(6, 1, 1),
    )
    fold_batchnorm(model.ir)
    assert operators(model) == ["Conv", "Mul"]


def test_a_bias_per_row_of_gemm_is_not_taken_for_one_per_column() -> None:
    before = load(
        "g (float[5,4] x) => (float[5,5] y) { c = Gemm (x, w, b) y = Mul (c, k) }",
        w=weight(4, 5),
        b=weight(5, 1),
        k=weight(5),
    )
    after = before.clone()
    fold_batchnorm(after.ir)
    assert_same(before, after, x=weight(5, 4))


def test_a_shared_weight_is_folded_for_one_reader_only() -> None:
    before = load(
        "g (float[2,4,6,6] x) => (float[2,6,4,4] y, float[2,6,4,4] z) "
        "{ c = Conv (x, w) y = Mul (c, k) d = Conv (x, w) z = Relu (d) }",
        w=weight(6, 4, 3, 3),
        k=weight(6, 1, 1),
    )
    after = before.clone()
    fold_batchnorm(after.ir)
    assert operators(after) == ["Conv", "Conv", "Relu"]
    assert_same(before, after, x=IMAGE)


@pytest.mark.parametrize(
    ("attribute", "dtype"),
    [
        ("value_float = 2.5", np.float32),
        ("value_ints = [1, 2]", np.int64),
        ("value = float[2] {1, 2}", np.float32),
    ],
)
def test_constants_become_initializers(attribute: str, dtype: type) -> None:
    model = load(
        f"g (float[2] x) => (float[2] y) {{ c = Constant <{attribute}> () d = Cast <to = 1> (c) y = Add (x, d) }}"
    )
    expected = run(model, x=np.ones(2, np.float32))
    lift_constants(model.ir)
    assert operators(model) == ["Cast", "Add"]
    assert model.view().constant("c").dtype == dtype
    np.testing.assert_array_equal(run(model, x=np.ones(2, np.float32))["y"], expected["y"])


def test_a_scalar_stays_a_scalar() -> None:
    model = load("g (float[2] x) => (float[2] y) { c = Constant <value_float = 2.5> () y = Mul (x, c) }")
    lift_constants(model.ir)
    assert model.view().constant("c").shape == ()


def test_a_constant_that_is_an_output_stays_a_node() -> None:
    model = load(
        "g (float[1] x) => (float[1] c, float[1] y) { c = Constant <value_floats = [1.0]> () y = Neg (x) }"
    )
    lift_constants(model.ir)
    assert operators(model) == ["Constant", "Neg"]


def test_nodes_without_a_name_or_with_a_common_one_get_their_own() -> None:
    model = load("g (float[1] x) => (float[1] y) { a = Neg (x) b = Neg (a) c = Neg (b) y = Abs (c) }", named=False)
    nodes = list(model.ir.graph)
    nodes[0].name = nodes[2].name = "twin"
    notes = name_nodes(model.ir)
    assert [node.name for node in model.ir.graph] == ["twin", "Neg_b", "twin_1", "Abs_y"]
    assert "twin" in notes[0]


def test_initializers_listed_as_inputs_become_constants() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 3, opset_import: ["" : 9]> g (float[2] x, float[2] w) => (float[2] y) { y = Mul (x, w) }'
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    for version, told in ((3, 0), (4, 1)):
        model = OnnxModel(ir.from_proto(proto))
        model.ir.ir_version = version
        assert len(drop_initializers_from_inputs(model.ir)) == told
        assert [value.name for value in model.ir.graph.inputs] == ["x"]
        name_nodes(model.ir)
        assert model.view().is_constant("w")


def test_identities_and_dropouts_disappear_and_outputs_keep_their_names() -> None:
    model = load(
        "g (float[2] x) => (float[2] y) { a = Identity (x) b = Dropout (a) c = Neg (b) y = Identity (c) }"
    )
    remove_identities(model.ir)
    (node,) = model.view().nodes
    assert (node.op_type, node.inputs, node.outputs) == ("Neg", ("x",), ("y",))
    assert node.absorbed == ("n1", "n0", "n3")
    np.testing.assert_array_equal(run(model, x=np.float32([1, 2]))["y"], np.float32([-1, -2]))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("y = Identity (x) z = Neg (x)", ["Identity", "Neg"]),  # an input
        ("y = Identity (k) z = Neg (x)", ["Identity", "Neg"]),  # a constant
        ("y = Neg (x) z = Identity (y)", ["Neg", "Identity"]),  # an output already
        ("a = Neg (x) y = Identity (a) z = Identity (a)", ["Neg", "Identity"]),  # two names for one value
    ],
)
def test_every_output_has_a_producer_and_a_name_of_its_own(text: str, left: list[str]) -> None:
    model = load(f"g (float[2] x) => (float[2] y, float[2] z) {{ {text} }}", k=np.ones(2, np.float32))
    expected = run(model, x=np.float32([1, -2]))
    remove_identities(model.ir)
    assert operators(model) == left
    found = run(model, x=np.float32([1, -2]))
    assert list(found) == ["y", "z"]
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_dropout_in_training_or_with_a_mask_in_use_stays() -> None:
    model = load(
        "g (float[2] x) => (float[2] y, bool[2] z) { a, m = Dropout (x) y = Dropout (a, r, t) z = Not (m) }",
        r=np.float32(0.5),
        t=np.array(True),
    )
    remove_identities(model.ir)
    assert operators(model) == ["Dropout", "Dropout", "Not"]


def test_a_body_goes_on_reading_the_value_behind_an_identity() -> None:
    model = load(
        """g (float[2] x, bool c) => (float[2] y) {
        n = Neg (x) a = Identity (n)
        y = If (c) <
            then_branch = t () => (float[2] p) { p = Abs(a) }, else_branch = e () => (float[2] q) { q = Exp(a) }
        >
        }"""
    )
    x = np.array([1, 2], np.float32)
    expected = run(model, x=x, c=np.array(False))
    remove_identities(model.ir)
    assert operators(model) == ["Neg", "If"]
    np.testing.assert_array_equal(run(model, x=x, c=np.array(False))["y"], expected["y"])


def test_what_depends_on_constants_only_is_computed_once() -> None:
    model = load(
        "g (float[2,3] x) => (float[3,2] y) { s = Shape (x) t = Gather (s, i) u = Concat <axis = 0> (t, t2) "
        "y = Reshape (x, u) }",
        i=np.array([1], np.int64),
        t2=np.array([2], np.int64),
    )
    fold_constants(model.ir, evaluate)
    assert operators(model) == ["Reshape"]
    assert model.view().constant("u").tolist() == [3, 2]


def test_random_bodies_quantized_forms_and_growing_values_are_not_folded() -> None:
    model = load(
        "g (float[1] x) => (float[1] y, float[256,256] z, float[2] w) { r = RandomNormalLike (k) y = Add (x, r) "
        "e = Expand (k, s) z = Neg (e) d = DequantizeLinear (q, sc) w = Neg (d) }",
        k=np.zeros(1, np.float32),
        s=np.array([256, 256], np.int64),
        q=np.zeros(2, np.uint8),
        sc=np.float32(1),
    )
    before = operators(model)
    fold_constants(model.ir, evaluate)
    assert operators(model) == before


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("kernel_shape = [6,6]", "GlobalAveragePool"),
        ('kernel_shape = [6,6], strides = [6,6], auto_pad = "VALID"', "GlobalAveragePool"),
        ("kernel_shape = [3,3]", "AveragePool"),
        ("kernel_shape = [6,6], pads = [1,1,1,1], count_include_pad = 1", "AveragePool"),
    ],
)
def test_an_average_over_the_whole_map_is_global(attributes: str, expected: str) -> None:
    before = load(f"g (float[2,4,6,6] x) => (float[2,4,H,W] y) {{ y = AveragePool <{attributes}> (x) }}")
    after = before.clone()
    use_global_average_pool(after.ir)
    assert operators(after) == [expected]
    assert_same(before, after, x=IMAGE)


@pytest.mark.parametrize("order", ["x, s", "s, x"])
def test_silu_becomes_one_operator(order: str) -> None:
    before = load(f"g (float[2,4] x) => (float[2,4] y) {{ s = Sigmoid (x) y = Mul ({order}) }}")
    after = before.clone()
    fuse_silu(after.ir, "QuickGelu")
    assert operators(after) == ["QuickGelu"]
    assert after.view().nodes[0].absorbed == ("n0",)
    assert_same(before, after, x=weight(2, 4))


@pytest.mark.parametrize(
    "text", ["s = Sigmoid (x) y = Mul (s, s)", "s = Sigmoid (x) m = Mul (x, s) y = Add (m, s)"]
)
def test_other_products_with_a_sigmoid_are_left_alone(text: str) -> None:
    model = load(f"g (float[2,4] x) => (float[2,4] y) {{ {text} }}")
    before = operators(model)
    fuse_silu(model.ir, "QuickGelu")
    assert operators(model) == before


def test_a_folded_node_is_remembered_by_those_who_read_its_value() -> None:
    model = load(
        "g (float[2,3] x) => (float[2,4] y, float[3] z) { t = Transpose (w) u = Neg (t) y = MatMul (x, u) "
        "z = ReduceMax <axes = [0], keepdims = 0> (x) }",
        w=weight(4, 3),
    )
    fold_constants(model.ir, evaluate)
    assert {node.name: node.absorbed for node in model.view().nodes} == {"n2": ("n1", "n0"), "n3": ()}


def test_sequences_are_not_folded() -> None:
    model = load(
        "g (float[2] x) => (float[2] y) { s = SequenceConstruct (k, k) e = SequenceAt (s, i) y = Add (x, e) }",
        k=np.ones(2, np.float32),
        i=np.array(1, np.int64),
    )
    fold_constants(model.ir, evaluate)
    assert operators(model) == ["SequenceConstruct", "SequenceAt", "Add"]


def test_a_value_that_would_be_huge_is_not_even_computed() -> None:
    model = load(
        "g (float[1] x) => (float[1] y) { e = Expand (k, s) y = ReduceMean <axes = [0], keepdims = 1> (e) }",
        k=np.zeros(1, np.float32),
        s=np.array([2**40], np.int64),
    )

    def never(model: bytes, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise AssertionError

    fold_constants(model.ir, never)
    assert operators(model) == ["Expand", "ReduceMean"]


@pytest.mark.parametrize(("start", "end", "expected"), [(1, 3, [3, 4]), (-2, 9, [4, 5]), (0, -3, [2]), (3, 1, [])])
def test_part_of_a_shape_is_folded(start: int, end: int, expected: list[int]) -> None:
    model = load(
        f"g (float[2,3,4,5] x) => (int64[N] y) {{ s = Shape <start = {start}, end = {end}> (x) y = Add (s, s) }}",
        opset=15,
    )
    expected_output = run(model, x=np.zeros((2, 3, 4, 5), np.float32))["y"]
    fold_constants(model.ir, evaluate)
    assert model.view().constant("s").tolist() == expected
    np.testing.assert_array_equal(run(model, x=np.zeros((2, 3, 4, 5), np.float32))["y"], expected_output)


def test_a_residual_in_front_of_a_layer_normalization_is_written_as_sum() -> None:
    before = load(
        """g (float[2,4] x) => (float[2,4] y, float[2,4] z) {
        t = Tanh (x) r = Add (x, t) y = LayerNormalization (r, s, b)
        c = Add (x, b) z = LayerNormalization (c, s, b)
        }""",
        opset=17,
        s=np.ones(4, np.float32),
        b=weight(4),
    )
    after = before.clone()
    write_residuals_as_sum(after.ir)
    assert operators(after) == ["Tanh", "Sum", "LayerNormalization", "Add", "LayerNormalization"]
    x = weight(2, 4)
    assert all(np.array_equal(run(before, x=x)[name], run(after, x=x)[name]) for name in ("y", "z"))
