"""Rows times matrices are the operator: against onnxruntime's kernels."""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from quantcli.algorithms.layer_form import LayerForm
from quantcli.algorithms.unfold import positions, rows

ALL = 1 << 30


def run(op: str, attributes: dict[str, object], x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The operator in float32 by onnxruntime."""
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, weight.shape),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "w": weight})[0]


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Small whole numbers: their sums of products are exact in float32, in any order."""
    return rng.integers(-8, 9, shape).astype(np.float32)


def form_of(op: str, attributes: dict[str, object], weight: np.ndarray) -> LayerForm:
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}
    return LayerForm(op, plain, weight.shape)


def product(x: np.ndarray, weight: np.ndarray, form: LayerForm) -> np.ndarray:
    """(G, R, O)."""
    return rows(x, form, ALL) @ form.to_matrices(weight).transpose(0, 2, 1)


def channels_last(y: np.ndarray, form: LayerForm) -> np.ndarray:
    """Output (N, G·O, spatial…) of a convolution as (G, R, O)."""
    flat = np.moveaxis(y, 1, -1).reshape(-1, form.groups, form.outputs)
    return flat.transpose(1, 0, 2)


@st.composite
def convolutions(draw: st.DrawFn, op: str) -> tuple[dict[str, object], tuple[int, ...], tuple[int, ...]]:
    """Attributes, shape of the input, shape of the weight."""
    rank = draw(st.integers(1, 3))
    group = draw(st.sampled_from([1, 1, 2, 3]))
    per_group, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    strides = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
    size = [draw(st.integers(1 if op == "ConvTranspose" else 5, 7)) for _ in range(rank)]
    attributes: dict[str, object] = {"group": group, "strides": strides, "dilations": dilations}
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto != "NOTSET":
        attributes["auto_pad"] = auto
    elif draw(st.booleans()):
        attributes["pads"] = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    if op == "ConvTranspose" and draw(st.booleans()):
        attributes["output_padding"] = [draw(st.integers(0, stride - 1)) for stride in strides]
    weight = (group * outputs, per_group) if op == "Conv" else (group * per_group, outputs)
    return attributes, (draw(st.integers(1, 2)), group * per_group, *size), (*weight, *kernel)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(convolutions("Conv"), st.integers(0, 9))
def test_rows_times_matrices_are_a_convolution(case, seed: int) -> None:
    attributes, shape, weight_shape = case
    rng = np.random.default_rng(seed)
    x, weight = integers(rng, *shape), integers(rng, *weight_shape)
    # onnxruntime has no dilated SAME convolution.
    assume(not str(attributes.get("auto_pad", "")).startswith("SAME") or set(attributes["dilations"]) == {1})
    form = form_of("Conv", attributes, weight)
    expected = channels_last(run("Conv", attributes, x, weight), form)
    assert np.array_equal(product(x, weight, form), expected)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(convolutions("ConvTranspose"), st.integers(0, 9))
def test_rows_times_matrices_are_a_transposed_convolution(case, seed: int) -> None:
    attributes, shape, weight_shape = case
    rng = np.random.default_rng(seed)
    x, weight = integers(rng, *shape), integers(rng, *weight_shape)
    form = form_of("ConvTranspose", attributes, weight)
    pads = attributes.get("pads", [0] * 2 * len(form.kernel))
    rank = len(form.kernel)
    sizes = [
        (shape[2 + a] - 1) * attributes["strides"][a]
        + (form.kernel[a] - 1) * attributes["dilations"][a]
        + 1
        - pads[a]
        - pads[a + rank]
        for a in range(rank)
    ]
    assume(all(size > 0 for size in sizes))
    expected = channels_last(run("ConvTranspose", attributes, x, weight), form)
    assert np.array_equal(product(x, weight, form), expected)


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
def test_a_wanted_output_shape_sets_the_padding(auto_pad: str) -> None:
    rng = np.random.default_rng(3)
    x, weight = integers(rng, 1, 2, 4, 5), integers(rng, 2, 3, 3, 4)
    attributes = {"strides": [2, 2], "output_shape": [8, 11], "auto_pad": auto_pad}
    form = form_of("ConvTranspose", attributes, weight)
    expected = channels_last(run("ConvTranspose", attributes, x, weight), form)
    assert np.array_equal(product(x, weight, form), expected)


@pytest.mark.parametrize("transposed", [0, 1])
def test_rows_times_matrices_are_a_gemm(transposed: int) -> None:
    rng = np.random.default_rng(1)
    x, weight = integers(rng, 4, 5), integers(rng, *((3, 5) if transposed else (5, 3)))
    form = form_of("Gemm", {"transB": transposed}, weight)
    assert np.array_equal(product(x, weight, form)[0], run("Gemm", {"transB": transposed}, x, weight))


@pytest.mark.parametrize(
    ("x_shape", "weight_shape"),
    [
        ((4, 5), (5, 3)),
        ((2, 4, 5), (5, 3)),
        ((5,), (5, 3)),
        ((6, 4, 5), (6, 5, 3)),
        ((2, 6, 4, 5), (6, 5, 3)),
        ((2, 6, 4, 5), (1, 6, 5, 3)),
        ((2, 6, 4, 5), (2, 1, 5, 3)),
        ((4, 5), (6, 5, 3)),
        ((1, 4, 5), (1, 5, 3)),
    ],
)
def test_rows_times_matrices_are_a_product(x_shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    x, weight = integers(rng, *x_shape), integers(rng, *weight_shape)
    form = form_of("MatMul", {}, weight)
    assert form.supported
    found = product(x, weight, form)
    y = run("MatMul", {}, x, weight)
    # Which rows belong together is told by the products themselves: a multiset of rows is left to compare.
    key = lambda values: sorted(map(tuple, values.reshape(-1, 3).tolist()))  # noqa: E731
    assert key(found) == key(y)
    assert len(found) == form.groups


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_few_rows_are_some_of_all_rows_and_the_same_for_every_input(op: str) -> None:
    rng = np.random.default_rng(5)
    weight = integers(rng, 4, 2, 3, 3)
    form = form_of(op, {"group": 2, "pads": [1, 1, 1, 1]}, weight)
    x = rng.normal(size=(2, 4, 9, 9)).astype(np.float32)
    everything = rows(x, form, ALL)
    chosen = positions(everything.shape[1], 20, 7)
    assert np.array_equal(rows(x, form, 20, first=7), everything[:, chosen])
    assert np.array_equal(rows(2 * x, form, 20, first=7), 2 * everything[:, chosen])


def test_masked_tokens_give_no_rows() -> None:
    x = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    keep = np.array([[True, True, False], [True, False, False]])
    form = LayerForm("MatMul", {}, (4, 5))
    assert np.array_equal(rows(x, form, ALL, keep=keep)[0], x[keep])


def test_a_mask_of_fewer_axes_stands_for_all_that_follow() -> None:
    x = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    form = LayerForm("MatMul", {}, (4, 5))
    assert np.array_equal(rows(x, form, ALL, keep=np.array([False, True]))[0], x[1])


def test_a_mask_without_a_token_gives_no_row() -> None:
    x = np.ones((2, 3, 4), np.float32)
    found = rows(x, LayerForm("MatMul", {}, (4, 5)), ALL, keep=np.zeros((2, 3), bool))
    assert found.shape == (1, 0, 4)


def test_a_mask_of_other_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        rows(np.ones((2, 3, 4), np.float32), LayerForm("MatMul", {}, (4, 5)), ALL, keep=np.zeros((3, 2), bool))


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 10**6))
def test_positions_are_distinct_and_inside(total: int, limit: int, first: int) -> None:
    found = positions(total, limit, first)
    assert len(found) == min(total, limit)
    assert len(set(found.tolist())) == len(found)
    assert found.min() >= 0
    assert found.max() < total


@pytest.mark.parametrize(
    ("height", "width", "limit"), list(itertools.product([56, 57, 112], [56, 64], [125, 250]))
)
def test_positions_fall_on_all_columns_and_rows_alike(height: int, width: int, limit: int) -> None:
    y, x = np.divmod(positions(height * width, limit), width)
    # Quarters of a map have a quarter of the positions, to within a tenth of all.
    for coordinate, size in ((y, height), (x, width)):
        share = np.bincount(coordinate * 4 // size, minlength=4) / limit
        assert np.abs(share - 0.25).max() < 0.1
