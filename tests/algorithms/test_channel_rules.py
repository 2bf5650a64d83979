"""Every rule of equalization: the scaled graph gives the same bits, and scales go where they should.

Each graph is a convolution or a matrix product, the operator, and a layer that absorbs the scales again.
"""

from __future__ import annotations

import numpy as np
import pytest
from equalized_graphs import EXACT, equalized, plan_for, random_feeds, run
from small_graphs import graph

from quantcli.algorithms.equalization import ChannelExtremes, equalize
from quantcli.algorithms.equalized_model import apply_equalization
from quantcli.graph.model import OnnxModel

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


W1, B1 = normal(4, 3, 3, 3), normal(4)  # 3 → 4 channels
HEAD = "y = Conv<kernel_shape = [1, 1]>(b, v)"


def conv_graph(body: str, *, opset: int = 17, channels: int = 4, head: str = HEAD, **constants) -> OnnxModel:
    text = (
        "g (float[n,3,6,6] x) => (y) { a = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w, c) "
        + body
        + " "
        + head
        + " }"
    )
    return graph(text, opset=opset, w=W1, c=B1, v=normal(5, channels, 1, 1), **constants)


def assert_same_bits(model: OnnxModel, scaled: set[str], **fields: object) -> None:
    result, found = equalized(model, **fields)
    feeds = random_feeds(model.view())
    expected, actual = run(model, feeds), run(result, feeds)
    assert set(found.scales) == scaled
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


CARRIERS = {
    "Relu": ("b = Relu(a)", {}),
    "LeakyRelu": ("b = LeakyRelu<alpha = 0.1>(a)", {}),
    "PRelu": ("b = PRelu(a, k)", {"k": normal(4, 1, 1)}),
    "Abs": ("b = Abs(a)", {}),
    "MaxPool": ("b = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)", {}),
    "AveragePool": ("b = AveragePool<kernel_shape = [2, 2]>(a)", {}),
    "GlobalAveragePool": ("b = GlobalAveragePool(a)", {}),
    "GlobalMaxPool": ("b = GlobalMaxPool(a)", {}),
    "ReduceMean over the map": ("b = ReduceMean<axes = [2, 3]>(a)", {}),
    "Dropout": ("b = Dropout(a)", {}),
    "Resize": ("b = Resize<mode = \"linear\">(a, , k)", {"k": np.array([1, 1, 2, 2], np.float32)}),
    "Slice over the map": ("b = Slice(a, k0, k4, k2)", {"k0": ints(0), "k4": ints(4), "k2": ints(2)}),
    "Pad of the map": ("b = Pad(a, k)", {"k": ints(0, 0, 1, 1, 0, 0, 1, 1)}),
    "Pad by reflection": ("b = Pad<mode = \"reflect\">(a, k)", {"k": ints(0, 0, 1, 1, 0, 0, 1, 1)}),
    "Add of a constant per channel": ("b = Add(a, k)", {"k": normal(4, 1, 1)}),
    "Add of a scalar": ("b = Add(k, a)", {"k": normal()}),
    "Sub from a constant": ("b = Sub(k, a)", {"k": normal(4, 6, 6)}),
    "Max with a constant": ("b = Max(a, k)", {"k": normal()}),
    "Mul by a constant": ("b = Mul(a, k)", {"k": normal(4, 1, 1)}),
    "Div by a constant": ("b = Div(a, k)", {"k": normal(4, 1, 1)}),
    "Gather of rows": ("b = Gather<axis = 2>(a, k)", {"k": ints(0, 2)}),
    "Clip below 0": ("b = Clip(a, k)", {"k": np.zeros((), np.float32)}),
    "Sum of a value with itself": ("b = Sum(a, a, a)", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CARRIERS)
def test_an_operator_hands_scales_on(name):
    body, constants = CARRIERS[name]
    assert_same_bits(conv_graph(body, **constants), {"a", "b"})


def test_all_zero_constants_are_left_alone():
    model = conv_graph("b = Max(a, k)", k=np.zeros((), np.float32))
    _, found = equalized(model)
    assert ("n1", 1) not in found.constants


@pytest.mark.parametrize(
    ("body", "channels"),
    [
        ("r = Relu(a) b = Concat<axis = 1>(a, r)", 8),
        ("r = Relu(a) b = Concat<axis = 2>(a, r)", 4),
        ("r = Sub(a, d) d = Relu(a) b = Sum(a, r, d)", 4),
    ],
)
def test_values_that_meet_share_or_concatenate_scales(body, channels):
    text = body.replace("r = Sub(a, d) d = Relu(a)", "d = Relu(a) r = Sub(a, d)")
    names = {part.split(" = ")[0] for part in ("a = ", *text.split(") "))} & {"a", "r", "d", "b"}
    assert_same_bits(conv_graph(text, channels=channels), names)


def test_channels_of_a_slice_a_split_and_a_choice_keep_their_own_scales():
    model = conv_graph(
        "p, q = Split<axis = 1>(a, k22) r = Slice(a, k1, k4, k1, k2) s = Gather<axis = 1>(a, k30) "
        "b = Concat<axis = 1>(q, r, s, p)",
        channels=8,
        k22=ints(2, 2), k1=ints(1), k4=ints(4), k2=ints(2), k30=ints(3, 0),
    )  # fmt: skip
    assert_same_bits(model, {"a", "p", "q", "r", "s", "b"}, quantized=["a"])


def test_padded_channels_take_the_scales_of_what_they_meet():
    """The shortcut of CIFAR ResNets: every second pixel, and zeros for the channels that are new."""
    model = graph(
        "g (float[n,3,6,6] x) => (y) { a = Conv<kernel_shape = [1, 1]>(x, w) "
        "s = Slice(a, k0, kend, k23, k22) p = Pad(s, pads) "
        "m = Conv<kernel_shape = [1, 1], strides = [2, 2]>(a, u) t = Add(m, p) r = Relu(t) "
        "y = Conv<kernel_shape = [1, 1]>(r, v) }",
        opset=17, w=normal(4, 3, 1, 1), u=normal(8, 4, 1, 1), v=normal(5, 8, 1, 1),
        k0=ints(0, 0), kend=ints(99, 99), k23=ints(2, 3), k22=ints(2, 2), pads=ints(0, 2, 0, 0, 0, 2, 0, 0),
    )  # fmt: skip
    assert_same_bits(model, {"a", "s", "p", "m", "t", "r"})


def test_flattened_channels_are_repeated_for_a_matrix_product():
    model = conv_graph("f = Flatten(a)", head="y = Gemm<transB = 1>(f, u, d)", u=normal(7, 4 * 36), d=normal(7))
    assert_same_bits(model, {"a", "f"})


def test_a_transposed_map_is_scaled_on_its_last_axis():
    model = conv_graph(
        "t = Transpose<perm = [0, 2, 3, 1]>(a) f = Reshape(t, k)", head="y = MatMul(f, u)",
        u=normal(4, 7), k=ints(-1, 36, 4),
    )  # fmt: skip
    assert_same_bits(model, {"a", "t", "f"})


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions_in_a_row_absorb_and_make_scales(groups):
    model = graph(
        f"g (float[n,3,6,6] x) => (y) {{ a = Conv<kernel_shape = [1, 1]>(x, w) "
        f"b = Conv<kernel_shape = [3, 3], group = {groups}>(a, u, c) y = Conv<kernel_shape = [1, 1]>(b, v) }}",
        opset=17, w=normal(4, 3, 1, 1), u=normal(8, 4 // groups, 3, 3), c=normal(8), v=normal(5, 8, 1, 1),
    )  # fmt: skip
    assert_same_bits(model, {"a", "b"})


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions_absorb_and_make_scales(groups):
    model = graph(
        f"g (float[n,3,6,6] x) => (y) {{ a = Conv<kernel_shape = [1, 1]>(x, w) "
        f"b = ConvTranspose<kernel_shape = [2, 2], strides = [2, 2], group = {groups}>(a, u, c) "
        "y = Conv<kernel_shape = [1, 1]>(b, v) }",
        opset=17, w=normal(4, 3, 1, 1), u=normal(4, 6 // groups, 2, 2), c=normal(6), v=normal(5, 6, 1, 1),
    )  # fmt: skip
    assert_same_bits(model, {"a", "b"})


@pytest.mark.parametrize("shape", [(3, 9, 9), (3, 9), (3, 4, 4, 4)])
def test_convolutions_of_any_number_of_dimensions_are_scaled(shape):
    kernel, dims = [1] * (len(shape) - 1), ",".join(map(str, shape))
    model = graph(
        f"g (float[n,{dims}] x) => (y) {{ a = Conv<kernel_shape = {kernel}>(x, w) b = Relu(a) "
        f"y = Conv<kernel_shape = {kernel}>(b, v) }}",
        opset=17, w=normal(4, 3, *kernel), v=normal(5, 4, *kernel),
    )  # fmt: skip
    assert_same_bits(model, {"a", "b"})


@pytest.mark.parametrize("bias", ["", ", c"])
@pytest.mark.parametrize("transposed", [0, 1])
def test_matrix_products_with_a_bias_are_scaled(transposed, bias):
    model = graph(
        f"g (float[n,5] x) => (y) {{ a = Gemm<transB = {transposed}, alpha = 0.5, beta = 2.0>(x, w{bias}) "
        "r = Relu(a) m = MatMul(r, u) b = Add(m, d) y = MatMul(b, v) }",
        opset=17, w=normal(6, 5) if transposed else normal(5, 6), u=normal(6, 4), d=normal(4), v=normal(4, 3),
        **({"c": normal(6)} if bias else {}),
    )  # fmt: skip
    assert_same_bits(model, {"a", "r", "m", "b"})


def test_batch_normalization_absorbs_on_both_sides():
    model = conv_graph(
        "r = Relu(a) b = BatchNormalization(r, gamma, beta, mean, var)",
        gamma=normal(4), beta=normal(4), mean=normal(4), var=np.abs(normal(4)) + np.float32(0.5),
    )  # fmt: skip
    assert_same_bits(model, {"a", "r", "b"})


def test_layer_normalization_absorbs_scales_if_all_readers_do():
    model = graph(
        "g (float[n,3,8] x) => (y, z) { a = LayerNormalization(x, gamma, beta) "
        "y = MatMul(a, w) z = MatMul(a, v) }",
        opset=17, gamma=normal(8), beta=normal(8), w=normal(8, 4), v=normal(8, 5),
    )  # fmt: skip
    assert_same_bits(model, {"a"})


def test_instance_normalization_absorbs_scales():
    model = conv_graph("b = InstanceNormalization(a, gamma, beta)", gamma=normal(4), beta=normal(4))
    assert_same_bits(model, {"b"})


def test_a_gate_is_pinned_and_what_it_gates_is_scaled():
    """Squeeze and excite."""
    model = conv_graph(
        "p = GlobalAveragePool(a) q = Conv<kernel_shape = [1, 1]>(p, u) r = Relu(q) "
        "h = Conv<kernel_shape = [1, 1]>(r, t) s = HardSigmoid(h) b = Mul(s, a)",
        u=normal(2, 4, 1, 1), t=normal(4, 2, 1, 1),
    )  # fmt: skip
    assert_same_bits(model, {"a", "p", "q", "r", "b"})


PINNED = {
    "Sigmoid": ("b = Sigmoid(a)", {}),
    "x·sigmoid(x)": ("s = Sigmoid(a) b = Mul(a, s)", {}),
    "a square": ("b = Mul(a, a)", {}),
    "Softmax": ("b = Softmax<axis = 1>(a)", {}),
    "Clip above 0": ("b = Clip(a, k0, k6)", {"k0": np.float32(-1), "k6": np.float32(6)}),
    "Pad by ones": ("b = Pad(a, k, one)", {"k": ints(0, 0, 1, 1, 0, 0, 1, 1), "one": np.float32(1)}),
    "mean over channels": ("m = ReduceMean<axes = [1]>(a) b = Concat<axis = 1>(m, m, m, m)", {}),
    "sum with an unscaled value": (
        "s = Sigmoid(x) t = Gather<axis = 1>(s, k) b = Add(a, t)", {"k": ints(0, 1, 2, 0)},
    ),
    "another operator": ("b = com.microsoft.QuickGelu(a)", {}),
    "channels that are torn": (
        "t = Reshape(a, k) b = Reshape(t, l)", {"k": ints(-1, 2, 2, 36), "l": ints(-1, 4, 6, 6)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PINNED)
def test_what_is_not_homogeneous_pins_what_it_reads(name):
    body, constants = PINNED[name]
    assert_same_bits(conv_graph(body, **constants), set(), smoothing=False)


def test_weights_that_are_computed_pin_both_sides():
    model = graph(
        "g (float[n,3,6,6] x, float[4,4,1,1] u) => (y) { a = Conv<kernel_shape = [1, 1]>(x, w) "
        "b = Conv<kernel_shape = [1, 1]>(a, u) y = Conv<kernel_shape = [1, 1]>(b, v) }",
        opset=17, w=normal(4, 3, 1, 1), v=normal(5, 4, 1, 1),
    )  # fmt: skip
    assert_same_bits(model, set())


def test_products_of_activations_are_pinned():
    model = graph(
        "g (float[n,4,4] x) => (y) { a = MatMul(x, w) b = MatMul(x, v) y = MatMul(a, b) }",
        opset=17, w=normal(4, 4), v=normal(4, 4),
    )  # fmt: skip
    assert_same_bits(model, set())


def test_outputs_of_the_graph_are_pinned():
    model = graph(
        "g (float[n,3,6,6] x) => (y, a) { a = Conv<kernel_shape = [1, 1]>(x, w) "
        "y = Conv<kernel_shape = [1, 1]>(a, v) }",
        opset=17, w=normal(4, 3, 1, 1), v=normal(5, 4, 1, 1),
    )  # fmt: skip
    assert_same_bits(model, set())


def test_values_that_a_body_reads_are_pinned():
    model = graph(
        "g (float[n,3,6,6] x, bool p) => (y, z) { a = Conv<kernel_shape = [1, 1]>(x, w) "
        "z = If(p)<then_branch = t () => (u) { u = Relu(a) }, else_branch = e () => (s) { s = Abs(a) }> "
        "y = Conv<kernel_shape = [1, 1]>(a, v) }",
        opset=17, w=normal(4, 3, 1, 1), v=normal(5, 4, 1, 1),
    )  # fmt: skip
    size = np.array([1.0, 0.5, 0.25, 0.125])
    found = equalize(
        model.view(), {"a": ChannelExtremes(low=-size, high=size)}, plan_for(model.view(), ["a"]), EXACT
    )
    assert not found.scales
    assert found.summary.pinned == {"read inside a body": 4}


def test_a_weight_that_a_body_reads_as_well_stays_for_the_body():
    model = graph(
        "g (float[n,3,6,6] x, bool p) => (y, z) { a = Conv<kernel_shape = [1, 1]>(x, w) b = Relu(a) "
        "z = If(p)<then_branch = t () => (u) { u = Relu(v) }, else_branch = e () => (s) { s = Abs(w) }> "
        "y = Conv<kernel_shape = [1, 1]>(b, v) }",
        opset=17, w=normal(4, 3, 1, 1), v=normal(5, 4, 1, 1),
    )  # fmt: skip
    size = np.array([1.0, 0.5, 0.25, 0.125])
    extremes = {name: ChannelExtremes(low=-size, high=size) for name in "ab"}
    found = equalize(model.view(), extremes, plan_for(model.view(), ["b"]), EXACT)
    assert set(found.scales) == {"a", "b"}
    result = apply_equalization(model, found)
    for taken in (True, False):
        feeds = {"x": normal(2, 3, 6, 6), "p": np.array(taken)}
        expected, actual = run(model, feeds), run(result, feeds)
        assert all(np.array_equal(actual[name], expected[name]) for name in expected)
